"""Cartridges: their start, what is frozen, the divergence by hand, and that teaching lowers it on other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from adapted import TEXTS, example, fresh, near, shake
from peft import CartridgeConfig, get_peft_model, initialize_kv_prefix_from_text
from pefts import difference, mistral, no_prompt

from models import CORPUS
from softprune.adapters.base import AdapterPlan
from softprune.adapters.cartridge import FROZEN, Cartridge, document_ids, drop_first, new_cartridge
from softprune.data.document import read_document
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.training.scoring import ScoredSet, Scoring
from softprune.types import Batch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]
Backbones = Callable[..., Backbone]
Models = Callable[[str], Path]
P = 5
DOCUMENT = "\n".join(CORPUS[:3]) + "\n"
OTHER = "\n".join(CORPUS[6:9]) + "\n"
UNSEEN = ("apples and a glass of water", "the second choice is wrong", "a red box by the window", "no or maybe not")


@pytest.fixture
def studied() -> Iterator[Callable[..., Cartridge]]:
    """A cartridge that has studied a document, detached when the test is over."""
    made: list[Cartridge] = []

    def study(backbone: Backbone, text: str = DOCUMENT, tokens: int | None = P) -> Cartridge:
        ids = document_ids(backbone, text)
        plan = AdapterPlan("cartridge", tokens=len(ids) if tokens is None else tokens)
        made.append(new_cartridge(backbone, plan, 0))
        made[-1].study(ids)
        return made[-1]

    yield study
    for cartridge in made:
        cartridge.detach()


def rows(backbone: Backbone, texts: tuple[str, ...] = TEXTS) -> Batch:
    return backbone.batch(backbone.encode([example(text, n) for n, text in enumerate(texts)], 64))


def one_text(backbone: Backbone, texts: tuple[str, ...] = TEXTS) -> Batch:
    """The same texts with one answer, as texts that are written have."""
    batch = rows(backbone, texts)
    return replace(batch, answer_ids=batch.answer_ids[:, 2:], answer_mask=batch.answer_mask[:, 2:], gold=batch.gold * 0)


def divergence(cartridge: Cartridge, batch: Batch, score: str = "sum") -> torch.Tensor:
    backbone = cartridge.backbone
    return cartridge.teacher().losses(backbone, no_prompt(backbone), batch, "likelihood", score, [len(batch)])


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_it_starts_as_pefts(
    name: str, backbone_of: Backbones, tiny_models: Models, studied: Callable[..., Cartridge]
) -> None:
    backbone = backbone_of(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_models(name), dtype=torch.float32).eval()
    wrapped = get_peft_model(model, CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)).eval()
    theirs = initialize_kv_prefix_from_text(wrapped, backbone.tokenizer, text=DOCUMENT, use_chat_template=False)
    assert difference(studied(backbone).keys_values(), theirs) <= 1e-5
    assert difference(studied(fresh(tiny_models(name)), DOCUMENT[4:]).keys_values(), theirs) > 1e-2


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_first_token_stays(name: str, tiny_models: Models, studied: Callable[..., Cartridge]) -> None:
    backbone = fresh(tiny_models(name))
    cartridge = studied(backbone)
    before = cartridge.keys_values().detach().clone()
    assert [p.numel() for p in cartridge.named().values()] == [(P - FROZEN) * cartridge.shape.numbers]
    optimiser = torch.optim.AdamW(cartridge.named().values(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        divergence(cartridge, one_text(backbone)).mean().backward()
        optimiser.step()
    after = cartridge.keys_values().detach()
    assert torch.equal(after[:FROZEN], before[:FROZEN])
    assert bool((after[FROZEN:] != before[FROZEN:]).all())


def token_log_probs(model: Any, ids: list[int], answer: list[int], past: list[int]) -> torch.Tensor:
    """`[T, V]` at the tokens of an answer behind some ids, by the released model's own forward; of the tokens `past`
    the model reads its own cache alone."""
    cache = model(torch.tensor([past])).past_key_values if past else None
    logits = model(torch.tensor([ids + answer]), past_key_values=cache).logits[0]
    return logits[len(ids) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_divergence_by_hand(name: str, tiny_models: Models, studied: Callable[..., Cartridge]) -> None:
    backbone = fresh(tiny_models(name), "float64")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_models(name), dtype=torch.float64).eval()
    ids, start = document_ids(backbone, DOCUMENT), document_ids(backbone, DOCUMENT)[:P]
    first = backbone.tokenizer.bos_token_id if name == "llama" else None
    encoded = backbone.encode([example(text, n) for n, text in enumerate(TEXTS)], 64)
    over_tokens, over_answers, doubled = [], [], []
    with torch.no_grad():
        for each in encoded:
            text = list(each.input_ids)
            assert first is None or text[0] == ids[0] == first
            behind = ids + text[first is not None :]  # one beginning of the sequence
            taught = [token_log_probs(model, behind, list(a), []) for a in each.answer_ids]
            given = [token_log_probs(model, text, list(a), start) for a in each.answer_ids]
            last = taught[2].exp() * (taught[2] - given[2])
            over_tokens.append(last.sum(-1).mean())
            twice = token_log_probs(model, ids + text, list(each.answer_ids[2]), [])
            doubled.append((twice.exp() * (twice - given[2])).sum(-1).mean())
            sums = []
            for side in (taught, given):
                each_sum = [p[range(len(a)), list(a)].sum() for p, a in zip(side, each.answer_ids, strict=True)]
                sums.append(torch.stack(each_sum).log_softmax(0))
            over_answers.append((sums[0].exp() * (sums[0] - sums[1])).sum())
    cartridge = studied(backbone)
    with torch.no_grad():
        tokens, answers = divergence(cartridge, one_text(backbone)), divergence(cartridge, rows(backbone))
    assert difference(tokens, torch.stack(over_tokens)) <= 1e-9
    assert difference(answers, torch.stack(over_answers)) <= 1e-9
    assert float(torch.stack(over_tokens).min()) > 1e-4
    if first is not None:  # the check would see a second beginning
        assert difference(tokens, torch.stack(doubled)) > 1e-3


def test_as_long_as_the_document_it_is_its_own_teacher(tiny_models: Models, studied: Callable[..., Cartridge]) -> None:
    backbone = fresh(tiny_models("gpt2"), "float64")
    whole, part = studied(backbone, tokens=None), studied(fresh(tiny_models("gpt2"), "float64"))
    with torch.no_grad():
        assert float(divergence(whole, one_text(backbone)).abs().max()) <= 1e-12
        assert float(divergence(part, one_text(part.backbone)).min()) > 1e-4


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_teaching_lowers_the_divergence_on_rows_that_it_didnt_see(
    name: str, tiny_models: Models, studied: Callable[..., Cartridge]
) -> None:
    backbone = fresh(tiny_models(name))
    words = sorted({word for text in CORPUS for word in text.split()})
    texts = (*TEXTS, *CORPUS, *(" ".join(words[at : at + 4]) for at in range(0, len(words), 4)))
    seen, unseen = one_text(backbone, texts), one_text(backbone, UNSEEN)

    def teach(cartridge: Cartridge) -> None:
        optimiser = torch.optim.AdamW(cartridge.named().values(), lr=0.05, weight_decay=0.0)
        for _ in range(60):
            optimiser.zero_grad()
            divergence(cartridge, seen).mean().backward()
            optimiser.step()

    def measure(cartridge: Cartridge) -> float:
        """Of what a cartridge says of texts that weren't taught, from what the model says behind DOCUMENT."""
        numbers_PX = cartridge.keys_values().detach()
        cartridge.detach()
        judge = studied(backbone)
        judge._numbers.set(numbers_PX)
        with torch.no_grad():
            found = float(divergence(judge, unseen).mean())
        judge.detach()
        return found

    untaught = measure(studied(backbone))
    at_random = studied(backbone)
    shake(at_random, width=float(at_random.keys_values().detach().std()))
    random = measure(at_random)
    cartridge = studied(backbone)
    teach(cartridge)
    learned = measure(cartridge)
    of_another = studied(backbone, OTHER)
    teach(of_another)
    assert learned < 0.5 * min(untaught, random)
    assert measure(of_another) > 2 * learned


