"""A run as training leaves it behind, made in a second: a table of rules as the environment, and scripted
policies that know more at each eval. What the studio's tests, pictures and measurements look at.
"""

from collections.abc import Sequence
from dataclasses import asdict
from math import exp
from pathlib import Path
from typing import Any

import tomli_w

from vertigym import envs
from vertigym.core.files import append_jsonl, dumps, jsonable, write_json, write_jsonl, write_text
from vertigym.core.seeds import generator
from vertigym.core.types import Prompt, Split, Task, Trajectory
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.env import Env
from vertigym.evals.gate import decide
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.policies.scripted import Scripted, reference_text
from vertigym.reports.metric_meanings import MEANINGS

LOANS = Path(__file__).parents[1] / "examples" / "lender" / "loans.csv"
SIZES: dict[Split, int] = {"train": 60, "eval": 120, "test": 20}
EVALS = (0, 100, 200, 300)
SKILLS = (0.3, 0.55, 0.9, 0.85)  # share of the tasks that the policy knows


def story_run(root: Path, *, steps: int = 300, evals: Sequence[int] = EVALS) -> Path:
    """`root/runs/loans`, a run of `steps`, its environment in `root/environment`, and four eval folders. Evals
    after the fourth are the fourth again."""
    import_decision(LOANS, "acme/Loan-v0", root / "environment", sizes=SIZES)
    env, run = envs.make(str(root / "environment")), root / "runs" / "loans"
    config = {"name": "loans", "env": str(root / "environment"), "model": "tiny", "steps": steps}
    write_text(run / "config.toml", tomli_w.dumps(config))
    suite = Suite.model_validate(
        {
            "name": "loans",
            "metrics": ["exact"],
            "env": [{"id": str(root / "environment"), "name": "loans", "split": "eval"}],
            "gate": [{"rule": "improves"}],
        }
    )
    reports = []
    for skill in SKILLS:
        out = root / "runs" / f"eval-{round(100 * skill)}"
        reports.append(run_suite(suite, knowing(skill), out=out, model=f"skill-{skill}"))
        reports[-1].save(out / "report.json")
    _evals(run, suite, reports, evals)
    write_text(
        run / "metrics.jsonl", "".join(dumps(metrics(step, steps)) + "\n" for step in range(1, steps + 1))
    )
    write_jsonl(run / "rollouts" / f"step-{steps:06d}.jsonl", list(_rollouts(env, 60)))
    return run


def knowing(skill: float) -> Scripted:
    """A policy that gives the right answer to so many tasks, and to the others a wrong one."""

    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        draw = generator(int.from_bytes(prompt.task.id.encode()[-6:]), "skill").random()
        return reference_text(prompt.task) if draw < skill else wrong(prompt.task)

    return Scripted(write)


def wrong(task: Task) -> str:
    """What such a policy answers where it does not know."""
    if task.id.endswith("7"):
        return "I would rather ask a colleague."
    right: dict[str, Any] = task.answer
    other = "approve" if right["decision"] != "approve" else "refer"
    return dumps(right | {"decision": other})


def metrics(step: int, steps: int) -> dict[str, float]:
    """A row with every metric there is: reward rises, the rest falls."""
    rise = 1 - exp(-4 * step / steps)
    noise = generator(step, "noise").random(len(MEANINGS))
    falls = {name: round(0.2 + 0.6 * (1 - rise) + 0.1 * n, 4) for name, n in zip(MEANINGS, noise, strict=True)}
    return {"step": step, **falls, "reward": round(0.3 + 0.6 * rise + 0.08 * noise[0], 4)}


def _evals(run: Path, suite: Suite, reports: Sequence[Report], steps: Sequence[int]) -> None:
    champion = reports[0]
    for i, step in enumerate(steps):
        report = reports[min(i, len(reports) - 1)].model_copy(update={"model": f"step-{step:06d}"})
        report.save(run / "evals" / "loans" / f"step-{step:06d}.json")
        if not i:
            continue
        decision = decide(suite, report, champion)
        row = {"step": step, "verdict": decision.verdict, "reason": decision.reason}
        append_jsonl(run / "gates.jsonl", row | {"decisions": [decision.model_dump(mode="json")]})
        if decision.passed:
            champion, place = report, f"checkpoints/step-{step:06d}"
            write_json(run / "promoted.json", {"step": step, "checkpoint": place, "reason": decision.reason})


def _rollouts(env: Env, count: int) -> Any:
    for place, task_id in enumerate(env.tasks.ids("train")[:count]):
        _, info = env.reset(options={"task": task_id})
        task = env.task
        _, _, _, _, info = env.step(reference_text(task) if place % 3 else wrong(task))
        said = Trajectory(task_id, tuple(info["messages"]), info["score"], (), completion_tokens=12 + place % 9)
        yield jsonable(asdict(said)) | {"advantage": 0.5 if place % 3 else -1.0}
