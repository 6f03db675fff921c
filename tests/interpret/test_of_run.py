"""neighbours.json: as the maths has it, entry by entry."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.interpret.neighbours import MEASURES, anisotropy, nearest
from softprune.interpret.run_neighbours import Way, describe_ways, prompt_neighbours, read_neighbours, read_table
from softprune.interpret.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from softprune.models.base import Backbone


@pytest.mark.parametrize("model", ["t5", "bart_scaled", "bloom", "sentence"])
def test_the_document_is_what_the_maths_says(backbone_of: Callable[[str], Backbone], model: str) -> None:
    backbone = backbone_of(model)
    vocabulary = Vocabulary(backbone.tokenizer, backbone.vocabulary)
    pool = vocabulary.pool
    start = backbone.embed_ids([pool[7], pool[30], pool[31]])
    end = start.clone()
    end[1] = backbone.embed_ids([pool[40]])[0] * 0.9 + 0.05
    end[2] = 0
    raw = [str(vocabulary.tokens[pool[at]]) for at in (7, 30, 31)]
    found = prompt_neighbours(start, end, backbone, k=4, words=raw)
    assert json.loads(json.dumps(found)) == found
    assert (found["schema"], found["k"], found["vocabulary"]) == (1, 4, len(pool))
    table = backbone.embeddings_VH()
    norms = table[list(pool)].double().norm(dim=-1)
    assert found["scale"] == pytest.approx(float(norms.square().mean().sqrt()), rel=1e-5)
    spread = anisotropy(table, pool)
    assert found["anisotropy"] == pytest.approx(
        {"raw": spread.raw, "centred": spread.centred, "pairs": 10_000}, abs=1e-5
    )
    tokens = found["prompts"]["tuned"]
    assert [token["token"] for token in tokens] == [0, 1, 2]
    assert [token["word"] for token in tokens] == [vocabulary.shown(pool[at]) for at in (7, 30, 31)]
    for measure in MEASURES:
        for when, vectors in (("start", start), ("end", end)):
            near = nearest(vectors, table, 4, measure, pool)
            for p, token in enumerate(tokens):
                said: list[dict[str, Any]] = token[when][measure]
                if p == 2 and when == "end":
                    assert said == []
                    continue
                assert [each["id"] for each in said] == near.ids_PK[p].tolist()
                assert [each["word"] for each in said] == list(map(vocabulary.shown, near.ids_PK[p].tolist()))
                assert [each["value"] for each in said] == pytest.approx(near.values_PK[p].tolist(), rel=1e-5, abs=1e-6)
        assert [token["kept"][measure] for token in tokens] == [True, False, None]
        assert tokens[1]["start"][measure][0]["id"] == pool[30]
    distance = math.dist(start[1].tolist(), end[1].tolist())
    assert tokens[1]["distance"] == pytest.approx(distance, rel=1e-5)
    assert tokens[1]["moved"] == pytest.approx(distance / found["scale"], rel=1e-5)
    assert (tokens[0]["distance"], tokens[0]["moved"], tokens[0]["cosine"]) == (0, 0, 1)
    assert tokens[2]["cosine"] == 0


def test_embeddings_are_what_the_model_reads(backbone_of: Callable[..., Backbone]) -> None:
    """BART scales its own: against the bare table, every word would seem to have moved."""
    backbone = backbone_of("bart_scaled")
    table = read_table(backbone)
    assert torch.equal(table, backbone.embeddings_VH())
    assert not torch.allclose(table, backbone.model.get_input_embeddings().weight)
    half = backbone_of("t5", "bfloat16")
    assert read_table(half).dtype == torch.bfloat16


def test_several_prompts_are_as_each_alone(backbone_of: Callable[[str], Backbone]) -> None:
    backbone = backbone_of("t5")
    start = backbone.embed_ids([20, 21, 22, 23])
    end = start + torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    left = Way(start[[1, 3]], end[[1, 3]] * 0.5, places=(1, 3))
    both = describe_ways(backbone, {"tuned": Way(start, end), "winner": left}, 3)
    assert both["prompts"]["tuned"] == describe_ways(backbone, {"tuned": Way(start, end)}, 3)["prompts"]["tuned"]
    assert both["prompts"]["winner"] == describe_ways(backbone, {"winner": left}, 3)["prompts"]["winner"]
    assert [token["token"] for token in both["prompts"]["winner"]] == [1, 3]
    assert [token["word"] for token in both["prompts"]["winner"]] == ["", ""]
    assert both["prompts"]["winner"][0]["moved"] != both["prompts"]["tuned"][1]["moved"]
    with pytest.raises(SoftpruneError, match="one shape"):
        describe_ways(backbone, {"tuned": Way(start, end[:3])})


def test_a_file_of_another_sort_is_told(tmp_path: Path) -> None:
    assert read_neighbours(tmp_path) is None
    path = tmp_path / "neighbours.json"
    for text in ("{", "[1]", '{"schema": 2, "prompts": {}}', '{"schema": 1}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(SoftpruneError, match=r"neighbours\.json as softprune writes it"):
            read_neighbours(tmp_path)
    path.write_text('{"schema": 1, "prompts": {}}')
    assert read_neighbours(tmp_path) == {"schema": 1, "prompts": {}}