# --- what a text's first token is to the teacher, and what it refuses ---


def test_only_a_token_that_all_texts_begin_with_is_dropped(backbone_of: Backbones) -> None:
    backbone = backbone_of("llama")
    batch, first = rows(backbone), backbone.tokenizer.bos_token_id
    dropped = drop_first(batch, first)
    assert torch.equal(dropped.input_ids, batch.input_ids[:, 1:])
    assert torch.equal(dropped.input_mask.sum(1), batch.input_mask.sum(1) - 1)
    assert drop_first(batch, None) is batch
    assert drop_first(batch, first + 1) is batch
    alone = replace(batch, input_mask=batch.input_mask.clone())
    alone.input_mask[0, 1:] = 0
    assert drop_first(alone, first) is alone  # nothing would be left of a text
    assert drop_first(replace(batch, places=(1, None, 2, 0)), first).places == (0, None, 1, 0)


def test_a_set_behind_the_document_says_what_one_text_would(
    tiny_models: Models, studied: Callable[..., Cartridge]
) -> None:
    backbone = fresh(tiny_models("llama"), "float64")
    examples = [example(text, n) for n, text in enumerate(TEXTS)]
    data, scoring = ScoredSet(examples, backbone.encode(examples, 64)), Scoring("likelihood", "sum")
    ids = torch.tensor(document_ids(backbone, DOCUMENT))
    with torch.no_grad():
        batch = drop_first(data.batch(backbone, range(len(data))), int(ids[0]))
        wanted = backbone.scores(backbone.lookup(ids)[None], batch, "sum")[0]
        plain = backbone.scores(no_prompt(backbone), batch, "sum")[0]
    found = studied(backbone).score_document(data, scoring)
    assert found is not None
    scores = torch.tensor(found.answer_scores, dtype=torch.float64)
    assert difference(scores, wanted) <= 1e-9
    assert not near(plain, wanted, 1e-3)


