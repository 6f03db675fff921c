"""What the controls choose from is what was measured, and nothing in between."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from softprune.errors import SoftpruneError
from softprune.report.page import collect_controls, collect_neighbours, html
from softprune.report.run_reader import Run, read_run

Edit = Callable[..., None]
P, S = 20, 16
NO_PAIR = ">a pair that was not tried</option>"


def of(run: Run) -> dict[str, Any]:
    found = collect_controls(run)
    assert found is not None
    return found


def unpacked(packed: str, *shape: int) -> np.ndarray[Any, Any]:
    """As the script reads it: eight a byte, the highest first."""
    data = base64.b64decode(packed)
    size = int(np.prod(shape))
    return np.array([data[at >> 3] >> (7 - (at & 7)) & 1 for at in range(size)], bool).reshape(shape)


def test_every_candidate_has_its_own_mask_and_measurements(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    kept = load_file(xprompt_run / "masks.safetensors")
    order = {candidate.id: at for at, candidate in enumerate(run.candidates)}
    entries = of(run)["candidates"]
    assert {entry["id"] for entry in entries} == set(order)
    for entry in entries:
        at = order[entry["id"]]
        assert (unpacked(entry["mask"]["token"], P) == kept["token_CP"][at]).all()
        assert (unpacked(entry["mask"]["piece"], P, S) == kept["piece_CPS"][at]).all()
        assert entry["tokens"] == f"{run.candidates[at].tokens_kept:,}"
        assert (entry["select"] == "not measured") == (run.candidates[at].select is None)
        assert entry["tokens"] == str(unpacked(entry["mask"]["token"], P).sum())
    first, last = entries[0], entries[-1]
    assert (unpacked(first["mask"]["piece"], P, S) != unpacked(last["mask"]["piece"], P, S)).any()


def test_what_was_not_trained_is_not_measured(xprompt_run: Path) -> None:
    (entry,) = [entry for entry in of(read_run(xprompt_run))["candidates"] if entry["id"] == "t0.9-p0.4"]
    assert (entry["select"], entry["report"], entry["interval"]) == ("not measured",) * 3


def test_sliders_have_the_ratios_that_were_tried_in_their_order(xprompt_run: Path) -> None:
    tens = [f"{10 * at}" for at in range(1, 10)]
    assert of(read_run(xprompt_run))["sliders"] == [tens, tens]
    path = xprompt_run / "candidates.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["token_ratio"] in (0.2, 0.7)))
    assert of(read_run(xprompt_run))["sliders"] == [["20", "70"], tens]


def test_learned_tickets_have_one_slider_by_size(xprompt_run: Path, edit: Edit) -> None:
    edit(xprompt_run, lambda info: info.update(search={"strategy": "learned"}))
    found = of(read_run(xprompt_run))
    assert found["sliders"] == []
    sizes = [int(entry["parameters"].replace(",", "")) for entry in found["candidates"]]
    assert sizes == sorted(sizes)
    text = html(read_run(xprompt_run), [])
    assert 'data-slider="size"' in text
    assert 'data-slider="tokenRatio"' not in text
    assert NO_PAIR not in text


def test_one_learned_ticket_has_no_slider(xprompt_run: Path, edit: Edit) -> None:
    assert NO_PAIR in html(read_run(xprompt_run), [])
    edit(xprompt_run, lambda info: info.update(search={"strategy": "learned"}))
    path = xprompt_run / "candidates.jsonl"
    path.write_text(next(line for line in path.read_text().splitlines(True) if json.loads(line)["status"] == "winner"))
    text = html(read_run(xprompt_run), [])
    assert "<input" not in text
    assert 'data-pick="candidate"' in text


def test_an_earlier_run_tells_the_winners_mask_alone(xprompt_run: Path) -> None:
    whole = html(read_run(xprompt_run), [])
    (xprompt_run / "masks.safetensors").unlink()
    run = read_run(xprompt_run)
    assert [entry["id"] for entry in of(run)["candidates"] if entry["mask"]] == [
        c.id for c in run.candidates if c.status == "winner"
    ]
    said = "wasn't stored with this run; only the winner's are known"
    assert said in html(run, [])
    assert said not in whole


def test_masks_of_other_candidates_do_not_count(xprompt_run: Path) -> None:
    masks = load_file(xprompt_run / "masks.safetensors")
    save_file({name: tensor[:-1].copy() for name, tensor in masks.items()}, xprompt_run / "masks.safetensors")
    assert read_run(xprompt_run).masks is None


def test_masks_that_fit_nothing_are_an_error(xprompt_run: Path) -> None:
    masks = load_file(xprompt_run / "masks.safetensors")
    save_file(masks | {"token_CP": masks["token_CP"][:, :-1].copy()}, xprompt_run / "masks.safetensors")
    with pytest.raises(SoftpruneError, match="masks of shape"):
        read_run(xprompt_run)


def test_importance_of_another_shape_is_not_shown(xprompt_run: Path) -> None:
    scores = load_file(xprompt_run / "importance.safetensors")
    save_file(scores | {"token_P": scores["token_P"][:-1].copy()}, xprompt_run / "importance.safetensors")
    found = of(read_run(xprompt_run))
    assert found["token"] is None
    assert found["piece"] is not None


def test_a_run_that_prunes_nothing_has_nothing_to_explore(tune_run: Path) -> None:
    assert collect_controls(read_run(tune_run)) is None
    text = html(read_run(tune_run), [])
    assert "Explore what was kept" not in text
    assert "Nearest words" not in text


def test_neighbours_are_what_the_file_says(xprompt_run: Path, add_near: Callable[..., None]) -> None:
    assert collect_neighbours(read_run(xprompt_run)) is None
    assert "Words near the prompt's tokens: not measured." in html(read_run(xprompt_run), [])
    add_near(xprompt_run)
    found = collect_neighbours(read_run(xprompt_run))
    assert found is not None
    assert found["measures"] == ["centred", "cosine"]
    assert list(found["prompts"]) == ["tuned", "winner"]
    token = found["prompts"]["tuned"][3]
    assert token["end"]["centred"] == [["c3", "0.75"], ["日本", "0.25"]]
    assert (token["word"], token["moved"], token["distance"]) == ("word3", "0.8", "3.25")
    assert token["kept"] == {"centred": "no", "cosine": "not measured"}
    assert found["prompts"]["tuned"][4]["kept"]["centred"] == "yes"
    assert len(found["prompts"]["winner"]) == 14
    assert "Words near the prompt's tokens: not measured." not in html(read_run(xprompt_run), [])


def test_what_a_neighbour_lacks_is_not_measured(xprompt_run: Path) -> None:
    path = xprompt_run / "neighbours.json"
    path.write_text('{"prompts": {"tuned": [{"token": 0, "end": {"cosine": [{"id": 1, "word": "a"}]}}]}}')
    found = collect_neighbours(read_run(xprompt_run))
    assert found is not None
    (token,) = found["prompts"]["tuned"]
    assert (token["word"], token["moved"], token["kept"], token["start"]) == ("", "not measured", {}, {})
    assert token["end"] == {"cosine": [["a", "not measured"]]}
    for nothing in ('{"other": 1}', '{"prompts": {"tuned": []}}'):
        path.write_text(nothing)
        assert collect_neighbours(read_run(xprompt_run)) is None


@pytest.mark.parametrize("text", ['{"prompts": [1]}', '{"prompts": {"tuned": [1]}}', '{"prompts": 1}', "[]", "{"])
def test_neighbours_that_are_none_are_an_error(xprompt_run: Path, text: str) -> None:
    (xprompt_run / "neighbours.json").write_text(text)
    with pytest.raises(SoftpruneError, match=r"neighbours\.json"):
        read_run(xprompt_run)
