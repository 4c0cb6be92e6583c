"""Time and peak memory of the fused log-prob against what people use, on the CPU or the GPU that is here.

    python benchmarks/linear_logprob.py                  the shapes of RESULTS.md for this machine
    python benchmarks/linear_logprob.py --shape 2048,512,32000 --rounds 5

Every measurement is a process of its own, so that peaks do not mix; methods take turns, so that a busy moment
hits all of them; the medians over rounds are reported. A method whose package is missing is left out
(`pip install trl liger-kernel cut-cross-entropy`). Random logits, log-prob only, upstream gradients random.

CPU: one thread, CPU seconds, peak of the resident set above what was there before the call.
GPU: bf16, CUDA events over many calls, peak of allocated bytes above what was there before the call. Clocks are
left as they are.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vertigym.kernels.linear_logprob import linear_logprob

CPU_SHAPES = ((2048, 512, 32_000), (2048, 512, 151_936))
GPU_SHAPES = ((8192, 4096, 151_936), (16384, 1024, 151_936))
PEAK_FLOPS = 790e12  # what matmuls reach on an H200, for the floors

Method = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain(hidden: Tensor, weight: Tensor, target: Tensor, g: Tensor) -> Tensor:
    """All logits."""
    logp = torch.log_softmax((hidden @ weight.T).float(), -1)
    return logp.gather(1, target.clamp(min=0)[:, None])[:, 0].where(target != -100, 0.0)


def trl(hidden: Tensor, weight: Tensor, target: Tensor, g: Tensor) -> Tensor:
    """TRL's chunked function with TRL's chunk, on scored tokens only, as its trainer calls it."""
    try:
        import_module("trl.trainer.utils")
    except ModuleNotFoundError:  # its backward takes from there a context that does nothing without DeepSpeed
        stub = types.ModuleType("trl.trainer.utils")
        stub.maybe_gather_lm_head_ctx = lambda *tensors: contextlib.nullcontext()  # type: ignore[attr-defined]
        sys.modules["trl.trainer.utils"] = stub
    function = import_module("trl.kernels").ChunkedLogProbFunction
    live = target != -100
    logp: Tensor = function.apply(hidden[live], weight, None, target[live], 1.0, 32768, None, 1.0, ())[0]
    return logp.new_zeros(target.shape).masked_scatter(live, logp)


def liger(hidden: Tensor, weight: Tensor, target: Tensor, g: Tensor) -> Tensor:
    """Triton Liger: its fused cross-entropy, summed (its quick case; gradients are taken in its forward)."""
    loss = import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(reduction="sum")
    total: Tensor = loss(weight, hidden, target)
    return total


def cce(hidden: Tensor, weight: Tensor, target: Tensor, g: Tensor) -> Tensor:
    """Cut Cross-Entropy, its default settings."""
    losses: Tensor = import_module("cut_cross_entropy").linear_cross_entropy(
        hidden, weight, target, reduction="none"
    )
    return -losses


def ours(**options: Any) -> Method:
    """`linear_logprob` with some options; `predicted` passes the upstream gradients on."""
    predicted = options.pop("predicted", False)

    def run(hidden: Tensor, weight: Tensor, target: Tensor, g: Tensor) -> Tensor:
        upstream = (lambda logp, entropy, tokens: (g[tokens], None)) if predicted else None
        return linear_logprob(hidden, weight, target, entropy=False, upstream=upstream, **options)[0]

    return run


METHODS: dict[str, Callable[[], Method]] = {
    "log_softmax + gather": lambda: plain,
    "TRL chunked": lambda: trl,
    "Liger (Triton)": lambda: liger,
    "Cut Cross-Entropy": lambda: cce,
    "vertigym": lambda: ours(),
    "vertigym, nothing kept": lambda: ours(budget_bytes=0),
    "vertigym, all kept": lambda: ours(budget_bytes=64 << 30),
    "vertigym, gradients predicted": lambda: ours(predicted=True),
    "vertigym, fused forward": lambda: ours(impl="fused", budget_bytes=0),
}
PACKAGES = {"TRL chunked": "trl", "Liger (Triton)": "liger_kernel", "Cut Cross-Entropy": "cut_cross_entropy"}
GPU_ONLY = {"Liger (Triton)", "Cut Cross-Entropy", "vertigym, fused forward"}
BACKWARD_ONLY = {"vertigym, nothing kept", "vertigym, all kept", "vertigym, gradients predicted"}
FORWARD_ONLY = {"vertigym, fused forward"}


@dataclass(frozen=True)
class Job:
    """One measurement."""

    method: str
    tokens: int
    hidden: int
    vocab: int
    live: float
    backward: bool
    repeats: int


def measure(job: Job) -> dict[str, Any]:
    """Seconds of each call and peak bytes of one, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    hidden = torch.randn(job.tokens, job.hidden, device=device, dtype=kind).requires_grad_()
    weight = (
        torch.randn(job.vocab, job.hidden, device=device, dtype=kind).mul_(job.hidden**-0.5).requires_grad_()
    )
    target = torch.randint(0, job.vocab, (job.tokens,), device=device)
    target[torch.rand(job.tokens, device=device) >= job.live] = -100
    g = torch.randn(job.tokens, device=device)
    method = METHODS[job.method]()

    def call(rows: int = job.tokens, columns: int = job.vocab) -> None:
        x, w, y = hidden[:rows], weight[:columns], target[:rows].clamp(max=columns - 1)
        with torch.set_grad_enabled(job.backward):
            logp = method(x, w, y, g[:rows])
        if job.backward:
            torch.autograd.grad(logp, (x, w), g[:rows] if logp.dim() else torch.ones_like(logp))

    call(64, 640)  # loads code and starts threads: no part of the peak
    peak = (peak_on_gpu if device.type == "cuda" else peak_on_cpu)(call)
    seconds = (time_on_gpu if device.type == "cuda" else time_on_cpu)(call, job.repeats)
    return {"seconds": seconds, "peak": peak}


