"""Suites, the runner, reports and gates, on scripted policies of known accuracy."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from vertigym.core.errors import ConfigError, DataError, EngineError
from vertigym.core.seeds import generator
from vertigym.core.types import Completion, Prompt, Sampling, Task
from vertigym.envs.env import Env, SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.evals.gate import decide
from vertigym.evals.report import Report
from vertigym.evals.runner import rescore, run_suite
from vertigym.evals.suite import Suite, load_suite, shortened, task_list
from vertigym.policies.scripted import Scripted, constant, expert
from vertigym.rewards.rubric import Rubric

TOML = """
name = "sums"

[[env]]
id = "test/Sums-v0"
name = "sums"
samples = 2

[[gate]]
rule = "improves"
"""


def exact(completion: str, answer: str) -> float:
    return float(completion == answer)


def sums(count: int = 60, clusters: int = 12, rubric: Rubric | None = None) -> Env:
    tasks = [
        Task(
            id=f"t{i}",
            prompt=f"{i}+{i}",
            answer=str(2 * i),
            split="eval",
            cluster=f"c{i % clusters}",
            info={"rules": [f"r{i % 3}", "all"], "tier": "gold" if i % 2 else "base"},
        )
        for i in range(count)
    ]
    return SingleTurnEnv(TaskSet(tasks), rubric or Rubric(exact))


def make(env_id: str, **_: object) -> Env:
    return sums()


def suite(**changes: object) -> Suite:
    env = {"id": "test/Sums-v0", "name": "sums", "samples": changes.pop("samples", 1)}
    return Suite.model_validate({"name": "sums", "env": [env], **changes})


def of_accuracy(share: float, salt: str = "") -> Scripted:
    """Right on a fixed share of tasks and samples, by the prompt's seed."""

    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        right = generator(prompt.seed, "accuracy", salt).random() < share
        return str(prompt.task.answer) if right else "wrong"

    return Scripted(write)


class Dies(Exception):
    """Stands for a kill."""


class Counting:
    """Counts what it is asked, and dies after `limit` prompts, mid-batch."""

    def __init__(self, inner: Scripted, limit: int = 10**9) -> None:
        self.inner, self.limit, self.seeds = inner, limit, list[int]()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        if len(self.seeds) + len(prompts) > self.limit:
            raise Dies
        self.seeds += [prompt.seed for prompt in prompts]
        return self.inner.generate(prompts, sampling)


def test_the_expert_scores_one_and_a_constant_nothing() -> None:
    best, worst = (run_suite(suite(), p, make=make) for p in (expert(), constant("no")))
    assert (best.score.mean, best.score.se, worst.score.mean) == (1.0, 0.0, 0.0)
    assert best.score.low is not None
    assert 0.7 < best.score.low < 1  # all right on twelve clusters is not certainty
    assert best.per_rule["r0"].mean == 1.0
    assert best.per_rule["r0"].tasks == 20


def test_the_task_list_is_fixed_and_its_hash_tells_any_change() -> None:
    part = suite().env[0]
    some = suite().model_copy(update={"env": (part.model_copy(update={"tasks": 10}),)})
    first, second = task_list(some, make), task_list(some, make)
    assert [t.task.id for t in first.tasks] == [t.task.id for t in second.tasks]
    assert len(first.tasks) == 10
    assert first.hash == second.hash
    hashes = {
        first.hash,
        task_list(suite(), make).hash,
        task_list(suite(samples=2), make).hash,
        task_list(suite(sampling={"temperature": 0.5}), make).hash,
        task_list(suite(), lambda *_, **__: sums(clusters=7)).hash,
    }
    assert len(hashes) == 5
    assert task_list(suite(gate=[{"rule": "improves"}]), make).hash in hashes  # gates only read


def test_weights_of_environments_not_their_sizes_make_the_mean() -> None:
    two = Suite.model_validate(
        {
            "name": "two",
            "env": [{"id": "a", "name": "a", "weight": 3}, {"id": "b", "name": "b", "weight": 1}],
        }
    )
    envs = {"a": sums(10, 10, Rubric(exact)), "b": sums(40, 40, Rubric(lambda completion: 0.0))}
    report = run_suite(two, expert(), make=lambda env_id, **_: envs[env_id])
    assert report.score.mean == pytest.approx(0.75)
    assert report.value("score", "a") == 1.0
    assert report.value("score", "b") == 0.0


