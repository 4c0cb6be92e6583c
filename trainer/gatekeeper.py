"""Champion and challenger: run the suites on a checkpoint, decide, and keep the decision.

The champion is the checkpoint last promoted, at first the model the run started from. A challenger must pass
the gates of every suite; one that is rejected stays in the run, but does not ship.

Every eval is one more chance to promote by luck. So the evals that the config announces share the error of a
run: together they promote a policy that never improves in at most 1 - confidence of the runs, whatever the
evals have to do with each other (Bonferroni's inequality). Up to a look, the square of its place is spent (Kim
& DeMets 1987, Biometrika 74:149): late checkpoints have gained most, and get most. `eval.error = "look"` gives
each of them the error of a single eval instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vertigym.core.errors import ConfigError
from vertigym.core.types import Policy
from vertigym.evals.evidence import shortfalls
from vertigym.evals.gate import combine, decide
from vertigym.evals.rehearsal import rehearse
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite, load_suite, task_list
from vertigym.trainer.config import EvalConfig, RunConfig
from vertigym.trainer.run import Run
from vertigym.trainer.run_files import step_name


@dataclass(frozen=True, slots=True)
class CheckpointEvaluation:
    """What the suites said of one checkpoint; no verdict for the one the run started from."""

    step: int
    reports: Sequence[Report]
    verdict: str
    reason: str


class Gatekeeper:
    """Decides which checkpoints of a run are promoted."""

    def __init__(
        self,
        suites: Sequence[Suite],
        config: EvalConfig,
        run: Run,
        policy: Policy,
        *,
        seed: int,
        steps: int,
    ) -> None:
        self.suites = suites
        self._steps = steps
        self._config, self._run, self._policy, self._seed = config, run, policy, seed
        self._verdicts = {row["step"]: row["verdict"] for row in run.gates()}  # in the order of decisions

    def evaluate(
        self, step: int, on_eval: Callable[[CheckpointEvaluation], None]
    ) -> CheckpointEvaluation | None:
        """Run the suites on the policy as it is; any step but the first is a challenger. None where a resumed
        run has its evals and decision already."""
        if self._is_complete(step):
            return None
        reports = [self._report(suite, step) for suite in self.suites]
        verdict, reason = self._decide(step, reports) if step else ("", "")
        evaluation = CheckpointEvaluation(step, reports, verdict, reason)
        on_eval(evaluation)
        return evaluation

    def champion(self) -> Path:
        """The checkpoint last promoted, or the one the run started from."""
        return self._run.promoted() or self._run.checkpoint(0)

    def was_rejected(self, step: int) -> bool:
        """Whether the challenger of this step was."""
        return self._verdicts.get(step) == "rejected"

    def is_hopeless(self) -> bool:
        """Whether the last `eval.patience` challengers were all rejected."""
        patience = self._config.patience
        last = list(self._verdicts.values())[-patience:]
        return patience > 0 and last == ["rejected"] * patience

    def _decide(self, step: int, reports: Sequence[Report]) -> tuple[str, str]:
        decisions = [
            decide(
                suite,
                report,
                self._earlier(suite, self.champion()),
                start=self._earlier(suite),
                error=error_of_a_look(suite, self._config, self._steps, step),
                step=step,
            )
            for suite, report in zip(self.suites, reports, strict=True)
        ]
        passed, reason = combine(decisions)
        verdict = "promoted" if passed else "rejected"
        row = {"step": step, "verdict": verdict, "reason": reason}
        self._verdicts[step] = verdict
        self._run.record_gate(row | {"decisions": [d.model_dump(mode="json") for d in decisions]})
        if passed:
            self._run.promote(step, reason)
        return verdict, reason

    def _report(self, suite: Suite, step: int) -> Report:
        """The suite's report on the current weights, written to the run."""
        report = run_suite(suite, self._policy, seed=self._seed, model=str(self._run.checkpoint(step)))
        report.save(self._run.eval_file(suite.name, step))
        return report

    def _earlier(self, suite: Suite, checkpoint: Path | None = None) -> Report:
        """The report on an earlier checkpoint, by default the one the run started from."""
        name = checkpoint.name if checkpoint else step_name(0)
        return Report.load(self._run.folder / "evals" / suite.name / f"{name}.json")

    def _is_complete(self, step: int) -> bool:
        if not all(self._run.eval_file(suite.name, step).exists() for suite in self.suites):
            return False
        return step == 0 or step in self._verdicts


def error_of_a_look(suite: Suite, config: EvalConfig, steps: int, step: int) -> float:
    """The chance of passing wrongly that the eval after `step` of `steps` may use: its part of 1 - confidence,
    and at most the half of it that a single eval has."""
    look, looks = (math.ceil(count / config.every) for count in (step, steps))
    part = 1.0 if config.error == "look" else (2 * look - 1) / looks**2
    return (1 - suite.confidence) * min(0.5, part)


def evidence(config: RunConfig, suites: Sequence[Suite]) -> list[str]:
    """Gates that are known to pass nothing on so few tasks, even with the error of the last look."""
    if config.eval is None or not config.steps:
        return []
    return [
        line
        for suite in suites
        for line in shortfalls(
            suite, task_list(suite), error_of_a_look(suite, config.eval, config.steps, config.steps)
        )
    ]


def open_suites(config: EvalConfig | None) -> list[Suite]:
    """The suites named in [eval], with their tasks tried.

    Raises:
        ConfigError: two have one name, or one has no gate, or names what is not there. InputError: a file or an
            environment is missing.
    """
    suites = [load_suite(path) for path in config.suites] if config else []
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise ConfigError(f"[eval] suites need different names, got {', '.join(names)}")
    for suite in suites:
        if not suite.gate:
            raise ConfigError(f'suite {suite.name} has no [[gate]]: add one, for example rule = "improves"')
        rehearse(suite, task_list(suite))
    return suites
