"""Run a suite: play what is missing, record every sample as it ends, report.

Each sample has its own seed, made from the run's seed, the task and the sample's number. So a champion and a
challenger meet the same random numbers, a resumed run continues to the same report, and neither order nor
batching matters.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from vertigym.core.errors import DataError
from vertigym.core.files import locked
from vertigym.core.seeds import derive
from vertigym.core.types import Completion, Policy, Prompt, Sampling, StopReason, Trajectory
from vertigym.envs import registry
from vertigym.evals.metrics import Row
from vertigym.evals.report import Report, make_report
from vertigym.evals.sample_records import Header, Key, SampleFile, SampleRecord, read_samples, record_of
from vertigym.evals.suite import Make, Suite, SuiteTask, TaskList, cluster_of, slice_values, task_list
from vertigym.rollouts.rollout import Episode, rollout

Progress = Callable[[int, int], None]


def run_suite(
    suite: Suite,
    policy: Policy,
    *,
    seed: int = 0,
    model: str = "",
    batch: int = 256,
    out: Path | None = None,
    resume: bool = False,
    on_progress: Progress | None = None,
    make: Make = registry.make,
) -> Report:
    """Every sample of every task, and the Report.

    Args:
        model: the name that the report carries.
        batch: episodes active at once; for an endpoint, concurrent requests.
        out: a folder for `samples.jsonl` and `report.json`; nothing is written without it.
        resume: keep the samples already in `out`; those not scored are tried again.
        on_progress: called with samples done and samples in all.

    Raises:
        ConfigError: a wrong metric, an empty split, or `resume` into the samples of another run.
        EngineError: the engine failed as a whole; what was finished is in `out`.
    """
    listed = task_list(suite, make)
    header = Header(suite.name, listed.hash, model, seed, datetime.now(UTC).isoformat(timespec="seconds"))
    with ExitStack() as held:
        opened = None
        if out:
            held.enter_context(locked(out))
            opened = held.enter_context(SampleFile(out / "samples.jsonl", header, resume=resume))
        done = dict(opened.done) if opened else {}
        started = opened.header.started if opened else header.started

        def keep(record: SampleRecord) -> None:
            done[record.key] = record
            if opened:
                opened.append(record)

        play(suite, policy, listed, done, seed=seed, batch=batch, keep=keep, on_progress=on_progress)
    report = make_report(
        suite,
        listed.hash,
        rows_of(suite, listed, done),
        model=model,
        seed=seed,
        started=started,
        ranges=listed.ranges,
    )
    if out:
        report.save(out / "report.json")
    return report


def play(
    suite: Suite,
    policy: Policy,
    listed: TaskList,
    done: dict[Key, SampleRecord],
    *,
    seed: int,
    batch: int,
    keep: Callable[[SampleRecord], None],
    on_progress: Progress | None = None,
) -> None:
    """Sample what `done` lacks, environment by environment; each finished sample goes to `keep`."""
    total = sum(task.samples for task in listed.tasks)
    finished = total - len(_missing(listed.tasks, done))
    for label, env in listed.envs.items():
        wanted = _missing([task for task in listed.tasks if task.env == label], done)
        episodes = [Episode(task.task, sample_seed(seed, task, sample)) for task, sample in wanted]

        def on_done(
            index: int, trajectory: Trajectory, wanted: Sequence[tuple[SuiteTask, int]] = wanted
        ) -> None:
            nonlocal finished
            task, sample = wanted[index]
            keep(record_of(task.env, sample, trajectory))
            finished += 1
            if on_progress:
                on_progress(finished, total)

        if episodes:
            rollout(policy, env, episodes, suite.sampling, batch=batch, on_done=on_done)


def sample_seed(seed: int, task: SuiteTask, sample: int) -> int:
    """The seed of everything random in one sample."""
    return derive(seed, "eval", task.env, task.task.id, sample)


def rows_of(suite: Suite, listed: TaskList, done: dict[Key, SampleRecord]) -> list[Row]:
    """A row a task, in the suite's order."""
    return [
        row_of(suite, task, [done[task.env, task.task.id, sample] for sample in range(task.samples)])
        for task in listed.tasks
    ]


