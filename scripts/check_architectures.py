"""Which architectures softprune reads, and what it can do with them: the table in docs/models.md.

    python scripts/check_architectures.py              # check all; exit code 1 where the page says otherwise
    python scripts/check_architectures.py --write      # check all, and write the table into the page
    python scripts/check_architectures.py NAME ...     # check some, and print their rows

Each cell that says yes was computed on a random tiny model (`tiny_architectures.py`) and compared with transformers'
own forward of the same token ids (`plain_readings.py`), within 1e-5 of the largest number.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # before transformers is imported
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers.modeling_utils")  # of peft
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")

import tiny_architectures as tiny
import torch
import transformers
from plain_readings import PlainModel, Text

from softprune.adapters.base import AdapterPlan
from softprune.adapters.prefix import STORED, empty_cache, new_prefix, prefix_not_defined, stored_prefix
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.batching import collate
from softprune.models.load_errors import quiet
from softprune.prompts.prompt_io import adapter_files
from softprune.pruning.criteria import paper
from softprune.runs.atomic_io import write_folder
from softprune.token_pruning.families import FAMILIES, Encoder
from softprune.token_pruning.forward import forward
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import Convention, KeepAll
from softprune.training.scoring import ScoredSet, Scoring
from softprune.types import Batch, Encoded, Example

PAGE: Final = Path(__file__).parents[1] / "docs" / "models.md"
MARK: Final = "<!-- What follows is made by scripts/check_architectures.py -->\n"
TOLERANCE: Final = 1e-5
CONTROL: Final = 10 * TOLERANCE
"""What a wrong prompt must change at least; else an equality would prove nothing."""
PIECES: Final = 4
NEW_TOKENS: Final = 5
WINDOW: Final = 64
"""Of layers with sliding windows, where a prefix is tried: prefix, text and answer must fit into it."""
PADDING: Final = 9
"""An ordinary token, which changes the numbers where it is read."""

_TEXTS: Final = ((41, 33, 29, 52, 47, 38, 44), (36, 55, 31))
_ANSWERS: Final = ((61,), (63, 66))


class Fails(Exception):
    """A check that doesn't hold, for a reason that the page gives."""


