"""Tokens a second of rollouts: plain transformers `generate`, the transformers engine and vLLM.

    make setup-vllm && .venv-vllm/bin/python benchmarks/rollouts.py

Groups of samples of one tiny model, with log-probs, in one turn and in three (each turn's prompt is the earlier
tokens and a little more). Of several turns ours keeps what it has read, as in a rollout, and vLLM by its prefix
cache. The engines take turns, and the best of some rounds counts. One thread, float32.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vertigym.core.errors import MissingDependencyError
from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.running_batch import RunningBatch
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.policies.vllm_engine import open_vllm

TEXTS = ["approve or reject the return of 40 items, tier gold, days 12"] * 3
TASKS, GROUP, PROMPT, NEW, ADDED = 16, 8, 64, 32, 16


class Generate:
    """`transformers.generate`, with the log-probs of what it sampled."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One batch; every prompt is as long as the others here, so nothing is padded."""
        ids = torch.tensor([list(prompt.token_ids or ()) for prompt in prompts])
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            max_new_tokens=sampling.max_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = out.sequences[:, ids.shape[1] :]
        logps = torch.stack([torch.log_softmax(step, -1) for step in out.logits], 1)
        chosen = logps.gather(2, new[:, :, None])[:, :, 0]
        return [
            Completion("", token_ids=t, logprobs=p) for t, p in zip(new.tolist(), chosen.tolist(), strict=True)
        ]


def collect(batch: RunningBatch, prompts: Sequence[Prompt]) -> list[Completion]:
    """A completion of every prompt, in order."""
    for chat, prompt in enumerate(prompts):
        batch.add(chat, prompt)
    found: dict[int, Completion] = {}
    while batch.busy:
        found |= batch.collect()
    return [found[chat] for chat in range(len(prompts))]


def play(policy: Any, turns: int, seed: int) -> float:
    """Tokens sampled a second, over all turns."""
    sampling = Sampling(max_tokens=NEW)
    keeps = turns > 1 and isinstance(policy, TransformersEngine)
    batch = policy.running_batch(sampling, TASKS * GROUP) if keeps else None
    rows = [[7 + (task * 31 + i) % 200 for i in range(PROMPT)] for task in range(TASKS) for _ in range(GROUP)]
    sampled, began = 0, time.perf_counter()
    for turn in range(turns):
        asked = [Prompt((), token_ids=row, seed=seed + turn * len(rows) + i) for i, row in enumerate(rows)]
        wrote = collect(batch, asked) if batch else policy.generate(asked, sampling)
        sampled += sum(len(one.token_ids) for one in wrote)
        said = [9 + i for i in range(ADDED)]
        rows = [
            row + (list(one.token_ids) + [9] * NEW)[:NEW] + said for row, one in zip(rows, wrote, strict=True)
        ]
    speed = sampled / (time.perf_counter() - began)
    if batch:
        batch.close()
    return speed


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp()) / "model"
    tiny.build(TEXTS, folder, size=tiny.TinySize())
    ours = TransformersEngine.load(folder)
    try:
        theirs = open_vllm(folder, dtype="float32")
    except MissingDependencyError as error:
        raise SystemExit(str(error)) from error
    policies = {"transformers generate": Generate(ours.model), "our engine": ours, "vLLM": theirs}
    best = {(name, turns): 0.0 for name in policies for turns in (1, 3)}
    for number in range(rounds + 1):  # the first warms up
        for name, turns in best:
            speed = play(policies[name], turns, seed=1000 * number)
            best[name, turns] = max(best[name, turns], speed) if number else 0.0
    theirs.close()
    print(f"{TASKS} tasks x {GROUP} samples, prompts of {PROMPT}, {NEW} new tokens a turn; tokens a second")
    for name in policies:
        print(f"{name:24} one turn {best[name, 1]:8.0f}   three turns {best[name, 3]:8.0f}")


if __name__ == "__main__":
    main()
