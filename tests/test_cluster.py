"""Ray itself: two nodes of one CPU each on this machine, whole runs on them, and what dies there."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from softprune.config import Recipe, resolve
from softprune.config.forms import FORMS, PLAIN
from softprune.errors import SoftpruneError
from softprune.pipelines.xprompt import execute
from softprune.runs.executors import RayCluster
from softprune.training import distribute
from softprune.types import WorkItem

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SECONDS = 120  # for whatever should come at once, but on a busy machine doesn't


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head and another node; both workers have imported torch. Nothing of Ray is left behind."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
    left = [p.name() for p in psutil.Process().children(recursive=True)]
    assert not [name for name in left if name.startswith(("raylet", "gcs_server", "ray::"))]


@pytest.fixture
def executor(nodes: Any) -> Iterator[RayCluster]:
    """On the Ray that is there, which `close` leaves alone."""
    executor = RayCluster(None, retries=1)
    yield executor
    executor.close()
    assert ray.is_initialized()


def items(names: str) -> list[WorkItem]:
    return [WorkItem(name, {"n": n}) for n, name in enumerate(names)]


def wait_for(*markers: Path) -> None:
    until = time.monotonic() + SECONDS
    while not all(marker.exists() for marker in markers):
        assert time.monotonic() < until, f"{markers} never came"
        time.sleep(0.02)


def test_errors_come_back_as_what_they_are(executor: RayCluster) -> None:
    def raising(error: Exception) -> None:
        def work(item: WorkItem) -> object:
            raise error

        list(executor.map(work, items("a")))

    with pytest.raises(SoftpruneError, match=r"^expected: a\nfound:    b\ndo:       c$"):
        raising(SoftpruneError("a", "b", "c"))
    with pytest.raises(MemoryError, match="can't allocate memory: 8 bytes"):
        raising(RuntimeError("can't allocate memory: 8 bytes"))
    with pytest.raises(SoftpruneError, match="no space left"):
        raising(OSError(28, "No space left on device", "file"))
    with pytest.raises(KeyError, match="in work"):  # a bug comes with the worker's traceback
        raising(KeyError("a bug"))
    with pytest.raises(ValueError, match="two pieces of work"):
        list(executor.map(lambda item: 1, items("aa")))


def test_a_node_without_the_package_is_told(executor: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function travels by the name of its module, which workers can't import."""
    monkeypatch.setattr(here, "__module__", "a_module_of_the_driver_alone")
    module = type(sys)("a_module_of_the_driver_alone")
    module.here = here  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(SoftpruneError, match=r"softprune on every node[\s\S]*a_module_of_the_driver_alone"):
        list(executor.map(here, items("a")))


def here(item: WorkItem) -> object:
    return item.id


def test_what_dies_with_its_worker_is_tried_again(executor: RayCluster, tmp_path: Path) -> None:
    def work(item: WorkItem) -> object:
        tries = len(list(tmp_path.glob(f"{item.id}*")))
        (tmp_path / f"{item.id}{tries}").touch()
        if tries <= item.payload["n"]:  # type: ignore[operator]
            os._exit(1)
        return tries

    assert [result.value for result in executor.map(work, items("a"))] == [1]
    with pytest.raises(SoftpruneError, match=r"until z is done[\s\S]*2 of them died[\s\S]*cluster.retries"):
        list(executor.map(work, [WorkItem("z", {"n": 9})]))
    assert len(list(tmp_path.glob("z*"))) == 2


def test_too_much_for_every_node_is_told(executor: RayCluster) -> None:
    with pytest.raises(SoftpruneError, match=r"with 64 CPUs[\s\S]*1 CPUs and 0 GPUs, 1 CPUs"):
        list(executor.map(here, items("a"), cpus=64))
    with pytest.raises(SoftpruneError, match="and 1 GPUs"):
        list(executor.map(here, items("a"), gpus=1))


def test_who_stops_listening_stops_the_work(executor: RayCluster, tmp_path: Path) -> None:
    """As Ctrl-C does: what is running ends, what waits never begins."""

    def work(item: WorkItem) -> object:
        (tmp_path / item.id).touch()
        if item.id != "a":
            time.sleep(600)
        return None

    results = executor.map(work, items("abcde"))
    assert next(results).id == "a"
    wait_for(tmp_path / "b", tmp_path / "c")
    results.close()  # type: ignore[attr-defined]
    assert [result.value for result in executor.map(lambda item: 1, items("fg"))] == [1, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}


def test_items_run_side_by_side_on_two_nodes(executor: RayCluster, tmp_path: Path) -> None:
    """Each waits for the other; both import what the whole runs below need."""

    def work(item: WorkItem) -> object:
        (tmp_path / item.id).touch()
        until = time.monotonic() + 120
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        import softprune.training.distribute  # noqa: F401

        return item.payload["n"], len(list(tmp_path.iterdir())), ray.get_runtime_context().get_node_id()

    found = {result.id: result.value for result in executor.map(work, items("ab"))}
    assert {name: value[:2] for name, value in found.items()} == {"a": (0, 2), "b": (1, 2)}  # type: ignore[index]
    assert len({value[2] for value in found.values()}) == 2  # type: ignore[index]


