"""Run `env check` on every reasoning-gym data set; one JSON line a data set, then a Markdown table.

    python benchmarks/check_reasoning_gym.py results.jsonl        # goes on where it stopped
    python benchmarks/check_reasoning_gym.py results.jsonl --table

Each data set is checked in a fork of its own with a limit on processor time: some take minutes, and some
verifiers run what the policy wrote. The test "in another process" is left out: it would import everything anew.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import reasoning_gym  # noqa: F401 (imported once, before the forks)

from vertigym.core.types import Split
from vertigym.envs.check import check
from vertigym.envs.math.reasoning import load, names

TASKS, LIMIT_S = 30, 30
SIZES: dict[Split, int] = {"train": 200, "eval": 50, "test": 50}
FLOOR = "a floor under degenerate answers"


def check_one(name: str, file: Path) -> str:
    """Append one data set's report to `file`; what to print about it."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
        try:
            report = check(lambda: load(name, sizes=SIZES), tasks=TASKS).to_json()
            row = {**report, "name": name}
        except Exception as error:
            row = {"name": name, "error": f"{type(error).__name__}: {error}"}
        append(file, row)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        append(file, {"name": name, "error": f"no report within {LIMIT_S} s of processor time"})
    return rows_of(file)[-1].get("error") or str(rows_of(file)[-1]["passed"])


def append(file: Path, row: dict[str, Any]) -> None:
    """One line more."""
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")


def rows_of(file: Path) -> list[dict[str, Any]]:
    """What the file holds."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """One line a data set that fails: what fails, the worst answer without content, what it earns."""
    lines = [
        "| data set | fails | worst answer without content | earns | constant guess |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: str(row["name"])):
        if "error" in row:
            lines.append(f"| {row['name']} | {row['error']} | | | |")
            continue
        failed = [result["check"] for result in row["results"] if result["verdict"] == "failed"]
        if any("runs the answer" in finding["message"] for finding in row["findings"]):
            failed.append("**runs the answer as Python**")
        floor = next(result["measured"] for result in row["results"] if result["check"] == FLOOR)
        guess = floor.pop("constant guess")
        floor.pop("constant guess text")
        worst = max(floor, key=lambda kind: floor[kind])
        if failed:
            lines.append(
                f"| {row['name']} | {'; '.join(failed)} | {worst} | {floor[worst]:.2f} | {guess:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Check what the file does not hold yet, or print the table."""
    file = Path(sys.argv[1])
    if "--table" in sys.argv:
        print(table(rows_of(file)))
        return
    done = {row["name"] for row in rows_of(file)}
    for name in names():
        if name not in done:
            print(name, check_one(name, file), flush=True)


if __name__ == "__main__":
    main()
