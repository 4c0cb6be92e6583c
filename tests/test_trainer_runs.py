"""Whole runs, small: the folder they leave, repeated and resumed to the bit, controls, and what is refused."""

import json
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, DataError, RunError
from vertigym.core.files import read_json, read_jsonl, sha256
from vertigym.core.types import Score
from vertigym.envs.tasks import TaskSet
from vertigym.evals.report import Report
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rewards.rubric import Rubric
from vertigym.trainer.config import RunConfig
from vertigym.trainer.dry_run import plan
from vertigym.trainer.loop import Progress, RunOutcome, train

from .returns import ENV, IMPROVES, SHORT, rows, suite, warm


@dataclass(frozen=True)
class Start:
    """A folder with a suite, logs and a model that has seen them briefly."""

    folder: Path
    model: Path

    def config(self, output: Path, **changes: Any) -> RunConfig:
        table: dict[str, Any] = {
            "name": "run",
            "env": ENV,
            "model": str(self.model),
            "algorithm": "grpo",
            "steps": 4,
            "output": str(output),
            "rollout": {"tasks": 6, "group_size": 4, "max_tokens": 24, "save_every": 2},
            "policy": {"minibatches": 2, "entropy": 0.01, "kl": 0.01},
            "optimizer": {"lr": 1e-3, "schedule": "cosine"},
            "eval": {"suites": [str(self.folder / "suite.toml")], "every": 2},
        }
        return parse(RunConfig, table | changes, source="test")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder = tmp_path_factory.mktemp("start")
    (folder / "suite.toml").write_text(suite(24, SHORT, IMPROVES))
    return Start(folder, warm(folder, tasks=200))


@pytest.fixture(scope="module")
def done(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return train(start.config(tmp_path_factory.mktemp("runs")))


def weights(checkpoint: Path) -> str:
    return sha256(checkpoint / "model.safetensors")


def test_a_run_leaves_what_the_design_says(done: RunOutcome) -> None:
    folder = done.run.folder
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.toml",
        "metrics.jsonl",
        "rollouts",
        "checkpoints",
        "evals",
        "gates.jsonl",
        "tensorboard",
    }
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4]
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()}
    assert modes == {0o644}, "others may read what a run leaves behind, its weights too"
    checkpoint = folder / "checkpoints" / "step-000004"
    assert {"config.json", "model.safetensors", "trainer", "manifest.json"} <= {
        p.name for p in checkpoint.iterdir()
    }
    assert set(read_json(checkpoint / "manifest.json")["sha256"]) >= {
        "model.safetensors",
        "trainer/state.pt",
    }
    assert [p.name for p in sorted((folder / "evals" / "returns").iterdir())] == [
        f"step-00000{step}.json" for step in (0, 2, 4)
    ]
    assert [row["step"] for row in read_jsonl(folder / "gates.jsonl")] == [2, 4]
    text = (folder / "config.toml").read_text()
    assert "[environment]" in text
    assert "torch =" in text


def test_saved_rollouts_are_token_in_token_out(done: RunOutcome) -> None:
    rows = read_jsonl(done.run.folder / "rollouts" / "step-000002.jsonl")
    assert len(rows) == 24
    engine = TransformersEngine.load(done.last)
    for row in rows[:4]:
        (segment,) = row["segments"]
        sampled = [t for t, m in zip(segment["token_ids"], segment["loss_mask"], strict=True) if m]
        text = str(engine.tokenizer.decode(sampled))
        assert text.removesuffix("<|im_end|>") == row["messages"][-1]["content"]
        assert row["score"]["parts"].keys() >= {"exact", "fields"}


def test_the_same_seed_twice_gives_identical_metrics_and_weights(
    start: Start, done: RunOutcome, tmp_path: Path
) -> None:
    again = train(start.config(tmp_path))
    assert rows(again.run.folder) == rows(done.run.folder)
    assert weights(again.last) == weights(done.last)
    other = train(start.config(tmp_path, name="other", seed=1))
    assert weights(other.last) != weights(done.last)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_an_interrupted_run_resumes_to_the_same_bits(
    start: Start, done: RunOutcome, tmp_path: Path, stop_at: int
) -> None:
    def stop(step: int, _: object) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    config = start.config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Progress(on_step=stop))
    resumed = train(config, resume=True)
    assert rows(resumed.run.folder) == rows(done.run.folder)
    assert weights(resumed.last) == weights(done.last)
    for name in ("gates.jsonl", "rollouts/step-000002.jsonl", "rollouts/step-000004.jsonl"):
        ours, theirs = (read_jsonl(run.run.folder / name) for run in (resumed, done))
        assert scrubbed(ours, tmp_path) == scrubbed(theirs, done.run.folder.parent)


