"""A pruned model as a folder: saved, loaded, asked, and refused when it isn't whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import encoder_of, texts_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from records import run_document
from softprune.errors import SoftpruneError
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.loading import describe_encoder, load_classifier, load_tokenizer
from softprune.token_pruning.model import TokenModel
from softprune.token_pruning.rules import OFFICIAL, Convention, KeepAll, Ranked, Rule, Thresholds

pytestmark = pytest.mark.slow

Models = Callable[[str], Path]
TEXTS = [row["text"] for row in texts_of(14)]


def thresholds(convention: Convention = Convention()) -> Thresholds:  # noqa: B008 - frozen
    rule = Thresholds(5, 1.0 / convention.divisor, 0.064 / convention.divisor, convention)
    with torch.no_grad():
        rule.delta_L.copy_(torch.tensor([0.0, 0.11, -0.07, 1 / 3, 0.05]) / convention.divisor)
    return rule


def model_of(folder: Path, rule: Rule | None = None, convention: Convention = Convention()) -> TokenModel:  # noqa: B008
    rule = thresholds(convention) if rule is None else rule
    tokenizer = load_tokenizer(describe_encoder(str(folder)))
    encoder = encoder_of(folder)
    encoder.model.eval()
    return TokenModel("made", encoder, tokenizer, rule, convention, 32, str(folder))


@pytest.fixture
def made(tiny_models: Models) -> TokenModel:
    return model_of(tiny_models("encoder"))


def logits(model: TokenModel, texts: list[str] = TEXTS) -> tuple[torch.Tensor, list[list[int]]]:
    """And tokens kept after every layer, text by text."""
    answers = model.evaluate(model.encode(texts), rows=5)
    return torch.from_numpy(answers.logits_NC), answers.kept_NL.tolist()


RULES = {
    "thresholds": lambda: (thresholds(), Convention()),
    "official": lambda: (thresholds(OFFICIAL), OFFICIAL),
    "top-k": lambda: (Ranked(5, 1 / 3), Convention()),
    "random": lambda: (Ranked(5, 0.2, "random", 7, whole=2), Convention()),
    "first": lambda: (Ranked(5, 0.2, "first"), Convention()),
    "everything": lambda: (KeepAll(), Convention()),
}


@pytest.mark.parametrize("name", RULES)
def test_it_comes_back_to_the_last_bit(tiny_models: Models, tmp_path: Path, name: str) -> None:
    rule, convention = RULES[name]()
    model = model_of(tiny_models("encoder"), rule, convention)
    model.save(tmp_path / "saved")
    loaded = TokenModel.load(tmp_path / "saved", dtype="float32", device="cpu")
    (found, found_kept), (wanted, wanted_kept) = logits(loaded), logits(model)
    assert torch.equal(found, wanted)
    assert found_kept == wanted_kept
    assert (loaded.labels, loaded.max_length, loaded.base) == (("good", "bad"), 32, model.base)
    assert loaded.convention == convention
    if name != "everything":
        assert not torch.equal(logits(loaded.unpruned())[0], wanted)


def test_transformers_reads_the_folder_and_prunes_nothing(made: TokenModel, tmp_path: Path) -> None:
    made.save(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert plain.config.id2label == {0: "good", 1: "bad"}
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        found = plain(**batch).logits.softmax(-1)
    wanted = torch.tensor(made.unpruned().predict(TEXTS))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    pruned = torch.tensor(made.predict(TEXTS))
    assert (found - pruned).abs().max() > 1e-3 * wanted.abs().max()


def test_saving_tells_nothing_and_leaves_nothing_beside(
    made: TokenModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made.save(tmp_path / "saved")
    made.save(tmp_path / "saved")  # in place of itself
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_it_takes_no_folder_that_holds_something_else(made: TokenModel, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(SoftpruneError, match="a new folder, or that of a pruned model"):
            made.save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]
    (tmp_path / "empty").mkdir()
    made.save(tmp_path / "empty")
    assert (tmp_path / "empty" / "tokens.json").exists()


def test_weights_may_stay_with_their_base(made: TokenModel, tmp_path: Path) -> None:
    made.unpruned().save(tmp_path / "base")
    base = TokenModel.load(tmp_path / "base", dtype="float32")
    small = TokenModel("x", base.encoder, base.tokenizer, made.rule, made.convention, 32, str(tmp_path / "base"))
    small.save(tmp_path / "small", weights=False)
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["tokens.json"]
    loaded = TokenModel.load(tmp_path / "small", dtype="float32")
    assert torch.equal(logits(loaded)[0], logits(made)[0])
    assert loaded.labels == ("good", "bad")
    assert TokenModel.load(tmp_path / "small", dtype="bfloat16").labels == ("good", "bad")  # the same weights still
    with torch.no_grad():
        base.encoder.layers[2].query.weight.mul_(-1)
    base.save(tmp_path / "base")
    with pytest.raises(SoftpruneError, match="other weights under that name"):
        TokenModel.load(tmp_path / "small")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(SoftpruneError, match="base"):
        TokenModel.load(tmp_path / "small")


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another schema": lambda d: d.update(schema=2),
    "no rule": lambda d: d.pop("rule"),
    "a rule of no kind": lambda d: d.update(rule={"kind": "magic"}),
    "a rule that lacks numbers": lambda d: d["rule"].pop("delta"),
    "thresholds in words": lambda d: d["rule"].update(delta=["a"] * 5),
    "thresholds that are null": lambda d: d["rule"].update(delta=[None] * 5),
    "a temperature of nought": lambda d: d["rule"].update(temperature=0),
    "a divisor of nought": lambda d: d["convention"].update(divisor=0),
    "no convention": lambda d: d.update(convention=None),
    "a length in words": lambda d: d.update(max_length="long"),
    "an order that isn't": lambda d: d.update(rule={"kind": "ranked", "layers": 5, "rate": 1, "order": "x", "seed": 0}),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_document_is_told(made: TokenModel, tmp_path: Path, name: str) -> None:
    made.save(tmp_path / "saved")
    path = tmp_path / "saved" / "tokens.json"
    document = json.loads(path.read_text())
    DAMAGES[name](document)
    path.write_text(json.dumps(document))
    with pytest.raises(SoftpruneError, match="a whole pruned model"):
        TokenModel.load(tmp_path / "saved")


@pytest.mark.parametrize("content", [b"", b"{torn", b"[]", b"null", b"3", b"\xff\xfe"])
def test_a_document_that_is_none_is_told(made: TokenModel, tmp_path: Path, content: bytes) -> None:
    made.save(tmp_path / "saved")
    (tmp_path / "saved" / "tokens.json").write_bytes(content)
    with pytest.raises(SoftpruneError, match="a whole pruned model"):
        TokenModel.load(tmp_path / "saved")


def test_a_rule_of_another_depth_is_told(made: TokenModel, tmp_path: Path) -> None:
    for number, rule in enumerate((Thresholds(4, 1.0, 0.1, Convention()), Ranked(6, 0.5))):
        folder = tmp_path / str(number)
        TokenModel("x", made.encoder, made.tokenizer, rule, made.convention, 32).save(folder)
        with pytest.raises(SoftpruneError, match="a rule for the model's 5 layers"):
            TokenModel.load(folder)


def test_predictions_are_those_of_a_reading(made: TokenModel) -> None:
    predicted = torch.tensor(made.predict(TEXTS))
    traces = made.trace(TEXTS)
    read = torch.tensor([trace.probabilities for trace in traces])
    assert (predicted - read).abs().max() <= 1e-5 * read.abs().max()
    assert [trace.predicted for trace in traces] == predicted.argmax(1).tolist()
    assert (predicted[1:] - read[:-1]).abs().max() > 1e-3
    assert (made.predict([]), made.trace([])) == ([], [])


def test_a_reading_follows_its_tokens(made: TokenModel) -> None:
    traces = made.trace(TEXTS, [n % 2 for n in range(len(TEXTS))], states=True)
    for n, (text, trace) in enumerate(zip(TEXTS, traces, strict=True)):
        assert trace.text == text
        assert trace.gold == n % 2
        assert trace.special[0]
        assert trace.special[-1]
        assert trace.left[0] == 5, "the token that the head reads stays"
        assert trace.alive()[0] == len(trace.left), "the first layer prunes nothing"
        assert len(trace.state) == 32
        letters = [
            text[begin:end] for (begin, end), special in zip(trace.offsets, trace.special, strict=True) if not special
        ]
        assert "".join(letters) == "".join(text.split())[: len("".join(letters))]
    assert any(trace.alive()[-1] < len(trace.left) for trace in traces)
    alone = [made.trace([text])[0] for text in TEXTS]
    assert [trace.left for trace in alone] == [trace.left for trace in traces]
    assert made.trace(TEXTS[:1])[0].state == ()


def test_tokens_are_forced_out(made: TokenModel) -> None:
    plain = made.trace(TEXTS)
    out = [{1, 2} for _ in TEXTS]
    for trace in made.trace(TEXTS, forced_out=out):
        assert trace.left[1] == trace.left[2] == 1
    nobody: list[set[int]] = [set() for _ in TEXTS]
    assert [r.left for r in made.trace(TEXTS, forced_out=nobody)] == [r.left for r in plain]
    both = made.unpruned().trace(TEXTS, forced_out=out)  # of a model that drops nothing
    assert all(trace.left[1] == trace.left[2] == 1 and set(trace.left[3:]) == {5} for trace in both)
    # The token that the head reads can't be forced out where it is protected.
    assert all(trace.left[0] == 5 for trace in made.trace(TEXTS, forced_out=[{0} for _ in TEXTS]))


def test_what_is_too_long_is_cut_and_counted(made: TokenModel) -> None:
    short, long = made.trace(["film was", "film " * 100])
    assert (short.cut, len(short.left)) == (0, 4)
    assert (long.cut, len(long.left)) == (70, 32)
    assert long.special[-1]
    assert made.encode(["film " * 100])[0][-1] == 3


@pytest.mark.parametrize("empty", ["", "  ", "\n\t"])
def test_an_empty_text_is_told(made: TokenModel, empty: str) -> None:
    for ask in (made.predict, made.trace):
        with pytest.raises(SoftpruneError, match=r"a text to read\nfound:    an empty one \(number 2\)"):
            ask(["a film", empty])


@pytest.mark.parametrize("text", ["ünïcode 漢字 🙂", "\u200b", "a\x00b", "e\u0301", "مرحبا", "\ud800 half", "<s>[SEP]"])
def test_any_other_text_is_read(made: TokenModel, text: str) -> None:
    (trace,) = made.trace([text])
    assert sum(trace.probabilities) == pytest.approx(1)
    assert all(0 <= begin <= end <= len(text) for begin, end in trace.offsets)
    assert made.predict([text, text])[0] == pytest.approx(list(trace.probabilities), rel=1e-5)


def test_padding_without_an_embedding_is_never_read(made: TokenModel, tmp_path: Path) -> None:
    made.save(tmp_path / "saved")
    plain = TokenModel.load(tmp_path / "saved", dtype="float32")
    made.tokenizer.add_tokens([f"<more{i}>" for i in range(made.encoder.config.vocab_size - len(made.tokenizer))])
    made.tokenizer.add_special_tokens({"pad_token": "<none>"})
    assert made.tokenizer.pad_token_id >= made.encoder.config.vocab_size
    made.save(tmp_path / "saved")
    padded = TokenModel.load(tmp_path / "saved", dtype="float32")
    assert torch.equal(logits(padded)[0], logits(plain)[0])
    made.tokenizer.add_tokens(["<user>"])
    for ask in (made.predict, made.trace):
        with pytest.raises(SoftpruneError, match=r'"<user>", token \d+, in text 2'):
            ask(["a film", "a <user> film"])


def test_a_plain_classifier_reads_everything(made: TokenModel, tmp_path: Path) -> None:
    made.save(tmp_path / "saved")
    (tmp_path / "saved" / "tokens.json").unlink()
    plain = TokenModel.load(tmp_path / "saved", dtype="float32")
    assert all(set(trace.left) == {5} for trace in plain.trace(TEXTS))
    assert plain.max_length == 128


ONE_OUTPUT: dict[str, Any] = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": None}
OTHER_HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "several labels": ({"problem_type": "multi_label_classification"}, "problem_type: multi_label_classification"),
    "a number": ({"problem_type": "regression"}, "a regression head"),
    "one output": (ONE_OUTPUT, "a regression head"),
    "tags": ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification"),
    "spans": ({"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
    "no head": ({"architectures": ["BertModel"]}, "BertModel"),
}


@pytest.mark.parametrize("name", OTHER_HEADS)
@pytest.mark.parametrize("pruned", [False, True])
def test_a_head_that_chooses_no_class_is_refused(made: TokenModel, tmp_path: Path, name: str, pruned: bool) -> None:
    made.save(tmp_path / "saved")
    if not pruned:
        (tmp_path / "saved" / "tokens.json").unlink()
    TokenModel.load(tmp_path / "saved", dtype="float32")
    change, found = OTHER_HEADS[name]
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SoftpruneError, match="chooses one of several classes") as caught:
        TokenModel.load(tmp_path / "saved", dtype="float32")
    assert caught.value.found.startswith(found)


def test_classes_without_names_are_numbered(made: TokenModel, tmp_path: Path) -> None:
    made.save(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"], config["label2id"]
    path.write_text(json.dumps(config))
    assert TokenModel.load(tmp_path / "saved", dtype="float32").labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("change", [OTHER_HEADS["several labels"][0], OTHER_HEADS["a number"][0], ONE_OUTPUT])
def test_a_classifier_trained_from_another_head_is_a_classifier(
    made: TokenModel, tmp_path: Path, change: dict[str, Any]
) -> None:
    made.save(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    described = describe_encoder(str(tmp_path / "saved"))
    model = load_classifier(described, ("a", "b", "c"), torch.device("cpu"), torch.float32, seed=0)
    assert model.config.problem_type == "single_label_classification"
    TokenModel("x", Encoder(model), made.tokenizer, made.rule, made.convention, 32).save(tmp_path / "trained")
    assert TokenModel.load(tmp_path / "trained", dtype="float32").labels == ("a", "b", "c")


def test_runs_that_have_no_model_are_told(tmp_path: Path) -> None:
    for info, told in (
        (run_document("tune"), "softprune predict"),
        (run_document("tokens", status="failed"), "continue it: softprune run tokens"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(info))
        with pytest.raises(SoftpruneError, match=told):
            TokenModel.load(tmp_path)
    (tmp_path / "run.json").write_text("{torn")
    with pytest.raises(SoftpruneError, match="as softprune writes it"):
        TokenModel.load(tmp_path)
