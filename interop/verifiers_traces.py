"""verifiers' results (`traces.jsonl` of version 1: an episode a line) as evals to compare.

The score is `reward`, the weighted sum of an agent's rewards, as in verifiers itself; rewards and metrics by
name can be chosen, too. An episode that failed, or with a reward of null, is not scored. Rollouts of one task
are its epochs, in the order of the file.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import read_jsonl
from vertigym.interop.results import ForeignEval, ForeignSample, Reading, number, text_of


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Reward(_Read):
    score: float
    weight: float = 1.0


class _Config(_Read):
    model: str | None = None


class _Agent(_Read):
    name: str | None = None
    config: _Config = _Config()


class _Error(_Read):
    message: str = ""


class _Trace(_Read):
    agent: _Agent
    rewards: dict[str, _Reward | None] = {}
    metrics: dict[str, float | None] = {}
    ok: bool
    errors: list[_Error] = []
    calls: list[dict[str, Any]] = []
    timing: dict[str, Any] = {}

    def values(self) -> dict[str, float | None]:
        """The reward as verifiers sums it, and what it is made of."""
        each = {name: one.score if one else None for name, one in self.rewards.items()}
        whole = [one.score * one.weight for one in self.rewards.values() if one]
        complete = bool(whole) and len(whole) == len(self.rewards)
        return {**self.metrics, **each, "reward": sum(whole) if complete else None}

    def tokens(self, kind: str) -> int | None:
        """Tokens over all calls; None where one does not say."""
        found = [(call.get("usage") or {}).get(f"{kind}_tokens") for call in self.calls]
        used = [one for one in found if isinstance(one, int)]
        return sum(used) if used and len(used) == len(found) else None

    def seconds(self) -> float | None:
        """What the agent took."""
        agent = self.timing.get("agent") or {}
        start, end = number(agent.get("start")), number(agent.get("end"))
        return None if start is None or end is None else end - start


class _Task(_Read):
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """Its durable id, else its place."""
        return text_of(next((v for key in ("id", "idx") if (v := self.data.get(key)) is not None), "?"))


class _Named(_Read):
    id: str = ""


class _Episode(_Read):
    env: _Named
    task: _Task
    ok: bool
    errors: list[_Error] = []
    traces: list[_Trace]


def is_verifiers(row: Any) -> bool:
    """Whether a line is an episode of verifiers."""
    return isinstance(row, Mapping) and {"env", "task", "traces", "ok"} <= set(row)


def read_verifiers_traces(path: Path, reading: Reading = Reading()) -> ForeignEval:  # noqa: B008 (frozen)
    """One run's file.

    Raises:
        DataError: not such a file, or nothing was scored. ConfigError: episodes of several agents, models or
            environments, so that there is no one score.
    """
    episodes = [_episode(row, f"{path}:{line}") for line, row in enumerate(read_jsonl(path, torn_tail=True), 1)]
    for what, names in (
        ("agents", {trace.agent.name for one in episodes for trace in one.traces}),
        ("models", {trace.agent.config.model for one in episodes for trace in one.traces}),
        ("environments", {one.env.id for one in episodes}),
    ):
        if len(names) > 1 or any(len(one.traces) > 1 for one in episodes):
            raise ConfigError(
                f"{path}: several {what} ({', '.join(sorted(map(str, names)))}): there is no one score"
            )
    scores = dict.fromkeys(name for one in episodes for trace in one.traces for name in trace.values())
    chosen = Reading(reading.score or ("reward" if "reward" in scores else "")).chosen(list(scores), path)
    seen: Counter[str] = Counter()
    samples = []
    for one in episodes:
        seen[one.task.name] += 1
        samples.append(_sample(one, seen[one.task.name], chosen, reading.cluster, path))
    model = next((trace.agent.config.model for one in episodes for trace in one.traces), None)
    return ForeignEval(episodes[0].env.id, model or "", samples, path)


def _episode(row: Any, where: str) -> _Episode:
    if not is_verifiers(row):
        raise DataError(f"{where}: not an episode of verifiers (env, task, traces, ok)")
    try:
        return _Episode.model_validate(row)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise DataError(f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def _sample(episode: _Episode, epoch: int, chosen: str, cluster: str, path: Path) -> ForeignSample:
    trace = episode.traces[0] if episode.traces else None
    values = trace.values() if trace else {}
    data = episode.task.data
    if cluster and cluster not in data:
        raise DataError(
            f"{path}: task {episode.task.name!r} has no field {cluster!r}, which says what its cluster is"
        )
    failed = [error.message for error in (*episode.errors, *(trace.errors if trace else ()))]
    return ForeignSample(
        task=episode.task.name,
        content=data,
        epoch=epoch,
        score=number(values.get(chosen)) if episode.ok else None,
        reason=failed[-1].splitlines()[0] if failed and failed[-1] else "no reward",
        parts={
            name: found
            for name, value in values.items()
            if name != chosen and (found := number(value)) is not None
        },
        cluster=text_of(data[cluster]) if cluster else "",
        prompt_tokens=trace.tokens("prompt") if trace else None,
        completion_tokens=trace.tokens("completion") if trace else None,
        latency_s=trace.seconds() if trace else None,
    )
