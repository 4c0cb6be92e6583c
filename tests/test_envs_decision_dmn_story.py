"""A DMN model through the whole story: an environment, a warm start, a few steps of RL, a gate's verdict;
of ours, and of a public one (of the examples of Kogito, Apache License 2.0) where the shared data is there."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.files import read_jsonl
from vertigym.envs.decision.importer import import_decision
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .conftest import SHARED_DATA
from .returns import IMPROVES, SHORT, SIZE, suite, warm

LOAN = Path(__file__).parent / "dmn" / "loan.dmn"
PUBLIC = sorted(SHARED_DATA.glob("dmn/found/apache+incubator-kie-kogito-examples/*~habitability.dmn"))[:1]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("files", [[LOAN], PUBLIC], ids=["ours", "public"])
def test_a_dmn_model_is_trained_on_and_a_gate_decides(files: list[Path], tmp_path: Path) -> None:
    if not files:
        pytest.skip("the public models are not beside this checkout")
    env = tmp_path / "rules"
    import_decision(files[0], "acme/Rules-v0", env, sizes={"train": 120, "eval": 60, "test": 20})
    start = warm(tmp_path / "warm", env=str(env), tasks=60, steps=60)
    (tmp_path / "suite.toml").write_text(
        suite(40, SHORT, IMPROVES).replace('id = "vertigym/Returns-v0"', f'id = "{env}"')
    )
    table: dict[str, Any] = {
        "name": "rl", "env": str(env), "model": str(start), "algorithm": "grpo", "steps": 4,
        "output": str(tmp_path), "tiny": SIZE, "rollout": {"tasks": 8, "group_size": 4, "max_tokens": 24},
        "eval": {"suites": [str(tmp_path / "suite.toml")], "every": 2},
    }  # fmt: skip
    outcome = train(parse(RunConfig, table, source="test"))
    rows: list[dict[str, Any]] = read_jsonl(outcome.run.folder / "gates.jsonl")
    assert [row["verdict"] for row in rows if row["verdict"] not in ("promoted", "rejected")] == []
    assert len(rows) == 2
    assert any(row["reward"] > 0 for row in outcome.run.metrics())
