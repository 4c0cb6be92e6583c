"""What hostile programs get: every verdict protocol judges them, and the machine is looked at after each.

    python tests/hostile_judge.py --level namespaced --programs 1000 --seed 0

Harm is a passed test, a change of the machine, a secret in what came out, and a job or a pool that is lost.
"""

import argparse
import fcntl
import json
import os
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import Tests, parse_tests
from vertigym.sandboxes import Job, JobLimits, JobOutcome, Level, SandboxPool
from vertigym.tests import hostile_grammar as grammar

SECRET = "the-expected-values-c0ffee"
INPUTS = (3, 10, 57)  # no wrong solution of the grammar is right for any of them
LIMITS = JobLimits(cpu_s=0.25, wall_s=0.5, output_bytes=8 << 10, result_bytes=16 << 10, disk_bytes=1 << 20)
PROCESSES = JobLimits(cpu_s=0.25, wall_s=0.5, output_bytes=8 << 10, disk_bytes=1 << 20, processes=8)

PROTOCOLS: Mapping[str, Any] = {
    "cases": {
        "kind": "cases",
        "entry": "solve",
        "cases": [{"args": [x], "expected": 2 * x + 1} for x in INPUTS],
    },
    "asserts": {
        "kind": "asserts",
        "exports": {"solve": "solve"},
        "tests": [
            *(f"assert solve({x}) == {2 * x + 1}" for x in INPUTS),
            "assert all(map(lambda x: solve(x) == 2 * x + 1, [3, 10]))",
            "assert [a for a, b in zip(map(solve, [3, 10]), [7, 21]) if a != b] == []",
            "assert sum(map(lambda x: solve(x) != 2 * x + 1, [3, 10])) == 0",
            "assert set(map(solve, [3, 10])) <= {7, 21}",
            "assert not any(solve(x) != 2 * x + 1 for x in (3, 10))",
        ],
    },
    "objects": {
        "kind": "asserts",
        "exports": {
            **{name: name for name in ("solve", "each", "yields", "later", "awaits", "refuse")},
            "Box": "class Box",
            "Refused": "exception Refused",
            "into": "changes into",
        },
        "setup": "import asyncio",
        "tests": [
            *(f"assert Box({x}).value() == {2 * x + 1}" for x in INPUTS),
            "assert abs(Box(3).value() - 7) < 1e-6",
            "assert -1e-6 < solve(3) - 7 < 1e-6",
            "assert 6 < solve(3) < 8 and solve(10) == 21",
            "assert solve(3).bit_length() == 3 and solve(3).__class__ is int",
            "assert str(solve(3)).startswith('7') and len(str(solve(10))) == 2",
            "assert 7 in [solve(3)]",
            "assert {7: 1}[solve(3)]",
            "assert [1, 2, 3, 4, 5, 6, 7, 8][solve(3)] == 8",
            "assert sorted([solve(3), 8, 6]) == [6, 7, 8]",
            "xs = [3]\ninto(xs)\nassert xs == [3, 7]",
            "seen = []\neach(seen.append, [3, 10])\nassert seen == [7, 21]",
            "def check(x):\n    assert x == 7\n    return x\nassert each(check, [3]) == [7]",
            "assert list(yields(3)) == [7]",
            "with Box(3) as box:\n    assert box.value() == 7",
            "async def go():\n    async with Box(3) as b:\n        assert b.value() == 7\nasyncio.run(go())",
            "async def same(x):\n    return x\nassert asyncio.run(awaits(same, [3])) == [7]",
            "assert next(yields(10)) == 21",
            "assert asyncio.run(later(3)) == 7",
            "try:\n    refuse(3)\n    assert False\nexcept Refused as error:\n    assert error.args == (7,)",
        ],
    },
    "sequences": {
        "kind": "cases",
        "entry": "Box",
        "cases": [
            {"args": [3], "calls": [["value", []], ["value", []]], "expected": [7, 7]},
            {"args": [10], "calls": [["value", []]], "expected": [21]},
        ],
    },
    "changes": {
        "kind": "cases",
        "entry": "into",
        "cases": [{"args": [[x]], "after": [[x, 2 * x + 1]]} for x in INPUTS],
    },
    "raises": {
        "kind": "cases",
        "entry": "refuse",
        "cases": [{"args": [x], "raises": "Refused", "message": str(2 * x + 1)} for x in INPUTS],
    },
    "programs": {
        "kind": "programs",
        "runs": [{"stdin": f"{x}\n", "stdout": f"{2 * x + 1}\n"} for x in INPUTS[:2]],
    },
    "repository": {
        "kind": "asserts",
        "modules": ["answer"],
        "setup": "from answer import solve",
        "tests": [
            "assert list(map(solve, [3, 10])) == [7, 21]",
            "import answer\nassert answer.solve(57) == 115",
        ],
    },
    "exit-status": {
        "kind": "exit-status",
        "argv": ["python3", "-c", "from answer import solve\nassert solve(3) == 7"],
    },
}
HONEST = (
    f"def solve(x): return 2 * x + 1\n{grammar.BESIDE}\nif __name__ == '__main__': print(solve(int(input())))"
)


@dataclass
class Tally:
    """What the programs got: (program, what) each."""

    verdicts: Counter[str] = field(default_factory=Counter)
    forged: list[tuple[int, str]] = field(default_factory=list)
    effects: list[tuple[int, str]] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)

    @property
    def harm(self) -> list[tuple[int, str]]:
        """All of it."""
        return [*self.forged, *self.effects, *self.lost]


