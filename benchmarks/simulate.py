"""A cluster that is not here: the run's own scheduling on a clock of its own, against a model of GPUs.

    python benchmarks/simulate.py published        beside what prime-rl, verl and TRL have published
    python benchmarks/simulate.py afterwards       verl's rows again, each with its own lengths (no criterion)
    python benchmarks/simulate.py cluster          1 to 1,024 GPUs: seconds a step, bubbles, staleness

Real are the draw of tasks (`trainer.collect`), the rollouts of fixed and of bounded lag
(`trainer.async_rollouts`), and the chunks and workers of `rollouts.distributed`; they run as they are on
`virtual_time`. A model are the workers and the trainer: a decoding step takes as long as its bytes or its
operations do (weights, KV of every sequence at its length, as many at once as the memory has room for), a
pass as long as its operations, at the shares of a GPU's rates that `trainer.time_plan` assumes. Operations
are those of the model's own code (`learner.model_numbers`).

Lengths of answers are drawn from a log-normal distribution, cut at the most that is allowed, whose 99th
percentile is ten times its median (a median of 500 and a 99th percentile of 5,000 are told of a typical run
that learns to reason: jiahuanglin.xyz, RL lesson 22b; no recorded lengths of such a run were at hand).

Criteria, written before the first outcome was seen. A published row is met if the simulated figure is within
30% of it. Nothing is fitted but one number: verl does not say how long its answers are on average, so that
the mean makes its first row (32 GPUs, colocated) right, and the other five are to be met. The rows stand
below, each with its source.
"""

import argparse
import heapq
import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from transformers import Qwen2Config, Qwen3Config

from vertigym.benchmarks.virtual_time import World
from vertigym.core.seeds import generator
from vertigym.core.types import Score, Segment, Task, Trajectory
from vertigym.envs.env import Env
from vertigym.envs.tasks import GeneratedTasks
from vertigym.learner.config import PolicyConfig
from vertigym.learner.model_numbers import ModelNumbers
from vertigym.policies import tiny
from vertigym.rollouts import distributed
from vertigym.rollouts.distributed import DistributedEngine, WorkersConfig
from vertigym.rollouts.rollout import Episode
from vertigym.rollouts.rollout_worker import WorkerSpec
from vertigym.trainer import async_rollouts, collect
from vertigym.trainer.async_rollouts import open_rollouts
from vertigym.trainer.collect import Collector
from vertigym.trainer.config import RolloutConfig
from vertigym.trainer.devices import DEVICES, Device
from vertigym.trainer.memory_plan import VLLM_BYTES
from vertigym.trainer.time_plan import HEAD_SHARE, MATMUL_SHARE, MEMORY_SHARE

SIGMA = math.log(10) / 2.326  # p99 / p50 = 10
LAUNCH_S = 2e-3  # a decoding step's own time under CUDA graphs: sampler, scheduler
_T, _G = 1e12, 1e9
H20 = Device("h20", 96 * _G, 148 * _T, 74 * _T, 44 * _T, 4.0 * _T, 450 * _G)  # NVIDIA's data sheet "H20"
MODELS = {
    "0.6B": Qwen3Config(vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True),
    "1.5B": Qwen2Config(vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
        num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True),
    "4B": Qwen3Config(vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True),
    "7B": Qwen2Config(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4),
}  # fmt: skip


@cache
def numbers(model: str) -> ModelNumbers:
    """A model's counts."""
    return ModelNumbers(MODELS[model])


@dataclass(frozen=True, slots=True)
class Setup:
    """A run: the model, how many GPUs train and how many sample (0: the same ones, in turn), and its step.

    `trunk` and `head`: forward passes that training one token takes, its backward pass counted as such.
    `scored`: forward passes beside it. `waits`: whether the sampler's lag is fixed.
    """

    model: str
    device: Device
    trainers: int
    samplers: int
    tasks: int
    group: int
    prompt: int
    mean: float
    most: int
    trunk: float = 4
    head: float = 4
    scored: float = 0
    staleness: int = 0
    waits: bool = True
    sync_s: float = 0.5
    at_once: int = 10**9  # sequences a GPU, beside what the memory allows

    @property
    def engines(self) -> int:
        """GPUs that sample."""
        return self.samplers or self.trainers


