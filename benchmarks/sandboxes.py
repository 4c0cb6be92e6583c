"""Verifications a second: ours beside what people use, one run, one machine, the same jobs.

    python benchmarks/sandboxes.py               every way, and the HumanEval gold set where it is
    python benchmarks/sandboxes.py --engine      with a Docker engine of its own beside them (root, Debian)
    python benchmarks/sandboxes.py --soak 100000    one job in 20 hostile: does anything grow?

A job is one function and three checks. "CPU" is user and system time of everything that took part, in ms a job;
it is the sturdier number on a shared machine. Every way is measured in every round, and ratios are within one.
"""

import argparse
import ctypes
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from vertigym.envs.code.env import program_of
from vertigym.envs.code.formats import humaneval
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import parse_tests
from vertigym.sandboxes import Job, JobLimits, Level, SandboxPool, Status, call, levels
from vertigym.sandboxes.docker import IMAGE, ContainerWorker
from vertigym.sandboxes.forkserver_worker import interpreter
from vertigym.sandboxes.sandbox_worker import SandboxWorker
from vertigym.tests import engine, hostile

ROOT = Path(__file__).parents[1]
SOLUTION = "def f(x):\n    return sorted(x)\n"
CHECKS = "for i in range(3):\n    assert f([3, 1, 2]) == [1, 2, 3]\n"
NUMPY = "import numpy as np\ndef f(x):\n    return np.sort(np.array(x)).tolist()\n"
PLAIN = "python -I -c"
_PR_SET_CHILD_SUBREAPER = 36
BWRAP = "bwrap --unshare-all --die-with-parent --clearenv --ro-bind / / --tmpfs /tmp --dev /dev"


def timed(run: Callable[[Any], None], jobs: Sequence[Any], width: int) -> dict[str, float]:
    """Run jobs `width` at once: jobs a second, p50 and p99 in ms. CPU is the caller's to add."""
    spans: list[float] = []

    def one(job: Any) -> None:
        start = time.perf_counter()
        run(job)
        spans.append((time.perf_counter() - start) * 1e3)

    ours = set(_children(os.getpid()))
    begin, cpu = time.perf_counter(), cpu_s()
    with ThreadPoolExecutor(width) as threads:
        list(threads.map(one, jobs))
    wall = time.perf_counter() - begin
    collect_orphans(ours)
    return summary(spans, wall, cpu_s() - cpu)


def summary(spans: list[float], wall: float, cpu: float) -> dict[str, float]:
    """The columns, from each job's ms, and wall and CPU seconds together."""
    ordered = sorted(spans)
    return {
        "a second": len(spans) / wall,
        "p50 ms": statistics.median(ordered),
        "p99 ms": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "CPU ms": cpu / len(spans) * 1e3,
    }


def adopt_orphans() -> None:
    """Become the parent of what a sandbox leaves behind: bubblewrap does not wait for its inner process."""
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def collect_orphans(ours: set[str]) -> None:
    """Wait for all children but `ours`, so that their CPU time counts."""
    for pid in set(_children(os.getpid())) - ours:
        os.waitpid(int(pid), 0)


def cpu_s() -> float:
    """CPU seconds of this process and its ended children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process, its living descendants and their ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return used + sum(tree_cpu_s(int(child)) for child in below)


def engine_cpu_s(folder: Path | None) -> float:
    """CPU seconds of the engine that lives in `folder`: the daemons, and what they started and saw end."""
    if folder is None:
        return 0.0
    used = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                used += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return used


def root_pid(worker: SandboxWorker) -> int:
    """The process that all of a worker's are below."""
    if isinstance(worker, ContainerWorker):
        worker._container.reload()
        return int(worker._container.attrs["State"]["Pid"])
    return worker.pid


def plain(argv: list[str], source: str) -> Callable[[Any], None]:
    """A process a job, the verdict its exit status."""

    def run(_: Any) -> None:
        subprocess.run([*argv, source], check=True, env={}, capture_output=True)

    return run


def human_eval_style(_: Any) -> None:
    """A process a check, the verdict in a shared list: the shape of human-eval's `check_correctness`."""
    with multiprocessing.Manager() as manager:
        result = manager.list()
        process = multiprocessing.get_context("fork").Process(target=_in_process, args=(result,))
        process.start()
        process.join(5)
        assert list(result) == ["passed"]


