"""Tickets on disk and on the hub: they come back whole, or in one message; and they know their backbone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from records import run_document
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.prompts.ticket import Reported, Ticket
from softprune.runs import atomic_io
from tickets import small_ticket

P, HIDDEN = 4, 32


RESULTS = {
    "winner": Reported(0.8125, (0.7, 0.925), 80),
    "control": Reported(0.825, (0.75, 0.9), 80),
    "constant": Reported(0.25, (0.2, 0.3), 80),
}


@pytest.fixture
def ticket(backbone_of: Callable[..., Backbone]) -> Ticket:
    return replace(small_ticket(backbone_of("t5")), results=RESULTS)


def same(one: Ticket, other: Ticket) -> bool:
    return one.files() == other.files()


# --- save and load ---


@pytest.mark.parametrize("removal", ["drop", "zero"])
def test_a_ticket_comes_back_whole(backbone_of: Callable[..., Backbone], tmp_path: Path, removal: str) -> None:
    ticket = replace(small_ticket(backbone_of("t5"), removal), results=RESULTS)
    ticket.save(tmp_path / "run" / "ticket")
    for folder in (tmp_path / "run", str(tmp_path / "run" / "ticket")):
        found = Ticket.load(folder)
        assert (found.info, found.definition, found.results) == (ticket.info, ticket.definition, RESULTS)
        assert torch.equal(found.state.vectors_PH, ticket.state.vectors_PH)
        assert torch.equal(found.state.mask.piece_PS, ticket.state.mask.piece_PS)
        assert torch.equal(found.prompt(), ticket.prompt())
    assert found.prompt().shape == ((2 if removal == "drop" else P), HIDDEN)


def test_another_ticket_is_never_overwritten(
    ticket: Ticket, backbone_of: Callable[..., Backbone], tmp_path: Path
) -> None:
    ticket.save(tmp_path)
    ticket.save(tmp_path)  # the same one again is no harm
    with pytest.raises(SoftpruneError, match="without another ticket"):
        small_ticket(backbone_of("t5"), seed=1).save(tmp_path)
    assert same(Ticket.load(tmp_path), ticket)


def test_a_save_that_is_cut_off_leaves_no_ticket(
    ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[Path] = []

    def killed(source: Path, target: Path) -> None:
        replaced.append(target)
        if target.name == "ticket.json":
            raise KeyboardInterrupt
        Path(source).rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_io.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            ticket.save(tmp_path)
    assert [path.name for path in replaced] == ["results.json", "ticket.safetensors", "ticket.json"]
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "ticket.safetensors"}
    with pytest.raises(SoftpruneError, match=r"no ticket\.json"):
        Ticket.load(tmp_path)
    ticket.save(tmp_path)
    assert same(Ticket.load(tmp_path), ticket)


# --- damaged files ---


def changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "ticket.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "ticket.json"
        document = json.loads(path.read_text())
        del document[name]
        path.write_text(json.dumps(document))

    return change


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "ticket.json").write_text(content) and None


def results(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "results.json").write_text(content) and None


def tensor(name: str, value: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "ticket.safetensors")
        old = tensors.pop(name)
        save_file(
            tensors if value is None else tensors | {name: value(old).contiguous()}, folder / "ticket.safetensors"
        )

    return change


def truncated(folder: Path) -> None:
    path = folder / "ticket.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def gone(folder: Path) -> None:
    (folder / "ticket.safetensors").unlink()


def test_a_ticket_of_an_earlier_version_is_read(backbone_of: Callable[..., Backbone], tmp_path: Path) -> None:
    small_ticket(backbone_of("t5")).save(tmp_path / "ticket")
    without("has_layer_embeddings")(tmp_path / "ticket")
    assert Ticket.load(tmp_path / "ticket").info.has_layer_embeddings is False


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no JSON": (text("{"), "property name"),
    "results of no JSON": (results("{"), "EOF"),
    "results without a value": (results('{"winner": {"n": 3, "interval": [0, 1]}}'), "winner.value: Field required"),
    "a list": (text("[]"), "not a JSON object"),
    "deep": (text("[" * 100_000), "recursion"),
    "later schema": (changed(schema=2), "not schema 1, but 2"),
    "no schema": (without("schema"), "not schema 1, but None"),
    "missing key": (without("hidden"), "no hidden"),
    "no definition": (without("definition"), "no definition"),
    "wrong type": (changed(prompt_tokens="4"), "prompt_tokens: Input should be a valid integer"),
    "a list for a text": (changed(backbone=["a"]), "backbone: Input should be a valid string"),
    "unknown removal": (changed(removal="erase"), "not removal of drop or zero, but 'erase'"),
    "unknown family": (changed(family="rnn"), "not family of"),
    "negative size": (changed(hidden=-32), "hidden: Input should be greater than or equal to 1"),
    "size": (changed(prompt_tokens=10**15), "token_P of shape [1000000000000000]"),
    "pieces": (changed(pieces_per_token=5), "pieces that divide H"),
    "ratio": (changed(token_ratio=1.5), "token_ratio: Input should be less than 1"),
    "counts": (changed(tokens=3), "(2, 7, 56) tokens, pieces and parameters"),
    "other mask": (changed(token_mask=[True] * P), "token_mask of ticket.safetensors"),
    "bad definition": (changed(definition={"id": "x"}), "mistakes in task"),
    "no tensors": (gone, "ticket.safetensors"),
    "truncated": (truncated, "incomplete"),
    "missing tensor": (tensor("piece_PS", None), "no piece_PS"),
    "index out of range": (tensor("index_Q", lambda index: index + 3), "places in index_Q"),
    "index of floats": (tensor("index_Q", lambda index: index + 0.5), "places in index_Q"),
    "index of whole floats": (tensor("index_Q", torch.Tensor.float), "places in index_Q"),
    "index of bytes": (tensor("index_Q", torch.Tensor.byte), "places in index_Q"),
    "mask of numbers": (tensor("token_P", lambda mask: mask.int()), "masks of true and false"),
    "flat mask": (tensor("piece_PS", torch.flatten), "piece_PS of shape [4, 4], but [16]"),
    "empty mask": (tensor("piece_PS", torch.zeros_like), "at least one piece"),
    "short vectors": (tensor("vectors_QH", lambda v: v[:, :8]), "vectors_QH of shape [2, 32], but [2, 8]"),
    "not finite": (tensor("vectors_QH", lambda v: v / 0), "finite numbers"),
    "integers": (tensor("vectors_QH", torch.Tensor.int), "finite numbers"),
    "float8 beyond its range": (tensor("vectors_QH", lambda v: (v / 0).to(torch.float8_e5m2)), "finite numbers"),
    "complex": (tensor("vectors_QH", lambda v: v.to(torch.complex64)), "complex numbers in vectors_QH"),
    "pruned, not zero": (tensor("vectors_QH", torch.ones_like), "zeros where pieces are pruned"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_ends_in_one_message(ticket: Ticket, tmp_path: Path, kind: str) -> None:
    ticket.save(tmp_path)
    Ticket.load(tmp_path)
    damage, told = DAMAGE[kind]
    damage(tmp_path)
    with pytest.raises(SoftpruneError) as error:
        Ticket.load(tmp_path)
    assert told in str(error.value)
    assert str(tmp_path) in str(error.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_whatever_ticket_json_says_there_is_a_ticket_or_one_message(
    data: st.DataObject, ticket: Ticket, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ticket")
    ticket.save(folder)
    document = json.loads((folder / "ticket.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        where: Any = document
        key: Any = data.draw(st.sampled_from(sorted(where)))
        while isinstance(where[key], dict | list) and where[key] and data.draw(st.booleans()):
            where = where[key]
            key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        where[key] = data.draw(ANYTHING)
    (folder / "ticket.json").write_text(json.dumps(document))
    try:
        found = Ticket.load(folder)
    except SoftpruneError:
        return
    assert found.prompt().shape == (found.info.tokens if found.info.removal == "drop" else P, HIDDEN)


# --- the backbone ---


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_same_backbone_in_any_dtype(backbone_of: Callable[..., Backbone], dtype: str) -> None:
    for name in ("t5", "sentence"):
        small_ticket(backbone_of(name)).check(backbone_of(name, dtype))
        small_ticket(backbone_of(name, dtype)).check(backbone_of(name))


def test_other_backbones(ticket: Ticket, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("t5")
    for other in (backbone_of("t5_v1_1"), backbone_of("gpt2")):
        with pytest.raises(SoftpruneError) as error:
            ticket.check(other)
        assert f"load org/model, or train a ticket on {other.info.name}" in str(error.value)
    wide = replace(ticket, info=replace(ticket.info, hidden=64))
    with pytest.raises(SoftpruneError, match="H = 64"):
        wide.check(backbone)


def test_a_fine_tuned_backbone_is_another(
    ticket: Ticket, backbone_of: Callable[..., Backbone], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    from softprune.models import load_backbone

    folder = shutil.copytree(tiny_models("t5"), tmp_path / "t5")
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    tuned = {name: w + 0.01 * w.std() * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    save_file(tuned, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SoftpruneError, match="the backbone that the ticket was trained on"):
        ticket.check(load_backbone(str(folder), dtype="float32"))


# --- the hub ---


class Hub:
    """Stands for the hub: keeps what is uploaded in a folder, and gives out what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def api(self, token: str | None) -> Hub:
        self.calls.append(("HfApi", {"token": token}))
        return self

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return f"https://hub.example/{repo_id}"

    def create_commit(self, repo_id: str, *, operations: list[Any], commit_message: str) -> None:
        self.calls.append(("create_commit", {"repo_id": repo_id, "commit_message": commit_message}))
        (self.folder / repo_id).mkdir(parents=True)
        for operation in operations:
            with operation.as_file() as file:
                (self.folder / repo_id / operation.path_in_repo).write_bytes(file.read())

    def snapshot_download(self, repo_id: str, allow_patterns: list[str]) -> str:
        self.calls.append(("snapshot_download", {"repo_id": repo_id, "allow_patterns": allow_patterns}))
        if not (self.folder / repo_id).is_dir():
            raise FileNotFoundError(f"404 for {repo_id}")
        return str(self.folder / repo_id)


