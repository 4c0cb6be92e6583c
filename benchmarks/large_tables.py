"""What a large table costs to make an environment of: processor seconds to read, analyse and sample, by rules.

    python benchmarks/large_tables.py [--rules 250 500 1000] [--columns 10 100] [--agent]

Three tables of each size: `steps` (limits of one number, in order), `ranges` (overlapping ranges of two
numbers at random, so that earlier rules hide most of later ones) and `mixed` (a number and a text).
`--agent` imports one in decision mode and in agent mode.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import read_model
from vertigym.decisions.sampler import Sampler
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.decision.importer import import_decision

CASES = 2000
KINDS = ("steps", "ranges", "mixed")


def table(kind: str, rules: int, columns: int) -> str:
    """A table as CSV; the last rule is for everything else."""
    rng = random.Random(f"{kind} {rules} {columns}")
    head = [f"n{number}" for number in range(columns // 2)] + [f"t{number}" for number in range(columns // 2)]
    rows = [[*_cells(kind, rng, place, rules, columns // 2), f"o{place % 7}"] for place in range(rules - 1)]
    lines = [[*head, "-> out"], *rows, [*[""] * len(head), "none"]]
    return "\n".join(map(";".join, lines)) + "\n"


def _cells(kind: str, rng: random.Random, place: int, rules: int, half: int) -> list[str]:
    numbers, texts = [""] * half, [""] * half
    match kind:
        case "steps":
            numbers[0] = f"<= {place}"
        case "ranges":
            numbers[:2] = [f"[{(low := rng.randrange(500))}..{low + 40}]" for _ in range(2)]
        case "mixed":
            numbers[rng.randrange(half)] = f"> {rng.randrange(rules)}"
            texts[rng.randrange(half)] = f"w{rng.randrange(9)}"
    return numbers + texts


def costs(file: Path) -> Iterator[tuple[str, float]]:
    """Seconds by part, and the share of the possible rules that some case hits."""
    model, took = _timed(lambda: read_model(file))
    yield "read", took
    known, took = _timed(lambda: analyse(model))
    yield "analyse", took
    sampled, took = _timed(lambda: Sampler(model, 0, known=known).run(CASES))
    yield "sample", took
    possible = model.rules.keys() - known.unreachable
    yield "hit of possible", len(sampled.hit & possible) / len(possible)


def agent_against_decision(file: Path, folder: Path) -> str:
    """Seconds of an import in both modes."""
    _, one = _timed(lambda: import_decision(file, "local/A-v0", folder / "decision"))
    _, other = _timed(lambda: import_agent(file, "local/A-v0", folder / "agent"))
    return f"decision mode {one:.1f} s, agent mode {other:.1f} s: {other / one:.2f} times"


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    made = work()
    return made, time.process_time() - began


def main() -> None:
    """Print a line a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--columns", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--agent", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        if options.agent:
            file.write_text(table("mixed", options.rules[0], options.columns[0]))
            print(agent_against_decision(file, Path(folder)))
            return
        for kind in KINDS:
            for columns in options.columns:
                for rules in options.rules:
                    file.write_text(table(kind, rules, columns))
                    parts = ", ".join(f"{name} {value:.2f}" for name, value in costs(file))
                    print(f"{kind:7} {rules:5} rules {columns:4} columns: {parts}", flush=True)


if __name__ == "__main__":
    main()