@dataclass(frozen=True, slots=True)
class Case:
    """A loaded tiny model, and the same as transformers reads it."""

    kind: str  # a family of the table of tiny models
    name: str
    folder: Path
    backbone: Backbone
    plain: PlainModel

    @property
    def scoring(self) -> Scoring:
        """By the family's own loss."""
        return Scoring(self.backbone.default_loss, "sum")

    def texts(self) -> list[Text]:
        """Token ids with what the family puts into them; each text has another right answer."""
        texts = []
        for gold, text in enumerate(_TEXTS):
            slot = (self.plain.mask,) if self.plain.family == "masked" else ()
            begin = (self.backbone.tokenizer.cls_token_id,) if self.plain.leading else ()
            texts.append(Text((*begin, *text[:2], *slot, *text[2:]), _ANSWERS, gold))
        return texts

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """The same as softprune has them."""
        is_masked = self.plain.family == "masked"
        return [Encoded(t.ids, t.ids.index(self.plain.mask) if is_masked else -1, t.answers, t.gold) for t in texts]

    def batch(self, texts: Sequence[Text]) -> Batch:
        """The same, padded."""
        return collate(self.encode(texts), PADDING, self.backbone.device)

    def prompt(self) -> torch.Tensor:
        """The vectors `[P, H]` of the tokens that stand in for a prompt."""
        return self.backbone.embeddings_VH()[list(self.plain.prompt)]

    def losses(self, prompt_PH: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        """Of a batch of texts behind a prompt, `[B]`."""
        return self.backbone.losses(prompt_PH[None], self.batch(texts), self.scoring.loss, "sum")[0]


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def expect_equal(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Fail where two results differ by more than rounding."""
    gap = difference(found, expected)
    if not gap <= TOLERANCE:
        raise Fails(f"{what} differs by {gap:.1g}")


def expect_change(what: str, found: torch.Tensor, before: torch.Tensor) -> None:
    """Fail where something hardly changes."""
    if not difference(found, before) > CONTROL:
        raise Fails(f"{what} changes nothing")


def load(kind: str, name: str, folder: Path, window: int | None = None) -> Case:
    """Build a tiny model and load it; of a wrapper, transformers reads the whole."""
    tiny.build(folder, kind, name, window)
    family = "causal" if kind == "wrapper" else kind
    backbone = load_backbone(str(folder), family=family, dtype="float32", device="cpu")
    model = backbone.model
    if kind == "wrapper":
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval().requires_grad_(False)
    start = backbone.stated_ids("decoder_start_token_id")[0] if family == "seq2seq" else 0  # type: ignore[attr-defined]
    mask = int(backbone.tokenizer.mask_token_id) if family == "masked" else 0
    return Case(kind, name, folder, backbone, PlainModel(model, family, tiny.PROMPT, backbone.leading, start, mask))


def check_tuning(case: Case) -> None:
    """Losses of a padded batch and of each text alone, and the prompt's gradient, are those of the plain forward."""
    texts = case.texts()
    plain_B, prompt_PH = case.plain.losses(texts), case.prompt().requires_grad_()
    losses_B = case.losses(prompt_PH, texts)
    expect_equal("the loss of a batch", losses_B, plain_B)
    alone = torch.cat([case.losses(prompt_PH, [text]) for text in texts])
    expect_equal("the loss of a text alone", alone, plain_B)
    (gradient_PH,) = torch.autograd.grad(losses_B.sum(), prompt_PH)
    expect_equal("the gradient", gradient_PH, plain_gradients(case).sum(0))
    expect_change("a prompt turned round", case.losses(-prompt_PH.flip(0), texts), plain_B)


def plain_gradients(case: Case) -> torch.Tensor:
    """By the prompt as softprune has it, `[B, P, H]`: some models multiply what they look up."""
    table_PH = case.plain.model.get_input_embeddings()(torch.tensor(case.plain.prompt))
    return case.plain.gradients(case.texts()) * float(table_PH.norm() / case.prompt().norm())


def check_pruning(case: Case) -> None:
    """Masks of tokens and pieces change the loss, and importance is that of the plain gradients."""
    texts, prompt_PH = case.texts(), case.prompt()
    with torch.no_grad():
        whole_B = case.losses(prompt_PH, texts)
        expect_change("a pruned token", case.losses(prompt_PH[1:], texts), whole_B)
        piece_PH = prompt_PH.clone()
        piece_PH[-1, : piece_PH.shape[1] // PIECES] = 0
        expect_change("a pruned piece", case.losses(piece_PH, texts), whole_B)
    examples = [Example(str(i), i, (), ("a", "b"), text.gold) for i, text in enumerate(texts)]
    data = ScoredSet(examples, case.encode(texts))
    found = paper.measure(case.backbone, prompt_PH, data, case.scoring, PIECES)
    product_BPS = (plain_gradients(case) * prompt_PH).unflatten(-1, (PIECES, -1)).sum(-1)
    expected = torch.cat([product_BPS.sum(-1).abs().mean(0)[:, None], product_BPS.abs().mean(0)], dim=1)
    expect_equal("importance", torch.cat([found.token_P[:, None], found.piece_PS], dim=1), expected)


def check_generation(case: Case) -> None:
    """Texts written in a padded batch are those of a greedy loop over the plain forward."""
    texts, backbone = case.texts(), case.backbone
    written = backbone.generate(case.prompt(), case.batch(texts), NEW_TOKENS)
    ends = backbone.end_ids()  # type: ignore[attr-defined]
    for text, found in zip(texts, written, strict=True):
        ids = torch.tensor([case.plain.write(text, NEW_TOKENS, ends)])
        (expected,) = backbone.decode_generated(ids)  # type: ignore[attr-defined]
        if found != expected:
            raise Fails(f"writes {found!r}, not {expected!r}")


_PEFT_CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "wrapper": transformers.AutoModelForImageTextToText,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
}


def check_export(case: Case) -> None:
    """Peft reads an exported prompt, whose vectors are no rows of the table, and gives softprune's losses."""
    from peft import PeftModel

    family, prompt_PH, texts = case.plain.family, 1.1 * case.prompt(), case.texts()
    if case.backbone.embedding_scale != 1:  # softprune.prompts.exports refuses it
        raise Fails("peft doesn't multiply a prompt as this model multiplies embeddings")
    out = case.folder / "exported"
    write_folder(out, adapter_files(prompt_PH, str(case.folder), family))
    with quiet():
        model = PeftModel.from_pretrained(_PEFT_CLASSES[case.kind].from_pretrained(case.folder), str(out)).eval()
    # peft's logits count the prompt of a decoder; its ids don't.
    plain = PlainModel(partial(peft_forward, model, family, prompt_PH.shape[0]), family, (), 0, case.plain.start)
    try:
        expect_equal("peft's loss", plain.losses(texts), case.losses(prompt_PH, texts))
    except (Fails, RuntimeError) as error:
        if getattr(case.backbone.model.config, "hidden_size_per_layer_input", None):
            reason = "peft gives a model vectors alone, and this model looks up a second embedding of every token"
            raise Fails(reason) from error
        raise


def peft_forward(model: Any, family: str, length: int, **given: Any) -> Any:
    """Peft's forward, whose logits then are those of the ids alone."""
    output = model(**given)
    if family == "causal":
        output.logits = output.logits[:, length:]
    return output


def check_prefix(case: Case) -> None:
    """Keys and values that a decoder has of real tokens, given as a prefix, are read as those tokens are.

    Other models see prefixes otherwise than tokens: there a batch is compared with each text alone.
    """
    family = case.plain.family
    reason = prefix_not_defined(case.backbone.model.config, family)
    if reason is not None:
        raise Fails(reason)
    case = load(case.kind, case.name, case.folder / "wide", WINDOW)
    backbone, texts, nothing = case.backbone, case.texts(), case.prompt()[:0]
    plan = AdapterPlan("p-tuning-v2", tokens=len(tiny.PROMPT))
    without_B, plain_B = case.losses(nothing, texts), case.plain.losses(texts)
    if family == "causal":
        prefix = stored_prefix(backbone, plan, {STORED: keys_values(backbone, tiny.PROMPT)})
        expect_equal("a prefix", case.losses(nothing, texts), plain_B)
    else:
        prefix = new_prefix(backbone, plan, seed=0)
        alone = torch.cat([case.losses(nothing, [text]) for text in texts])
        expect_equal("a batch behind a prefix", case.losses(nothing, texts), alone)
    found_B = case.losses(nothing, texts)
    expect_change("a prefix", found_B, without_B)
    gradients = torch.autograd.grad(found_B.sum(), list(prefix.named().values()))
    if not all(bool(gradient.abs().max() > 0) for gradient in gradients):
        raise Fails("a prefix gets no gradient")


@torch.no_grad()
def keys_values(backbone: Backbone, ids: Sequence[int]) -> torch.Tensor:
    """What a decoder keeps of some tokens, `[P, L * 2 * heads * D]` as a prefix stores it."""
    cache = empty_cache(backbone)
    backbone.trunk(input_ids=torch.tensor([list(ids)]), past_key_values=cache, use_cache=True)
    both = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]  # [2, heads, P, D] each
    return torch.stack(both).permute(3, 0, 1, 2, 4).flatten(1).contiguous()


def check_token_pruning(case: Case) -> None:
    """The encoder, run layer by layer by softprune, classifies as transformers does."""
    config = tiny.configuration(case.kind, case.name, num_labels=3)
    if config.model_type not in FAMILIES:
        raise Fails("softprune runs an encoder's layers itself to prune tokens, and has no such ones")
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    texts = [text.ids for text in case.texts()]
    with torch.no_grad():
        plain = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in texts])
        expect_equal("a classifier", forward(Encoder(model), pack(texts), KeepAll(), Convention()).logits_BC, plain)