@dataclass(frozen=True, slots=True)
class Simulated:
    """Of a step, on average: seconds, those of training and of waiting for rollouts; the share of GPU time in
    which a GPU does nothing; updates between the weights that sampled and those that are trained; tokens a
    second.
    """

    step: float
    training: float
    waiting: float
    bubble: float
    staleness: float
    sampled_rate: float


def decode_seconds(setup: Setup, lengths: Sequence[int]) -> float:
    """One GPU's time for these answers: each takes a free place as soon as there is one, and all that are in
    move on by a token together."""
    known, device = numbers(setup.model), setup.device
    weights, cache_token = 2 * known.parameters, 2 * known.cache
    room = 0.9 * device.memory - weights - VLLM_BYTES
    places = max(1, min(setup.at_once, int(room / (cache_token * (setup.prompt + setup.mean)))))
    moved = 2 * (known.operations.token / 2 + known.head)
    operations = known.operations.token + 2 * known.head
    bandwidth, rate = MEMORY_SHARE * device.bandwidth, MATMUL_SHARE * device.bf16
    now, written, came_in, waiting = 0.0, 0, 0, list(reversed(lengths))
    ends: list[tuple[int, int]] = []  # (tokens written by then, tokens written when it came in)
    while waiting or ends:
        while waiting and len(ends) < places:
            heapq.heappush(ends, (written + waiting.pop(), written))
            came_in += written
        count, (end, came) = len(ends), heapq.heappop(ends)
        ahead = end - written
        context = setup.prompt + written + ahead / 2 - came_in / count
        token = max((moved + count * context * cache_token) / bandwidth, count * operations / rate) + LAUNCH_S
        now, written, came_in = now + ahead * token, end, came_in - came
    prompts = len(lengths) / setup.group * setup.prompt * known.operations.token / rate
    return now + prompts


def pass_seconds(setup: Setup, lengths: Sequence[int], trunk: float, head: float) -> float:
    """So many forward passes over these answers and their prompts, on all GPUs that train; causal attention."""
    known, device = numbers(setup.model), setup.device
    whole = [setup.prompt + length for length in lengths]
    operations = known.operations.token * sum(whole) + known.operations.square / 2 * sum(n * n for n in whole)
    seconds = operations * trunk / (MATMUL_SHARE * device.bf16)
    return (seconds + 2 * known.head * sum(lengths) * head / (HEAD_SHARE * device.bf16)) / setup.trainers


def optimizer_seconds(setup: Setup) -> float:
    """Adam's bytes."""
    return 28 * numbers(setup.model).parameters / setup.trainers / (MEMORY_SHARE * setup.device.bandwidth)


class SimulatedWorker:
    """Plays chunks in the time that a GPU would take; one at a time."""

    def __init__(self, world: World, setup: Setup) -> None:
        self._world, self._setup = world, setup
        self.busy = 0.0

    def call(self, name: str, *arguments: Any) -> "Future[Any]":
        """A RolloutWorker's methods `ready` and `play`."""
        future: Future[Any] = Future()
        if name == "ready":
            future.set_result(None)
            return future
        update, episodes, _ = arguments
        played = [self._trajectory(episode, update.version) for episode in episodes]
        seconds = decode_seconds(self._setup, [t.completion_tokens for t in played])
        self.busy += seconds
        self._world.at(self._world.now + seconds, lambda: future.set_result(played))
        return future

    def stop(self) -> None:
        """Nothing to end."""

    def _trajectory(self, episode: Episode, version: int) -> Trajectory:
        length = draw_length(self._setup, episode.seed)
        return Trajectory(
            str(episode.task), [], Score(float(episode.seed % 2)), (Segment((1,), (1,), (0.0,)),),
            policy_version=version, completion_tokens=length,
        )  # fmt: skip


