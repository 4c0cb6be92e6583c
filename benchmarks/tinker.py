"""`vertigym tinker` beside the same verbs in this process, by the real client; calls at once; and a soak.

    python -m benchmarks.tinker rate|concurrent|soak [--size tiny|small] [--rounds 3]

Needs `tinker` (0.38) beside vertigym's extra `tinker`. The server is a process of its own on this machine; each
side has as many threads as OMP_NUM_THREADS says, and they run in turn.
`in process` are the Learner and the engine that `vertigym train` uses, with rows packed and prompts batched as
they like; `one by one` are the passes of a server that computes a datum and a call at a time. Rates are medians
over rounds, by the clock and by processor time (the wire's is the server's and the client's), which says more
on a machine that is busy.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tinker
import torch
from torch import Tensor

from vertigym.core.types import Prompt, Sampling
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import AdamStep, Learner, tokenwise
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.policies import tiny
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import AdapterShape

SIZES = {
    "tiny": tiny.TinySize(context=4096),
    "small": tiny.TinySize(hidden=384, layers=6, heads=6, key_heads=6, ffn=1024, context=4096),
}
DATUMS, LENGTH, STEPS = 16, 128, 2
CALLS, SAMPLES, TOKENS = 8, 8, 32
ADAM = AdamStep(1e-4, (0.9, 0.95), 1e-12)
NAME = "base"
TRAINING, SAMPLING = "forward_backward + optim_step", "sample"


def tokens_of(number: int, length: int) -> list[int]:
    """Some tokens of their own."""
    return [(7 * number + 3 * i + i * i) % 200 for i in range(length)]


@contextmanager
def served(base: Path, store: Path) -> Iterator[tuple[str, int]]:
    """The address and the process id of a server."""
    command = [sys.executable, "-m", "vertigym", "tinker", "--base", f"{NAME}={base}", "--port", "0"]
    server = subprocess.Popen([*command, "--store", str(store)], stderr=subprocess.PIPE, text=True)
    assert server.stderr
    try:
        yield (
            next(m[1] for line in server.stderr if (m := re.search(r"TINKER_BASE_URL=(http://\S+),", line))),
            server.pid,
        )
    finally:
        server.terminate()
        server.wait(20)


class OverTheWire:
    """The client's verbs."""

    def __init__(self, url: str) -> None:
        self.service = tinker.ServiceClient(base_url=url, api_key="tml-local")
        self.model = self.service.create_lora_training_client(base_model=NAME, rank=16, seed=1).result()
        self.sampler = self.service.create_sampling_client(base_model=NAME)

    def train(self, steps: int = STEPS) -> None:
        """Steps of one batch, each asked for before the one before is done."""
        adam = tinker.AdamParams(learning_rate=ADAM.lr)
        asked = []
        for _ in range(steps):
            asked += [
                self.model.forward_backward(_datums(), "importance_sampling"),
                self.model.optim_step(adam),
            ]
        for one in asked:
            one.result()

    def sample(self, calls: int = CALLS, samples: int = SAMPLES, tokens: int = TOKENS) -> None:
        """Calls at once."""
        params = tinker.SamplingParams(max_tokens=tokens, stop=[], seed=1)
        asked = [
            self.sampler.sample(tinker.ModelInput.from_ints(tokens_of(i, 32)), samples, params)
            for i in range(calls)
        ]
        for one in asked:
            assert len(one.result().sequences) == samples


def _datums() -> list[Any]:
    columns: Mapping[str, Any] = {"logprobs": [-5.0] * LENGTH, "advantages": [0.5] * LENGTH}
    return [
        tinker.Datum(
            model_input=tinker.ModelInput.from_ints(tokens_of(i, LENGTH)),
            loss_fn_inputs={"target_tokens": tokens_of(i, LENGTH + 1)[1:], **columns},
        )
        for i in range(DATUMS)
    ]