VERDICTS = {"ship the ticket": "winner", "ship the whole prompt": "control"}


@pytest.mark.parametrize("decision", [*VERDICTS, "undecided", "no verdict", None])
def test_a_run_gives_either_prompt_or_the_one_it_recommends(
    decision: str | None, ticket: Ticket, backbone_of: Callable[..., Backbone], tmp_path: Path
) -> None:
    prompts = {"winner": ticket, "control": small_ticket(backbone_of("gpt2"))}
    prompts["winner"].save(tmp_path / "ticket")
    prompts["control"].save(tmp_path / "control")
    rest = {"margin": 0.02, "better": False, "more_seeds": None, "more_examples": None, "reason": None}
    verdict = None if decision is None else {"decision": decision, "sentence": "Undecided: too few examples.", **rest}
    (tmp_path / "run.json").write_text(json.dumps(run_document(verdict=verdict)))
    for which, wanted in prompts.items():
        assert same(Ticket.load(tmp_path, which), wanted)
    assert same(Ticket.load(tmp_path), ticket)
    if decision in VERDICTS:
        assert same(Ticket.load(tmp_path, "recommended"), prompts[VERDICTS[decision]])
        return
    found = "no verdict in run.json" if verdict is None else "Undecided: too few examples"
    with pytest.raises(SoftpruneError, match="whose verdict says which prompt to ship") as refused:
        Ticket.load(tmp_path, "recommended")
    assert refused.value.found == found
    assert "--which winner or --which control" in refused.value.do