def draw_length(setup: Setup, seed: int) -> int:
    """Log-normal, cut at `most`, with mean `mean` after the cut."""
    middle = _middle(setup.mean, setup.most)
    return max(1, min(setup.most, round(generator(seed, "length").lognormal(middle, SIGMA))))


@cache
def _middle(mean: float, most: int) -> float:
    def after_the_cut(middle: float) -> float:
        below = float(ndtr((math.log(most) - middle - SIGMA**2) / SIGMA)) * math.exp(middle + SIGMA**2 / 2)
        return below + most * float(ndtr((middle - math.log(most)) / SIGMA))

    return float(brentq(lambda middle: after_the_cut(middle) - mean, 0.0, math.log(most) + 5 * SIGMA))


class SimulatedBackend:
    """Workers for `DistributedEngine`; weights take `sync_s`."""

    def __init__(self, world: World, setup: Setup) -> None:
        self._world, self._setup = world, setup
        self.workers: list[SimulatedWorker] = []

    def start(self, spec: WorkerSpec, number: int) -> SimulatedWorker:
        """One more."""
        self.workers.append(SimulatedWorker(self._world, self._setup))
        return self.workers[-1]

    def put(self, state: Any) -> Any:
        """The trainer waits as long as the weights travel."""
        if self.workers:
            self._world.sleep(self._setup.sync_s)
        return dict

    def describe(self) -> str:
        """Nothing to say."""
        return ""

    def close(self) -> None:
        """Nothing to release."""


def simulate(setup: Setup, steps: int = 8, warm: int = 2) -> Simulated:
    """The loop of a run, on a clock of its own; the steps that fill the pipe and empty it are left out."""
    world = World()
    backend = SimulatedBackend(world, setup)
    rows = RolloutConfig(
        tasks=setup.tasks, group_size=setup.group, max_tokens=setup.most, batch=10**9,
        staleness=setup.staleness, deterministic=setup.waits, workers="ray://auto",
    )  # fmt: skip
    spec = WorkerSpec({}, lambda: Env(tasks), batch=rows.batch, count=setup.engines)
    tasks = GeneratedTasks(lambda split, index: Task(id=f"{split}-{index}", prompt=""), {"train": 100_000})
    with world.rules(distributed, async_rollouts, collect):
        engine = DistributedEngine(
            backend, spec, WorkersConfig(count=setup.engines, chunk_s=1e9), _tokenizer(), dict
        )
        collector = Collector(engine, Env(tasks), rows, PolicyConfig(), seed=0)
        rollouts = open_rollouts(collector.sample, rows, steps=steps, has_copy=True)
        seen = []
        for step in range(steps):
            began, busy = world.now, sum(worker.busy for worker in backend.workers)
            taken = [t for one in rollouts.take(step) for t in one]
            lengths = [t.completion_tokens for t in taken]
            training = pass_seconds(setup, lengths, setup.trunk + setup.scored, setup.head + setup.scored)
            training += optimizer_seconds(setup)
            world.sleep(training)
            rollouts.advance(engine.refresh, step + 1)
            worked = sum(worker.busy for worker in backend.workers) - busy
            stale = fmean(step - t.policy_version for t in taken)
            seen.append((world.now - began, training, worked, stale, sum(lengths)))
        rollouts.close()
    step, training, worked, stale, tokens = np.mean(seen[warm : steps - setup.staleness], axis=0).tolist()
    gpus = setup.trainers + setup.samplers
    bubble = 1 - (training * setup.trainers + worked) / (step * gpus)
    return Simulated(step, training, step - training - setup.sync_s, bubble, stale, tokens / step)


@cache
def _tokenizer() -> Any:
    return tiny.make_tokenizer(["a"], tiny.TinySize())


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("published", "afterwards", "cluster"))
    {"published": published, "afterwards": afterwards, "cluster": cluster}[parser.parse_args().table]()


