"""The generated task: seeded, balanced, in groups, and out of a bag of words' reach."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from softprune.data import load_task, select_sets
from softprune.data.demo import TEAMS, generate

PHRASES = {"train": 80, "validation": 120}
"""Per team."""
EVERYDAY_WORDS = """
    a across after against all an and another anyone are at back be before behind being below between by came can
    cannot come comes could did does down every everything for four from get goes got half has in inside into is it
    its left let lets longer more never no nobody not nothing nowhere of off on only onto our out over since
    somebody somewhere still takes than that the though through to too took two under up us was we went were what
    with without wrong you zero
"""


@pytest.fixture(scope="module")
def demo():
    return load_task("demo").load()


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def texts(split):
    return [row["text"] for row in generate()[split]]


def test_sizes_balance_and_length(demo):
    assert (len(demo.train), len(demo.validation)) == (320, 480)
    assert set(Counter(example.gold for example in demo.train).values()) == {80}
    assert set(Counter(example.gold for example in demo.validation).values()) == {120}
    for split in PHRASES:
        assert all(5 <= len(words(text)) <= 18 for text in texts(split))
        assert len(set(texts(split))) == len(texts(split))


@pytest.mark.parametrize(("split", "sentences"), [("train", 1), ("validation", 1)])
def test_the_group_of_a_sentence_is_its_phrase(demo, split, sentences):
    groups = defaultdict(list)
    for example in getattr(demo, split):
        assert example.group in example.text
        groups[example.group].append(example.gold)
    assert {len(golds) for golds in groups.values()} == {sentences}
    assert Counter(golds[0] for golds in groups.values()) == dict.fromkeys(range(len(TEAMS)), PHRASES[split])
    assert all(len(set(golds)) == 1 for golds in groups.values())


def test_no_content_word_on_both_sides():
    train, validation = ({word for text in texts(split) for word in words(text)} for split in generate())
    assert train & validation <= set(EVERYDAY_WORDS.split())


def test_no_answer_word_in_a_sentence():
    assert not {word for split in generate() for text in texts(split) for word in words(text)} & set(TEAMS)


def test_a_bag_of_words_does_not_solve_it(demo):
    vectorizer = CountVectorizer()
    train = vectorizer.fit_transform([example.text for example in demo.train])
    model = LogisticRegression(max_iter=2000).fit(train, [example.gold for example in demo.train])
    report = vectorizer.transform([example.text for example in demo.validation])
    assert model.score(report, [example.gold for example in demo.validation]) < 0.45


def test_same_seed_same_sentences():
    assert generate() == generate()
    assert generate(seed=1) != generate(seed=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_its_three_sets_share_no_phrase_and_are_balanced(demo, seed):
    sets = select_sets(demo, seed=seed, fraction=0.3)
    assert (len(sets.train), len(sets.select), len(sets.report)) == (224, 96, 480)
    assert set(Counter(example.gold for example in sets.train).values()) == {56}
    assert set(Counter(example.gold for example in sets.select).values()) == {24}
    groups = [{example.group for example in held} for held in (sets.train, sets.select, sets.report)]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert (demo.layout, demo.verified, demo.notes) == ("generated", True, ())


def test_shots_are_whole_phrases_balanced_over_teams(demo):
    sets = select_sets(demo, seed=0, shots=80)
    assert (len(sets.train), len(sets.select)) == (64, 16)
    assert set(Counter(example.gold for example in sets.train + sets.select).values()) == {20}