class Listening:
    """A pool that remembers what came out."""

    def __init__(self, pool: SandboxPool) -> None:
        self._pool = pool
        self.level = pool.level
        self.outcomes: list[JobOutcome] = []

    def run_many(self, jobs: Sequence[Job]) -> list[JobOutcome]:
        """The pool's, whatever its level."""
        came = self._pool.run_many([replace(job, min_level=self.level) for job in jobs])
        self.outcomes += came
        return came


def tests_for(level: Level) -> dict[str, tuple[Tests, JobLimits]]:
    """The verdict protocols of a level, each with its limits."""
    names = ["cases", "asserts", "objects", "sequences", "changes", "raises", "programs"]
    if level is not Level.LANDLOCK:  # it has no files and no processes
        names += ["repository", "exit-status"]
    return {
        name: (parse_tests(PROTOCOLS[name]), PROCESSES if name == "exit-status" else LIMITS) for name in names
    }


def _judge(pool: SandboxPool, seed: int, name: str, facts: Mapping[str, Any], tally: Tally) -> None:
    """One program against one protocol."""
    tests, limits = tests_for(pool.level)[name]
    listening = Listening(pool)
    verifier = Verifier(listening, limits=limits, cache=0)  # type: ignore[arg-type]
    score = verifier.score(*_as_given(name, grammar.fill(grammar.program(seed), facts), tests))
    json.dumps(score.evidence, ensure_ascii=False).encode()
    tally.verdicts[f"{name}: {score.value}, {score.evidence.get('status')}"] += 1
    if score.value is None:
        tally.lost.append((seed, f"{name}: {score.evidence}"))
    elif score.value != 0 and not score.evidence["forgeable"]:
        tally.forged.append((seed, f"{name}: {score}"))
    if any(SECRET in o.stdout + o.stderr + repr(o.result) for o in listening.outcomes):
        tally.effects.append((seed, f"{name}: the secret came out"))


def _as_given(name: str, source: str, tests: Tests) -> tuple[str, Tests, dict[str, str | bytes] | None]:
    """What the verifier is given: the program, or a repository with the program in a file."""
    in_file = name in ("repository", "exit-status")
    return ("", tests, {"answer.py": source}) if in_file else (source, tests, None)


def attack(pool: SandboxPool, seeds: Sequence[int], facts: Mapping[str, Any], step: int = 25) -> Tally:
    """Let the programs loose on every verdict protocol, some at a time; look at the machine after each."""
    tally, before = Tally(), effects(facts)
    for start in range(0, len(seeds), step):
        some = seeds[start : start + step]
        for name, (tests, limits) in tests_for(pool.level).items():
            with ThreadPoolExecutor(2 * pool.size) as threads:
                list(threads.map(lambda seed: _judge(pool, seed, name, facts, tally), some))  # noqa: B023
            generous = replace(limits, cpu_s=10, wall_s=60)
            honest = Verifier(Listening(pool), limits=generous, cache=0)  # type: ignore[arg-type]
            fine = honest.score(*_as_given(name, HONEST, tests))
            if fine.value != 1:
                tally.lost.append((some[-1], f"{name}: an honest program after it: {fine}"))
            after = effects(facts)
            tally.effects += [
                (some[-1], f"{name}: {key}: {after[key]}") for key in after if after[key] != before[key]
            ]
            before = after
    return tally


def effects(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of the machine a program could have changed."""
    folder = Path(facts["folder"])
    seen: dict[str, Any] = {"names": sorted(os.listdir(folder)), "lock": _locked(facts["lock"])}
    for path in (folder, folder / "file", folder / "secret", Path("/dev/null")):
        state = path.lstat()
        seen[str(path)] = (state.st_mode, state.st_uid, state.st_nlink)
        if path != Path("/dev/null"):
            seen[f"{path} times"] = (state.st_mtime_ns, state.st_size, os.listxattr(path))
    seen["content"] = (folder / "file").read_text()
    victim = Path(f"/proc/{facts['victim']}/stat").read_text().rpartition(")")[2].split()[0]
    seen["victim stopped or dead"] = victim in "TtZX"
    seen["its limits"] = Path(f"/proc/{facts['victim']}/limits").read_text()
    seen["connections"] = [_connected(one) for one in facts["listening"]]
    seen["shared memory"] = Path("/proc/sysvipc/shm").read_text().count("\n")
    return seen


def _locked(path: str) -> bool:
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _connected(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@contextmanager
def machine() -> Iterator[dict[str, Any]]:
    """Something to steal, change, lock, connect to and kill."""
    victim = subprocess.Popen(["sleep", "3600"])
    with tempfile.TemporaryDirectory() as name, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        folder = Path(name)
        (folder / "file").write_text("content")
        (folder / "secret").write_text(SECRET)
        abstract = f"hostile-{os.getpid()}"
        tcp.bind(("127.0.0.1", 0))
        unix.bind("\0" + abstract)
        for one in (tcp, unix):
            one.listen()
            one.setblocking(False)
        try:
            yield {
                "folder": name,
                "lock": os.__file__,
                "port": tcp.getsockname()[1],
                "abstract": abstract,
                "victim": victim.pid,
                "listening": (tcp, unix),
            }
        finally:
            victim.kill()
            victim.wait()


def tried(level: str, seeds: Sequence[int]) -> str:
    """One JSON line: how many verdicts of each kind, and all harm."""
    with SandboxPool(level) as pool, machine() as facts:
        tally = attack(pool, seeds, facts)
    return json.dumps({"user": os.geteuid(), "level": level, "verdicts": tally.verdicts, "harm": tally.harm})


def main() -> None:
    """Let many programs loose on one level."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", default="namespaced")
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = options.seed * 10**6
    print(tried(options.level, range(start, start + options.programs)))


if __name__ == "__main__":
    main()
