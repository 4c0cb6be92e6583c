"""Every rule and every answer gets its share of the cases, drawn over whole regions; splits share no case."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.types import SPLITS, Split
from vertigym.decisions.cases import case_key
from vertigym.decisions.conditions import Field
from vertigym.decisions.fair_shares import add_fair_shares
from vertigym.decisions.formats import read_model
from vertigym.decisions.moments import MomentLine
from vertigym.decisions.sampler import DecidedCase, Sampler
from vertigym.envs.decision.env import DecisionEnv, load
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.decision.selection import split_sizes
from vertigym.envs.folders import EnvFolder

from .test_decisions_dmn import document, table

LOANS = "U,score,amount,-> decision\n1,< 580,,decline\n2,>= 640,<= 25,approve\n3,>= 640,> 25,refer\n"
LOANS += '4,"[580..640)",<= 10,refer\n5,"[580..640)",> 10,decline\n'
BOOKINGS = "F,day,kind,-> fee\n1,< 2024-03-01,flight,5\n2,< 2024-03-01,train,3\n"
BOOKINGS += "3,>= 2024-03-01,train,8\n4,,,20\n"
ONE_IN_MANY = "F,a,b,c,-> ok\n1,<= 6,<= 6,<= 6,yes\n2,,,,no\n"
SIZES: dict[Split, int] = {"train": 240, "eval": 80, "test": 80}
TABLES = {"loans": (LOANS, 400), "dates": (BOOKINGS, 400), "one in many": (ONE_IN_MANY, 200)}


def imported(tmp_path: Path, text: str, sizes: dict[Split, int]) -> list[tuple[Split, Any]]:
    """The tasks of a table, with their splits."""
    file = tmp_path / "rules.csv"
    file.write_text(text)
    import_decision(file, "acme/Rules-v0", tmp_path / "env", sizes=sizes)
    env: DecisionEnv = load(EnvFolder(tmp_path / "env"))
    return [(split, env.tasks.get(i)) for split in SPLITS for i in env.tasks.ids(split)]


def sampled(tmp_path: Path, text: str, wanted: int) -> tuple[Sampler, list[DecidedCase]]:
    """The cases that are searched and drawn."""
    file = tmp_path / "rules.csv"
    file.write_text(text)
    sampler = Sampler(read_model(file), 0)
    found = sampler.run(500)
    add_fair_shares(sampler, found, [text.partition("-> ")[2].split()[0]], 0, wanted)
    return sampler, found.samples


@pytest.mark.parametrize("kind", TABLES)
def test_every_rule_and_every_answer_has_its_share(tmp_path: Path, kind: str) -> None:
    text, wanted = TABLES[kind]
    share = {split: size * wanted // 400 for split, size in SIZES.items()}
    tasks = imported(tmp_path, text, share)
    assert len({case_key(task.info["input"]) for _, task in tasks}) == len(tasks) == wanted
    for split in SPLITS:
        inside = [task for s, task in tasks if s == split]
        rules = Counter(rule for task in inside for rule in task.info["rules"])
        answers = Counter(json.dumps(task.answer) for task in inside)
        least = len(inside) / (4 * text.count("\n") - 4)
        assert min(rules.values()) >= least
        assert len(rules) == text.count("\n") - 1
        assert max(answers.values()) <= 0.65 * len(inside)


@pytest.mark.parametrize("kind", ["loans", "dates"])
def test_values_lie_all_over_a_region_and_limits_stay(tmp_path: Path, kind: str) -> None:
    sampler, samples = sampled(tmp_path, TABLES[kind][0], 600)
    for field in (f for f in sampler.fields if f.name != "kind"):
        values = Counter(sample.case[field.name] for sample in samples if sample.drawn)
        count = values.total()
        assert max(values.values()) < 0.1 * count
        assert len(values) > 4 * len(field.near)
        assert sum(values[limit] for limit in field.near) < 0.5 * count
        assert {*field.near} <= {sample.case[field.name] for sample in samples}


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        ('date and time("2024-03-01T12:00:00")', 'date and time("2024-06-08T12:00:00")', "2024-03-04T08:30:00"),
        (
            'date and time("2024-03-01T12:00:00Z")',
            'date and time("2024-06-08T12:00:00Z")',
            "2024-03-04T08:30:00Z",
        ),
        ('time("08:00:00")', 'time("17:30:00")', "12:15:00"),
        ('date("2024-03-01")', 'date("2024-06-08")', "2024-03-04"),
    ],
)
def test_moments_are_drawn_in_the_form_of_their_limits(tmp_path: Path, low: str, high: str, kind: str) -> None:
    rows = [[f"< {low}", '"early"'], [f"[{low}..{high}]", '"in time"'], [f"> {high}", '"late"']]
    (tmp_path / "r.dmn").write_text(
        document(("D", table([("at", "Any")], rows), ["at"]), inputs=[("at", "Any")])
    )
    sampler = Sampler(read_model(tmp_path / "r.dmn"), 0)
    found = sampler.run(100)
    add_fair_shares(sampler, found, ["D"], 0, 120)
    drawn = {s.case["at"] for s in found.samples if s.drawn and s.evaluation.output["D"] == "in time"}
    shape = re.sub(r"\d", "0", kind)
    assert len(drawn) >= 30
    assert {re.sub(r"\d", "0", value) for value in drawn} == {shape}


def test_a_place_on_a_line_of_moments_is_found_again() -> None:
    for values in (["2024-02-29"], ["2024-02-29T23:59:00", "x"], ["00:00:00Z"], [None, "2024-01-01T00:00:07Z"]):
        line, last = MomentLine.of(values), next(v for v in values if v and v != "x")
        assert line is not None
        assert line.value(line.place(last) or 0) == last
    assert MomentLine.of(["2024-02-30", "25:00:00", "", 3, "12"]) is None
    days = MomentLine.of(["2024-02-29"])
    assert days is not None
    assert days.place("2024-02-29T00:00:00") is None


def test_nothing_is_drawn_between_values_that_are_listed() -> None:
    near = (1, 5, 10)
    assert Field(("n",), near, ()).span == (1, 10, 1.0)
    assert Field(("n",), near, (), closed=True).span is None


def test_sizes_grow_with_the_rules_within_bounds() -> None:
    assert split_sizes(0) == split_sizes(5) == {"train": 6000, "eval": 600, "test": 600}
    assert split_sizes(20) == {"train": 6000, "eval": 800, "test": 800}
    assert split_sizes(900)["eval"] == 2000