def _in_process(result: Any) -> None:
    exec(SOLUTION + CHECKS, {})
    result.append("passed")


def ours(pool: SandboxPool, jobs: Sequence[Job]) -> dict[str, float]:
    """All jobs as one batch; latency is what a single caller sees, one job at a time."""
    pool.run_many(jobs[: 4 * pool.size])
    roots = [root_pid(worker) for worker in pool._workers]
    before = cpu_s() + sum(map(tree_cpu_s, roots))
    begin = time.perf_counter()
    outcomes = pool.run_many(jobs)
    wall = time.perf_counter() - begin
    used = cpu_s() + sum(map(tree_cpu_s, roots)) - before
    assert all(o.status is Status.OK and all(not r.error for r in o.result) for o in outcomes)
    return summary([o.wall_s * 1e3 for o in outcomes], wall, used)


def docker_exec(count: int, source: str, folder: Path, image: str) -> dict[str, float]:
    """A warm container and a `docker exec` a job; its CPU is the client's and the engine's."""
    docker = ["docker", "-H", os.environ["DOCKER_HOST"]]
    start = [*docker, "run", "-d", "--init", "--network=none", image, "sleep", "1000"]
    name = subprocess.run(start, check=True, capture_output=True, text=True).stdout.strip()
    client = [*docker, "exec", name, "python3", "-I", "-c"]
    before = engine_cpu_s(folder)
    row = timed(plain(client, source), range(count), os.cpu_count() or 1)
    row["CPU ms"] += (engine_cpu_s(folder) - before) / count * 1e3
    subprocess.run([*docker, "rm", "-f", name], check=True, capture_output=True)
    return row


