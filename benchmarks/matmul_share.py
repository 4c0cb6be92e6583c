"""How near decoding, log-probs and the backward pass come to their own matrix products, run bare.

    python benchmarks/matmul_share.py --model DIR [--threads 2] [--rows 64] [--prompt 200] [--tokens 32]

Each phase is timed as training runs it. Then it runs once more while every matrix product in it is noted by its
operation, shapes, strides and dtype; the same products on random numbers, with nothing between them, are what a
machine needs at least. The share is the second time over the first: at 1 all else would be free. The products
of attention are inside of one operation on a CPU, and count as all else.
"""

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import DType, TransformersEngine

aten: Any = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.linear.default)


class Operand(NamedTuple):
    """What a tensor is like."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


Product = tuple[Any, tuple[Operand, ...]]


class Noted(TorchDispatchMode):
    """Counts the matrix products that run in it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            operands = (arg for arg in args if isinstance(arg, torch.Tensor))
            like = tuple(Operand(tuple(t.shape), t.stride(), t.dtype) for t in operands)
            self.products[func, like] += 1
        return func(*args, **(kwargs or {}))


def flops(product: Product) -> int:
    """Of one product [.., M, K] x [.., K, N]: two for each multiplication."""
    func, operands = product
    left, right = operands[-2:] if func in (aten.addmm.default, aten.baddbmm.default) else operands[:2]
    wide = right.shape[0] if func is aten.linear.default else right.shape[-1]
    return 2 * math.prod(left.shape) * wide


@torch.inference_mode()
def bare(products: Counter[Product]) -> float:
    """Seconds of the products alone."""
    total = 0.0
    for (func, operands), count in products.items():
        tensors = [
            torch.empty_strided(like.shape, like.stride, dtype=like.dtype).normal_(std=0.1) for like in operands
        ]
        tries = min(count, 10)
        func(*tensors)
        began = time.perf_counter()
        for _ in range(tries):
            func(*tensors)
        total += (time.perf_counter() - began) / tries * count
    return total


def measure(phase: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Seconds of the phase, seconds of its products alone (medians), and their GFLOP."""
    with Noted() as noted:
        phase()
    whole, alone = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        phase()
        whole.append(time.perf_counter() - began)
        alone.append(bare(noted.products))
    gflop = sum(flops(product) * count for product, count in noted.products.items()) / 1e9
    return statistics.median(whole), statistics.median(alone), gflop


def likelihood(logp_T: Tensor, _: Tensor | None, __: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss that needs nothing but log-probs."""
    return -logp_T.sum(), {}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    for name, default in (("threads", 2), ("rows", 64), ("prompt", 200), ("tokens", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, length, new = arguments.rows, arguments.prompt, arguments.tokens
    table = Table(title=f"{rows} rows x ({length} + {new}) tokens, {arguments.threads} threads")
    for column in ("", "seconds", "products alone", "share", "GFLOP/s", "of the products alone"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, phase: Callable[[], object]) -> None:
        whole, alone, gflop = measure(phase, arguments.rounds)
        cells = (
            f"{whole:.2f}",
            f"{alone:.2f}",
            f"{alone / whole:.2f}",
            f"{gflop / whole:.0f}",
            f"{gflop / alone:.0f}",
        )
        table.add_row(name, *cells)

    asked = [
        Prompt((), token_ids=[100 + (row // 8 + i) % 900 for i in range(length)], seed=row)
        for row in range(rows)
    ]
    names: tuple[DType, ...] = ("float32", "bfloat16")
    for dtype in names:
        engine = TransformersEngine.load(arguments.model, dtype=dtype)
        sampling = Sampling(max_tokens=new)
        add(f"decode, {dtype}", partial(engine.generate, asked, sampling))
    wrote = [
        Completion(
            "", prompt_ids=p.token_ids or [], token_ids=[500 + i for i in range(new)], logprobs=[-1.0] * new
        )
        for p in asked
    ]
    samples = [TrainingSample.of(completion, advantage=1.0) for completion in wrote]
    for dtype in names:
        model = load_model(arguments.model)[0]
        learner = Learner(model, OptimizerConfig(), total_steps=1, dtype=getattr(torch, dtype))
        add(f"log-probs, {dtype}", partial(learner.score, samples))
        add(f"forward and backward, {dtype}", partial(learner.forward_backward, samples, likelihood))
    Console(width=112).print(table)


if __name__ == "__main__":
    main()
