"""The database of an agent's episode: customers with names that nearly repeat, and their cases.

A world is made anew for each episode, from the task and the environment's seed alone. Besides the customer who
asks there are always one with the same name in another city, and one with nearly the same name in the same
city, each with a case of the same day; and the customer has another open case. What stands in the other cases
are real cases of the train split; decided ones hold the right decision.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.core.types import Task
from vertigym.decisions.model import Case
from vertigym.decisions.outputs import leaves
from vertigym.envs.agent.config import DatabaseConfig

OPEN, DECIDED = "open", "decided"

# Neighbours are near-duplicates on purpose.
FIRST = (
    "Anna", "Anne", "Carl", "Karl", "Clara", "Klara", "Eric", "Erik", "Hanna", "Hannah", "Ines", "Inez",
    "John", "Jon", "Louis", "Luis", "Marc", "Mark", "Sara", "Sarah", "Sofia", "Sophia", "Teresa", "Theresa",
)  # fmt: skip
LAST = (
    "Andersen", "Anderson", "Berg", "Bergh", "Fischer", "Fisher", "Hansen", "Hanson", "Lind", "Lindh",
    "Martin", "Martins", "Meier", "Meyer", "Novak", "Nowak", "Peters", "Petersen", "Schmid", "Schmidt",
    "Silva", "Silvan", "Weber", "Webber",
)  # fmt: skip
CITIES = ("Antwerp", "Bergen", "Graz", "Leeds", "Lyon", "Porto", "Turin", "Utrecht")

_HIDDEN = 0.3  # share of the other cases that lack a fact, too
_DONE = 0.4  # share of the other cases that are decided

Person = tuple[str, str]  # name, city
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case of the pool, as it may lie in a file: whole, and with one fact missing (all JSON)."""

    facts: str
    lacking: str
    missing: str
    decision: str


@dataclass(frozen=True, slots=True)
class World:
    """Rows of the two tables, and which of them the task is about.

    `customers`: id, name, city; `cases`: id, customer, opened, status, facts (JSON), missing (JSON), decision
    (JSON or None). `other` is another open case of the same customer, `strangers` are cases of the two
    namesakes."""

    task: str
    customers: Sequence[Row]
    cases: Sequence[Row]
    customer: str
    case: str
    other: str
    strangers: tuple[str, str]

    def state(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What `rewards.state.sqlite_state` reads before the first action."""
        return {
            "cases": {row[0]: dict(zip(_CASES, row, strict=True)) for row in self.cases},
            "customers": {row[0]: dict(zip(_CUSTOMERS, row, strict=True)) for row in self.customers},
        }


_CUSTOMERS = ("id", "name", "city")
_CASES = ("id", "customer", "opened", "status", "facts", "missing", "decision")
_SCHEMA = """
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, city TEXT) WITHOUT ROWID;
CREATE TABLE cases (id TEXT PRIMARY KEY, customer TEXT, opened TEXT, status TEXT, facts TEXT, missing TEXT,
    decision TEXT) WITHOUT ROWID;
CREATE INDEX cases_of ON cases (customer);
"""


def person(task_id: str, seed: int, attempt: int = 0) -> tuple[Person, str]:
    """The name and city of the customer who asks, and the day the case was opened; drawn by the task's id."""
    rng = generator(seed, "customer", task_id, attempt)
    return _random_people(rng, 1)[0], next(_days(rng, 1))


def stored_cases(tasks: Sequence[Task], seed: int) -> list[StoredCase]:
    """Tasks as cases that may lie in a file, each case once."""
    return list({stored.facts: stored for stored in (_stored(task, seed) for task in tasks)}.values())


def build_world(task: Task, pool: Sequence[StoredCase], size: DatabaseConfig, seed: int) -> World:
    """The world of a task. `info` says who asks (`name`, `city`), when the case was `opened`, and which facts
    of `input` are `withheld`."""
    rng = generator(seed, "world", task.id)
    info = task.info
    ids = [f"R{i + 1}" for i in rng.permutation(size.cases)]
    customers = [f"C{i + 1}" for i in rng.permutation(size.customers)]
    own = dumps(info["input"])
    others = [stored for stored in pool if stored.facts != own]
    facts = without(info["input"], info["withheld"])
    rows: list[Row] = [
        (ids[0], customers[0], info["opened"], OPEN, dumps(facts), dumps(list(info["withheld"])), None)
    ]
    days = _days(rng, 2 * size.cases)
    for place, chance in enumerate(rng.random((size.cases - 1, 4)).tolist(), 1):
        owner = place - 1 if place < 4 else int(chance[0] * size.customers)
        day = info["opened"] if place in (2, 3) else next(days)
        while owner == 0 and day == info["opened"]:
            day = next(days)
        stored = others[int(chance[1] * len(others))]
        done = place > 3 and chance[2] < _DONE
        whole = done or chance[3] >= _HIDDEN
        rows.append(
            (
                ids[place],
                customers[owner],
                day,
                DECIDED if done else OPEN,
                stored.facts if whole else stored.lacking,
                "[]" if whole else stored.missing,
                stored.decision if done else None,
            )
        )
    people = _people(rng, (info["name"], info["city"]), size.customers)
    named = [(customers[i], *who) for i, who in enumerate(people)]
    return World(task.id, sorted(named), sorted(rows), customers[0], ids[0], ids[1], (ids[2], ids[3]))