def compare(count: int, engine: Path | None, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Every way to verify that is present here, each measured once a round, in turn: the machine drifts."""
    adopt_orphans()
    width = os.cpu_count() or 1
    few = list(range(max(20, count // 10)))
    source = SOLUTION + CHECKS
    python = interpreter()
    calls = [Job(SOLUTION, call="f", inputs=[call([3, 1, 2])] * 3)] * count
    pairs = [Job(SOLUTION, tests=["", *["assert f([3, 1, 2]) == [1, 2, 3]"] * 3], exports={"f": "f"})] * count
    numpy = [Job(NUMPY, call="f", inputs=[call([3, 1, 2])], profile="numpy")] * (count // 4)
    packages = str(Path(importlib.util.find_spec("numpy").origin).parents[1])  # type: ignore[union-attr, arg-type]
    cold = f"import sys; sys.path.append({packages!r}); {NUMPY}\nf([3, 1, 2])"
    with ExitStack() as stack:
        # site-packages with hooks would make plain Python look slow
        bare = stack.enter_context(tempfile.TemporaryDirectory())
        subprocess.run([python, "-m", "venv", "--without-pip", bare], check=True)
        ways: dict[str, Callable[[], dict[str, float]]] = {
            PLAIN: lambda: timed(plain([f"{bare}/bin/python", "-I", "-c"], source), few, width),
            "python -I -S -c": lambda: timed(plain([python, "-I", "-S", "-c"], source), few, width),
            "human-eval style": lambda: timed(human_eval_style, few[:20], 1),
            f"{PLAIN}, NumPy": lambda: timed(plain([python, "-I", "-c"], cold), few[:20], width),
        }
        if shutil.which("bwrap"):
            bwrap = [*BWRAP.split(), python, "-I", "-c"]
            ways["bubblewrap"] = lambda: timed(plain(bwrap, source), few, width)
        if engine:
            ways["docker exec"] = lambda: docker_exec(len(few), source, engine, os.environ[IMAGE])
        for row in levels():
            if row.available and row.name is not Level.UNSAFE:
                pool, name = stack.enter_context(SandboxPool(row.name)), f"ours, {row.name}"
                ways[name] = partial(ours, pool, calls)
                if row.name is not Level.DOCKER:
                    ways[f"{name}, tests in a second sandbox"] = partial(ours, pool, pairs)
                    warm = stack.enter_context(SandboxPool(row.name))
                    ways[f"{name}, NumPy"] = partial(ours, warm, numpy)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(way())
    return found


def gold(data: Path) -> float:
    """Seconds to verify all HumanEval reference solutions, by a warm pool; the best of three."""
    tasks = humaneval(data / "humaneval" / "HumanEval.jsonl.gz")
    pairs = [(program_of(task, str(task.answer)), parse_tests(task.info["tests"])) for task in tasks]
    best = 1e9
    with SandboxPool() as pool:
        pool.run(Job("pass"))
        for _ in range(3):
            begin = time.perf_counter()
            assert all(c.all_pass for c in Verifier(pool, cache=0).check_many(pairs))
            best = min(best, time.perf_counter() - begin)
    return best


def soak(count: int, level: str | None) -> list[dict[str, float]]:
    """`count` jobs, one in twenty hostile: no wrong verdict, and nothing grows."""
    slow = ("infinite", "ignore", "stop", "memory", "children", "flood", "MB", "huge", "bomb where", "daemon")
    facts = {"secret": __file__, "folder": ROOT, "port": 9, "abstract": "x", "victim": os.getpid()}
    attacks = [
        Job(hostile.fill(attack, **facts), limits=JobLimits(wall_s=4))
        for name, attack in hostile.ATTACKS.items()
        if not any(word in name for word in slow)
    ]
    draw = random.Random(0)
    rows: list[dict[str, float]] = []
    wrong = done = 0
    begin = time.perf_counter()
    with SandboxPool(level) as pool:
        while done < count:
            kinds = [draw.random() for _ in range(1000)]
            jobs = [draw.choice(attacks) if k < 0.05 else _sum_job(int(k * 1e6)) for k in kinds]
            for kind, outcome in zip(kinds, pool.run_many(jobs), strict=True):
                if kind < 0.05:
                    wrong += "PWNED" in outcome.stdout[:100] or outcome.status is Status.INFRA
                else:
                    right = outcome.status is Status.OK and outcome.result[0].value == int(kind * 1e6) + 1
                    wrong += not right
            done += len(jobs)
            if done % max(1000, count // 10) == 0:
                rows.append(
                    {"jobs": done, "wrong": wrong, "a second": done / (time.perf_counter() - begin)}
                    | state(pool)
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def _sum_job(number: int) -> Job:
    return Job("def f(x): return x + 1", call="f", inputs=[call(number)])


def state(pool: SandboxPool) -> dict[str, float]:
    """What could leak, now: MiB, descriptors, processes, shared-memory MiB."""
    servers = [int(child) for worker in pool._workers for child in _children(root_pid(worker))]
    memory = {
        line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()
    }
    return {
        "controller MiB": _rss("self") / 1024,
        "servers MiB": sum(_rss(pid) for pid in servers) / 1024,
        "descriptors": len(os.listdir("/proc/self/fd"))
        + sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in servers),
        "zombies": sum(len(_children(pid)) for pid in servers),
        "shared MiB": memory["Shmem"] / 1024,
    }


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _rss(pid: int | str) -> int:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmRSS"))


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """The medians over rounds as Markdown; ratios are within a round."""
    columns = ("a second", "p50 ms", "p99 ms", "CPU ms")
    lines = [
        f"| way | {' | '.join(columns)} | times plain, by rate | by CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rounds in rows.items():
        cells = [f"{statistics.median(one[key] for one in rounds):.3g}" for key in columns]
        pairs = list(zip(rounds, rows[PLAIN], strict=True))
        rate = statistics.median(one["a second"] / base["a second"] for one, base in pairs)
        cpu = statistics.median(base["CPU ms"] / one["CPU ms"] for one, base in pairs)
        lines.append(f"| {name} | {' | '.join(cells)} | {rate:.1f} | {cpu:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--level")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--engine", action="store_true")
    options = parser.parse_args()
    if options.soak:
        soak(options.soak, options.level)
        return
    if options.engine:
        engine.install()
        folder = Path(tempfile.mkdtemp(prefix="vertigym-bench-"))
        with engine.dockerd(folder) as host:
            os.environ |= {"DOCKER_HOST": host, IMAGE: engine.IMAGE}
            print(table(compare(options.jobs, folder, options.rounds)))
    else:
        print(table(compare(options.jobs, None, options.rounds)))
    if (options.data / "humaneval").is_dir():
        print(f"\nHumanEval gold set: {gold(options.data):.2f} s")


if __name__ == "__main__":
    main()
