from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from softprune.report import write_report
from softprune.report.page import changed_answers
from softprune.report.page import html as page_of
from softprune.report.run_reader import Prediction, read_run

pytestmark = pytest.mark.slow

Edit = Callable[..., None]


class Reader(HTMLParser):
    """Text that a reader sees, tags, and what attributes load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag in ("style", "script")
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


def read_page(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", " ".join(read_page(text).text))


def of(folder: Path) -> str:
    """The page's words without its pictures; quick."""
    return plain(page_of(read_run(folder), []))


def test_the_page_is_where_it_is_said_to_be(written: Path) -> None:
    assert (written / "report" / "index.html").is_file()
    assert not list(written.rglob("*.tmp"))


@pytest.mark.parametrize(
    "fact",
    [
        "tiny-t5",
        "22,713,216 parameters",
        "Recognising textual entailment",
        "Say whether the first text means the second.",
        "20 trained vectors with 64 dimensions",
        "16 pieces",
        "removal: drop",
        "Trained on 1,993 examples. Choices were made on 497 ( select ); 277 were scored once, at the end ( report ).",
        "made by the template premise: {premise} question: {hypothesis} {mask} ; the first one trained on reads:",
        "premise: It rained. question: It was wet.",
        "starting from “vocabulary” (embeddings of common words)",
        "16 pieces, equal parts of a token's numbers",
        "the method “paper” (equations 3 and 5 of XPrompt, arXiv 2210.04457)",
        "rank (cross-entropy over the answers' scores)",
        "score (the answer that scores highest)",
        "Winner minus a random mask of its size: +15.7 points (+11.2 to +20.3): the mask is better.",
        "95% interval +11.2 to +20.3, p 0.032",
        "13 examples were too long and lost 402 tokens",
        "no difference shown.",
        "keeps 14 of 20 tokens and 112 pieces: 448 parameters, 35.0% of the prompt",
        "+1.6 points",
        "95% interval -0.8 to +4.1",
        "over 3 fresh seeds",
        "The smallest difference that 80% power would detect: 4.9 points.",
        "p 0.234",
        "14 examples right under the winner only, 9 under the control only, p 0.405",
        "the smallest ticket within one standard error of the best on select, among 72 candidates",
        "5,417 seconds",
        "grid 5,210",
        "11,250",
        "321.5",
        "1.5 GiB",
        "torch 2.13.0+cpu",
        "c331b96fdf318bde",
        "softprune xprompt rte.yaml prompt.tokens=20",
        "best_by: score",
        "labels of the test split are hidden",
        "a note of the run",
        "71.2 ± 0.5 (3)",
        "yes 156, no 121",
        "t0.1-p0.9",
    ],
)
def test_the_page_tells(written: Path, fact: str) -> None:
    assert fact in plain((written / "report" / "index.html").read_text())


def test_every_result_is_on_the_page(written: Path) -> None:
    shown = plain((written / "report" / "index.html").read_text())
    for result in json.loads((written / "run.json").read_text())["results"].values():
        low, high = result["interval"]
        assert f"{100 * result['value']:.1f}" in shown
        assert f"{100 * low:.1f} to {100 * high:.1f}" in shown


def test_every_candidate_is_on_the_page(written: Path) -> None:
    shown = plain((written / "report" / "index.html").read_text())
    for candidate in read_run(written).candidates:
        assert candidate.id in shown
        if candidate.select is not None:
            assert f"{100 * candidate.select:.1f}" in shown


