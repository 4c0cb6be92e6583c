"""Calls of programs over a line that fails in every way: none lost, none made or trained twice, failures
unscored.

    python -m benchmarks.program_faults

Programs ask through OpenAI's client, each many calls, eight at a time; of eight calls seven meet a fault
(`tests/faulty_program.py` has them). A fifth of the episodes are doomed. A tiny model with random weights
answers.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faulty_program import DOOMS, SCRIPT, KeptCalls, faults_of, task
from tests.programs import engine_of_few_words, play, program


def main() -> None:
    """Play the episodes, and count what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=125)
    parser.add_argument("--calls", type=int, default=100, help="of one episode")
    options = parser.parse_args()
    rows = [
        task(f"t{n}", options.calls, DOOMS[n // 5 % len(DOOMS)] if n % 5 == 4 else "")
        for n in range(options.episodes)
    ]
    with tempfile.TemporaryDirectory() as folder:
        kept = KeptCalls(engine_of_few_words(Path(folder)))
        env = program(
            Path(folder) / "env", SCRIPT, tasks=rows, max_turns=options.calls + 1, timeout_s=60.0, parallel=8
        )
        began = time.perf_counter()
        played = play(env, kept, len(rows), batch=12)
        took = time.perf_counter() - began
    scored = [one for one in played if one.score.value is not None]
    found = Counter(fault for row, one in zip(rows, played, strict=True) for fault in faults_of(row, one, kept))
    print(f"{len(scored)} episodes scored, with {sum(one.turns for one in scored):,} calls")
    for doom in DOOMS:
        ends = [one.score.value is None for row, one in zip(rows, played, strict=True) if row["doom"] == doom]
        print(f"{len(ends)} episodes whose program {doom}: {sum(ends)} not scored")
    print(f"faults: {dict(found) or 'none'}; {took:.0f} s")


if __name__ == "__main__":
    main()