def test_not_scored_is_kept_apart_from_wrong() -> None:
    def breaks_on_odd(completion: str, answer: str) -> float | None:
        return None if int(answer) % 4 else float(completion == answer)

    env = sums(rubric=Rubric(breaks_on_odd))
    gated = suite(gate=[{"rule": "at_least", "threshold": 0.5}])
    report = run_suite(gated, expert(), make=lambda *_, **__: env)
    assert report.score.mean == 1.0
    assert (report.unscored, report.samples) == (30, 60)
    assert report.score.tasks == 30
    decision = decide(gated, report)
    assert not decision.passed
    assert "could not be scored" in decision.reason


def test_a_failed_generation_is_not_scored_and_says_why() -> None:
    def write(prompt: Prompt) -> str:
        raise OSError("connection reset")

    report = run_suite(suite(), Scripted(write), make=make)
    assert (report.unscored, report.score.mean) == (60, None)
    assert list(report.reasons) == ["generation failed: OSError: connection reset"]


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = run_suite(suite(samples=3), of_accuracy(0.6), make=make, out=tmp_path)
    assert Report.load(tmp_path) == report
    (tmp_path / "report.json").write_text('{"suite": 3}')
    with pytest.raises(DataError, match="not a report"):
        Report.load(tmp_path)


def test_batching_changes_nothing() -> None:
    reports = [run_suite(suite(samples=2), of_accuracy(0.5), batch=b, make=make) for b in (1, 7, 500)]
    assert len({r.model_dump_json(exclude={"started"}) for r in reports}) == 1


@pytest.mark.parametrize("limit", [0, 1, 13, 40, 64, 77, 99, 110, 119])
def test_a_killed_eval_resumes_to_the_same_report(tmp_path: Path, limit: int) -> None:
    whole = run_suite(suite(samples=2), of_accuracy(0.5), make=make, batch=8)
    first, second = Counting(of_accuracy(0.5), limit), Counting(of_accuracy(0.5))
    with pytest.raises(Dies):
        run_suite(suite(samples=2), first, make=make, out=tmp_path, batch=8)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"env": "sums", "ta')  # a line that the kill cut short
    resumed = run_suite(suite(samples=2), second, make=make, out=tmp_path, resume=True, batch=8)
    assert resumed.model_dump_json(exclude={"started"}) == whole.model_dump_json(exclude={"started"})
    assert not set(first.seeds) & set(second.seeds)
    assert len(first.seeds) + len(second.seeds) == 120
    assert rescore(suite(samples=2), tmp_path / "samples.jsonl", make=make).rows == whole.rows


def test_what_could_not_be_scored_is_tried_again_on_resume(tmp_path: Path) -> None:
    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        if prompt.task.id in ("t3", "t4"):
            raise OSError("connection reset")
        return str(prompt.task.answer)

    asked = suite(metrics=["unscored"])
    first = run_suite(asked, Scripted(write), make=make, out=tmp_path)
    assert first.value("unscored") == pytest.approx(2 / 60)
    counting = Counting(expert())
    second = run_suite(asked, counting, make=make, out=tmp_path, resume=True)
    assert (second.unscored, second.score.mean, len(counting.seeds)) == (0, 1.0, 2)
    assert second.reasons == {}


def test_resume_refuses_the_samples_of_another_run(tmp_path: Path) -> None:
    run_suite(suite(), expert(), make=make, out=tmp_path, model="a")
    with pytest.raises(ConfigError, match="holds samples for model 'a'"):
        run_suite(suite(), expert(), make=make, out=tmp_path, resume=True, model="b")
    with pytest.raises(ConfigError, match="suite_hash"):
        run_suite(suite(samples=2), expert(), make=make, out=tmp_path, resume=True, model="a")


def test_samples_are_scored_again_without_sampling(tmp_path: Path) -> None:
    report = run_suite(suite(samples=2), of_accuracy(0.5), make=make, out=tmp_path)
    again = rescore(suite(samples=2), tmp_path / "samples.jsonl", make=make)
    assert again == report
    lenient = sums(rubric=Rubric(lambda completion: 1.0))
    assert (
        rescore(suite(samples=2), tmp_path / "samples.jsonl", make=lambda *_, **__: lenient).score.mean == 1.0
    )