COLUMNS: Final[dict[str, tuple[Callable[[Case], None], tuple[str, ...]]]] = {
    "tune": (check_tuning, ("causal", "seq2seq", "masked", "sentence")),
    "prune": (check_pruning, ("causal", "seq2seq", "masked", "sentence")),
    "generate": (check_generation, ("causal", "seq2seq")),
    "export": (check_export, ("causal", "seq2seq")),
    "prefix": (check_prefix, ("causal", "seq2seq", "masked", "sentence")),
    "token pruning": (check_token_pruning, ("masked", "sentence")),
}
"""What is checked, and of which families; to the others it means nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came out for one model: by column None for yes, "" for what means nothing there, or the reason why not."""

    name: str
    family: str
    reasons: dict[str, str | None]


def shown_family(kind: str) -> str:
    """The family as the page has it."""
    return "causal, in a wrapper" if kind == "wrapper" else kind


def check(kind: str, name: str, columns: Sequence[str] = tuple(COLUMNS)) -> Row:
    """All checks of one tiny model. Where it can't be loaded, no column says yes."""
    family = "causal" if kind == "wrapper" else kind
    shown = shown_family(kind)
    reasons: dict[str, str | None] = dict.fromkeys(columns, "")
    with tempfile.TemporaryDirectory() as folder:
        try:
            case = load(kind, name, Path(folder))
        except SoftpruneError as error:
            return Row(name, shown, reasons | {"tune": f"refused at load: {error.found}"})
        for column in columns:
            run, families = COLUMNS[column]
            if family in families:
                reasons[column] = why_not(run, case)
    return Row(name, shown, reasons)