def test_a_ticket_folder_has_no_other_prompt(ticket: Ticket, tmp_path: Path) -> None:
    ticket.save(tmp_path)
    with pytest.raises(SoftpruneError, match="kept its whole prompt"):
        Ticket.load(tmp_path, "control")
    with pytest.raises(SoftpruneError, match=r"no run\.json in"):
        Ticket.load(tmp_path, "recommended")
    with pytest.raises(SoftpruneError, match="one of winner, control, recommended"):
        Ticket.load(tmp_path, "best")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return hub


def test_a_ticket_goes_to_the_hub_and_comes_back(ticket: Ticket, hub: Hub) -> None:
    assert ticket.push_to_hub("me/demo-ticket", private=True, token="t") == "https://hub.example/me/demo-ticket"
    assert hub.calls == [
        ("HfApi", {"token": "t"}),
        ("create_repo", {"repo_id": "me/demo-ticket", "private": True, "exist_ok": True}),
        ("create_commit", {"repo_id": "me/demo-ticket", "commit_message": "Ticket for demo"}),
    ]
    uploaded = hub.folder / "me" / "demo-ticket"
    assert sorted(path.name for path in uploaded.iterdir()) == [
        "README.md",
        "results.json",
        "ticket.json",
        "ticket.safetensors",
    ]
    card = (uploaded / "README.md").read_text()
    for part in ("base_model: org/model", "2 of 4", "7 of 16", ticket.definition.template):
        assert part in card
    assert "| score | 81.2% accuracy (95% interval 70.0 to 92.5) on 80 examples |" in card
    assert "| best constant answer | 25.0% accuracy" in card
    assert "which it was chosen on" not in card
    assert same(Ticket.load("me/demo-ticket"), ticket)
    wanted = {"repo_id": "me/demo-ticket", "allow_patterns": ["ticket.json", "ticket.safetensors", "results.json"]}
    assert hub.calls[-1] == ("snapshot_download", wanted)


