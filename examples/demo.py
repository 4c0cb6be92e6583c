"""A company changed its rules, and three in four of its logged decisions still follow the old ones.

This script warm-starts a tiny model on those logs, trains it with GRPO against the current decision model, and
lets an eval suite decide which checkpoint is promoted. Nothing is downloaded; two CPU cores are enough.

    python examples/demo.py                          the returns policy that vertigym ships
    python examples/demo.py --decision path.json     your own decision model; its old version is made by
                                                     moving thresholds and swapping outcomes of its rules
    python examples/demo.py --decision new.dmn --old old.dmn     or given
"""

import argparse
import json
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from vertigym import envs
from vertigym.core.config import load
from vertigym.core.errors import VertigymError
from vertigym.core.files import write_jsonl, write_text
from vertigym.core.types import Task
from vertigym.decisions.formats import read_model
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.decision.builtin import RETURNS
from vertigym.envs.decision.diff import compare_files
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.decision.scripts import SANDBOXED, sandboxed
from vertigym.envs.decision.stale import old_version, stale_logs
from vertigym.evals.compare import compare
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite, load_suite
from vertigym.policies.load import load_policy
from vertigym.reports.progress import watched
from vertigym.reports.run_summary import mean_and_error, per_rule
from vertigym.rollouts.rollout import Episode, rollout
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

HERE = Path(__file__).parent / "returns"
OUT = Path("runs/demo")
screen = Console(width=110, markup=False)


@dataclass(frozen=True, slots=True)
class Story:
    """What the demo plays with: an environment, its current rules and their old version."""

    name: str
    env: DecisionEnv
    current: RuleModel
    old: RuleModel
    max_tokens: int
    size: int


def main() -> int:
    """Tell the story; 0 when a checkpoint was promoted, 1 when none was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decision", type=Path, help="a decision model of your own: JDM, DMN, a spreadsheet")
    parser.add_argument("--old", type=Path, help="its old version; without it one is derived (not of DMN)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    seed = arguments.seed

    heading("1. The environment: the rule engine is the ground truth")
    story = open_story(arguments.decision, arguments.old, seed)
    logs = write_logs(story, seed)
    common = [f"env={story.name}", f"output={OUT}", f"seed={seed}"]

    heading("2. Warm start: imitate the logs")
    warm = run("sft.toml", [*common, "name=sft", f"sft.data={logs}", f"sft.batch={story.size // 2}"])

    heading("3. GRPO against the current rules; the suite decides what is promoted")
    suite = write_suite(story, split="eval")
    start = [f"model={warm.last}", f'eval.suites=["{suite}"]']
    sampled = [f"rollout.max_tokens={story.max_tokens}", f"rollout.tasks={story.size}"]
    tuned = run("grpo.toml", [*common, "name=grpo", *start, *sampled])
    checkpoints(tuned)

    heading("4. What ships")
    if tuned.promoted is None:
        screen.print("No checkpoint was shown to be better than the warm start, so none is promoted.")
        return 1
    screen.print(f"promoted: {tuned.promoted}  (an ordinary Hugging Face model folder)")
    test = load_suite(write_suite(story, split="test"))
    before, after = (report(test, folder) for folder in (warm.last, tuned.promoted))
    verdict = compare([before, after])[0].verdict
    screen.print(f"on {len(after.rows)} cases that no decision was based on: {verdict}\n")
    rules(story.current, before, after)
    sample(story.env, test, tuned.promoted)
    elapsed = time.perf_counter() - began
    screen.print(f"\n{elapsed:.0f} s. All of it is in {OUT}; try `vertigym report {OUT}/grpo`.")
    return 0


def open_story(decision: Path | None, before: Path | None, seed: int) -> Story:
    """The environment that ships with vertigym, or one made from the user's decision model."""
    name = RETURNS if decision is None else str(OUT / "environment")
    if decision is not None and before is not None:  # half of its tasks are cases whose answer changed
        compare_files(before, decision, seed=seed).write(Path(name), "demo/Decision-v0")
    elif decision is not None:
        import_decision(decision, "demo/Decision-v0", Path(name), rules="hidden", seed=seed)
    env = envs.make(name)
    assert isinstance(env, DecisionEnv)
    current = env.config.model(env.folder, sandboxed)
    old = read_model(before, SANDBOXED) if before else old_version(env, seed=seed)
    tasks = training_tasks(env)
    if decision is not None:
        hit = {rule for task in tasks for rule in task.info["rules"]}
        screen.print(f"{decision.name}: {len(hit)} of {len(current.rules)} rules are hit by some task")
    task = tasks[0]
    screen.print(
        f"\n{task.messages()[-1]['content']}\n-> {json.dumps(task.answer)}", markup=False, highlight=False
    )
    answers = [pieces(json.dumps(task.answer)) for task in tasks]
    asked = [pieces(task.messages()[-1]["content"]) for task in tasks]
    # Longer cases get smaller batches, so that the whole takes minutes whatever the decision model.
    size = int(64 * min(1.0, 60 / (fmean(asked) + fmean(answers))))
    return Story(name, env, current, old, max_tokens=max(32, 2 * max(answers)), size=max(16, size))


