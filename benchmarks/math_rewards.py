"""Throughput of the math verifier with pathological expressions mixed in, against calling math-verify directly.

    python benchmarks/math_rewards.py [--limit 1.0] [--count 2000]

Three runs over the same pairs (LaTeX answers that need the engine, plain numbers, 1% pathological):

    direct      parse and verify in this process, with the package's own SIGALRM limits (whole seconds)
    ours, 1     our verifier, called from one thread
    ours, 8     our verifier, called from eight threads, as rollouts do

Every pair occurs about once, and the verifier's cache is emptied before each run.
"""

import argparse
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from math_verify import parse, verify

from vertigym.core.seeds import generator
from vertigym.core.types import Task
from vertigym.rewards.math import equivalent, math_equal
from vertigym.rewards.rubric import Rubric


def pairs(count: int, share: float) -> list[tuple[str, str]]:
    """(reference, reply): half plain numbers, half LaTeX; a share of pathological replies."""
    rng = generator(0, "benchmark", "math")
    made = []
    for i in range(count):
        a, b = (int(n) for n in rng.integers(2, 500, size=2))
        if rng.random() < share:
            made.append((f"{a}x+{b}", rf"\int_0^{{10^{{{90 + i % 9}}}}} e^{{x^{{x^{{x+{i}}}}}}} dx"))
        elif i % 2:
            made.append((str(a), str(a + b % 2)))
        else:
            made.append((rf"\frac{{{a}}}{{{b}}}", f"{2 * a}/{2 * b}" if i % 4 else rf"\frac{{{a + 1}}}{{{b}}}"))
    return made


def direct(reference: str, reply: str) -> bool:
    """As the package's page shows it, with its own limits."""
    wanted, found = (parse(f"${text}$", parsing_timeout=1) for text in (reference, reply))
    return bool(verify(wanted, found, timeout_seconds=1))


def timed(name: str, work: Callable[[list[tuple[str, str]]], object], todo: list[tuple[str, str]]) -> None:
    """Run and print."""
    started = time.perf_counter()
    work(todo)
    seconds = time.perf_counter() - started
    print(f"{name:16} {seconds:8.2f} s {len(todo) / seconds:9.1f} scores/s", flush=True)


def main() -> None:
    """Print a table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--limit", type=float, default=1.0, help="processor seconds for one comparison")
    arguments.add_argument("--count", type=int, default=2000)
    given = arguments.parse_args()
    logging.disable(logging.CRITICAL)
    rubric = Rubric(math_equal(where="whole", limit_s=given.limit))

    def ours(pair: tuple[str, str]) -> float | None:
        return rubric.score(task=Task(id="t", prompt="?", answer=pair[0]), completion=pair[1]).value

    def side_by_side(todo: list[tuple[str, str]]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ours, todo))

    ours((r"\frac{1}{2}", "0.50"))  # starts a worker
    side_by_side([(rf"\frac{{{i}}}{{7}}", "0.50") for i in range(16)])
    direct("1/2", "0.5")
    for share in (0.0, 0.01):
        print(f"{share:.0%} pathological")
        for name, work in (
            ("direct", lambda todo: [direct(*pair) for pair in todo]),
            ("ours, 1 thread", lambda todo: [ours(pair) for pair in todo]),
            ("ours, 8 threads", side_by_side),
        ):
            equivalent.cache_clear()
            timed(name, work, pairs(given.count, share))


if __name__ == "__main__":
    main()