def test_hostile_text_survives_the_sample_file(tmp_path: Path) -> None:
    nasty = "\ud800 \x00 \u2028 \n {" + "[" * 5000
    run_suite(suite(), constant(nasty), make=make, out=tmp_path)
    assert rescore(suite(), tmp_path / "samples.jsonl", make=make).score.mean == 0.0
    line = json.loads((tmp_path / "samples.jsonl").read_text().split("\n")[1])
    assert line["messages"][-1]["content"] == nasty


def test_slices_parts_tokens_and_latency_are_metrics() -> None:
    asked = suite(
        samples=4,
        metrics=["exact", "pass@2", "pass^2", "tokens", "latency_p95", "cost"],
        slices=["cluster", "info.tier"],
        prices={"scripted:*": {"input": 1.0, "output": 2.0}},
    )
    report = run_suite(asked, of_accuracy(0.5), make=make, model="scripted:half")
    assert report.value("exact") == report.score.mean
    mean, at, hat = (report.value(m) for m in ("score", "pass@2", "pass^2"))
    assert mean is not None
    assert at is not None
    assert hat is not None
    assert hat < mean < at
    assert at + hat == pytest.approx(2 * mean)  # inclusion and exclusion, and both are unbiased
    assert set(report.slices) == {"rule", "cluster", "info.tier"}
    assert report.cost == pytest.approx((240 * 1 + 240 * 2) / 1e6)
    assert report.within_tasks == pytest.approx(0.25, abs=0.05)


def test_an_unknown_metric_names_the_ones_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'exakt'.*exact"):
        run_suite(suite(metrics=["exakt"]), expert(), make=make)
    with pytest.raises(ConfigError, match="this suite has 1"):
        run_suite(suite(metrics=["pass@4"]), expert(), make=make)


def test_a_suite_file_is_read_and_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(TOML)
    assert load_suite(file).env[0].samples == 2
    assert shortened(load_suite(file), tasks=5, samples=3).env[0].tasks == 5
    for text, message in {
        TOML.replace("improves", "improve"): "gate.0.rule",
        TOML + 'slize = "x"': "unknown key 'gate.0.slize'; did you mean 'slice'",
        TOML.replace('rule = "improves"', 'rule = "not_worse"'): "needs a margin",
        TOML.replace('rule = "improves"', 'rule = "at_most"'): "needs a threshold",
        TOML.replace('name = "sums"', "", 1): "'name' is missing",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_suite(file)


def test_progress_counts_every_sample() -> None:
    seen: list[tuple[int, int]] = []
    run_suite(suite(), expert(), make=make, on_progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (60, 60)
    assert len(seen) == 60


def test_an_engine_that_dies_keeps_what_was_finished(tmp_path: Path) -> None:
    class Broken:
        calls = 0

        def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
            self.calls += 1
            if self.calls == 3:
                raise EngineError("the endpoint is gone")
            return expert().generate(prompts, sampling)

    with pytest.raises(EngineError):
        run_suite(suite(), Broken(), make=make, out=tmp_path, batch=10)
    counting = Counting(expert())
    assert run_suite(suite(), counting, make=make, out=tmp_path, resume=True).score.mean == 1.0
    assert len(counting.seeds) == 40


def test_half_characters_of_tasks_and_names_stand_in_no_report(tmp_path: Path) -> None:
    """In a slice, a cluster, an id, a model's name: a report is written, read and paired all the same."""
    half = "\ud800[/bold]"
    tasks = [
        Task(id=f"{half}{i}", prompt=half, answer="1", split="eval", cluster=f"{half}{i}", info={"tier": half})
        for i in range(8)
    ]
    chosen = Suite.model_validate(
        {
            "name": "s",
            "env": [{"id": "e", "name": "e"}],
            "slices": ["info.tier"],
            "gate": [{"rule": "improves"}],
        }
    )

    def played(text: str) -> Report:
        def of_tasks(env_id: str, **_: object) -> Env:
            return SingleTurnEnv(TaskSet(tasks), Rubric(exact))

        return run_suite(chosen, constant(text), model=half, make=of_tasks, out=tmp_path / text)

    one, zero = played("1"), played("0")
    assert Report.load(tmp_path / "1") == one
    assert list(one.slices["info.tier"]) == ["\ufffd[/bold]"]
    assert decide(chosen, one, zero).passed
    one.model_dump_json()
