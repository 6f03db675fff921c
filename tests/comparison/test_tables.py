"""What the tables show of measured and of missing numbers, in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from comparisons import NOTHING, floor, found, row
from rich.console import Console

from records import run_document
from softprune.data import metric_named
from softprune.runs.comparison_record import ComparisonRecord
from softprune.studies.comparison import columns
from softprune.studies.comparison.columns import build_sections, measured
from softprune.studies.comparison.rows import TableRow, build_rows
from softprune.studies.comparison.texts import csv_text, latex_tables, markdown, rich_text
from softprune.studies.run_result import FinishedRun

REFUSED = {"ia3": "no such modules"}
RESULT = {"metric": "accuracy", "value": 0.5}


def shown(made: ComparisonRecord, table: int, name: str) -> dict[str, str]:
    """A row of a table by its headings."""
    section = build_sections(made)[table]
    (at,) = [at for at, row in enumerate(section.rows) if row.name == name]
    return dict(zip(section.table.columns, map(str, section.table.rows[at]), strict=True))


def terminal(made: ComparisonRecord, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(rich_text(made))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_what_a_method_gives() -> None:
    assert shown(found(), 0, "lora") == {
        "method": "lora",
        "accuracy (%)": "90.0",
        "sd": "1.4",
        "95% interval": "88.0 to 93.0",
        "minus prompt": "+10.0",
        "its 95% interval": "-1.2 to +20.0",
    }
    assert shown(found(), 0, "prompt")["minus prompt"] == "–"
    assert shown(found(), 0, "zero_shot")["method"] == "zero-shot, nothing trained"


def covered(**changes: Any) -> ComparisonRecord:
    """A comparison over three seeds, whose intervals cover them."""
    less = {"against": "prompt", "value": -0.101, "low": -0.151, "high": -0.051, "p": 0.002, "p_holm": 0.0041}
    rows = [
        row("p-tuning-v2", 0.7, covers_seeds=True, difference=less | {"covers_seeds": True}),
        row("prompt", 0.8, covers_seeds=True, difference=None),
    ]
    return found(seeds=[0, 1, 2], rows=rows, **changes)


def test_what_intervals_cover_is_said_in_every_form() -> None:
    """Over three seeds with Holm's p-values; over two for these very prompts, without any p-value."""
    many, few = covered(), found()
    assert shown(many, 0, "p-tuning-v2")["p (Holm)"] == "0.004"
    assert shown(many, 0, "prompt")["p (Holm)"] == "–"
    for text in (markdown(many), " ".join(terminal(many).split()), latex_tables(many)):
        assert "over runs with other seeds and over other examples" in text
        assert "no verdict" not in text
    for text in (markdown(few), " ".join(terminal(few).split()), latex_tables(few)):
        assert "for these very trained prompts: fewer than 3 seeds allow no verdict" in text
        assert "Holm" not in text
    (line,) = [each for each in csv.DictReader(io.StringIO(csv_text(many))) if each["name"] == "p-tuning-v2"]
    assert (line["difference_p"], line["difference_p_holm"]) == ("0.002", "0.0041")


def test_what_it_took_and_takes() -> None:
    took = {
        "method": "lora",
        "learning rate": "0.0005",
        "swept": "no",
        "trainable": "294,912",
        "s/epoch": "4.57",
        "training (s)": "123",
        "examples/s": "1,234",
        "peak memory": "3.0 GiB",
    }
    takes = {"method": "lora", "stored": "147,456", "prompt tokens": "20"} | {
        f"latency ×, batch {size}": "1.50" for size in (1, 8, 32)
    }
    assert took.items() <= shown(found(), 1, "lora").items()
    assert takes.items() <= shown(found(), 2, "lora").items()
    assert shown(found(), 1, "prompt")["swept"] == "×0.3, ×1"
    with pytest.raises(ValueError, match="not enough values"):
        shown(found(), 1, "zero_shot")  # what nothing was trained for has no cost


