"""README files that go with a prompt: what it is, what it needs, how it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from softprune.data.definition import TASK, Definition
from softprune.data.metrics import ExactMatch
from softprune.models.load_errors import BUNDLED
from softprune.printable import code_block, code_span, markdown_text, one_line

if TYPE_CHECKING:
    from softprune.prompts.ticket import Reported, Ticket, TicketInfo

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_CLASSES = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM"}


def model_card(ticket: Ticket, *, library: str, title: str, code: Sequence[str]) -> str:
    """The README of a ticket on the hub, of an exported adapter, or of exported vectors.

    `library` is what loads it, as the hub calls it; `code` are Python lines that use it.
    """
    info, definition = ticket.info, ticket.definition
    front: dict[str, Any] = {"library_name": library, "tags": ["soft-prompt", "prompt-tuning", "softprune"]}
    # A path of this machine, or a model that comes with softprune, is no name on the hub.
    if info.backbone not in BUNDLED and _HUB_NAME.fullmatch(info.backbone) and not Path(info.backbone).exists():
        front["base_model"] = info.backbone
    tokens = f"{info.tokens} of {info.prompt_tokens}"
    if info.tokens != info.prompt_tokens:
        tokens += ", the others left out" if info.removal == "drop" else ", the others zeros in their places"
    purpose = markdown_text(definition.instruction or definition.title)
    answers = f"written, up to {info.max_answer_length} tokens"
    if not definition.is_generation:
        answers = ", ".join(map(code_span, definition.answers))
    facts = {
        "backbone": f"{code_span(info.backbone)} ({info.family}), weights {code_span(info.fingerprint)}",
        "task": f"{code_span(info.task)} version {info.task_version}: {purpose}",
        "tokens": tokens,
        "pieces": f"{info.pieces} of {info.prompt_tokens * info.pieces_per_token}",
        "parameters": f"{info.parameters:,} of {info.prompt_tokens * info.hidden:,}",
        **_scores(info, definition, ticket.results),
        "answers": answers,
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    lines = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {markdown_text(title)}",
        "Vectors that a frozen language model reads with its input, made with softprune (prompt tuning, XPrompt). "
        "They fit this backbone and this template alone.",
        f"| | |\n|---|---|\n{rows}",
        f"Template{' (a user turn of a conversation)' * bool(definition.chat)}:\n\n"
        f"{code_block(definition.template, 'text')}",
        code_block("\n".join(code), "python"),
    )
    return "\n\n".join(lines) + "\n"


def _scores(info: TicketInfo, definition: Definition, results: Mapping[str, Reported]) -> dict[str, str]:
    """What it reached where nothing was chosen, beside what it must be compared with."""
    if not results:  # the run was cut off before it reported: all that is known is how it was chosen
        if info.select is None:
            return {"score": "not measured"}
        value = f"{100 * info.select:.1f}% {definition.metric}"
        if definition.is_generation:
            value = f"loss {-info.select:.3f}"
        return {"score": f"{value} on `select`, which it was chosen on"}
    own = next(iter(results))
    is_copied = definition.is_generation and definition.metric != ExactMatch.name
    bar = "the input's own first sentences" if is_copied else "best constant answer"
    labels = {own: "score", "control": "the unpruned prompt, trained as long", "constant": bar}
    scores = {}
    for name, label in labels.items():
        if name in results:
            row = results[name]
            low, high = row.interval
            interval = f"95% interval {100 * low:.1f} to {100 * high:.1f}"
            scores[label] = f"{100 * row.value:.1f}% {definition.metric} ({interval}) on {row.n:,} examples"
    return scores


def ticket_code(ticket: Ticket, repo_id: str) -> tuple[str, ...]:
    """Lines that load a ticket from the hub and answer a row."""
    row, definition = {}, ticket.definition
    if definition.parts:
        row[TASK] = definition.parts[0].id
        definition = definition.parts[0]
    row |= dict.fromkeys(definition.fields, "...")
    return (
        "from softprune import Ticket, predict",
        f"ticket = Ticket.load({_quoted(repo_id)})",
        f"rows = [{row}]",
        f"for found in predict(ticket, rows):  # loads {one_line(ticket.info.backbone)}, and checks that it fits",
        "    print(found.answer, found.row)",
    )


def peft_code(info: TicketInfo, folder: str) -> tuple[str, ...]:
    """Three lines that load an adapter onto its backbone."""
    name = _CLASSES[info.family]
    other = "  # AutoModelForImageTextToText where it also sees or hears" if info.family == "causal" else ""
    return (
        f"from peft import PeftModel; from transformers import {name}",
        f"backbone = {name}.from_pretrained({_quoted(info.backbone)}){other}",
        f"model = PeftModel.from_pretrained(backbone, {_quoted(folder)})",
    )


def vectors_code(info: TicketInfo, folder: str) -> tuple[str, ...]:
    """Three lines that put the vectors before (the embeddings of) one batch."""
    embeds, place = "prompt, embeds", "before the input; one in the attention mask"
    if at := info.leading:
        embeds, place = f"embeds[:, :{at}], prompt, embeds[:, {at}:]", "behind CLS"
        if at > 1:
            place = f"behind the {at} tokens that open the system's turn"
    scaled = "" if info.embedding_scale == 1 else f" * {info.embedding_scale!r}"
    path = _quoted(f"{folder}/prompt.safetensors")
    return (
        f'import torch; from safetensors.torch import load_file; prompt = load_file({path})["prompt_embeddings"]',
        f"embeds = model.get_input_embeddings()(input_ids){scaled}; "
        "prompt = prompt.to(embeds).expand(len(embeds), -1, -1)",
        f"inputs_embeds = torch.cat([{embeds}], dim=1)  # {place}",
    )


def _quoted(value: str) -> str:
    """A text as Python writes it, in double quotes where that is possible."""
    return repr(value) if '"' in value or "\\" in value or not value.isprintable() else f'"{value}"'