def why_not(run: Callable[[Case], None], case: Case) -> str | None:
    """Why a check fails; None where it holds."""
    try:
        run(case)
    except Fails as error:
        reason = str(error)
    except SoftpruneError as error:
        reason = f"it takes {error.expected}; found {error.found}"
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    else:
        return None
    return reason.replace(f'"{case.backbone.model.config.model_type}"', "this model")


def render(rows: Sequence[Row]) -> str:
    """The table and its footnotes; the same reason is given once."""
    notes: dict[str, int] = {}
    lines = [f"| model | family | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 2)}"]
    for row in rows:
        cells = []
        for column in COLUMNS:
            reason = row.reasons.get(column, "")
            if not reason:
                cells.append("yes" if reason is None else "–")
                continue
            reason = reason.replace(f'"{row.name.partition(" ")[0]}"', "this model")
            cells.append(f"no [{notes.setdefault(reason, len(notes) + 1)}]")
        lines.append(f"| {row.name} | {row.family} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {reason}" for reason, number in notes.items())]
    return "\n".join(lines) + "\n"


def make_table() -> str:
    """Check every tiny model, and render the table."""
    every = [(kind, name) for kind, models in tiny.FAMILIES.items() for name in models]
    return render([check(kind, name) for kind, name in every])


def main(words: Sequence[str] | None = None) -> int:
    """Check what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="models to check; all without any")
    parser.add_argument("--write", action="store_true", help="write the table into docs/models.md")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    if given.names:
        chosen = [(kind, n) for kind, models in tiny.FAMILIES.items() for n in models if n in given.names]
        print(render([check(kind, name) for kind, name in chosen]), end="")
        return 0
    by_hand, _, table = PAGE.read_text(encoding="utf-8").partition(MARK)
    found = "\n" + make_table()
    if given.write:
        PAGE.write_text(by_hand + MARK + found, encoding="utf-8")
        return 0
    if found != table:
        print(found)
        print(f"{PAGE} says otherwise; --write writes this into it", file=sys.stderr)
    return int(found != table)


if __name__ == "__main__":
    raise SystemExit(main())