def test_the_cards_code_runs(
    backbone_of: Callable[..., Backbone],
    tiny_models: Callable[[str], Path],
    hub: Hub,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ticket = small_ticket(backbone_of("t5"), name=str(tiny_models("t5")))
    ticket.push_to_hub("me/demo-ticket")
    card = (hub.folder / "me" / "demo-ticket" / "README.md").read_text()
    assert "base_model" not in card  # a path of this machine is no name on the hub
    assert "| score | 75.0% accuracy on `select`, which it was chosen on |" in card
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 5
    exec(code, {})
    answer = capsys.readouterr().out.split()[0]
    assert answer in ticket.definition.answers


def test_local_paths_win(ticket: Ticket, hub: Hub) -> None:
    ticket.save("me/demo-ticket")
    assert same(Ticket.load("me/demo-ticket"), ticket)
    assert hub.calls == []


def test_the_hub_refuses(ticket: Ticket, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SoftpruneError, match="no folder me/other; from the hub: 404 for me/other"):
        Ticket.load("me/other")
    with pytest.raises(SoftpruneError, match="a repository as user/name"):
        ticket.push_to_hub("other")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("401 Unauthorized")

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(SoftpruneError, match="401 Unauthorized"):
        ticket.push_to_hub("me/other")
    with pytest.raises(SoftpruneError, match=r"no ticket\.json in \."):
        Ticket.load(".")
    assert hub.calls[-1][0] == "HfApi"


def test_a_mistyped_run_is_not_asked_of_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(SoftpruneError, match=r"no ticket\.json in runs/cbb"):
        Ticket.load("runs/cbb")
    with pytest.raises(SoftpruneError, match="a repository of the hub"):
        Ticket.load("somebody/cbb")
