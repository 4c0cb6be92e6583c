"""Recipes: stages in one run folder, each from what the one before has left; killed and resumed to the bit."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from vertigym.core.errors import ConfigError, DataError, InputError
from vertigym.core.files import read_json, read_jsonl, sha256
from vertigym.policies.model_source import find_model
from vertigym.trainer.loop import Progress, RunOutcome
from vertigym.trainer.recipe import Stage, load_stages, plan_stages, train_stages
from vertigym.trainer.run import Run

from .returns import ENV, IMPROVES, SHORT, SIZE, rows, suite, warm

Table = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows and a suite, to lie beside recipes."""
    made = tmp_path_factory.mktemp("recipe")
    warm(made, tasks=200, steps=12)
    (made / "suite.toml").write_text(suite(24, SHORT, IMPROVES))
    return made


def table(**changes: Any) -> Table:
    """A recipe whose first stage is gated and whose last one learns nothing."""
    return {
        "name": "loan",
        "env": ENV,
        "model": "warm/checkpoints/step-000012",
        "eval": {"suites": ["suite.toml"], "every": 40},
        "stage": [
            {
                "name": "warm-start", "algorithm": "sft", "steps": 40,
                "sft": {"data": "rows.jsonl", "batch": 32}, "optimizer": {"lr": 1e-2},
            },
            {
                "algorithm": "grpo", "steps": 2, "optimizer": {"lr": 0.0},
                "rollout": {"tasks": 4, "group_size": 4, "max_tokens": 24},
            },
        ],
    } | changes  # fmt: skip


def write(folder: Path, name: str, content: Table) -> Path:
    file = folder / name
    file.write_text(tomli_w.dumps(content))
    return file


@pytest.fixture(scope="module")
def done(folder: Path) -> RunOutcome:
    return train_stages(load_stages(write(folder, "recipe.toml", table(output="done"))))


def weights(checkpoint: Path) -> str:
    return sha256(checkpoint / "model.safetensors")


def test_a_stage_starts_from_the_champion_of_the_one_before(folder: Path, done: RunOutcome) -> None:
    first, last = folder / "done/loan/stages/warm-start", folder / "done/loan"
    assert done.run.folder == last
    promoted = find_model(first).folder
    assert weights(last / "checkpoints/step-000000") == weights(promoted) != weights(folder / table()["model"])
    assert str(promoted) in (last / "config.toml").read_text()


def test_what_an_earlier_stage_promoted_ships_where_no_later_one_was_better(done: RunOutcome) -> None:
    assert [row["verdict"] for row in read_jsonl(done.run.folder / "gates.jsonl")] == ["rejected"]
    assert done.promoted == done.run.folder / "checkpoints" / "step-000000"
    assert find_model(done.run.folder).folder == done.promoted
    assert "stage warm-start: improves" in read_json(done.run.folder / "promoted.json")["reason"]


def test_last_takes_the_last_weights_and_keeps_no_champion(folder: Path) -> None:
    recipe = table(output="last")
    recipe["stage"][0]["optimizer"] = {"lr": 0.0}
    recipe["stage"][1]["takes"] = "last"
    outcome = train_stages(load_stages(write(folder, "last.toml", recipe), ["stage.warm-start.steps=2"]))
    assert outcome.promoted is None
    assert outcome.gated
    before = outcome.run.folder / "stages/warm-start/checkpoints/step-000002"
    assert weights(outcome.run.checkpoint(0)) == weights(before)