@lru_cache(maxsize=1)
def _empty() -> bytes:
    """A database with the tables, to start from: the statements that make them take longer than the rows."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(_SCHEMA)
    made = connection.serialize()
    connection.close()
    return made


class Database:
    """A world in SQLite, in memory. Closed with `close`, or when it is forgotten. `image` is the database as it
    was filled: given again, it saves the filling."""

    def __init__(self, world: World, image: bytes = b"") -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.connection.deserialize(image or _empty())
        self.image = image or self._filled(world)

    def _filled(self, world: World) -> bytes:
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT INTO customers VALUES (?, ?, ?)", world.customers)
        self.connection.executemany("INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, ?)", world.cases)
        self.connection.execute("COMMIT")
        return self.connection.serialize()

    def find(self, name: str, most: int) -> list[Row]:
        """Customers whose name contains `name`, whatever its case."""
        query = "SELECT id, name, city FROM customers WHERE instr(lower(name), lower(?)) ORDER BY id LIMIT ?"
        return self.connection.execute(query, (name, most)).fetchall()

    def cases_of(self, customer: str) -> list[Row]:
        """A customer's cases: id, opened, status."""
        query = "SELECT id, opened, status FROM cases WHERE customer = ? ORDER BY opened, id"
        return self.connection.execute(query, (customer,)).fetchall()

    def case(self, case: str) -> dict[str, Any] | None:
        """A case's row by column, None where there is none."""
        row = self.connection.execute("SELECT * FROM cases WHERE id = ?", (case,)).fetchone()
        return None if row is None else dict(zip(_CASES, row, strict=True))

    def decide(self, case: str, decision: str) -> None:
        """Write a decision (JSON)."""
        change = "UPDATE cases SET status = ?, decision = ? WHERE id = ?"
        self.connection.execute(change, (DECIDED, decision, case))

    def put_facts(self, case: str, facts: str, missing: str) -> None:
        """Write a case's facts (JSON), and the names of those that are missing."""
        self.connection.execute("UPDATE cases SET facts = ?, missing = ? WHERE id = ?", (facts, missing, case))

    def close(self) -> None:
        """Free it."""
        self.connection.close()

    __del__ = close


def without(case: Case, names: Sequence[str] | Mapping[str, Any]) -> Case:
    """The case without the facts named (dotted)."""
    left: Case = json.loads(json.dumps(case))
    for name in names:
        *parents, last = path_in(case, name)
        at = left
        for key in parents:
            at = at[key]
        del at[last]
    return left


def path_in(case: Case, name: str) -> tuple[str, ...]:
    """The path of the leaf with this dotted name (keys may hold dots themselves).

    Raises:
        KeyError: there is none.
    """
    for path, _ in leaves(case):
        if ".".join(path) == name:
            return path
    raise KeyError(name)


def scalars(case: Case) -> dict[str, Any]:
    """The facts a customer could say in a word: dotted name -> text, number or truth value."""
    return {".".join(path): value for path, value in leaves(case) if isinstance(value, str | int | float)}


def _stored(task: Task, seed: int) -> StoredCase:
    case = task.info["input"]
    names = sorted(scalars(case))
    hidden = [names[int(generator(seed, "lacking", dumps(case)).integers(len(names)))]] if names else []
    return StoredCase(dumps(case), dumps(without(case, hidden)), dumps(hidden), dumps(task.answer))


def _people(rng: np.random.Generator, first: Person, count: int) -> list[Person]:
    """The one who asks, the two namesakes, and others, all different."""
    people = dict.fromkeys(
        [first, (first[0], _other(rng, CITIES, first[1])), (_similar_name(rng, first[0]), first[1])]
    )
    while len(people) < count:
        people |= dict.fromkeys(_random_people(rng, count - len(people)))
    return list(people)


def _random_people(rng: np.random.Generator, count: int) -> list[Person]:
    drawn = rng.integers((len(FIRST), len(LAST), len(CITIES)), size=(count, 3)).tolist()
    return [(f"{FIRST[first]} {LAST[last]}", CITIES[city]) for first, last, city in drawn]


def _similar_name(rng: np.random.Generator, name: str) -> str:
    """The name with its first or last part exchanged for the one that is spelt nearly alike."""
    first, _, last = name.partition(" ")
    if rng.integers(2):
        return f"{_similar_spelling(FIRST, first)} {last}"
    return f"{first} {_similar_spelling(LAST, last)}"


def _similar_spelling(names: Sequence[str], name: str) -> str:
    return names[names.index(name) ^ 1]


def _other(rng: np.random.Generator, options: Sequence[str], than: str) -> str:
    left = [option for option in options if option != than]
    return left[int(rng.integers(len(left)))]


def _days(rng: np.random.Generator, batch: int) -> Iterator[str]:
    """Days without end, drawn `batch` at a time."""
    while True:
        for month, day in rng.integers((1, 1), (13, 29), size=(batch, 2)).tolist():
            yield f"2025-{month:02}-{day:02}"
