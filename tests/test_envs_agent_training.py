"""A tiny model over multi-turn tool episodes: warmed up on experts who decide by the old rules, trained on
the new; and what the page of the run shows of it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from vertigym.core.config import load
from vertigym.evals.gate import compare_rows
from vertigym.evals.metrics import Row
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite
from vertigym.policies.load import load_policy
from vertigym.reports.run_page import run_data
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import Progress, train

EXAMPLE = Path(__file__).parents[1] / "examples" / "agent"
pytestmark = pytest.mark.slow(first=True)


STEPS = 50  # of the example's 150, which reach more: docs/agents.md has whole runs of several seeds


def configured(name: str, folder: Path, *overrides: str) -> RunConfig:
    shared = [f"env={folder / 'desk'}", f"output={folder}"]
    config = load(RunConfig, EXAMPLE / name, [*shared, *overrides])
    return config.model_copy(update={"eval": None})  # the gate has tests of its own


def stop(step: int, _: dict[str, float]) -> None:
    if step > STEPS:
        raise KeyboardInterrupt


def on_the_test_split(model: Path, folder: Path) -> Sequence[Row]:
    """Each case counts by itself: the question is whether these rules were learnt."""
    suite = load_suite(EXAMPLE / "suite.toml")
    parts = tuple(p.model_copy(update={"id": str(folder / "desk"), "split": "test"}) for p in suite.env)
    report = run_suite(suite.model_copy(update={"env": parts}), load_policy(model), model=str(model))
    return [row.model_copy(update={"cluster": ""}) for row in report.rows]


def test_held_out_success_improves_from_the_old_rules_to_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from prepare import prepare  # type: ignore[import-not-found]

    prepare(tmp_path / "desk", tmp_path / "logs.jsonl")
    warm = train(configured("sft.toml", tmp_path, f"sft.data={tmp_path / 'logs.jsonl'}"))
    longer = configured("grpo.toml", tmp_path, f"model={warm.last}", f"checkpoint.every={STEPS}")
    with pytest.raises(KeyboardInterrupt):
        train(longer, progress=Progress(on_step=stop))
    tuned = tmp_path / longer.name
    models = tuned / "checkpoints" / f"step-{STEPS:06}", warm.last
    after, before = (on_the_test_split(model, tmp_path) for model in models)
    success, now, then = compare_rows(after, before, "solved")
    print(f"held-out success: {then} -> {now}, difference {success}")
    assert success.mean is not None
    assert success.low is not None
    assert success.mean >= 0.05
    assert success.low > 0

    rollout = next(row for row in run_data(tuned)["rollouts"] if row["score"] == 1.0)
    (runs,) = rollout["stream"]
    written = ["".join(text for text, _ in run["tokens"]) for run in runs if run["trained"]]
    given = "".join(text for run in runs if not run["trained"] for text, _ in run["tokens"])
    assert written[0].startswith('<tool_call>{"name": "get"')
    assert any('"name": "decide"' in text for text in written)
    assert '"name": "decide"' not in given
    assert '"facts"' in given