@pytest.mark.parametrize(("stage", "step"), [("warm-start", 39), ("grpo", 1)])
def test_a_killed_recipe_goes_on_in_its_stage_to_the_same_bits(
    folder: Path, done: RunOutcome, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    @contextlib.contextmanager
    def watch(running: Stage) -> Iterator[Progress]:
        def stop(now: int, _: object) -> None:
            if (running.name, now) == (stage, step):
                raise KeyboardInterrupt

        yield Progress(on_step=stop)

    file = write(folder, f"{stage}.toml", table(output=f"killed-{stage}"))
    with pytest.raises(KeyboardInterrupt):
        train_stages(load_stages(file), watch=watch)
    with pytest.raises(ConfigError, match="already holds a run: continue it with --resume"):
        train_stages(load_stages(file))
    if stage == "warm-start":
        with pytest.raises(DataError, match=r"its last stage has not begun; look at .*/stages/warm-start"):
            Run.open(folder / f"killed-{stage}" / "loan")
    monkeypatch.chdir(folder)  # and from any folder
    resumed = train_stages(load_stages(Path(file.name)), resume=True)
    assert weights(resumed.last) == weights(done.last)
    for part in ("", "stages/warm-start"):
        assert rows(resumed.run.folder / part) == rows(done.run.folder / part)
    assert [row["reason"] for row in resumed.run.gates()] == [row["reason"] for row in done.run.gates()]
    assert resumed.promoted
    assert resumed.promoted.name == "step-000000"


def test_a_finished_recipe_resumes_to_what_it_was_and_refuses_another(folder: Path, done: RunOutcome) -> None:
    file = folder / "recipe.toml"
    again = train_stages(load_stages(file), resume=True)
    assert (again.promoted, again.last) == (done.promoted, done.last)
    with pytest.raises(ConfigError, match=r"stages/warm-start: cannot resume with another optimizer"):
        train_stages(load_stages(file, ["stage.warm-start.optimizer.lr=1e-3"]), resume=True)


def test_a_key_outside_of_the_stages_is_every_stages_own(folder: Path) -> None:
    file = write(folder, "shared.toml", table(seed=3, optimizer={"schedule": "cosine"}))
    sft, grpo = (stage.config for stage in load_stages(file, ["threads=1"]))
    assert (sft.seed, grpo.seed, sft.threads) == (3, 3, 1)
    assert (sft.optimizer.lr, sft.optimizer.schedule) == (1e-2, "cosine")
    assert (grpo.optimizer.lr, grpo.optimizer.schedule) == (0.0, "cosine")
    assert sft.sft
    assert sft.sft.data == folder / "rows.jsonl"
    assert os.path.isabs(grpo.output)


def test_the_plan_of_a_recipe_is_that_of_its_stages(folder: Path) -> None:
    first, then = plan_stages(load_stages(write(folder, "plan.toml", table(model="tiny", tiny=SIZE))))
    assert (first["model"], then["model"]) == ("tiny", "champion of stage warm-start")
    assert first["run"].endswith("runs/loan/stages/warm-start")
    assert then["run"].endswith("runs/loan")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("change", "overrides", "said"),
    [
        ({"stage": {"grpo": {}}}, (), r"write \[\[stage\]\] above each"),
        ({"stage": []}, (), r"write \[\[stage\]\] above each"),
        ({"stage": [{"steps": 3}]}, (), "stage 1 has no algorithm"),
        ({"stage": [{"algorithm": "grpo"}, {"algorithm": "grpo"}]}, (), "two stages are called grpo"),
        ({"stage": [{"algorithm": "grpo", "takes": "last", "steps": 1}]}, (), "there is no stage before it"),
        ({"name": "a b"}, (), "names the run's folder"),
        ({"stpes": 1}, (), r"stage warm-start: unknown key 'stpes'; did you mean 'steps'"),
        ({"rollout": {"tasks": 3}}, (), r"section \[rollout\] does nothing with algorithm"),
        ({}, ("steps=3",), r"steps does nothing, every stage has its own: set stage.NAME.steps"),
        ({}, ("stage.grp.steps=3",), "stage 'grp'; did you mean 'grpo'"),
        ({}, ("stage.grpo.takes=best",), r"takes: Input should be 'champion' or 'last' \(got"),
        ({}, ("stage.grpo.model=tiny",), "its model is what the stage before leaves"),
        ({}, ("stage.grpo.output=x",), "output is the recipe's"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_in_one_line(
    folder: Path, change: Table, overrides: tuple[str, ...], said: str
) -> None:
    file = write(folder, "wrong.toml", json.loads(json.dumps(table() | change)))
    with pytest.raises(InputError, match=said):
        load_stages(file, overrides)


def test_a_plain_config_is_one_stage_with_paths_as_they_are_given(folder: Path) -> None:
    plain = {key: value for key, value in table().items() if key != "stage"} | table()["stage"][0]
    (stage,) = load_stages(write(folder, "plain.toml", plain), ["steps=3"])
    assert (stage.config.steps, stage.config.output, stage.takes) == (3, Path("runs"), None)
    with pytest.raises(ConfigError, match="unknown key 'stage'"):
        load_stages(folder / "plain.toml", ["stage.sft.steps=3"])