def test_a_new_column_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads from runs goes into compare.json, comes back from there, and stands in every form of the table."""
    steps = measured("steps", "steps", "steps", "steps of training", lambda run, _: run.record.cost.steps, str)
    monkeypatch.setattr(columns, "TRAINING", (*columns.TRAINING, steps))
    for seed, number in enumerate((10, 21)):
        document = run_document(cost={"phases": {}, "steps": number}, results={"tuned": RESULT})
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "run.json").write_text(json.dumps(document))
    runs = [FinishedRun(tmp_path / str(seed), "demo", seed) for seed in (0, 1)]
    table_row = TableRow("prompt", "method", "tuned", runs)
    (built,) = build_rows([table_row], metric_named("accuracy"), seed=0, resamples=10)
    made = found(rows=[built.document()])
    assert made.rows[0].measured("steps") == 15.5
    assert shown(made, 1, "prompt")["steps"] == "15.5"
    assert next(csv.DictReader(io.StringIO(csv_text(made))))["steps"] == "15.5"
    assert all("15.5" in text for text in (markdown(made), latex_tables(made), terminal(made, width=160)))
    assert "15.5" not in markdown(found())


def test_rates_of_seeds_that_differ_all_stand_there() -> None:
    made = found(rows=[row("lora", 0.9, lr=[5e-4, 1.5e-3]), row("prompt", 0.8, lr=[0.1, None])])
    assert shown(made, 1, "lora")["learning rate"] == "0.0005, 0.0015"
    assert shown(made, 1, "prompt")["learning rate"] == "not measured"


def test_what_was_not_measured_says_so() -> None:
    costs = (
        "trainable",
        "stored",
        "tokens",
        "seconds",
        "seconds_per_epoch",
        "examples_per_second",
        "peak_memory",
        "latency",
    )
    bare = row("lora", 0.9, sd=None, interval=None, difference=None, values=[0.9], **dict.fromkeys(costs))
    made = found(rows=[bare, row("prompt", 0.8)])
    texts = shown(made, 0, "lora") | shown(made, 1, "lora") | shown(made, 2, "lora")
    measured = {"method": "lora", "accuracy (%)": "90.0", "sd": "–", "learning rate": "0.0005", "swept": "no"}
    assert {name: text for name, text in texts.items() if text != "not measured"} == measured


def test_what_does_not_apply_is_a_dash() -> None:
    copied = floor("constant", 0.2) | {"answer": "first 3 sentences", "others": NOTHING | {"rougeL": 0.2}}
    prompt = row("prompt", 0.3, others=NOTHING | {"rougeL": 0.3, "loss": 2.5})
    made = found(metric="rougeL", rows=[prompt, row("lora", 0.3, difference=None), copied])
    texts = shown(made, 0, "constant")
    assert [texts[name] for name in ("95% interval", "minus prompt", "its 95% interval", "loss")] == ["–"] * 4
    assert shown(made, 0, "lora")["minus prompt"] == shown(made, 0, "lora")["loss"] == "not measured"


def test_latency_has_columns_only_where_some_was_measured() -> None:
    rows = [row("lora", 0.9, latency=None), row("prompt", 0.8, latency=None)]
    assert not [name for name in shown(found(rows=rows), 2, "lora") if "latency" in name]
    some = found(rows=[rows[0], row("prompt", 0.8)])
    assert shown(some, 2, "lora")["latency ×, batch 8"] == "not measured"
    assert shown(some, 2, "prompt")["latency ×, batch 8"] == "1.50"


def test_one_seed_is_one() -> None:
    rouge = {"loss": 2.5, "rouge1": 0.31, "rouge2": 0.12, "rougeL": 0.25}
    rows = [row("prompt", 0.25, others=rouge)]
    for seeds, meaning in (([0], "of 1 seed"), ([0, 1], "mean over 2 seeds")):
        columns = build_sections(found(metric="rougeL", rows=rows, seeds=seeds))[0].columns
        assert {column.meaning for column in columns if "ROUGE" in column.heading} == {meaning}


def test_texts_have_their_loss_and_all_rouge() -> None:
    rouge = {"loss": 2.5, "rouge1": 0.31, "rouge2": 0.12, "rougeL": 0.25}
    made = found(metric="rougeL", rows=[row("prompt", 0.25, others=rouge), row("lora", 0.2, others=NOTHING)])
    assert {"loss": "2.500", "ROUGE-1 (%)": "31.0", "ROUGE-2 (%)": "12.0"}.items() <= shown(made, 0, "prompt").items()
    assert shown(made, 0, "lora")["loss"] == "not measured"
    assert shown(made, 0, "prompt")["ROUGE-L (%)"] == "25.0"
    assert "loss" not in shown(found(), 0, "prompt")


def test_what_is_copied_is_no_constant_answer() -> None:
    copied = floor("constant", 0.2) | {"answer": "first 3 sentences", "others": NOTHING | {"rougeL": 0.2}}
    assert (
        shown(found(rows=[row("prompt", 0.3), copied]), 0, "constant")["method"] == "the text's own first 3 sentences"
    )
    given = floor("constant", 0.2) | {"answer": "finance"}
    assert shown(found(rows=[row("prompt", 0.3), given]), 0, "constant")["method"] == "best constant answer"


def test_a_loss_is_no_percentage() -> None:
    made = found(metric="loss", rows=[row("prompt", -2.5, interval=[-2.6, -2.4]), row("lora", -2.0)])
    texts = shown(made, 0, "prompt")
    assert (texts["loss"], texts["95% interval"]) == ("-2.500", "-2.600 to -2.400")
    assert shown(made, 0, "lora")["minus prompt"] == "+0.100"


@pytest.mark.parametrize("made", [found(not_defined=REFUSED), covered(not_defined=REFUSED)])
def test_a_terminal_of_80_columns_has_room(made: ComparisonRecord) -> None:
    lines = [line.rstrip() for line in terminal(made).splitlines()]
    assert all(len(line) <= 80 for line in lines)
    words = " ".join(lines).split()
    for section in build_sections(made):
        assert all(str(text) in " ".join(words) for row in section.table.rows for text in row[1:])
    assert "ia3: not defined: no such modules" in lines
    assert f"Moods · tiny · {len(made.seeds)} seeds · n = 100" in lines


def test_texts_have_a_table_more_in_a_terminal_of_80_columns() -> None:
    rouge = {"loss": 2.5, "rouge1": 0.31, "rouge2": 0.12, "rougeL": 0.25}
    copied = floor("constant", 0.2) | {"answer": "first 3 sentences", "others": rouge}
    made = found(metric="rougeL", rows=[row("prompt", 0.25, others=rouge), row("p-tuning-v2", 0.2), copied])
    lines = [line.rstrip() for line in terminal(made).splitlines()]
    assert all(len(line) <= 80 for line in lines)
    at = lines.index("Loss and further ROUGE")
    assert lines[at + 1].split() == ["method", "loss", "ROUGE-1", "(%)", "ROUGE-2", "(%)"]
    assert lines[at + 2].split() == ["prompt", "2.500", "31.0", "12.0"]
    assert "| method | ROUGE-L (%) | sd | 95% interval |" in markdown(made)
    assert "| loss | ROUGE-1 (%) | ROUGE-2 (%) |" in markdown(made)
    assert "Loss and further ROUGE" not in markdown(made) + latex_tables(made) + terminal(found())


def test_csv_has_every_number_unrounded() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(found(not_defined={"ia3": 'a, "b"\nc'})))))
    assert [line["name"] for line in lines] == ["lora", "prompt", "zero_shot", "ia3"]
    assert (float(lines[0]["mean"]), float(lines[0]["low"]), float(lines[0]["sd"])) == (0.9, 0.88, 0.0141)
    assert (lines[0]["difference_against"], float(lines[0]["difference_p"])) == ("prompt", 0.04)
    assert (lines[0]["values"], lines[0]["lr"], lines[1]["swept"]) == ("0.89 0.91", "0.0005 0.0005", "0.3 1")
    assert float(lines[0]["latency_8_ratio"]) == 1.5
    assert (lines[2]["trainable"], lines[2]["low"]) == ("", "")
    assert (lines[3]["kind"], lines[3]["reason"], lines[3]["mean"]) == ("not defined", 'a, "b"\nc', "")


def test_markdown_is_a_table_whatever_the_names_are() -> None:
    made = found(task="a|b *c* <d>", not_defined={"ia3": "x | y"})
    lines = markdown(made).splitlines()
    assert r"a\|b \*c\* \<d>" in lines[0]
    assert r"- ia3: not defined: x \| y" in lines
    table = [line for line in lines if line.startswith("|")]
    widths = [len(line.replace(r"\|", "").split("|")) - 2 for line in table]
    wanted: list[int] = []
    for section in build_sections(made):
        wanted += [1 + len(section.columns)] * (2 + len(section.rows))  # the head and the rule are lines too
    assert widths == wanted
    assert "| lora | 90.0 | 1.4 | 88.0 to 93.0 | +10.0 | -1.2 to +20.0 |" in table


def test_latex_is_escaped_and_whole() -> None:
    text = latex_tables(found(task="50% & $x_1$ {~^\\}", not_defined={"ia3": "a_b"}))
    assert r"% 50\% \& \$x\_1\$ \{\textasciitilde{}\textasciicircum{}\textbackslash{}\} · tiny" in text
    assert r"% ia3: not defined: a\_b" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 3
    assert r"lora & 90.0 & 1.4 & 88.0 to 93.0 & +10.0 & $-$1.2 to +20.0 \\" in text
    assert text.count("\\end{tabular}\n\n\\begin{tabular}") == 2
    assert r"latency $\times$, batch 8" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    wanted = {len(section.columns) for section in build_sections(found())}
    assert {line.replace(r"\&", "").count("&") for line in body} == wanted


def test_latex_has_minus_signs_before_numbers_alone() -> None:
    text = latex_tables(
        found(metric="loss", rows=[row("prompt", -2.5, interval=[-2.6, -2.4]), row("p-tuning-v2", -2.0)])
    )
    assert "prompt & $-$2.500 & 0.014 & $-$2.600 to $-$2.400 &" in text
    assert "p-tuning-v2 & $-$2.000" in text
    assert "5e-05" in latex_tables(found(rows=[row("prompt", 0.8, lr=[5e-5, 5e-5])]))


def test_csv_writes_counts_as_integers() -> None:
    made = found(rows=[row("lora", 0.9, trainable=294_912.0, peak_memory=1e9), row("prompt", 1.0, stored=10.5)])
    lora, prompt = csv.DictReader(io.StringIO(csv_text(made)))
    assert (lora["trainable"], lora["stored"], lora["peak_memory_bytes"]) == ("294912", "147456", "1000000000")
    assert (prompt["stored"], prompt["mean"]) == ("10.5", "1.0")  # a mean of counts that differ, and a score


def test_control_signs_reach_no_terminal() -> None:
    made = found(task="\x1b[31mred", rows=[floor("zero_shot", 0.5)], reference="prompt")
    assert "\x1b" not in terminal(made)
    assert "\x1b" not in markdown(made)
