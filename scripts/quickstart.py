"""softprune from Python: tune, prune, look, use. About 20 seconds on two cores; nothing is downloaded.

python scripts/quickstart.py [FOLDER]
"""

import sys
from pathlib import Path

import rich

from softprune import Ticket, load_backbone, load_task, predict, tune, xprompt
from softprune.report import comparison_table, write_report

runs = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")

# A task: what its examples look like.
task = load_task("demo")
examples = task.load().train or ()
print(examples[0].text, "->", ", ".join(examples[0].answers))

# A recipe: a shipped name, a YAML file, or its keys. Whatever isn't named keeps its default.
recipe = {
    "task": {"id": "demo", "shots": 80, "limit_report": 100},
    "tuning": {"epochs": 4},
    "search": {"strategy": "grid", "token_ratios": [0.5], "piece_ratios": [0.3, 0.6]},
    "selection": {"seeds": 0},  # 3 where the answer matters
}
tuned = tune(recipe, runs / "quickstart-tuned")  # a prompt, nothing pruned
pruned = xprompt(recipe, runs / "quickstart")  # its winning ticket, and the honest comparison

# What came of it, in the terminal and as a page.
write_report(pruned)
rich.print(comparison_table(pruned))

# The ticket: vectors, mask, and what they belong to.
ticket = Ticket.load(pruned)
print(f"{ticket.info.tokens} of {ticket.info.prompt_tokens} tokens, prompt of shape {list(ticket.prompt().shape)}")

# New rows, one ticket; then each row behind its own of several, in one batch.
backbone = load_backbone("tiny")
rows = [{"text": "my parcel never arrived"}, {"text": "the invoice shows a wrong total"}]
for answer in predict(ticket, rows, backbone=backbone):
    print(f"{answer.answer} ({answer.probability:.2f}): {answer.row['text']}")
both = {"whole": Ticket.load(tuned), "pruned": ticket}
for answer in predict(both, [{**rows[0], "prompt": name} for name in both], backbone=backbone):
    print(f"{answer.prompt}: {answer.answer}")
