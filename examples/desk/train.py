"""Train one of the support desk's small models from its own logs.

    python examples/desk/train.py intent|search|answer

A warm start on what the old model answered, then RL from what people made of it; a gate decides, and both
models are compared on the test split. One CPU core and about two minutes each; nothing is downloaded.
"""

import shutil
import sys
import time
from pathlib import Path

import desk

from vertigym.core.config import load
from vertigym.core.files import write_jsonl
from vertigym.evals.compare import compare
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite
from vertigym.policies.load import load_policy
from vertigym.reports.progress import watched
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

HERE = Path(__file__).parent
CALLS = {"intent": (desk.intents, 3000), "search": (desk.searches, 3000), "answer": (desk.answers, 6000)}


def main(name: str) -> int:
    """0 when RL improved on the warm start, 1 when it did not."""
    began = time.perf_counter()
    out = Path("runs/desk") / name
    shutil.rmtree(out, ignore_errors=True)
    desk.write(out, *CALLS[name])
    write_jsonl(out / "documents.jsonl", desk.pages())
    shutil.copy(HERE / name / "env.toml", out / "env.toml")
    suite_file = HERE / name / "suite.toml"
    warm = run(name, "sft.toml", f"output={out}")
    tuned = run(name, "grpo.toml", f"output={out}", f'eval.suites=["{suite_file}"]')
    suite = load_suite(suite_file)
    held_out = tuple(part.model_copy(update={"split": "test"}) for part in suite.env)
    suite = suite.model_copy(update={"env": held_out})
    before, after = (
        run_suite(suite, load_policy(folder), model=str(folder))
        for folder in (warm.last, tuned.promoted or tuned.last)
    )
    found = compare([before, after])[0]
    print(f"{name}: {found.verdict} on {len(after.rows)} tasks ({time.perf_counter() - began:.0f} s in all)")
    for line in found.metrics:
        gap = line.difference
        if gap and gap.low is not None and gap.high is not None:
            numbers = f"{line.baseline:.3f} -> {line.value:.3f}"
            print(f"  {line.label:12} {numbers}  difference {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")
    return 0 if tuned.promoted else 1


def run(name: str, config: str, *overrides: str) -> RunOutcome:
    """Train as `vertigym train` does."""
    settings = load(RunConfig, HERE / name / config, list(overrides))
    with watched(settings.steps) as progress:
        return train(settings, progress=progress)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CALLS:
        sys.exit(f"which model? one of {', '.join(CALLS)}")
    sys.exit(main(sys.argv[1]))