def rescore(suite: Suite, samples: Path, *, out: Path | None = None, make: Make = registry.make) -> Report:
    """Score saved samples again without sampling: what was written is played against the environments anew.

    Raises:
        DataError: the file is missing or malformed, or lacks a sample of the suite.
    """
    header, records = read_samples(samples)
    saved = {record.key: record for record in records}
    listed = task_list(suite, make)
    lacking = [key for key in _keys(listed.tasks) if key not in saved]
    if lacking:
        raise DataError(f"{samples}: no sample {lacking[0][2]} of {lacking[0][0]} task {lacking[0][1]!r}")
    done: dict[Key, SampleRecord] = {}
    play(
        suite,
        Replay(records),
        listed,
        done,
        seed=header.seed,
        batch=256,
        keep=lambda record: done.update({record.key: _with_usage(record, saved[record.key])}),
    )
    rows = rows_of(suite, listed, done)
    report = make_report(
        suite,
        listed.hash,
        rows,
        model=header.model,
        seed=header.seed,
        started=header.started,
        ranges=listed.ranges,
    )
    if out:
        report.save(out / "report.json")
    return report


class Replay:
    """A policy that writes what was recorded, found by the prompt's seed."""

    def __init__(self, records: Sequence[SampleRecord]) -> None:
        self._text = {
            derive(record.seed, "turn", turn): text
            for record in records
            for turn, text in enumerate(record.actions)
        }

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """The recorded text of each prompt; ERROR where there is none."""
        return [
            Completion(self._text[prompt.seed])
            if prompt.seed in self._text
            else Completion("", StopReason.ERROR, error="nothing was recorded here")
            for prompt in prompts
        ]


def _keys(tasks: Sequence[SuiteTask]) -> list[Key]:
    return [(task.env, task.task.id, sample) for task in tasks for sample in range(task.samples)]


def _missing(tasks: Sequence[SuiteTask], done: dict[Key, SampleRecord]) -> list[tuple[SuiteTask, int]]:
    """Samples that are not there, or that have no verdict."""

    def lacks(task: SuiteTask, sample: int) -> bool:
        record = done.get((task.env, task.task.id, sample))
        return record is None or record.score is None

    return [(task, sample) for task in tasks for sample in range(task.samples) if lacks(task, sample)]


def row_of(suite: Suite, task: SuiteTask, records: Sequence[SampleRecord]) -> Row:
    """A task with what came of its samples."""
    scored = [record for record in records if record.score is not None]
    names = dict.fromkeys(name for record in scored for name in record.parts)
    return Row(
        env=task.env,
        task=task.task.id,
        digest=task.digest,
        cluster=cluster_of(task.task, suite.cluster),
        weight=task.weight,
        slices=slice_values(task.task, suite.slices),
        scores=tuple(record.score for record in records),
        parts={name: _mean_part(scored, name) for name in names},
        prompt_tokens=tuple(record.prompt_tokens for record in records),
        completion_tokens=tuple(record.completion_tokens for record in records),
        latency_s=tuple(record.latency_s for record in records),
        reasons=tuple(record.reason for record in records if record.score is None),
        labels=tuple(pair for record in scored if (pair := _label_pair(record.evidence.get("label")))),
    )


def _label_pair(value: object) -> tuple[str, str] | None:
    """The (true, given) labels that a classifier's verifier leaves as evidence."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(one, str) for one in value):
        return value[0], value[1]
    return None


def _mean_part(records: Sequence[SampleRecord], name: str) -> float:
    values = [record.parts[name] for record in records if name in record.parts]
    return sum(values) / len(values)


def _with_usage(fresh: SampleRecord, saved: SampleRecord) -> SampleRecord:
    """The new verdict with the tokens and seconds that were really spent."""
    return replace(
        fresh,
        prompt_tokens=saved.prompt_tokens,
        completion_tokens=saved.completion_tokens,
        latency_s=saved.latency_s,
        tokens=saved.tokens,
        logprobs=saved.logprobs,
    )
