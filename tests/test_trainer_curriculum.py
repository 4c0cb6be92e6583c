"""The curriculum: what it draws, within what bounds, what it learns from, and that a resumed run repeats."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.core.types import Score, Task, Trajectory
from vertigym.trainer.config import RunConfig
from vertigym.trainer.curriculum import Curriculum, CurriculumConfig, labels
from vertigym.trainer.loop import train

TASKS = [
    Task(id=f"{rule}{n}", prompt="?", answer="!", info={"rules": [rule], "difficulty": 1})
    for rule in ("easy", "even", "hard", "new")
    for n in range(25)
]


def scored_episode(task: str, *values: float | None) -> list[Trajectory]:
    return [Trajectory(task, (), Score(value)) for value in values]


def taught(**config: float) -> Curriculum:
    curriculum = Curriculum(TASKS, CurriculumConfig(**config), seed=0)
    curriculum.learn(
        [*scored_episode("easy0", 1, 1), *scored_episode("even0", 1, 0, None), *scored_episode("hard0", 0, 0)]
    )
    return curriculum


def test_labels_are_rules_and_difficulty() -> None:
    assert labels(TASKS[0]) == ("easy", "difficulty 1")
    assert labels(Task(id="t", prompt="?", info={"rules": ["a", "b"]})) == ("a", "b", "difficulty 2")
    assert labels(Task(id="t", prompt="?", cluster="c")) == ("c",)
    assert labels(Task(id="t", prompt="?")) == ("all",)


def test_weights_by_hand() -> None:
    """Accuracies 1, ½, 0 and none yet; the difficulty, at 3/6, weighs the same in all: 3."""
    weights = taught(bound=3.0).weights().reshape(4, 25)[:, 0]
    raw = [(1 / 3 + 3) / 2, (3 + 3) / 2, (1 / 3 + 3) / 2, (3 + 3) / 2]
    assert weights == pytest.approx([w / (sum(raw) / 4) for w in raw])


def test_accuracy_is_a_moving_average_of_what_could_be_scored() -> None:
    curriculum = taught(memory=0.75)
    assert curriculum.metrics()["curriculum/accuracy/even"] == 0.5
    curriculum.learn(scored_episode("even1", 1, 1, None))
    assert curriculum.metrics()["curriculum/accuracy/even"] == 0.75 * 0.5 + 0.25 * 1
    curriculum.learn(scored_episode("even1", None))
    assert curriculum.metrics()["curriculum/accuracy/even"] == 0.625
    curriculum.learn(scored_episode("even1", 7.5))  # a score is read as a share
    assert curriculum.metrics()["curriculum/accuracy/even"] == pytest.approx(0.75 * 0.625 + 0.25)
    assert "curriculum/accuracy/new" not in curriculum.metrics()


def test_what_can_be_learnt_is_drawn_more_often_and_nothing_is_lost() -> None:
    curriculum = taught(bound=4.0)
    drawn = Counter(i.rstrip("0123456789") for step in range(400) for i in curriculum.draw(10, step))
    assert drawn["even"] > 1.5 * drawn["easy"]
    assert drawn["new"] > 1.5 * drawn["hard"]
    assert min(drawn.values()) > 400
    uniform = taught(bound=1.0)
    counts = Counter(i.rstrip("0123456789") for step in range(400) for i in uniform.draw(10, step))
    assert max(counts.values()) < 1.1 * min(counts.values())


@pytest.mark.parametrize("bound", [1.0, 1.5, 10.0])
def test_weights_stay_within_the_bounds(bound: float) -> None:
    weights = taught(bound=bound).weights()
    assert weights.min() >= 1 / bound - 1e-12
    assert weights.max() <= bound + 1e-12


def test_a_step_draws_no_task_twice_and_repeats() -> None:
    curriculum = taught()
    drawn = curriculum.draw(60, 3, 0)
    assert len(set(drawn)) == 60
    assert drawn == taught().draw(60, 3, 0)
    assert drawn != curriculum.draw(60, 4, 0)
    assert drawn != curriculum.draw(60, 3, 1)
    assert Counter(curriculum.draw(250, 0)).most_common(1)[0][1] == 3


def test_the_state_is_kept_whole(tmp_path: Path) -> None:
    curriculum, other = taught(), Curriculum(TASKS, CurriculumConfig(), seed=0)
    curriculum.learn(scored_episode("even1", 1 / 3))
    curriculum.save_state(tmp_path)
    other.load_state(tmp_path)
    assert other.metrics() == curriculum.metrics()
    assert other.draw(9, 1) == curriculum.draw(9, 1)


def config(folder: Path, **more: Any) -> RunConfig:
    rollout = {"tasks": 4, "group_size": 3, "max_tokens": 8, "save_every": 0, "curriculum": {"bound": 4.0}}
    table = {
        "name": "run", "env": "vertigym/Returns-v0", "model": "tiny", "algorithm": "grpo",
        "steps": 4, "seed": 3, "output": str(folder),
        "tiny": {"hidden": 16, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 16},
        "optimizer": {"lr": 1e-2}, "checkpoint": {"every": 2}, "rollout": rollout,
    }  # fmt: skip
    return parse(RunConfig, table | more, source="test")


def test_a_resumed_run_repeats_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(config(tmp_path / "a"))
    stop = "vertigym.trainer.loop.Run.log"
    logged = __import__("vertigym.trainer.run", fromlist=["Run"]).Run.log

    def killed(run: Any, step: int, metrics: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        logged(run, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(stop, killed)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path / "b"))
    resumed = train(config(tmp_path / "b"), resume=True)
    one, two = (load_file(outcome.last / "model.safetensors") for outcome in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [
        [{k: v for k, v in row.items() if k.startswith("curriculum")} for row in outcome.run.metrics()]
        for outcome in (whole, resumed)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4
    assert rows[0][0].keys() < rows[0][-1].keys()
    assert math.isfinite(sum(rows[0][-1].values()))


def test_it_is_off_by_default_and_not_for_rollouts_sampled_ahead(tmp_path: Path) -> None:
    assert config(tmp_path, rollout={}).rollout.curriculum is None
    with pytest.raises(ConfigError, match=r"rollout\.curriculum draws by the scores of the step before"):
        config(tmp_path, rollout={"curriculum": {}, "staleness": 1})
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        config(tmp_path, rollout={"curriculum": {"bound": 0.5}})
