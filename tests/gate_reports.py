"""Suites and reports of which a test says the scores, for tests of gates."""

from collections.abc import Callable, Mapping

from vertigym.core.types import Task
from vertigym.evals.metrics import Row
from vertigym.evals.report import Report, make_report
from vertigym.evals.suite import Suite

Score = Callable[[int], float | None]


def suite(*gates: Mapping[str, object], **changes: object) -> Suite:
    return Suite.model_validate({"name": "s", "env": [{"id": "a/B-v0"}], "gate": gates, **changes})


def report(
    score: Score,
    *,
    of: Suite | None = None,
    tasks: int = 200,
    clusters: int = 200,
    tokens: int = 5,
    model: str = "m",
) -> Report:
    rows = [
        Row(
            env="e" if i % 2 else "f",
            task=str(i),
            digest="",
            cluster=f"c{i % clusters}",
            weight=1 / tasks,
            slices={"rule": (f"r{i % 4}",)},
            scores=(score(i),),
            parts={"half": (score(i) or 0) / 2},
            prompt_tokens=(10,),
            completion_tokens=(tokens + i % 3,),
            latency_s=(i / 100,),
        )
        for i in range(tasks)
    ]
    return make_report(suite(), "hash", rows, model=model, seed=0, started="")


def right_below(count: int) -> Score:
    return lambda i: float(i < count)


IMPROVES = {"rule": "improves"}
NOT_WORSE = {"rule": "not_worse", "margin": 0.02}


def five_rules(i: int) -> Task:
    info = {"input": {"amount": i, "tier": "gold"}, "rules": [f"r{i % 5}"], "customer": f"c{i % 40}"}
    return Task(id=f"t{i}", prompt="?", info=info, cluster=f"t{i}")
