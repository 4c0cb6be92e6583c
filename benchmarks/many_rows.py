"""What many rows cost a process: tasks, rows to imitate, the report of a long run, rollouts of a large step.

    python benchmarks/many_rows.py OUT [--tasks 1000000] [--rows 1000000] [--steps 100000] [--samples 1024]

Each part runs in a process of its own. Of tasks and rows it says the CPU seconds, and the most memory above
what the process had taken when its imports, and the tokenizer, were there; of a report, what the command took.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

WORDS = ("alpha", "beta", "gamma", "delta", "loan", "limit", "of", "the", "case")
# The command line, which tells at its end what it took: what a parent is told of memory begins with its own.
REPORT = """
import atexit, sys, time
from pathlib import Path

def told():
    most = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(f"{time.process_time():.1f} CPU s, {most:.0f} MiB in all", file=sys.stderr)

atexit.register(told)
from vertigym.cli import main
main()
"""
ENV = """id = "many/Rows-v0"
kind = "rows"
[files]
train = "train.jsonl"
[reward]
name = "exact"
"""


def main() -> None:
    """Write the data where they are not there yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name, count in (("tasks", 10**6), ("rows", 10**6), ("steps", 10**5), ("samples", 1024)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--part", default="")
    asked = parser.parse_args()
    if asked.part:
        PARTS[asked.part](asked)
        return
    for part in PARTS:
        if getattr(asked, part):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--part", part], check=True)


def tasks(asked: argparse.Namespace) -> None:
    """Open a rows environment, and draw from it as a run does."""
    from vertigym import envs
    from vertigym.trainer.stream import Shuffled

    folder = asked.out / f"tasks-{asked.tasks}"
    if not (folder / "env.toml").exists():
        folder.mkdir(parents=True)
        (folder / "env.toml").write_text(ENV)
        with (folder / "train.jsonl").open("w") as file:
            for i in range(asked.tasks):
                row = {"question": f"{i}: {words(i, 120)}?", "answer": str(i), "cluster": str(i % 999)}
                file.write(json.dumps(row) + "\n")
    before, begun = peak(), time.process_time()
    env = envs.make(str(folder))
    opened = time.process_time() - begun
    ids = env.tasks.ids("train")
    order = Shuffled(len(ids), 0, "tasks")
    begun = time.process_time()
    for position in range(20_000):
        env.tasks.get(ids[order[position]])
    drawn = (time.process_time() - begun) / 20_000
    size = (folder / "train.jsonl").stat().st_size / 1e6
    say(f"{len(ids):,} tasks ({size:.0f} MB)", opened, before, f"{1e6 * drawn:.0f} µs a task drawn")


def rows(asked: argparse.Namespace) -> None:
    """Read rows to imitate, with the tokenizer of a tiny model."""
    from vertigym.policies import tiny
    from vertigym.policies.chat import ChatRenderer
    from vertigym.trainer.sft import read_samples
    from vertigym.trainer.stream import Shuffled

    file = asked.out / f"rows-{asked.rows}.jsonl"
    if not file.exists():
        asked.out.mkdir(parents=True, exist_ok=True)
        with file.open("w") as opened:
            for i in range(asked.rows):
                text = words(i, 60)
                opened.write(json.dumps({"question": f"{i}: {text}?", "answer": text[:40]}) + "\n")
    renderer = ChatRenderer(tiny.make_tokenizer([*WORDS, "0123456789 :?"], tiny.TinySize()))
    renderer.training_rows([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], ())
    before, begun = peak(), time.process_time()
    found = read_samples(file, renderer)
    took = time.process_time() - begun
    order = Shuffled(len(found), 0, "sft")
    tokens = sum(len(found[order[i]][0].token_ids) for i in range(20_000)) / 20_000
    say(f"{len(found):,} rows ({file.stat().st_size / 1e6:.0f} MB, {tokens:.0f} tokens each)", took, before)


def steps(asked: argparse.Namespace) -> None:
    """`vertigym report RUN` of a long run, as text and as a page, each as a whole command."""
    run = long_run(asked)
    for what, options in (("text", ()), ("page", ("-o", f"{asked.out}/report.html", "--force"))):
        command = [sys.executable, "-c", REPORT, "report", str(run), *options]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        print(f"report of {asked.steps:,} steps, {what}: {done.stderr.strip()}", flush=True)


def samples(asked: argparse.Namespace) -> None:
    """Make rows of a step's rollouts, of 8,192 tokens each, and write them."""
    from vertigym.core.types import Score, Segment, Trajectory
    from vertigym.trainer.run import Rollout, Run

    tokens, logprobs = list(range(8192)), [-0.1 * (i % 97) for i in range(8192)]
    rollouts = [
        Rollout(Trajectory(str(i), (), Score(0.5), (Segment(tokens, [1] * 8192, logprobs),)), 0.5)
        for i in range(64)
    ]
    run, begun, times = Run(asked.out), time.process_time(), asked.samples // 64
    for step in range(times):
        run.save_rollouts(step, rollouts)
    run.wait()
    print(f"rollouts of {64 * times:,} samples of 8,192 tokens: {time.process_time() - begun:.1f} CPU s")


def long_run(asked: argparse.Namespace) -> Path:
    """A run's folder with 30 metrics a step, and 200 evals with their decisions."""
    from vertigym.core.files import append_jsonl
    from vertigym.evals.gate import decide
    from vertigym.evals.runner import run_suite
    from vertigym.evals.suite import load_suite
    from vertigym.policies.scripted import constant, expert
    from vertigym.trainer.run_files import RunFiles

    run = Path(asked.out / f"run-{asked.steps}")
    if not (run / "config.toml").exists():
        run.mkdir(parents=True)
        with (run / "metrics.jsonl").open("w") as file:
            for step in range(1, asked.steps + 1):
                metrics = {f"metric/{name}": math.sin(step * 0.001 + name) for name in range(30)}
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        suite = load_suite(Path(__file__).parents[1] / "examples/returns/suite.toml")
        start, better = (run_suite(suite, policy) for policy in (constant("refund 0"), expert()))
        for step in range(0, asked.steps + 1, max(1, asked.steps // 200)):
            (better if step else start).save(RunFiles(run).eval_file(suite.name, step))
            decision = decide(suite, better, start, step=step)
            row = {"step": step, "verdict": "rejected", "reason": decision.reason}
            if step:
                append_jsonl(run / "gates.jsonl", row | {"decisions": [decision.model_dump(mode="json")]})
        (run / "config.toml").write_text('name = "long"\nenv = "vertigym/Returns-v0"\nsteps = 100000\n')
    return run


def words(seed: int, count: int) -> str:
    """A text."""
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def peak() -> float:
    """MiB: the most that this process has been resident."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def say(what: str, seconds: float, before: float, more: str = "") -> None:
    """One line."""
    print(f"{what}: {seconds:.1f} CPU s, {peak() - before:.0f} MiB above {before:.0f}  {more}", flush=True)


PARTS = {"tasks": tasks, "rows": rows, "steps": steps, "samples": samples}

if __name__ == "__main__":
    main()