def peak_on_cpu(call: Callable[[], None]) -> int:
    """Highest resident set during the call, above what it was before."""
    before = resident("VmRSS")
    # 5 resets the high-water mark; without it, the mark of the imports would hide small peaks
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """Bytes, from the kernel's account of this process."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(key))
    return int(line.split()[1]) * 1024


def time_on_cpu(call: Callable[[], None], repeats: int) -> list[float]:
    """CPU seconds of each call, in user code and kernel."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return seconds


def peak_on_gpu(call: Callable[[], None]) -> int:
    """Highest allocated bytes during the second call (the first compiles), above what there was before."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def time_on_gpu(call: Callable[[], None], repeats: int) -> list[float]:
    """Seconds between events around each call."""
    for _ in range(3):
        call()
    seconds = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(stop) / 1e3)
    return seconds


def child(job: Job) -> dict[str, Any] | None:
    """`measure` in a new process; None when the method fails there."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env.pop("TRITON_INTERPRET", None)
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        print(f"  {job.method}: failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(
    shape: tuple[int, int, int], live: float, backward: bool, rounds: int, repeats: int
) -> list[dict[str, Any]]:
    """All methods on one shape, in turns."""
    on_gpu = torch.cuda.is_available()
    names = [
        name
        for name in METHODS
        if (on_gpu or name not in GPU_ONLY) and name not in (FORWARD_ONLY if backward else BACKWARD_ONLY)
    ]
    names = [name for name in names if name not in PACKAGES or find_spec(PACKAGES[name])]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            result = child(Job(name, *shape, live, backward, repeats))
            if result is not None:
                found[name].append(result)
    return [
        {
            "method": name,
            "seconds": statistics.median(s for r in results for s in r["seconds"]),
            "fastest": min(s for r in results for s in r["seconds"]),
            "peak": statistics.median(r["peak"] for r in results),
        }
        for name, results in found.items()
        if results
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; the last two columns compare with the first method."""
    lines = [
        "| method | time | fastest | peak memory | time / plain | plain memory / this |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        ratios = f"{r['seconds'] / rows[0]['seconds']:.2f} | {rows[0]['peak'] / max(1, r['peak']):.1f}"
        times = f"{clock(r['seconds'])} | {clock(r['fastest'])}"
        lines.append(f"| {r['method']} | {times} | {r['peak'] / 2**20:.0f} MiB | {ratios} |")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Seconds in words."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def floors(shape: tuple[int, int, int], live: float, backward: bool) -> str:
    """What the matmuls alone would take on an H200."""
    unit = 2 * math.prod(shape) * live / PEAK_FLOPS
    if not backward:
        return f"floor {clock(unit)}; target ≤ {clock(1.15 * unit)}"
    return f"floor {clock(3 * unit)} with logits kept, {clock(4 * unit)} without; targets 1.15 of that"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="T,H,V; may be given again")
    parser.add_argument("--live", type=float, action="append", help="share of tokens that are scored")
    parser.add_argument("--rounds", type=int, default=3, help="processes a method (default 3)")
    parser.add_argument("--repeats", type=int, help="timed calls a process (default 1 on a CPU, 30 on a GPU)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(measure(Job(**json.loads(args.job)))))
        return
    on_gpu = torch.cuda.is_available()
    shapes = [tuple(int(n) for n in shape.split(",")) for shape in args.shape or ()] or list(
        GPU_SHAPES if on_gpu else CPU_SHAPES
    )
    where = torch.cuda.get_device_name() if on_gpu else f"CPU, 1 thread of {os.cpu_count()}"
    print(f"{where}; torch {torch.__version__}; load {os.getloadavg()[0]:.1f} at the start\n", flush=True)
    kept = []
    for tokens, hidden, vocab in shapes:
        for live in args.live or ([1.0, 0.3] if on_gpu else [1.0]):
            for backward in (False, True):
                shape = (tokens, hidden, vocab)
                rows = compare(shape, live, backward, args.rounds, args.repeats or (30 if on_gpu else 1))
                title = f"{'forward + backward' if backward else 'forward'}, T={tokens}, H={hidden}, V={vocab}"
                print(
                    f"**{title}, {live:.0%} live**" + (f" ({floors(shape, live, backward)})" if on_gpu else "")
                )
                print(f"\n{table(rows)}\n", flush=True)
                kept.append({"shape": shape, "live": live, "backward": backward, "rows": rows})
    if args.json:
        args.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
