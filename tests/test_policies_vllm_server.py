"""Real vLLM servers of our own: one is killed in mid-batch and comes back; of two, the other takes over."""

import os
import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym.core.types import Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.lora import merged_state
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.vllm_engine import open_vllm
from vertigym.policies.vllm_pool import VLLMServerPool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),
]

TEXTS = ['{"days": 12, "tier": "gold"}', "approve or reject the return of 40 items"] * 3
SIZE = tiny.TinySize(hidden=64, layers=2, heads=2, key_heads=1, ffn=96, context=256, init_std=0.2)
PROMPTS = [Prompt((), token_ids=[5, 6, 7, i], seed=i) for i in range(100)]


def test_a_server_follows_the_model_and_survives_being_killed_in_mid_batch(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    tiny.build(TEXTS, tmp_path / "model", size=SIZE)
    ours = TransformersEngine.load(tmp_path / "model")
    theirs = open_vllm(
        tmp_path / "model", VLLMConfig(mode="server"), dtype="float32", weights=lambda: merged_state(ours.model)
    )
    try:
        for version in (0, 1):
            if version:
                with torch.no_grad():
                    for parameter in ours.model.parameters():
                        parameter.add_(0.05 * torch.randn_like(parameter))
                ours.refresh(version)
                theirs.refresh(version)
            written = theirs.generate(PROMPTS, Sampling(temperature=0.7, max_tokens=150))
            assert {one.policy_version for one in written} == {version}
            for one in written[:8]:
                ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
                with torch.no_grad():
                    logits = ours.model(ids).logits[0, len(one.prompt_ids) - 1 : -1] / 0.7
                logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(one.token_ids)[:, None])[:, 0]
                assert float((logp - torch.tensor(one.logprobs)).abs().mean()) < 1e-4

        assert isinstance(theirs.backend, VLLMServerPool)
        (backend,) = theirs.backend.servers
        assert backend.process
        killed = backend.process.pid
        done = backend._generate_one

        def first_then_kill(*arguments: object) -> object:
            answer = done(*arguments)  # type: ignore[arg-type]
            if not fired.is_set():
                fired.set()
                os.killpg(killed, signal.SIGKILL)
            return answer

        fired = threading.Event()
        backend._generate_one = first_then_kill  # type: ignore[method-assign, assignment]
        again = theirs.generate(PROMPTS, Sampling(temperature=0.7, max_tokens=150))
        assert backend.process.pid != killed, "it was started again"
        assert [one.token_ids for one in again] == [one.token_ids for one in written]
        assert {one.policy_version for one in again} == {1}
    finally:
        theirs.close()


def test_of_two_servers_one_is_killed_in_mid_batch_and_the_other_takes_over(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    tiny.build(TEXTS, tmp_path / "model", size=SIZE)
    ours = TransformersEngine.load(tmp_path / "model")
    config = VLLMConfig(mode="server", servers=2)
    notes: list[str] = []
    theirs = open_vllm(
        tmp_path / "model",
        config,
        dtype="float32",
        weights=lambda: merged_state(ours.model),
        on_note=notes.append,
    )
    try:
        with torch.no_grad():
            for parameter in ours.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        theirs.refresh(1)
        sampling = Sampling(temperature=0.7, max_tokens=150)
        whole = theirs.generate(PROMPTS, sampling)
        assert not notes, "both are there"
        assert isinstance(theirs.backend, VLLMServerPool)
        staying, struck = theirs.backend.servers
        done, count = staying.generate, [0]

        def counted(orders: Any, weights: Any) -> Any:
            count[0] += len(orders)
            return done(orders, weights)

        staying.generate = counted  # type: ignore[method-assign, assignment]
        first = struck._generate_one

        def first_then_kill(*arguments: Any) -> Any:
            answer = first(*arguments)
            assert struck.process
            if not fired.is_set():
                fired.set()
                os.killpg(struck.process.pid, signal.SIGKILL)
            return answer

        fired = threading.Event()
        struck._generate_one = first_then_kill  # type: ignore[method-assign, assignment]
        again = theirs.generate(PROMPTS, sampling)
        assert count[0] > len(PROMPTS) // 2, "it has done what the other has lost"
        assert notes[0].startswith("1 of 2 vLLM servers are up")
        assert [one.token_ids for one in again] == [one.token_ids for one in whole]
        assert {one.policy_version for one in again} == {1}
    finally:
        theirs.close()
