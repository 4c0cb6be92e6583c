"""A tiny model learns sums of two-digit numbers: a warm start on examples, then RL from right and wrong.

    python examples/arithmetic/train.py

Reports the gain over the warm start on sums neither stage has seen, with its paired interval. One CPU core and
two and a half minutes are enough; nothing is downloaded.
"""

import shutil
import sys
import time
from pathlib import Path

from vertigym import envs
from vertigym.core.config import load
from vertigym.core.files import write_jsonl, write_text
from vertigym.evals.compare import compare
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite
from vertigym.policies.load import load_policy
from vertigym.reports.progress import watched
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

HERE = Path(__file__).parent
OUT = Path("runs/arithmetic")
EXAMPLES = 4_000


def main() -> int:
    """0 when RL improved on the warm start, 1 when it did not."""
    began = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    write_examples(OUT / "rows.jsonl")
    warm = run("sft.toml", [])
    tuned = run("grpo.toml", [f"model={warm.last}", f'eval.suites=["{HERE / "suite.toml"}"]'])
    text = (HERE / "suite.toml").read_text().replace('split = "eval"', 'split = "test"')
    write_text(OUT / "test.toml", text)
    suite = load_suite(OUT / "test.toml")
    before, after = (
        run_suite(suite, load_policy(folder), model=str(folder)) for folder in (warm.last, tuned.last)
    )
    verdict = compare([before, after])[0].verdict
    print(f"on {len(after.rows)} unseen sums: {verdict} ({time.perf_counter() - began:.0f} s in all)")
    return 0 if tuned.promoted else 1


def write_examples(file: Path) -> None:
    """Worked examples of some of the training tasks."""
    env = envs.make("vertigym/Arithmetic-v0?level=1&digits=true&system=")
    rows = []
    for task_id in env.tasks.ids("train")[:EXAMPLES]:
        task = env.tasks.get(task_id)
        _, info = env.reset(options={"task": task_id})
        rows.append({"messages": [*info["messages"], {"role": "assistant", "content": task.answer}]})
    write_jsonl(file, rows)


def run(config: str, overrides: list[str]) -> RunOutcome:
    """Train as `vertigym train` does."""
    settings = load(RunConfig, HERE / config, [f"output={OUT}", *overrides])
    with watched(settings.steps) as progress:
        return train(settings, progress=progress)


if __name__ == "__main__":
    sys.exit(main())