@pytest.fixture
def recipe(tiny_models: Callable[[str], Path]) -> Recipe:
    return resolve(
        [
            f"backbone.name={tiny_models('sentence')}",
            "backbone.threads=1",
            "task.id=demo",
            "task.shots=40",
            "task.limit_report=24",
            "prompt.tokens=4",
            "prompt.pieces=4",
            "tuning.epochs=2",
            "search.strategy=grid",
            "search.token_ratios=0.25,0.5",
            "search.piece_ratios=0.25,0.5",
            "search.group=1",
            "selection.seeds=1",
            "selection.resamples=200",
        ]
    )


def outcome(recipe: Recipe, out: Path) -> dict[str, object]:
    """A run's every bit; lines of metrics in any order, since groups end in any."""
    execute(recipe, out, "test", "")
    info = json.loads((out / "run.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    curves = sorted(json.dumps(line | {"seconds": 0}, sort_keys=True) for line in lines)
    names = [p for p in sorted(out.rglob("*")) if p.suffix in (".jsonl", ".safetensors") and p.name != "metrics.jsonl"]
    results = {name: row and row | {"seconds": 0} for name, row in info["results"].items()}
    files = {str(path.relative_to(out)): path.read_bytes() for path in names}
    assert len(files) > 6
    return {"results": results, "headline": info["headline"], "curves": curves, **files}


@pytest.mark.usefixtures("one_thread")
def test_a_search_on_two_nodes_has_the_bits_of_one_process(nodes: Any, recipe: Recipe, tmp_path: Path) -> None:
    found = outcome(recipe.model_copy(update={"executor": "ray"}), tmp_path / "two")
    assert found == outcome(recipe, tmp_path / "one")
    assert found != outcome(recipe.model_copy(update={"seed": 1}), tmp_path / "other")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("form", [name for name in FORMS if name != PLAIN])
def test_a_form_of_a_prompt_is_searched_on_two_nodes_too(form: str, nodes: Any, recipe: Recipe, tmp_path: Path) -> None:
    prompt = recipe.prompt.model_copy(update={"form": form, "words": 14 if form == "superpos" else None})
    search = recipe.search.model_copy(update={"token_ratios": (0.5,), "epochs": 1})
    small = recipe.model_copy(update={"prompt": prompt, "search": search})
    found = outcome(small.model_copy(update={"executor": "ray"}), tmp_path / "two")
    assert found == outcome(small, tmp_path / "one")
    assert found != outcome(recipe, tmp_path / "plain")


@pytest.mark.usefixtures("one_thread")
def test_a_study_on_two_nodes_has_the_bits_of_one_process(
    nodes: Any, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    """Runs that begin with what others left, on workers that stand in other folders than this process may."""
    sys.path.insert(0, str(Path(__file__).parent / "studies"))
    from small_studies import measured, outcome_of_runs, study_of

    from softprune.studies.study_context import StudyContext

    def conduct(name: str, *overrides: str) -> Any:
        study = study_of(tiny_models("sentence"), tmp_path / "s.yaml", "seeds=2", *overrides)
        bench = StudyContext(study, tmp_path / name, tmp_path / name / "s")
        return measured(bench), outcome_of_runs(bench)

    found = conduct("two", "executor=ray", "cluster.cpus=1")
    assert found == conduct("one")
    assert len(list((tmp_path / "two" / "runs").glob("demo-*"))) == 4


def kill(nodes: Any, node: Any) -> None:
    """End a node with all its processes while a piece of work runs on it: Ray names a worker after its task.

    Without its raylet alone, a worker lives on for a second or two, and may finish.
    """
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    until = time.monotonic() + SECONDS
    while not (busy := [child for child in raylet.children(recursive=True) if is_busy(child)]):
        assert time.monotonic() < until, "no work came to the node"
        time.sleep(0.05)
    nodes.remove_node(node, allow_graceful=False)
    for worker in busy:
        with suppress(psutil.NoSuchProcess):
            worker.kill()


def is_busy(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] == ["ray::_attempt"]
    return False


@pytest.mark.usefixtures("one_thread")
def test_a_node_killed_in_the_middle_changes_nothing(
    nodes: Any, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the first group has come back: three others are running or waiting. The last test: one node stays."""
    store, get, deaths = distribute._store, ray.get, []
    search, tuning = recipe.search, recipe.tuning
    longer = {
        "search": search.model_copy(update={"epochs": 15}),
        "tuning": tuning.model_copy(update={"patience": None}),
    }
    long = recipe.model_copy(update=longer)

    def kill_and_store(*arguments: Any) -> None:
        if nodes.worker_nodes:
            (node,) = nodes.worker_nodes
            kill(nodes, node)
        store(*arguments)

    def get_and_note(*arguments: Any) -> Any:
        try:
            return get(*arguments)
        except ray.exceptions.RayError as death:
            deaths.append(death)
            raise

    monkeypatch.setattr(distribute, "_store", kill_and_store)
    monkeypatch.setattr(ray, "get", get_and_note)
    found = outcome(long.model_copy(update={"executor": "ray"}), tmp_path / "two")
    assert not nodes.worker_nodes
    assert deaths, "nothing ran there"
    assert found == outcome(long, tmp_path / "one")