def scrubbed(rows: list[Any], root: Path) -> Any:
    """Without wall-clock times and the folder's own name."""
    text = json.dumps(rows).replace(str(root), "ROOT")

    def without_times(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_times(v) for k, v in value.items() if "latency" not in k}
        return [without_times(v) for v in value] if isinstance(value, list) else value

    return without_times(json.loads(text))


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_taken(
    start: Start, done: RunOutcome, tmp_path: Path
) -> None:
    config = start.config(tmp_path)
    first = train(config)
    file = first.last / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    notes: list[str] = []
    resumed = train(config, resume=True, progress=Progress(on_note=notes.append))
    assert len(notes) == 1
    assert "step-000004: model.safetensors is damaged" in notes[0]
    assert weights(resumed.last) == weights(done.last)
    assert rows(resumed.run.folder) == rows(done.run.folder)


def test_learning_rate_zero_changes_nothing_to_the_bit(start: Start, tmp_path: Path) -> None:
    still = train(start.config(tmp_path, optimizer={"lr": 0.0, "weight_decay": 0.1}))
    before, after = (load_file(folder / "model.safetensors") for folder in (start.model, still.last))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert still.promoted is None
    assert {row["verdict"] for row in read_jsonl(still.run.folder / "gates.jsonl")} == {"rejected"}


def test_lora_trains_adapters_only_exports_them_merged_and_resumes_to_the_bit(
    start: Start, tmp_path: Path
) -> None:
    lora = {"lora": {"rank": 4, "alpha": 8}, "optimizer": {"lr": 1e-2}}
    whole = train(start.config(tmp_path / "a", **lora))
    exported = load_file(whole.last / "model.safetensors")
    base = load_file(start.model / "model.safetensors")
    assert exported.keys() == base.keys(), "an export with adapters is an ordinary model folder"
    changed = {name for name in base if not torch.equal(base[name], exported[name])}
    assert changed
    assert all("_proj" in name for name in changed), "embeddings and norms are frozen"

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    config = start.config(tmp_path / "b", **lora)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Progress(on_step=stop))
    resumed = train(config, resume=True)
    assert weights(resumed.last) == weights(whole.last)
    assert rows(resumed.run.folder) == rows(whole.run.folder)


def test_a_bfloat16_folder_is_trained_in_float32(start: Start, tmp_path: Path) -> None:
    model, tokenizer = load_model(start.model)
    coarse = tmp_path / "bf16"
    model.bfloat16().save_pretrained(coarse)
    tokenizer.save_pretrained(coarse)
    before = load_file(coarse / "model.safetensors")
    assert {weight.dtype for weight in before.values()} == {torch.bfloat16}
    changes: dict[str, Any] = {
        "model": str(coarse), "optimizer": {"lr": 1e-6}, "steps": 2, "eval": None,
        "dtype": "bfloat16", "gradient_checkpointing": True,
    }  # fmt: skip
    trained = train(start.config(tmp_path, **changes))
    after = load_file(trained.last / "model.safetensors")
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    moved = [name for name in before if not torch.equal(before[name].float(), after[name])]
    assert len(moved) == len(before)
    lost = sum(int((before[name] == after[name].bfloat16()).sum()) for name in before)
    assert lost > 0.9 * sum(weight.numel() for weight in before.values()), "bfloat16 would have lost the step"
    again = train(start.config(tmp_path, **changes, name="again"))
    assert weights(again.last) == weights(trained.last)


def hopeless(start: Start, output: Path, **changes: Any) -> RunConfig:
    """A run whose challengers are all rejected: it unlearns."""
    suites = [str(start.folder / "suite.toml")]
    table: dict[str, Any] = {"optimizer": {"lr": 0.05}, "steps": 6}
    return start.config(output, **table, eval={"suites": suites, "every": 1, **changes})


def test_a_run_ends_after_so_many_rejections_in_a_row(start: Start, tmp_path: Path) -> None:
    config = hopeless(start, tmp_path, patience=2)
    ended = train(config)
    assert [row["verdict"] for row in ended.run.gates()] == ["rejected", "rejected"]
    assert ended.last == ended.run.checkpoint(2)
    assert len(rows(train(config, resume=True).run.folder)) == 2, "resuming does not go on either"


def test_after_a_rejection_the_run_goes_on_from_the_champion(start: Start, tmp_path: Path) -> None:
    notes: list[str] = []

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    rolled = train(hopeless(start, tmp_path / "a", roll_back=True), progress=Progress(on_note=notes.append))
    assert notes.count(f"rolled back to {rolled.run.checkpoint(0)}") == 6
    config = hopeless(start, tmp_path / "b", roll_back=True)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Progress(on_step=stop))
    resumed = train(config, resume=True)
    assert rows(resumed.run.folder) == rows(rolled.run.folder)
    assert weights(resumed.last) == weights(rolled.last)
    plain = train(hopeless(start, tmp_path / "c"))
    assert weights(plain.last) != weights(rolled.last)


