"""README files that go with a prompt: what it is, what it needs, how it is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from softprune.data.multitask import TASK
from softprune.models.loading import BUNDLED
from softprune.printable import code_block, code_span, markdown_text, one_line

if TYPE_CHECKING:
    from softprune.prompts.ticket import Reported, Ticket

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_CLASSES = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM"}


def ticket_card(ticket: Ticket, repo_id: str) -> str:
    """The model card of a ticket on the hub."""
    part = next(iter(ticket.definition.parts), None)
    told = {} if part is None else {TASK: part.id}
    row = told | dict.fromkeys((part or ticket.definition).fields, "...")
    code = (
        "from softprune import Ticket, predict",
        f"ticket = Ticket.load({_text(repo_id)})",
        f"rows = [{row}]",
        f"for found in predict(ticket, rows):  # loads {one_line(ticket.info.backbone)}, and checks that it fits",
        "    print(found.answer, found.row)",
    )
    return _card(ticket, "softprune", f"Soft prompt for {ticket.definition.title}", code)


def peft_card(ticket: Ticket, folder: str) -> str:
    """The card of an exported peft adapter."""
    title = f"Soft prompt for {ticket.definition.title}, a peft adapter"
    return _card(ticket, "peft", title, peft_code(ticket, folder))


def vectors_card(ticket: Ticket, folder: str) -> str:
    """The card of an exported safetensors prompt."""
    title = f"Soft prompt for {ticket.definition.title}, vectors"
    return _card(ticket, "softprune", title, vectors_code(ticket, folder))


def peft_code(ticket: Ticket, folder: str) -> tuple[str, ...]:
    """Three lines that load an adapter onto its backbone."""
    name = _CLASSES[ticket.info.family]
    return (
        f"from peft import PeftModel; from transformers import {name}",
        f"backbone = {name}.from_pretrained({_text(ticket.info.backbone)})",
        f"model = PeftModel.from_pretrained(backbone, {_text(folder)})",
    )


def vectors_code(ticket: Ticket, folder: str) -> tuple[str, ...]:
    """Three lines that put the vectors before (the embeddings of) one batch."""
    info, at = ticket.info, ticket.info.leading
    embeds = f"embeds[:, :{at}], prompt, embeds[:, {at}:]" if at else "prompt, embeds"
    place = "behind CLS" if at else "before the input; one in the attention mask"
    scaled = "" if info.embedding_scale == 1 else f" * {info.embedding_scale!r}"
    path = _text(f"{folder}/prompt.safetensors")
    return (
        f'import torch; from safetensors.torch import load_file; prompt = load_file({path})["prompt_embeddings"]',
        f"embeds = model.get_input_embeddings()(input_ids){scaled}; "
        "prompt = prompt.to(embeds).expand(len(embeds), -1, -1)",
        f"inputs_embeds = torch.cat([{embeds}], dim=1)  # {place}",
    )


def _card(ticket: Ticket, library: str, title: str, code: Sequence[str]) -> str:
    front: dict[str, Any] = {"library_name": library, "tags": ["soft-prompt", "prompt-tuning", "softprune"]}
    if _on_hub(ticket.info.backbone):
        front["base_model"] = ticket.info.backbone
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(ticket).items())
    lines = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {markdown_text(title)}",
        "Vectors that a frozen language model reads with its input, made with softprune (prompt tuning, XPrompt). "
        "They fit this backbone and this template alone.",
        f"| | |\n|---|---|\n{rows}",
        f"Template:\n\n{code_block(ticket.definition.template, 'text')}",
        code_block("\n".join(code), "python"),
    )
    return "\n\n".join(lines) + "\n"


def _facts(ticket: Ticket) -> dict[str, str]:
    info, definition = ticket.info, ticket.definition
    return {
        "backbone": f"{code_span(info.backbone)} ({info.family}), weights {code_span(info.fingerprint)}",
        "task": f"{code_span(info.task)} version {info.task_version}: "
        f"{markdown_text(definition.instruction or definition.title)}",
        "tokens": f"{info.tokens} of {info.prompt_tokens}{_removed(ticket)}",
        "pieces": f"{info.pieces} of {info.prompt_tokens * info.pieces_per_token}",
        "parameters": f"{info.parameters:,} of {info.prompt_tokens * info.hidden:,}",
        **_scores(ticket),
        "answers": f"written, up to {info.max_answer_length} tokens"
        if definition.is_generation
        else ", ".join(map(code_span, definition.answers)),
    }


def _scores(ticket: Ticket) -> dict[str, str]:
    """What it reached where nothing was chosen, beside what it must be held against."""
    metric, select = ticket.definition.metric, ticket.info.select
    if not ticket.results:
        value = (
            f"loss {-(select or 0.0):.3f}"
            if ticket.definition.is_generation
            else f"{100 * (select or 0.0):.1f}% {metric}"
        )
        return {"score": "not measured" if select is None else f"{value} on `select`, which it was chosen on"}
    own = next(iter(ticket.results))
    bar = "the input's own first sentences" if ticket.definition.is_generation else "best constant answer"
    labels = {own: "score", "control": "the unpruned prompt, trained as long", "constant": bar}
    return {label: _measured(ticket.results[name], metric) for name, label in labels.items() if name in ticket.results}


def _measured(row: Reported, metric: str) -> str:
    low, high = row.interval
    return f"{100 * row.value:.1f}% {metric} (95% interval {100 * low:.1f} to {100 * high:.1f}) on {row.n:,} examples"


def _removed(ticket: Ticket) -> str:
    if ticket.info.tokens == ticket.info.prompt_tokens:
        return ""
    return ", the others left out" if ticket.info.removal == "drop" else ", the others zeros in their places"


def _on_hub(name: str) -> bool:
    return name not in BUNDLED and _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _text(value: str) -> str:
    """A text as Python writes it, in double quotes where that is possible."""
    return repr(value) if '"' in value or "\\" in value or not value.isprintable() else f'"{value}"'
