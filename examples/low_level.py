"""Train with the four verbs and nothing else: sample, forward_backward, optim_step, save_state.

Plain REINFORCE on one prompt; the reward is the share of the answer's words that are "yes".

    python examples/low_level.py
"""

from pathlib import Path

import torch

from vertigym.core.types import Completion, Message, Prompt, Sampling
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies import tiny
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine

STEPS, SAMPLES = 40, 128
FOLDER = Path("runs/low-level")
QUESTION: Message = {"role": "user", "content": "Is water wet?"}


def reward(completion: Completion) -> float:
    """The share of tokens that say yes."""
    return completion.text.count("yes") / len(completion.token_ids)


def loss(
    logp_T: torch.Tensor, _: torch.Tensor | None, batch: Batch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A custom loss is a function: a sum over the trained tokens, and what to report."""
    assert batch.columns.advantage is not None
    return -(batch.columns.advantage * logp_T).sum(), {}


torch.set_num_threads(1)
tiny.build(["Is water wet? yes no"] * 2, FOLDER / "start", size=tiny.TinySize(hidden=32, layers=2))
engine = TransformersEngine(*load_model(FOLDER / "start"))
learner = Learner(engine.model, OptimizerConfig(lr=1e-2), total_steps=STEPS)

for step in range(STEPS):
    prompts = [Prompt([QUESTION], seed=step * SAMPLES + i) for i in range(SAMPLES)]
    completions = engine.generate(prompts, Sampling(max_tokens=4))
    rewards = [reward(completion) for completion in completions]
    mean = sum(rewards) / SAMPLES
    samples = [TrainingSample.of(c, advantage=r - mean) for c, r in zip(completions, rewards, strict=True)]
    learner.forward_backward(samples, loss)
    learner.optim_step()
    engine.refresh(step + 1)
    if step % 10 == 9:
        print(f"step {step + 1}: mean reward {mean:.2f}")

learner.save_state(FOLDER / "state")
