"""From examples to ids: answers, slots, and truncation that is counted and never silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reference import EXAMPLES

from models import names_of
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.tokenization import continuation_ids
from softprune.types import Encoded, Example, Segment

ONE_PER_FAMILY = ("t5", "bart", "gpt2", "llama", "bert", "roberta", "sentence")

LONG = "the slow river runs to the cold sea and the quiet man opened the window of the small room . " * 3
SHORT = "she said that the box was heavy , very very heavy ."


def two_texts(first: str = LONG, second: str = SHORT, answers: tuple[str, ...] = ("yes", "no")) -> Example:
    segments = (
        Segment("premise : "),
        Segment(first, shortenable=True),
        Segment(" hypothesis : "),
        Segment(second, shortenable=True),
        Segment(" answer : "),
        Segment("", answer_slot=True),
    )
    return Example("x", 0, segments, answers, 0)


@pytest.fixture(params=ONE_PER_FAMILY)
def backbone(request: pytest.FixtureRequest, backbone_of: Callable[..., Backbone]) -> Backbone:
    return backbone_of(request.param)


def encode(backbone: Backbone, *examples: Example, max_length: int = 400, answer: int = 16) -> list[Encoded]:
    return backbone.encode(examples, max_length=max_length, max_answer_length=answer)


def words(backbone: Backbone, encoded: Encoded) -> str:
    text = str(backbone.tokenizer.decode(encoded.input_ids, skip_special_tokens=True))
    return " ".join(text.split())


def test_whole_texts_are_encoded_as_the_tokenizer_does(backbone: Backbone) -> None:
    (encoded,) = encode(backbone, two_texts())
    slot = backbone.tokenizer.mask_token if backbone.family == "masked" else ""
    expected = backbone.tokenizer(f"{two_texts().text} {slot}".strip())["input_ids"]
    assert list(encoded.input_ids) == expected
    assert (encoded.cut, encoded.gold) == (0, 0)
    assert encode(backbone) == []


def segment_lengths(backbone: Backbone, *texts: str) -> list[int]:
    return [len(backbone.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


@pytest.mark.parametrize("cut", [10, 25, 45])
def test_only_shortenable_segments_are_cut_and_it_is_counted(backbone: Backbone, cut: int) -> None:
    whole = encode(backbone, two_texts())[0]
    limit = len(whole.input_ids) - cut
    short = encode(backbone, two_texts(), max_length=limit)[0]
    assert limit - 4 <= len(short.input_ids) <= limit
    assert short.cut == len(whole.input_ids) - len(short.input_ids)
    spaceless = words(backbone, short).replace(" ", "")
    for kept in ("premise:theslow", "hypothesis:she", "answer:"):
        assert kept in spaceless
    assert spaceless.endswith("answer:")


def test_the_longest_gives_way_until_all_are_equal(backbone: Backbone) -> None:
    long, short = segment_lengths(backbone, LONG, SHORT)
    whole = len(encode(backbone, two_texts())[0].input_ids)
    # As long as the first text is the longer one, the second stays whole.
    some = words(backbone, encode(backbone, two_texts(), max_length=whole - (long - short) + 3)[0])
    assert SHORT.replace(" ", "") in some.replace(" ", "")
    # From there on they share what is left.
    few = encode(backbone, two_texts(), max_length=whole - (long - short) - 10)[0]
    first, second = words(backbone, few).split("premise")[1].split("hypothesis")
    lengths = segment_lengths(backbone, first.strip(" :"), second.split("answer")[0].strip(" :"))
    assert abs(lengths[0] - lengths[1]) <= 4


def test_examples_that_fit_beside_one_that_does_not(backbone: Backbone) -> None:
    alone = encode(backbone, EXAMPLES[2])
    long, short = encode(backbone, two_texts(), EXAMPLES[2], max_length=40)
    assert [short] == alone
    assert long.cut > 0


def test_nothing_shortenable_left_is_an_error(backbone: Backbone) -> None:
    fixed = Example("long one", 0, (Segment(LONG), Segment("", answer_slot=True)), ("yes",), 0)
    with pytest.raises(SoftpruneError, match=r"raise task\.max_length") as error:
        encode(backbone, fixed, max_length=20)
    assert "long one" in str(error.value)
    blank = Example(
        "b", 0, (Segment(LONG), Segment("  \n ", shortenable=True), Segment("", answer_slot=True)), ("yes",), 0
    )
    with pytest.raises(SoftpruneError, match=r"raise task\.max_length"):
        encode(backbone, blank, max_length=20)


def test_everything_shortenable_may_go(backbone: Backbone) -> None:
    frame = Example("f", 0, tuple(s for s in two_texts().segments if not s.shortenable), ("yes",), 0)
    shortest = len(encode(backbone, frame)[0].input_ids)
    (encoded,) = encode(backbone, two_texts(), max_length=shortest + 2)
    assert len(encoded.input_ids) <= shortest + 2


def test_answers_too_long_are_an_error(backbone: Backbone) -> None:
    example = two_texts(answers=("yes", "definitely not at all wonderful and rather disappointing"))
    longest = max(map(len, encode(backbone, example, answer=99)[0].answer_ids))
    assert encode(backbone, example, answer=longest)
    with pytest.raises(SoftpruneError, match=f"at most {longest - 1} tokens"):
        encode(backbone, example, answer=longest - 1)


def test_answer_ids_decode_to_the_answer(backbone: Backbone) -> None:
    answers = ("yes", "not at all", "rather disappointing")
    (encoded,) = encode(backbone, two_texts(answers=answers))
    decoded = [backbone.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in encoded.answer_ids]
    assert decoded == list(answers)
    last = {ids[-1] for ids in encoded.answer_ids}
    if backbone.family == "seq2seq":
        assert last == {backbone.tokenizer.eos_token_id}
        assert backbone.tokenizer.bos_token_id not in {ids[0] for ids in encoded.answer_ids}
    elif backbone.family != "sentence":
        assert backbone.tokenizer.eos_token_id not in last


def test_answers_without_tokens_are_an_error(backbone_of: Callable[..., Backbone]) -> None:
    for name in ONE_PER_FAMILY:
        with pytest.raises(SoftpruneError, match="at least one token"):
            encode(backbone_of(name), two_texts(answers=("yes", "")))


def test_texts_without_tokens_are_an_error(backbone_of: Callable[..., Backbone]) -> None:
    empty = Example("e", 0, (Segment(" "), Segment("", answer_slot=True)), ("yes",), 0)
    with pytest.raises(SoftpruneError, match="at least one token"):
        encode(backbone_of("gpt2"), empty)


@pytest.mark.parametrize("name", names_of("masked"))
def test_the_slot_is_where_the_mask_is(name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name)
    segments = (Segment("the film "), Segment("", answer_slot=True), Segment(" was it .", shortenable=True))
    for example in (Example("m", 0, segments, ("great",), 0), two_texts()):
        (encoded,) = encode(backbone, example, max_length=40)
        assert encoded.input_ids.count(backbone.tokenizer.mask_token_id) == 1
        assert encoded.input_ids[encoded.slot] == backbone.tokenizer.mask_token_id


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_masked_models_need_exactly_one_slot(name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name)
    mask = backbone.tokenizer.mask_token
    none = Example("none", 0, (Segment("the film ."),), ("great",), 0)
    two = Example("two", 0, (Segment(f"the {mask} was "), Segment("", answer_slot=True)), ("great",), 0)
    for example, count in ((none, 0), (two, 2)):
        with pytest.raises(SoftpruneError, match=f"{count} mask tokens in example {example.id}"):
            encode(backbone, example)


def test_other_families_have_no_slot(backbone: Backbone) -> None:
    if backbone.family != "masked":
        assert encode(backbone, two_texts())[0].slot == -1


class Fickle:
    """A tokenizer whose first word depends on the next."""

    def __call__(self, text: str, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] if text == "a" else [2, 3]}


def test_a_tokenizer_that_merges_words_is_refused() -> None:
    fickle: Any = Fickle()
    with pytest.raises(SoftpruneError, match="keeps a word's ids"):
        continuation_ids(fickle, "yes")


def test_long_texts_make_no_noise(backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    """transformers warns of texts longer than the model's positions before truncation has had its turn."""
    import transformers

    before = backbone.tokenizer.model_max_length
    backbone.tokenizer.model_max_length = 20
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    try:
        encode(backbone, two_texts(), max_length=40)
    finally:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_propagation()
        backbone.tokenizer.model_max_length = before
    assert not caplog.records