# verl, docs/advance/fully_async.md (github.com/volcengine/verl, commit 2147009): Qwen2.5-Math-7B, DAPO, H20,
# 512 prompts x 16 samples a step, answers of at most 28K tokens, vLLM and FSDP2. Colocated steps score old
# log-probs.
VERL = Setup("7B", H20, 32, 0, 512, 16, prompt=150, mean=1, most=28 * 1024)
_COLOCATED: dict[str, Any] = {"scored": 1}
_ASYNC: dict[str, Any] = {"staleness": 1, "waits": False}
VERL_ROWS: list[
    tuple[int, int, float, float, dict[str, Any]]
] = [  # GPUs that train, that sample; seconds a step, of update_actor
    (32, 0, 790.10, 313.81, _COLOCATED),
    (16, 16, 294.77, 269.80, _ASYNC),
    (64, 0, 365.28, 133.41, _COLOCATED),
    (32, 32, 189.26, 156.98, _ASYNC),
    (128, 0, 356.30, 113.81, _COLOCATED),
    (64, 64, 150.63, 113.16, _ASYNC),
]
# TRL, huggingface.co/blog/asyncgrpo-lora-hfjobs (September 2026): Qwen2.5-Math-1.5B, LoRA of rank 1, 2 H200
# train, 2 or 3 sample, answers of at most 3,000 tokens; rows of 16,384 tokens, 6 to a step and GPU, 95% full; a
# sequence is about 1.2k tokens; new weights every 4 steps. Its step time leaves out the weight sync.
TRL = Setup("1.5B", DEVICES["h200"], 2, 2, 19, 8, prompt=100, mean=1130, most=3000, trunk=3, head=2,
            staleness=2, waits=False, sync_s=7.6 / 4, at_once=64)  # fmt: skip
_RUN_5 = {"trunk": 2, "samplers": 3, "at_once": 128, "sync_s": 6.2 / 4, "tasks": 21}
TRL_ROWS: list[tuple[str, float, str, dict[str, Any]]] = [  # what; published; of which figure; what differs
    ("run 2, fwd_bwd s", 5.6, "training", {}),
    ("run 5, fwd_bwd s", 4.6, "training", _RUN_5),
    ("run 5, wall s a step", 53 * 60 / 500, "step", _RUN_5),
    ("run 3, sampled tokens/s", 25_000, "sampled_rate", {"trunk": 2}),
]  # fmt: skip
# prime-rl, benchmarks/baselines (github.com/PrimeIntellect-ai/prime-rl, commit 767aaad), the trainer alone on
# H100: full fine-tuning, activations computed again, two micro-batches of one row.
PRIME_ROWS = [  # model, GPUs, tokens a row, tokens a second of all
    ("0.6B", 1, 16_384, 11_896.0),
    ("4B", 8, 16_384, 26_025.5),
    ("4B", 8, 65_536, 28_965.7),
]
WITHIN = 0.30