def test_what_doesnt_fit_is_refused(tmp_path: Path, tiny_models: Models, studied: Callable[..., Cartridge]) -> None:
    backbone = mistral(tmp_path, 64)
    cartridge = studied(backbone)
    examples = [example("the film was a slow and quiet joy", 0)]
    data = ScoredSet(examples, backbone.encode(examples, 64))
    beside = len(data.encoded[0].input_ids) + max(map(len, data.encoded[0].answer_ids))
    cartridge.check_room(64 - beside, [data])
    expected = rf"fits into 64 tokens[\s\S]*{65 - beside} tokens in adapter[\s\S]*shorten it to {64 - beside} tokens"
    with pytest.raises(SoftpruneError, match=expected):
        cartridge.check_room(65 - beside, [data])
    with pytest.raises(SoftpruneError, match="fits into 64 tokens"):
        cartridge.check_room(64 - beside, [data], generated=50)
    longer = [example("bread " * 60, 0)]  # read at the end alone
    far = ScoredSet(longer, backbone.encode(longer, 64))
    assert cartridge.score_document(far, Scoring("likelihood", "sum")) is None
    with pytest.raises(SoftpruneError, match=r"a document of at least 5 tokens[\s\S]*found: +2"):
        cartridge.study([5, 6])
    with pytest.raises(SoftpruneError, match="a causal backbone"):
        new_cartridge(fresh(tiny_models("t5")), AdapterPlan("cartridge", tokens=P), 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"a readable document[\s\S]*No such file"),
        (b" \n\t", "a document with text in it"),
        (b"caf\xe9 au lait is what the menu says", r"a document in UTF-8[\s\S]*iconv"),
        ("a wide text".encode("utf-16"), r"text in UTF-8[\s\S]*UTF-16"),
    ],
)
def test_no_document(content: bytes | None, expected: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "document.txt").write_bytes(content)
    with pytest.raises(SoftpruneError, match=expected):
        read_document(tmp_path / "document.txt")


def test_a_document_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "document.txt").write_bytes(b"\xef\xbb\xbfone\n two \n")
    assert read_document(tmp_path / "document.txt") == "one\n two \n"