def test_a_second_run_under_one_name_and_a_changed_resume_are_refused(start: Start, done: RunOutcome) -> None:
    output = done.run.folder.parent
    with pytest.raises(ConfigError, match="already holds a run"):
        train(start.config(output))
    with pytest.raises(ConfigError, match="cannot resume with another seed"):
        train(start.config(output, seed=3), resume=True)
    with pytest.raises(DataError, match="no run to resume"):
        train(start.config(output, name="nothing"), resume=True)


def test_too_many_unscored_episodes_end_the_run_with_the_reason(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = envs.make(ENV)
    tasks = TaskSet([source.tasks.get(i) for i in source.tasks.ids("train")])
    broken = envs.SingleTurnEnv(tasks, Rubric(lambda completion: Score.unscored("the judge is down")))
    monkeypatch.setattr(envs, "make", lambda _: broken)
    with pytest.raises(RunError, match=r"24 of 24 episodes could not be scored.*the judge is down"):
        train(start.config(tmp_path, eval=None))


def test_dry_run_opens_everything_and_writes_nothing(start: Start, tmp_path: Path) -> None:
    planned = plan(start.config(tmp_path))
    assert planned["samples a step"] == 24
    assert planned["suites"] == ["returns"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="model"):
        plan(start.config(tmp_path, model="no/such/folder"))


@pytest.mark.parametrize("model", ["tiny", "a folder"])
def test_dry_run_names_prompts_that_are_too_long(model: str, start: Start, tmp_path: Path) -> None:
    """In the run their answers, where they are cut, are not scored."""
    most = {"rollout": {"tasks": 6, "group_size": 4, "max_tokens": 950}, "tiny": {"context": 1000}}
    if model != "tiny":
        config = json.loads((start.model / "config.json").read_text()) | {"max_position_embeddings": 1000}
        shutil.copytree(start.model, tmp_path / "model")
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        (tmp_path / "model" / "manifest.json").unlink()
        model, most = str(tmp_path / "model"), {"rollout": most["rollout"]}
    assert plan(start.config(tmp_path))["long prompts"] == []
    (found,) = plan(start.config(tmp_path, model=model, **most))["long prompts"]
    assert re.match(
        r"training: \d+ of \d+ prompts leave less than max_tokens = 950 of the context of 1000, and an answer "
        r"that is cut there is not scored: \S+ \(\d+ tokens\), \S+ \(\d+ tokens\), \S+ \(\d+ tokens\), …",
        found,
    )


def without_time(report: Report) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"latency_s"}) for row in report.rows]


@pytest.mark.slow
def test_what_was_promoted_earns_the_same_in_a_fresh_process(start: Start, tmp_path: Path) -> None:
    """The gate's numbers are those of the model in memory; a run's folder is the checkpoint that ships."""
    gated = tmp_path / "suite.toml"
    gated.write_text(suite(24, SHORT, '[[gate]]\nrule = "not_worse"\nmargin = 0.99\n'))
    evals = {"suites": [str(gated)], "every": 2}
    for name, more in {"whole": {}, "adapters": {"lora": {"rank": 4}, "optimizer": {"lr": 1e-2}}}.items():
        run = train(start.config(tmp_path, name=name, steps=2, eval=evals, **more)).run
        promotion = run.promotion()
        assert promotion
        assert promotion["step"] == 2
        inside = Report.load(run.eval_file("returns", 2))
        command = [sys.executable, "-m", "vertigym", "eval", str(gated), "-m", str(run.folder), "--no-gate"]
        done = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, check=True)
        fresh = Report.model_validate(json.loads(done.stdout)["report"])
        assert fresh.model == str(run.promoted())
        assert fresh.metrics["exact"] == inside.metrics["exact"]
        assert without_time(fresh) == without_time(inside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "sft"}, r"needs a section \[sft\]"),
        ({"sft": {"data": "rows.jsonl"}}, r"section \[sft\] does nothing"),
        ({"name": "../x"}, "it names the run's folder"),
        ({"policy": {"minibatches": 99}}, "cannot exceed"),
        ({"stepz": 3}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"rollout": {"group_sizes": 3}}, "unknown key 'rollout.group_sizes'; did you mean 'group_size'"),
        ({"steps": "many"}, "steps: .*integer.*got 'many'"),
    ],
)
def test_a_wrong_config_is_one_line(
    start: Start, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        start.config(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_alarms_of_a_resumed_run_remember_the_steps_before(start: Start, tmp_path: Path) -> None:
    config = start.config(
        tmp_path, steps=2, eval=None, checkpoint={"every": 1}, alarms={"patience": 2, "entropy": 99.0}
    )
    heard: list[str] = []
    whole = train(config, progress=Progress(on_note=heard.append))
    alarms = [note for note in heard if note.startswith("step 2: alarm: entropy")]
    assert len(alarms) == 1
    assert "optimizer.lr (now 0.001; try 0.00025)" in alarms[0]
    shutil.rmtree(whole.last)
    heard.clear()
    train(config, resume=True, progress=Progress(on_note=heard.append))
    assert [note for note in heard if "alarm" in note] == alarms