def _loss(logp_T: Tensor, _: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    columns: Any = batch.columns
    return -(torch.exp(logp_T - columns.sampler_logp) * columns.advantage).sum(), {}


class InProcess:
    """The same of the Learner and the engine."""

    def __init__(self, base: AdaptedBase) -> None:
        self.learner = Learner(
            base.with_adapters(AdapterShape(rank=16, seed=1), seed=1), OptimizerConfig(), total_steps=1
        )
        self.engine = TransformersEngine(base.view(), base.tokenizer)
        columns = TokenColumns[Sequence[float]](sampler_logp=[-5.0] * LENGTH, advantage=[0.5] * LENGTH)
        self.samples = [
            TrainingSample(tokens_of(i, LENGTH + 1), [0] + [1] * LENGTH, columns) for i in range(DATUMS)
        ]

    def train(self, together: int) -> None:
        """Steps, so many samples a pass."""
        for _ in range(STEPS):
            for start in range(0, DATUMS, together):
                part = self.samples[start : start + together]
                self.learner.forward_backward(part, tokenwise(_loss), normalizer=1.0)
            self.learner.optim_step(ADAM)

    def sample(self, together: int) -> None:
        """Calls, so many a batch."""
        prompts = [Prompt((), token_ids=tokens_of(i, 32), seed=s) for i in range(CALLS) for s in range(SAMPLES)]
        for start in range(0, len(prompts), together * SAMPLES):
            self.engine.generate(prompts[start : start + together * SAMPLES], Sampling(max_tokens=TOKENS))


def rate(folder: Path, url: str, server: int, rounds: int) -> None:
    """Tokens a second of each side, and what the wire's are of the others'."""
    wire, here = OverTheWire(url), InProcess(AdaptedBase(NAME, str(folder / "base")))
    sides: Mapping[str, Mapping[str, Callable[[], None]]] = {
        TRAINING: {
            "wire": wire.train,
            "one by one": lambda: here.train(1),
            "in process": lambda: here.train(DATUMS),
        },
        SAMPLING: {
            "wire": wire.sample,
            "one by one": lambda: here.sample(1),
            "in process": lambda: here.sample(CALLS),
        },
    }
    for what, ways in sides.items():
        took: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, run in ways.items():
                began, used = time.perf_counter(), time.process_time() + _processor_time(server)
                run()
                if turn:  # the first is to warm up
                    used = time.process_time() + _processor_time(server) - used
                    took[way].append((time.perf_counter() - began, used))
        count = DATUMS * LENGTH * STEPS if what == TRAINING else CALLS * SAMPLES * TOKENS
        print(what)
        for i, unit in enumerate(("second", "second of processor")):
            found = {way: count / statistics.median(times[i] for times in took[way]) for way in ways}
            shares = (f"{way} {value:,.0f} (wire: {found['wire'] / value:.2f})" for way, value in found.items())
            print(f"    tokens a {unit}: {', '.join(shares)}", flush=True)


def concurrent(url: str) -> None:
    """A hundred sample calls at once, of four clients."""
    clients = [OverTheWire(url) for _ in range(4)]
    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda client: client.sample(25, 1), clients))
    print(f"100 sample calls of 4 clients at once: all answered after {time.perf_counter() - began:.2f} s")


def soak(url: str, server: int, calls: int = 10_000) -> None:
    """Sample calls and training steps; the server's memory at a thousand calls and at the end."""
    client, done, began = OverTheWire(url), 0, time.perf_counter()
    while done < calls:
        client.sample(96, 1, 2)
        client.train(2)  # four calls
        done += 100
        if done == 1000 or done % 3000 == 0 or done == calls:
            took = time.perf_counter() - began
            print(f"{done:,} calls, {took:,.0f} s: {_memory(server):.1f} MiB resident", flush=True)


def _processor_time(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process: int) -> float:
    said = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", said)
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rate", "concurrent", "soak"))
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)} {i}" for i in range(600)]
        tiny.build(words * 2, place / "base", size=SIZES[arguments.size])
        print(f"load at the start: {os.getloadavg()[0]:.1f}")
        with served(place / "base", place / "store") as (address, process):
            if arguments.what == "rate":
                rate(place, address, process, arguments.rounds)
            elif arguments.what == "concurrent":
                concurrent(address)
            else:
                soak(address, process)
        print(f"load at the end: {os.getloadavg()[0]:.1f}")