def pieces(text: str) -> int:
    """About how many tokens the tiny model makes of it."""
    return len(re.findall(r"\d+|[^\W\d]+|\W+", text))


def training_tasks(env: DecisionEnv) -> list[Task]:
    """Every task of the train split."""
    return [env.tasks.get(task_id) for task_id in env.tasks.ids("train")]


def write_logs(story: Story, seed: int) -> Path:
    """The company's logs: three answers in four follow the old rules."""
    tasks = training_tasks(story.env)
    rows = stale_logs(story.current, story.old, tasks, story.env.config.outputs, seed=seed)
    path = OUT / "logs.jsonl"
    write_jsonl(path, rows)
    screen.print(f"\n{len(tasks)} logged decisions in {path}; three in four follow the old rules")
    return path


def write_suite(story: Story, *, split: str) -> Path:
    """The example's suite, for this environment and split."""
    text = (HERE / "suite.toml").read_text().replace(RETURNS, story.name)
    text = text.replace('split = "eval"', f'split = "{split}"')
    text = text.replace("max_tokens = 32", f"max_tokens = {story.max_tokens}")
    path = OUT / f"suite-{split}.toml"
    write_text(path, text)
    return path


def run(config: str, overrides: list[str]) -> RunOutcome:
    """Train as `vertigym train` does."""
    settings = load(RunConfig, HERE / config, overrides)
    with watched(settings.steps) as progress:
        return train(settings, progress=progress)


def report(suite: Suite, folder: Path) -> Report:
    """A checkpoint's report."""
    return run_suite(suite, load_policy(folder), model=str(folder))


def heading(text: str) -> None:
    """A line between the acts."""
    screen.print(f"\n{text}", style="bold")


def checkpoints(outcome: RunOutcome) -> None:
    """Every checkpoint, its held-out accuracy and what the gate said."""
    table = Table("checkpoint", "exact (± s.e.)", "verdict", "reason")
    for found in outcome.evaluations:
        score = mean_and_error(found.reports[0].metrics["exact"]["all"])
        table.add_row(f"step {found.step}", score, found.verdict or "warm start", found.reason)
    screen.print(table)


def rules(model: RuleModel, before: Report, after: Report) -> None:
    """Accuracy on the cases that hit each rule."""
    table = Table(
        "rule", "cases", "warm start", "promoted", title="Exact accuracy per rule", title_justify="left"
    )
    was, now = per_rule(before, "exact"), per_rule(after, "exact")
    for rule in model.rules.values():
        if rule.id in now:
            cells = (
                f"{rule.node}: {rule.text}",
                str(now[rule.id].tasks),
                mean_and_error(was[rule.id]),
                mean_and_error(now[rule.id]),
            )
            table.add_row(*cells)
    screen.print(table)


def sample(env: DecisionEnv, suite: Suite, folder: Path) -> None:
    """One rollout of the promoted checkpoint."""
    task = env.tasks.get(env.tasks.ids("test")[0])
    (played,) = rollout(load_policy(folder), env, [Episode(task)], suite.sampling)
    heading("One rollout")
    for message in played.messages:
        screen.print(f"[{message['role']}] {message['content']}", markup=False, highlight=False)
    screen.print(f"score {played.score.value}  {dict(played.score.parts)}", highlight=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VertigymError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