def published() -> None:
    """Each published row, and the same simulated."""
    met = []

    def line(what: str, theirs: float, ours: float, *, counts: bool = True) -> None:
        off = ours / theirs - 1
        met.extend([abs(off) <= WITHIN] if counts else [])
        verdict = ("met" if met[-1] else "NOT met") if counts else "(for information)"
        print(f"{what:<44}{theirs:>12,.1f}{ours:>12,.1f}{off:>+9.0%}  {verdict}", flush=True)

    print(f"{'':<44}{'published':>12}{'simulated':>12}{'off':>9}")
    fitted = replace(VERL, **VERL_ROWS[0][4], mean=fitted_mean())
    print(f"verl: a mean of {fitted.mean:,.0f} tokens, fitted to its first row")
    for trainers, samplers, step, update, more in VERL_ROWS:
        base = replace(VERL, trainers=trainers, samplers=samplers, mean=fitted.mean, **more)
        found = simulate(base)
        name = f"verl {trainers}+{samplers} GPUs" if samplers else f"verl {trainers} GPUs colocated"
        line(f"{name}, s a step", step, found.step, counts=trainers + samplers > 32 or bool(samplers))
        line(f"{name}, of which training", update, found.training * base.trunk / (base.trunk + base.scored),
             counts=False)  # fmt: skip
    for what, theirs, figure, changes in TRL_ROWS:
        line(f"TRL {what}", theirs, getattr(simulate(replace(TRL, **changes), steps=30, warm=10), figure))
    for model, gpus, length, theirs in PRIME_ROWS:
        setup = Setup(model, DEVICES["h100"], gpus, 0, 1, 1, prompt=0, mean=length, most=length)
        tokens = [length] * 2 * gpus
        seconds = pass_seconds(setup, tokens, 4, 4) + optimizer_seconds(setup)
        line(f"prime-rl {model}, {gpus} GPUs, rows of {length:,}, tokens/s", theirs, sum(tokens) / seconds)
    print(f"{sum(met)} of {len(met)} within {WITHIN:.0%}")


def afterwards() -> None:
    """Added when the outcome was known: verl's rows cannot be of answers of one mean length (16 GPUs train in
    less time than 32), so each is given the mean that makes its time of training right. What is then simulated
    is how sampling and training go on side by side."""
    print(f"{'':<18}{'mean length':>12}{'published':>12}{'simulated':>12}{'off':>9}{'bubble':>9}")
    for trainers, samplers, step, update, more in VERL_ROWS:
        base = replace(VERL, trainers=trainers, samplers=samplers, **more)

        def too_long(mean: float, base: Setup = base, update: float = update) -> float:
            lengths = [draw_length(replace(base, mean=mean), seed) for seed in range(2048)]
            return 4 * pass_seconds(base, lengths, base.trunk, base.head) - update

        mean = brentq(too_long, 100, 10_000, xtol=10)
        found = simulate(replace(base, mean=mean))
        name = f"verl {trainers}+{samplers} GPUs"
        off = found.step / step - 1
        print(
            f"{name:<18}{mean:>12,.0f}{step:>12.1f}{found.step:>12.1f}{off:>+9.0%}{found.bubble:>9.0%}",
            flush=True,
        )


def fitted_mean() -> float:
    """The mean length that makes verl's first row right, by bisection."""
    low, high = 100.0, 15_000.0
    trainers, samplers, step, _, more = VERL_ROWS[0]
    while high / low > 1.01:
        mean = math.sqrt(low * high)
        found = simulate(
            replace(VERL, trainers=trainers, samplers=samplers, mean=mean, **more), steps=2, warm=1
        )
        low, high = (mean, high) if found.step < step else (low, mean)
    return math.sqrt(low * high)


def cluster() -> None:
    """A 7B on 1 to 1,024 H100: a step of 4 prompts x 16 samples for each GPU, at most 512 prompts."""
    names = ("GPUs", "how", "s a step", "training", "bubble", "staleness", "tokens/s/GPU")
    print("".join(f"{name:>{width}}" for name, width in zip(names, (6, 22, 10, 10, 8, 11, 14), strict=True)))
    for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        half = gpus // 2
        base = Setup("7B", DEVICES["h100"], gpus, 0, min(512, 4 * gpus), 16, 500, 2000, 16_384)
        ways = {"in turn": base}
        if half:
            split = replace(base, trainers=half, samplers=half)
            ways |= {
                "split, lag 1": replace(split, staleness=1),
                "split, lag up to 2": replace(split, staleness=2, waits=False),
            }
        for how, setup in ways.items():
            found = simulate(setup)
            print(
                f"{gpus:>6}{how:>22}{found.step:>10.1f}{found.training:>10.1f}{found.bubble:>8.0%}"
                f"{found.staleness:>11.2f}{found.sampled_rate / gpus:>14,.0f}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