def test_nothing_is_loaded_from_elsewhere(written: Path) -> None:
    text = (written / "report" / "index.html").read_text()
    reader = read_page(text)
    assert len(reader.loads) == 16  # eight figures, light and dark
    assert all(address.startswith("data:image/png;base64,") for address in reader.loads)
    assert not {"link", "iframe", "object"} & set(reader.tags)
    # plotly.js has addresses of maps in it, which no page asks for; the policy wouldn't let it.
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?:|url\(|@import", shown)
    assert "default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; img-src data: blob:; script-src" in shown
    assert "connect-src" not in shown


def test_the_policy_lets_run_what_is_ours_and_nothing_else(written: Path) -> None:
    text = (written / "report" / "index.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"&#39;sha256-(.*?)&#39;", text) == hashes
    assert len(hashes) == 3  # plotly, what pages share, the run page's own
    assert len(re.findall("<script", text)) == len(hashes) + len(re.findall('<script type="application/json"', text))


def test_hostile_text_shows_as_text(xprompt_run: Path, edit: Edit) -> None:
    attack = "<script>alert(1)</script>"

    def poison(info: dict[str, dict[str, object]]) -> None:
        info["task"].update(title=attack, instruction=attack, answers=[attack], notes=[attack])
        info["task"].update(template=attack, sample=attack)
        info["backbone"].update(name='"><img src=x onerror=alert(1)>')
        info["headline"].update(sentence=attack, random_sentence=attack)
        info["results"]["winner"].update(predicted={attack: 3})
        info.update(command=attack, error=attack)

    edit(xprompt_run, poison)
    (xprompt_run / "resolved.yaml").write_text(attack)
    text = page_of(read_run(xprompt_run), [])
    assert read_page(text).tags.count("script") == len(
        re.findall(r'<script( type="application/json" id="data-\w+")?>', text)
    )
    assert attack not in text
    assert "img" not in read_page(text).tags
    assert text.count(html.escape(attack)) >= 12
    assert "Passage 4. <script>alert('x')</script>" in plain(text)


def test_light_and_dark_and_phones(written: Path) -> None:
    text = (written / "report" / "index.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("importance.safetensors", "The tokens' importance: not measured."),
        ("ticket/ticket.json", "The winning ticket: not measured."),
        ("candidates.jsonl", "Candidates: not measured."),
        ("metrics.jsonl", "The training curves: not measured."),
        ("predictions/winner.jsonl", "Answers of control and winner: not measured."),
    ],
)
def test_a_missing_part_is_said_to_be_not_measured(xprompt_run: Path, name: str, words: str) -> None:
    (xprompt_run / name).unlink()
    from softprune.report.figures import plan_figures
    from softprune.report.mpl_style import Picture

    run = read_run(xprompt_run)
    gaps = [Picture(plan) for plan in plan_figures(run) if plan.draw is None]
    shown = plain(page_of(run, gaps))
    assert words in shown


def test_a_run_that_has_only_begun_has_a_page(xprompt_run: Path, edit: Edit) -> None:
    nothing: dict[str, object] = {"tokens": None, "pieces": None, "parameters": None}

    def begin(info: dict[str, object]) -> None:
        for key in ("headline", "prompt", "importance"):
            info[key] = None
        info.update(selection=None, results=dict.fromkeys(info["results"]), ticket=nothing)

    edit(xprompt_run, begin)
    for path in ("candidates.jsonl", "importance.safetensors", "metrics.jsonl", "ticket/ticket.json"):
        (xprompt_run / path).unlink()
    shown = plain(write_report(xprompt_run).read_text())
    assert "This run has no results yet." in shown
    assert "Winner against control: not measured." in shown
    assert "None" not in shown
    assert not list((xprompt_run / "report").rglob("*.png"))


def test_figures_of_an_earlier_report_do_not_stay(xprompt_run: Path) -> None:
    stale = xprompt_run / "report" / "figures" / "training.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    for name in ("candidates.jsonl", "importance.safetensors", "metrics.jsonl", "ticket/ticket.json"):
        (xprompt_run / name).unlink()
    write_report(xprompt_run)
    assert not stale.exists()


def test_the_papers_protocol_claims_nothing(xprompt_run: Path, edit: Edit) -> None:
    def to_paper(info: dict[str, dict[str, object]]) -> None:
        info["selection"].update(protocol="paper", objective="best")
        info["headline"].update(significance_claimed=False)

    edit(xprompt_run, to_paper)
    shown = of(xprompt_run)
    assert "Chosen from 72 candidates on this set; no significance claimed." in shown
    assert "0.234" not in shown
    assert "0.405" not in shown
    assert "0.032" not in shown
    assert "on the same 277 ( select and report )" in shown
    assert "scored once" not in shown


def test_a_run_of_an_earlier_version_has_a_page(xprompt_run: Path, edit: Edit) -> None:
    def forget(info: dict[str, dict[str, object]]) -> None:
        for part, names in {"task": ("template", "sample"), "headline": ("random", "random_sentence")}.items():
            for name in names:
                del info[part][name]

    edit(xprompt_run, forget)
    shown = of(xprompt_run)
    for absent in ("template", "random mask of its size", "Winner minus random mask"):
        assert absent not in shown
    assert "no difference shown." in shown


def test_a_note_is_told_once(xprompt_run: Path, edit: Edit) -> None:
    note = "validation is 277 of the 2,490 training examples"

    def tell(info: dict[str, dict[str, object]]) -> None:
        info["selection"].update(description=f"held-out: train 1993; {note}")
        info.update(notes=[note, "another note"])

    edit(xprompt_run, tell)
    shown = of(xprompt_run)
    assert shown.count(note) == 1
    assert shown.count("another note") == 1


def test_a_long_sample_is_cut(xprompt_run: Path, edit: Edit) -> None:
    edit(xprompt_run, lambda info: info["task"].update(sample="word " * 500))
    shown = of(xprompt_run)
    assert "word […]" in shown
    assert shown.count("word ") < 200


def test_a_result_at_chance_is_not_interpretable(xprompt_run: Path, edit: Edit) -> None:
    assert "Not interpretable" not in of(xprompt_run)
    edit(xprompt_run, lambda info: info["headline"].update(interpretable=False))
    assert "Not interpretable." in of(xprompt_run)


def test_a_failed_run_says_why(xprompt_run: Path, edit: Edit) -> None:
    edit(xprompt_run, lambda info: info.update(status="failed", error="out of memory"))
    assert "This run failed: out of memory" in of(xprompt_run)


def test_a_run_that_only_tunes_has_a_shorter_page(tune_run: Path) -> None:
    page = write_report(tune_run)
    shown = plain(page.read_text())
    assert "71.1" in shown
    assert "Training curves" in shown
    for absent in (
        "winning ticket",
        "How sure",
        "Candidates",
        "Answers that changed",
        "control",
        "Explore",
        "Nearest words",
    ):
        assert absent not in shown
    assert sorted(path.name for path in page.parent.rglob("*.*g")) == ["training.png", "training.svg"]


def test_answers_that_changed_are_shown_both_ways(xprompt_run: Path) -> None:
    shown = of(xprompt_run)
    assert (
        "answer 4 of 30 examples differently: 3 right only with the winner, 1 right only with the control, 0 wrong"
        in shown
    )
    assert "▼ only the control is right · val-3" in shown
    assert "▲ only the winner is right · val-8" in shown


def guesses(predicted: list[int], gold: int = 0) -> list[Prediction]:
    return [Prediction(str(i), i, "text", ("a", "b", "c"), gold, p) for i, p in enumerate(predicted)]


def test_samples_are_at_most_twelve_from_both_directions() -> None:
    found = changed_answers(guesses([1] * 20 + [0] * 20), guesses([0] * 20 + [1] * 20))
    directions = [change["direction"] for change in found["samples"]]
    assert (directions.count("gained"), directions.count("lost")) == (6, 6)
    assert (found["gained"], found["lost"], found["neither"], found["changed"]) == (20, 20, 0, 40)


def test_samples_are_spread_over_the_set() -> None:
    found = changed_answers(guesses([1] * 36 + [0] * 36 + [1] * 36), guesses([0] * 36 + [1] * 36 + [2] * 36))
    assert [int(change["id"]) for change in found["samples"]] == [*range(0, 36, 6), *range(36, 72, 6)]
    only = changed_answers(guesses([1] * 25), guesses([2] * 25))
    assert [int(change["id"]) for change in only["samples"]] == [i * 25 // 12 for i in range(12)]


def test_one_direction_fills_what_the_other_lacks() -> None:
    found = changed_answers(guesses([1] * 20 + [0, 1]), guesses([0] * 20 + [1, 2]))
    directions = [change["direction"] for change in found["samples"]]
    assert (directions.count("gained"), directions.count("lost")) == (11, 1)
    assert found["neither"] == 1


def test_long_texts_and_unknown_answers() -> None:
    before = [Prediction("1", 0, "x" * 2000, ("a", "b"), 0, 0)]
    after = [Prediction("1", 0, "x" * 2000, ("a", "b"), 0, -1)]
    (change,) = changed_answers(before, after)["samples"]
    assert change["winner"] == "none of them"
    assert change["text"].endswith("[…]")
    assert len(change["text"]) < 720


def test_a_power_that_is_not_known_is_not_told(xprompt_run: Path, edit: Edit) -> None:
    assert "The smallest difference that 80% power would detect: 4.9 points." in of(xprompt_run)
    edit(xprompt_run, lambda info: info["headline"].update(detectable=None))
    assert "80% power" not in of(xprompt_run)
