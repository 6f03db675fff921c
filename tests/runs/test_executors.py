from __future__ import annotations

import socket
import sys
import types
from collections.abc import Iterator

import pytest

from softprune.errors import SoftpruneError
from softprune.runs import executors
from softprune.runs.executors import EXECUTORS
from softprune.types import Result, WorkItem


def test_in_process_runs_each_item_when_the_one_before_was_taken() -> None:
    log: list[str] = []

    def items() -> Iterator[WorkItem]:
        for name in "ab":
            log.append(f"given {name}")
            yield WorkItem(name, {"n": len(log)})

    def work(item: WorkItem) -> object:
        log.append(f"done {item.id}")
        return item.payload["n"]

    results = EXECUTORS["in-process"]().map(work, items())
    assert log == []
    assert next(results) == Result("a", 1)
    assert log == ["given a", "done a"]
    assert list(results) == [Result("b", 3)]


def test_two_items_of_one_name_are_refused() -> None:
    results = EXECUTORS["in-process"]().map(lambda item: item.id, [WorkItem("a"), WorkItem("a")])
    next(results)
    with pytest.raises(ValueError, match="two pieces of work"):
        next(results)


@pytest.mark.parametrize("address", ["10.0.0.1", "here:", ":6379", "here:0", "here:99999", "ray://here:10001"])
def test_what_is_no_address_is_told_at_once(address: str) -> None:
    with pytest.raises(SoftpruneError, match=r"cluster\.address as host:port, or auto"):
        executors._check_address(address)


def test_an_address_without_an_answer_is_told_at_once() -> None:
    """Ray itself would try for minutes, and then end the process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        executors._check_address(f"127.0.0.1:{port}")
    with pytest.raises(SoftpruneError, match=rf"a Ray cluster at 127\.0\.0\.1:{port}\nfound:    no answer"):
        executors._check_address(f"127.0.0.1:{port}")


def test_ray_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SoftpruneError, match=r"Ray, for --executor ray[\s\S]*pip install 'softprune\[cluster\]'"):
        EXECUTORS["ray"]()


class Refusing:
    """A Ray that doesn't start."""

    exceptions = types.SimpleNamespace(RayError=RuntimeError)
    options: dict[str, object]

    @staticmethod
    def is_initialized() -> bool:
        return False

    def init(self, **options: object) -> None:
        self.options = options
        raise RuntimeError("Version mismatch: one and another\nmore lines")

    def shutdown(self) -> None:
        self.options |= {"ended": True}


@pytest.mark.parametrize(
    ("address", "told"), [(None, "a Ray that starts on this machine"), ("auto", "cluster at auto")]
)
def test_ray_that_does_not_start_is_told(address: str | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing()
    monkeypatch.setitem(sys.modules, "ray", refusing)  # type: ignore[arg-type]
    with pytest.raises(SoftpruneError, match=rf"{told}\nfound:    Version mismatch: one and another\n"):
        EXECUTORS["ray"](address)
    assert refusing.options["ended"]
    assert refusing.options["address"] == (address or "local")
