"""What an import lets go of: inputs on two sides of a split, duplicates, conflicts, held-out tasks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vertigym import envs
from vertigym.tests.trace_log import Log
from vertigym.traces.near_duplicates import _candidates
from vertigym.traces.store import Store

from .trace_imports import ask, call, kept, run, write

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"

# -- splits


@pytest.mark.parametrize("by", ["input", "customer", "cluster", "time"])
def test_no_input_and_no_unit_is_on_two_sides(by: str, tmp_path: Path) -> None:
    rows = [
        call(
            f"c{i}",
            ask(i if i % 10 else i % 30),  # some are asked everywhere, and answered in several ways
            f"answer {i % 7}",
            customer=f"k{i % 23}",
            cluster=f"t{i % 40}",
            time=1000.0 + i,
        )
        for i in range(600)
    ]
    report = run(
        [write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"by": by}, duplicates={"near": 0}
    )
    parts = kept(tmp_path / "out")
    assert all(parts.values())
    for key in {"input": ["question"], "time": ["question"]}.get(by, ["question", by]):
        sides = [{getattr(trace, key) for trace in part} for part in parts.values()]
        assert len(set.union(*sides)) == sum(map(len, sides)), key
    if by == "time":
        first, last = ([f(t.time or 0 for t in part) for part in parts.values()] for f in (min, max))
        assert last[0] < first[1] <= last[1] < first[2]
    assert report.step("seen in an earlier split").rows_out == sum(map(len, parts.values()))


def test_near_equal_inputs_are_not_split_even_when_answered_differently(tmp_path: Path) -> None:
    texts = [ask(i) for i in range(200)]
    rows = [call(f"a{i}", text, "refund") for i, text in enumerate(texts)]
    rows += [call(f"b{i}", text + " please", "complaint") for i, text in enumerate(texts)]
    run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"eval": 0.3, "test": 0.3})
    where = {trace.id: split for split, part in kept(tmp_path / "out").items() for trace in part}
    assert len(where) == 400
    assert all(where[f"a{i}"] == where[f"b{i}"] for i in range(200))


def test_calls_without_a_time_are_train(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), time=float(i) if i % 2 else None) for i in range(100)]
    report = run(
        [write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"by": "time"}, duplicates={"near": 0}
    )
    assert {split: part.rows for split, part in report.splits.items()} == {"train": 90, "eval": 5, "test": 5}
    assert report.notes == ("50 calls have no time: they are train",)


def test_few_customers_are_still_held_out_as_a_whole(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), customer=f"k{i % 5}") for i in range(100)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"by": "customer"})
    assert [part.customers for part in report.splits.values()] == [3, 1, 1]
    assert "20 calls, 10 were wanted" in report.notes[0]


# -- duplicates, conflicts, balance


def test_a_template_does_not_make_inputs_alike(tmp_path: Path) -> None:
    head = "Sort the customer's message below into exactly one of the following classes, and say nothing else: "
    topics = ["lamp", "sofa", "radio", "kettle", "carpet", "mirror", "window", "heater", "pillow", "bucket"]
    rows = [
        call(f"c{i}", f"{head} {topics[i % 10]} {i * 104729 % 99991} {topics[i // 10]} broken")
        for i in range(100)
    ]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"eval": 0, "test": 0})
    assert report.splits["train"].rows == 100


@pytest.mark.parametrize(
    ("second", "survive"),
    [
        ({"asked": "WHERE is my parcel!!"}, 1),  # only case and punctuation
        ({"answer": "billing"}, 2),  # another answer is a conflict, no duplicate
        ({"label": "billing"}, 2),
        ({"feedback": {"thumb": "up"}, "asked": "where is my parcel"}, 2),  # another verdict
        ({"asked": "Where is my parcel? 👍"}, 1),
        ({"asked": "Where is my money"}, 2),
    ],
)
def test_what_counts_as_a_near_duplicate(second: dict[str, Any], survive: int, tmp_path: Path) -> None:
    first = {"asked": "Where is my parcel?", "answer": "shipping"}
    rows = [call("a", **first), call("b", **{**first, **second})]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out")
    assert report.step("near-duplicates").rows_out == survive


def test_of_a_call_written_again_with_feedback_the_last_stays(tmp_path: Path) -> None:
    rows = [
        call("a", "hello there"),
        call("a", "hello there", feedback={"thumb": "up"}),
        call("b", "hello there"),
    ]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out")
    (trace,) = kept(tmp_path / "out")["train"][:1]
    assert report.step("superseded").rows_out == 1
    assert (trace.id, trace.feedback and trace.feedback.thumb) == ("a", "up")


@pytest.mark.parametrize(("do", "left"), [("keep", 7), ("drop", 3), ("majority", 4)])
def test_conflicts_are_listed_and_settled(do: str, left: int, tmp_path: Path) -> None:
    rows = [call(f"a{i}", "first question", "yes") for i in range(3)] + [call("a3", "first question", "no")]
    rows += [call("b0", "second question", "yes"), call("b1", "Second question", "no"), call("c", "third one")]
    rows += [call("d0", "fourth question", "x", outcome="o"), call("d1", "fourth question", "x")]
    report = run(
        [write(tmp_path / "a.jsonl", rows)],
        tmp_path / "out",
        conflicts={"do": do},
        split={"eval": 0, "test": 0},
    )
    listed = [json.loads(line) for line in (tmp_path / "out" / "conflicts.jsonl").read_text().splitlines()]
    assert [[(a["answer"], a["calls"]) for a in row["answers"]] for row in listed] == [
        [("yes", 3), ("no", 1)],
        [("yes", 1), ("no", 1)],
    ]
    assert report.conflicts == 2
    assert report.step("label conflicts").rows_out == left
    assert {t.id for t in kept(tmp_path / "out")["train"]} == {
        "keep": {"a0", "a3", "b0", "b1", "c", "d0", "d1"},
        "drop": {"c", "d0", "d1"},
        "majority": {"a0", "c", "d0", "d1"},
    }[do]


def test_balance_cuts_the_frequent_labels_of_train_only(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), "rare" if i % 10 == 0 else "often") for i in range(300)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", balance={"max_per_label": 40})
    assert report.labels["often"]["train"] == 40
    assert 15 < report.labels["rare"]["train"] <= 30
    assert report.splits["test"].rows == 30


# -- decontamination


def test_held_out_texts_are_found_in_disguise_and_nothing_else_is(tmp_path: Path) -> None:
    held = (
        "A farmer sells 1,200 eggs on market day and keeps seven; how many trays of thirty did she fill in all?"
    )
    near = "A farmer sells 1,200 eggs on market day and keeps a goat in the yard behind her mother's house."
    suite = write(tmp_path / "suite.jsonl", [{"question": held, "answer": "39"}, {"question": "Who is there"}])
    asked = [held, held.upper(), held.replace(" ", "\n"), f"Please solve: {held} Thanks", held.replace(",", "")]
    rows = [call(f"bad{i}", text) for i, text in enumerate([*asked, "who is there?"])]
    rows += [
        call(f"good{i}", text, "39") for i, text in enumerate([near, "who is there, then", "on market day"])
    ]
    rows += [{**call("bad6", "x"), "completion": held}]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", decontaminate={"against": [str(suite)]})
    assert report.step("contaminated").rows_in - report.step("contaminated").rows_out == 7
    assert all(trace.id.startswith("good") for part in kept(tmp_path / "out").values() for trace in part)


def test_an_environments_held_out_tasks_are_found(tmp_path: Path) -> None:

    env = envs.make("vertigym/Returns-v0")
    tasks = [env.tasks.get(env.tasks.ids(split)[0]) for split in ("train", "eval", "test")]
    rows = [call(task.split, task.messages()[-1]["content"]) for task in tasks]
    report = run(
        [write(tmp_path / "a.jsonl", rows)],
        tmp_path / "out",
        decontaminate={"against": ["vertigym/Returns-v0"], "share": 0.95},
    )
    assert report.step("contaminated").rows_out == 1


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs the GSM8K files")
def test_gsm8k_in_traces_is_found(tmp_path: Path) -> None:
    questions = [json.loads(line)["question"] for line in (GSM8K / "test.jsonl").read_text().splitlines()]
    planted = Log(tmp_path, 4000, seed=4, benchmark=questions).planted
    run(
        planted.files,
        tmp_path / "out",
        decontaminate={"against": [str(GSM8K / "test.jsonl")]},
        duplicates={"near": 0},
    )
    dropped = map(json.loads, (tmp_path / "out" / "dropped.jsonl").read_text().splitlines())
    found = {row["id"] for row in dropped if row["step"] == "contaminated"}
    assert len(found & set(planted.benchmark)) >= 0.99 * len(planted.benchmark)
    assert len(found - set(planted.benchmark)) <= 0.001 * 4000


def test_pairs_are_the_same_in_however_many_pieces_they_are_found(tmp_path: Path) -> None:
    """In one piece, a log of a million rows takes more memory than it is given."""
    draw = np.random.default_rng(0)
    bands = np.stack([draw.integers(0, 60, 400), np.arange(400) % 100], axis=1).tolist()
    crowds: dict[int, list[int]] = {}
    for band, row in sorted(bands):
        crowds.setdefault(band, []).append(row)
    expected = sorted(
        {
            (a, b)
            for rows in crowds.values()
            for i, b in enumerate(rows)
            for a in (rows[0], rows[i - 1])
            if a < b
        }
    )
    with Store(tmp_path / "store") as store:
        store.rows = 100
        store.db.execute("CREATE TABLE bands (hash UBIGINT, row UINTEGER)")
        store.insert("bands", bands)
        for piece in (7, 64, 1000):
            found = [
                pair for a, b in _candidates(store, piece) for pair in zip(a.tolist(), b.tolist(), strict=True)
            ]
            assert found == expected
