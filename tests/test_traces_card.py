"""What an import says of its log: noise of the labels, drift, topics."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from vertigym.traces.label_noise import confident_joint, contradicted, noise_share, unseen_probabilities

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


ABOUT = {
    "parcel": "courier delivery address doorstep tracking van depot",
    "refund": "money bank charged invoice card amount euros",
    "password": "login account reset locked email code screen",
}


def labelled(wrong: float, calls: int = 900) -> tuple[list[dict[str, object]], set[str]]:
    """Calls about three things, each in words that mostly belong to it, and the ids of those labelled wrongly."""
    dice = random.Random(8)
    rows, planted = [], set()
    for number in range(calls):
        truth = dice.choice(list(ABOUT))
        words = [
            dice.choice(ABOUT[truth if dice.random() < 0.8 else dice.choice(list(ABOUT))].split())
            for _ in range(9)
        ]
        label = truth
        if dice.random() < wrong:
            label = dice.choice([one for one in ABOUT if one != truth])
            planted.add(f"c{number}")
        rows.append(call(f"c{number}", f"{' '.join(words)} {ask(number)}", label))
    return rows, planted


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.25])
def test_wrong_labels_are_counted_and_named(tmp_path: Path, wrong: float) -> None:
    rows, planted = labelled(wrong)
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", duplicates={"near": 0})
    assert report.card.noise is None  # no input was logged twice
    assert report.card.judged == 900
    assert report.card.label_noise == pytest.approx(len(planted) / 900, abs=0.03)
    named = [
        row["id"] for row in map(json.loads, (tmp_path / "out" / "suspects.jsonl").read_text().splitlines())
    ]
    assert len(named) == report.card.suspects
    if wrong:
        found = planted & set(named)
        assert len(found) > 0.85 * len(planted)
        assert len(found) > 0.85 * len(named)
    assert (
        f"{report.card.label_noise:.1%} of the labels are wrong" in (tmp_path / "out" / "card.md").read_text()
    )


def test_labels_that_are_few_or_no_classes_are_not_judged(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), "yes" if i % 40 else f"reply {i}") for i in range(400)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out")
    assert (report.card.label_noise, report.card.judged, report.card.suspects) == (None, 0, 0)
    assert "no labels with calls enough" in (tmp_path / "out" / "card.md").read_text()


def test_the_model_behind_it_has_not_seen_the_call() -> None:
    """The closed form equals ridge regression on all other calls."""
    dice = np.random.default_rng(3)
    points, given = dice.random((30, 5)), dice.integers(3, size=30)
    whole, target = np.hstack([points, np.ones((30, 1))]), np.eye(3)[given]
    made = []
    for i in range(30):
        others = np.delete(whole, i, axis=0)
        weights = np.linalg.solve(others.T @ others + np.eye(6), others.T @ np.delete(target, i, axis=0))
        made.append(np.clip(whole[i] @ weights, 1e-6, 1))
    told = np.array(made) / np.sum(made, axis=1, keepdims=True)
    np.testing.assert_allclose(unseen_probabilities(points, given, 3), told, atol=1e-9)


def test_the_confident_joint_is_cleanlabs() -> None:
    """Values of cleanlab 2.7.1 on the same probabilities (`benchmarks/label_noise.py` compares larger ones)."""
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    given = np.array([0, 0, 0, 1, 1, 1])
    counts = confident_joint(given, probability)
    assert counts.tolist() == [[2, 1], [1, 2]]
    assert noise_share(counts, given) == pytest.approx(1 / 3, abs=1e-6)
    assert contradicted(given, probability, 1 / 3) == [(2, 1, 0.4), (5, 0, 0.4)]


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
