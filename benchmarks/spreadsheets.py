"""Decision tables as people type them into spreadsheets, each with the table that it means: what is read right?

    python benchmarks/spreadsheets.py [--seed 0] [--workbooks 40] [--keep FOLDER] [--verbose]

A known table (`known_tables.py`) is written down as somebody in one of five places would (`sheet_writers.py`).
Three verdicts, of 50 cases each, sampled at the known table's bounds:

    right     every decision is that of the known table, and nothing else is decided
    refused   an InputError of one line
    wrong     anything else: another decision, a field too many, a traceback

The table's meaning is computed here, not by the rule engine. Beside them stand texts with two meanings
(01/02/2024 by somebody in Boston or in Delhi): whoever reads one is wrong for somebody, so it must be refused.
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

from vertigym.benchmarks.known_tables import Case, Column, Known, Test, Value, draw_number
from vertigym.benchmarks.sheet_writers import workbooks
from vertigym.core.errors import InputError
from vertigym.decisions.formats import read_model
from vertigym.decisions.jdm import identifier
from vertigym.decisions.model import CaseError

CASES = 50
Verdict = Literal["right", "refused", "wrong"]


def judge(file: Path, tables: Sequence[Known], seed: int) -> tuple[Verdict, str]:
    """The verdict on one file, and a line that says why."""
    try:
        model = read_model(file)
    except InputError as error:
        return ("refused", str(error)) if "\n" not in str(error) else ("wrong", "a refusal of several lines")
    except Exception as error:  # a traceback is what this looks for
        return "wrong", f"{type(error).__name__}: {error}"
    outcomes = [column.name for known in tables for column in known.outcomes]
    wanted = {identifier(name) for name in outcomes}
    written = {name for node in model.nodes for name in node.outputs}
    if written != wanted:
        return "wrong", f"decides {sorted(written)}, not {sorted(wanted)}"
    random_ = random.Random(f"cases {seed} {file.name}")
    for _ in range(CASES):
        case = _case(random_, tables)
        expected = dict(case)
        for known in tables:
            expected |= known.decide(expected)
        given = {identifier(name): _plain(value) for name, value in case.items()}
        try:
            output = model.evaluate(given).output
        except CaseError as error:
            return "wrong", f"{given}: {error}"
        for name in outcomes:
            found = output.get(identifier(name))
            if not _same(found, expected[name]):
                return "wrong", f"{given}: {name} is {found!r}, not {expected[name]!r}"
    return "right", ""


def _case(random_: random.Random, tables: Sequence[Known]) -> Case:
    """Values at the bounds of one rule, or anywhere; what a table decides is no input of the next."""
    case: Case = {}
    decided = {column.name for known in tables for column in known.outcomes}
    for known in tables:
        rule = random_.choice(known.rules)[0]
        for place, column in enumerate(known.conditions):
            if column.name in decided or column.name in case:
                continue
            test = rule[place] if random_.random() < 0.8 else random_.choice(known.rules)[0][place]
            case[column.name] = _near(random_, column, test)
    return case


def _near(random_: random.Random, column: Column, test: Test) -> Value:
    if column.kind == "boolean":
        return random_.random() < 0.5
    if column.kind in ("text", "code"):
        return random_.choice([*test.values, *column.values, "other"])
    known = [value for value in test.values if value is not None]
    if column.kind == "date":
        return random_.choice(known or [date(2022, 5, 5)]) + timedelta(random_.choice([-40, -1, 0, 1, 40]))
    step = random_.choice([0, 0, 0.001, -0.001, 1, -1, 100])
    return round(random_.choice(known or [draw_number(random_, column)]) + step, 6)


def _plain(value: Value) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float | int) and not isinstance(expected, bool):
        return isinstance(found, float | int) and not isinstance(found, bool) and abs(found - expected) < 1e-9
    return bool(found == expected)


AMBIGUOUS: Mapping[str, str] = {
    "day or month first": "due,-> fee\n>= 01/02/2024,5\n,1\n",
    "a day of two digits' year": "due,-> fee\n>= 01.02.24,5\n,1\n",
    "a thousand or one": 'amount,-> fee\n">= 1,000",5\n,1\n',
    "one and a half or fifteen hundred": "amount,-> fee\n>= 1.500,5\n,1\n",
    "one and a half or one and five": 'amount,-> fee\n"1,5",5\n,1\n',
    "not applicable": "segment,-> fee\nn/a,5\ngold,1\n",
    "percent beside plain": "rate,-> fee\n> 5%,5\n> 3,1\n",
    "two currencies": "amount,-> fee\n> € 500,5\n> $ 100,1\n",
    "text beside a number": "segment,-> fee\nred,5\n7,1\n",
    "a number or a text": "segment,-> fee\nred,12\nblue,review\n",
    "crosses": "member,age,-> fee\nx,> 5,3\nx,> 2,2\n,,1\n",
    "and or or": 'age,-> fee\n">= 5, <= 10",3\n,1\n',
    "from ten to five": "age,-> fee\n10-5,3\n,1\n",
    "in words": "age,-> fee\nunder 18,3\nover 65,1\n",
    "at least a code": "plan,-> fee\n>= 0123,3\n,1\n",
    "a slash": "region,-> fee\nEU,3\nUS,2\nEU/US,1\n",
    "an or": "region,-> fee\nEU or US,3\n,1\n",
    "a card's number": "card,-> fee\n4111111111111111222,3\n,1\n",
    "rules in columns": "age,< 18,> 65\nfee,5,3\n",
    "rules in columns, all words": "segment,gold,silver,basic\nroute,fast,normal,slow\n",
    "a key or a rule's number": "id,segment,-> fee\n7,gold,3\n7,silver,2\n9,,1\n",
    "the outcome or a note": "code,amount,description\nA,> 5,large\nB,> 2,small\n",
    "a name or a text": "segment,region,-> winner\ngold,EU,segment\n,,none\n",
    "two tables": "segment,fee\ngold,3\n\nregion,desk\nEU,Berlin\n",
    "a unit": "weight,-> fee\n> 5 kg,3\n,1\n",
    "a formula in an outcome": "amount,-> fee\n> 5,amount * rate\n,1\n",
    "a month's name": "due,-> fee\n1. März 2024,3\n,1\n",
}


def guesses(folder: Path) -> list[str]:
    """Which texts with two meanings are read as one of them."""
    found = []
    for name, text in AMBIGUOUS.items():
        file = folder / "two meanings.csv"
        file.write_text(text, encoding="utf-8")
        try:
            read_model(file)
        except InputError:
            continue
        except Exception as error:  # a traceback is what this looks for
            found.append(f"{name}: {type(error).__name__}: {error}")
            continue
        found.append(name)
    return found


def measure(seed: int, count: int, folder: Path) -> list[tuple[str, str, Verdict, str]]:
    """(file, layout, verdict, why) of each workbook of a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        (file.name, layout, *judge(file, known, seed)) for file, known, layout in workbooks(folder, seed, count)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--workbooks", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="write the files here")
    parser.add_argument("--verbose", action="store_true", help="say why of each that is not right")
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    for seed in arguments.seed:
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(seed, arguments.workbooks, arguments.keep or Path(scratch))
        counts = Counter(verdict for _, _, verdict, _ in found)
        total += counts
        print(
            f"seed {seed}: "
            + ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("right", "refused", "wrong"))
        )
        for name, _, verdict, why in found:
            if verdict != "right" and (arguments.verbose or verdict == "wrong"):
                print(f"  {verdict}  {name}: {why}")
    with tempfile.TemporaryDirectory() as scratch:
        guessed = guesses(Path(scratch))
    print(f"of {len(AMBIGUOUS)} texts with two meanings, read as one: {len(guessed)}")
    for name in guessed:
        print(f"  guessed  {name}")
    print("all:    " + ", ".join(f"{total[verdict]} {verdict}" for verdict in ("right", "refused", "wrong")))


if __name__ == "__main__":
    main()
