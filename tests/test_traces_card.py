"""What an import says of its log: noise of the labels, drift, topics."""

import random
from pathlib import Path

import pytest

from .trace_imports import ask, call, run, write


def test_the_card_says_how_noisy_the_labels_are_and_which_gap_can_be_seen(tmp_path: Path) -> None:
    rows = [call(f"a{i}", "first question", "yes") for i in range(7)]
    rows += [call(f"b{i}", "First question", "no") for i in range(3)]
    rows += [call(f"c{i}", ask(i), "yes" if i % 2 else "no", session=f"s{i // 2}") for i in range(200)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"eval": 0, "test": 0.5})
    assert (report.card.noise, report.card.asked_again) == (0.3, 10)
    test = report.card.held_out["test"]
    assert test.rows == report.splits["test"].rows
    assert test.units < test.rows  # two calls of a session are one unit
    assert test.smallest_gap == pytest.approx((1.959964 + 0.841621) * (0.5 / test.units) ** 0.5, abs=1e-6)
    assert test.drift is not None
    assert test.drift < 0.1
    assert report.card.held_out["eval"].smallest_gap is None
    card = (tmp_path / "out" / "card.md").read_text()
    assert "30.0% disagree" in card
    assert f"| test | {test.rows} | {test.units} |" in card


def test_labels_that_moved_on_are_drift(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), "old" if i < 150 else "new", time=float(i)) for i in range(200)]
    report = run(
        [write(tmp_path / "a.jsonl", rows)],
        tmp_path / "out",
        split={"by": "time", "eval": 0, "test": 0.25},
        duplicates={"near": 0},
    )
    assert report.card.held_out["test"].drift == 1
    assert report.card.noise is None


def test_topics_are_found_and_held_out_in_the_shares_of_the_log(tmp_path: Path) -> None:
    asks = {"parcel": 30, "refund": 60, "password": 210}  # how many of each
    about = {
        "parcel": "courier delivery address doorstep",
        "refund": "money bank charged invoice",
        "password": "login account screen reset",
    }
    rows = []
    for topic, count in asks.items():
        for i in range(count):
            dice = random.Random(f"{topic} {i}")
            said = " ".join(dice.choices(about[topic].split(), k=4))
            rows.append(call(f"{topic}{i}", f"{topic} {said} {dice.getrandbits(40):x}"))
    settings = {"eval": 0.1, "test": 0.2, "topics": 8}
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split=settings, duplicates={"near": 0})
    kinds = {topic: {topic, *words.split()} for topic, words in about.items()}
    for group in report.topics:  # each is of one kind, and in every split as often as in the log
        assert [kind for kind, words in kinds.items() if words & set(group.words.split()[:2])] in [
            [k] for k in kinds
        ]
        total = sum(group.rows.values())
        assert group.rows.get("test", 0) == round(0.2 * total)
        assert group.rows.get("eval", 0) == round(0.1 * total)
    assert sum(sum(group.rows.values()) for group in report.topics) == 300
    assert len(report.topics) >= 3


def test_calls_without_common_words_have_no_topic(tmp_path: Path) -> None:
    rows = [call(f"c{i}", f"{random.Random(i).getrandbits(60):x}") for i in range(30)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"topics": 4})
    assert report.topics == ()
    assert sum(part.rows for part in report.splits.values()) == 30
