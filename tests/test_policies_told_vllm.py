"""What vLLM is told, how it may be set, and what is made of its log-probs; without any server."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, MissingDependencyError, RunError
from vertigym.core.types import Prompt, Sampling, StopReason
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies import vllm_in_process
from vertigym.policies.engine import GenerationRequest, GenerationResult
from vertigym.policies.model_folder import load_model
from vertigym.policies.vllm_backend import VLLMConfig, sampling_parameters
from vertigym.policies.vllm_engine import VLLMEngine, open_vllm
from vertigym.trainer import logprob_mismatch
from vertigym.trainer.config import RunConfig

from .fake_vllm import tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models"))


class Recording:
    """A backend that writes what it is told to."""

    def __init__(self, *written: GenerationResult) -> None:
        self.written, self.requests = list(written), [GenerationRequest([], 0, 0, 0, 0, [])]

    def generate(self, requests: Any) -> list[GenerationResult]:
        self.requests = list(requests)
        return self.written[: len(self.requests)]

    def load(self, weights: Any, version: int) -> None: ...

    def close(self) -> None: ...


def test_vllm_is_told_everything_and_nothing_it_could_add(folder: Path) -> None:
    tokenizer = load_model(folder)[1]
    backend = Recording(
        GenerationResult([7, 2], [-0.1, -0.2]),
        GenerationResult([7], [float("nan")]),
        GenerationResult([7], [-9999.0]),
    )
    engine = VLLMEngine(backend, tokenizer, stop=[2], context=10)
    rows = [Prompt((), token_ids=[5] * 8, seed=3), Prompt((), token_ids=[5] * 10)]
    good, full = engine.generate(rows, Sampling(max_tokens=6, temperature=0.5))
    (request,) = backend.requests
    assert sampling_parameters(request) == {
        "temperature": 0.5, "top_p": 1.0, "max_tokens": 2, "seed": 3, "logprobs": 0, "detokenize": False,
        "stop_token_ids": [2, tokenizer.eos_token_id],
    }  # fmt: skip
    assert good.stop_reason is StopReason.STOP
    assert full.stop_reason is StopReason.LENGTH
    backend.written = backend.written[1:]
    broken = engine.generate([rows[0], rows[0]], Sampling(max_tokens=2))
    assert [one.stop_reason for one in broken] == [StopReason.ERROR] * 2
    with pytest.raises(ConfigError, match="temperature 3: vLLM offers at most 2"):
        engine.generate(rows, Sampling(temperature=3))


def test_vllm_is_told_which_tokens_nobody_can_read(folder: Path) -> None:
    tokenizer = load_model(folder)[1]
    backend, size = Recording(GenerationResult([7], [-0.1])), len(tokenizer)
    engine = VLLMEngine(backend, tokenizer, stop=[2], context=10, vocabulary=size + 2)
    engine.generate([Prompt((), token_ids=[5])], Sampling(max_tokens=1))
    assert sampling_parameters(backend.requests[0])["logit_bias"] == {size: -100.0, size + 1: -100.0}


def test_the_correction_is_on_for_vllm_unless_said_otherwise() -> None:
    base: dict[str, Any] = {"name": "a", "env": "e", "model": "m", "algorithm": "grpo", "steps": 1}

    def policy(rollout: dict[str, Any], **given: Any) -> tuple[str, str]:
        found = parse(RunConfig, base | {"rollout": rollout, "policy": given}, source="test").policy
        return found.ratio_to, found.correction

    assert policy({}) == ("sampler", "none")
    assert policy({"engine": "vllm"}) == ("trainer", "token")
    assert policy({"engine": "vllm"}, correction="none") == ("sampler", "none")
    assert policy({"engine": "vllm"}, loss="dppo_tv") == ("sampler", "none")
    with pytest.raises(ConfigError, match=r"unknown key 'rollout\.top_k'"):
        parse(RunConfig, base | {"rollout": {"engine": "vllm", "top_k": 20}}, source="test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "http://a"}, 'mode = "server"'),
        ({"url": "a:1", "mode": "server"}, "http://"),
        ({"url": ["http://a", "b"], "mode": "server"}, "http://"),
        ({"url": ["http://a", "http://a"], "mode": "server"}, "twice"),
        ({"servers": 2}, "how many to start"),
        ({"servers": 2, "mode": "server", "url": "http://a"}, "how many to start"),
        ({"exchange": "/tmp"}, 'mode = "server"'),
        ({"mode": "process"}, 'mode = "in_process"'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(VLLMConfig, given, source="test")


def test_without_vllm_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_in_process, "find_spec", lambda _: None)
    for mode in ("in_process", "server"):
        with pytest.raises(MissingDependencyError, match=r"pip install 'vertigym\[vllm\]'"):
            open_vllm(folder, VLLMConfig(mode=mode))


def test_the_probe_measures_warns_and_stops(folder: Path) -> None:
    model, _ = load_model(folder)
    learner = Learner(model, OptimizerConfig(), total_steps=1)
    sample = TrainingSample([5, 6, 7, 8], [0, 0, 1, 1])
    (truth,) = learner.score([sample])
    sample.columns.sampler_logp = [truth[0] + 0.1, truth[1] - 0.3]
    found = logprob_mismatch.measure_mismatch(learner, [sample], 0, stop=0.5)
    assert found == pytest.approx({"probe_mean": 0.2, "probe_max": 0.3}, abs=1e-5)
    assert "differ from the trainer's by 0.2" in logprob_mismatch.mismatch_warning(found, VLLMConfig())
    assert not logprob_mismatch.mismatch_warning({"probe_mean": 0.01, "probe_max": 0.1}, VLLMConfig())
    for wrong in (5.0, float("nan")):
        sample.columns.sampler_logp = [wrong, wrong]
        with pytest.raises(RunError, match="step 4: the engine's log-probs differ"):
            logprob_mismatch.measure_mismatch(learner, [sample], 4, stop=0.5)
