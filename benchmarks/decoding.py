"""Decoding speed: our engine beside `transformers.generate`, same model, prompts and lengths, in one run.

    python benchmarks/decoding.py [--threads 2] [--prompt 16]

Sampled tokens a second, log-probs of the sampled tokens included (for `generate`: processed scores, gathered).
No end-of-turn token is ever sampled, so that both do the same work. `running` is the batch that prompts join
whenever they are ready, in which no row's bits depend on the others.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vertigym.core.types import Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import DType, TransformersEngine

SIZES = {
    "0.9M (128x4)": tiny.TinySize(vocabulary=1000),
    "5.8M (256x6)": tiny.TinySize(hidden=256, layers=6, ffn=768, vocabulary=4096, init_std=0.02),
}
ROWS, NEW = 64, 32


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    title = f"{ROWS} prompts x {arguments.prompt} tokens -> {NEW} new, {arguments.threads} threads"
    table = Table(title=title)
    for column in ("model", "engine", "tokens/s", "x generate"):
        table.add_column(column)
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            words = [f"word{i:04d} " * 2 for i in range(size.vocabulary)]
            tiny.build(words, Path(folder) / "model", size=size)
            for row in measure(Path(folder) / "model", arguments.repeats, arguments.prompt):
                table.add_row(name, *row)
    Console().print(table)


def measure(folder: Path, repeats: int, length: int) -> list[tuple[str, str, str]]:
    """Each way in turn, repeated, so that a drifting machine drifts for all."""
    model, tokenizer = load_model(folder)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    tokenizer.eos_token = "<|endoftext|>"
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] -= 100  # never sampled
    torch.manual_seed(0)
    ids = torch.randint(0, 200, (ROWS, length))
    ways: dict[str, Callable[[], object]] = {"transformers generate fp32": lambda: generate(model, ids)}
    dtypes: tuple[DType, ...] = ("float32", "bfloat16")
    for dtype in dtypes:
        engine = TransformersEngine(model, tokenizer, dtype=dtype)
        distinct = [Prompt((), row.tolist(), seed=i) for i, row in enumerate(ids)]
        grouped = [Prompt((), ids[i // 8].tolist(), seed=i) for i in range(ROWS)]
        sampling = Sampling(max_tokens=NEW)
        ways[f"ours {dtype}"] = partial(engine.generate, distinct, sampling)
        ways[f"ours {dtype}, 8 prompts x 8"] = partial(engine.generate, grouped, sampling)
        if engine.running_batch(sampling, ROWS):  # else rows are not alike on this machine
            ways[f"ours {dtype}, running"] = partial(run, engine, distinct, sampling)
            ways[f"ours {dtype}, running, 8 prompts x 8"] = partial(run, engine, grouped, sampling)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if repeat:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - began)
    base = statistics.median(seconds["transformers generate fp32"])
    return [
        (name, f"{ROWS * NEW / (median := statistics.median(times)):,.0f}", f"{base / median:.2f}")
        for name, times in seconds.items()
    ]


def run(engine: TransformersEngine, prompts: Sequence[Prompt], sampling: Sampling) -> None:
    """All at once, in a new running batch."""
    batch = engine.running_batch(sampling, ROWS)
    assert batch
    with closing(batch):
        for chat, prompt in enumerate(prompts):
            batch.add(chat, prompt)
        while batch.busy:
            batch.collect()


@torch.no_grad()
def generate(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The usual way: sample with `generate`, then gather log-probs from its scores."""
    out = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = torch.log_softmax(torch.stack(out.scores, 1).float(), -1)
    return scores.gather(2, out.sequences[:, ids.shape[1] :, None])


if __name__ == "__main__":
    main()
