"""Where the time of a step goes: wall-clock seconds by phase.

Phases: `sampling`, `logprobs` (forward passes, of every model), `backward`, `optimizer`. On a GPU work is
queued, so a phase that waits for the GPU also pays for what was queued before it.
"""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

# What a repeated run does not reproduce: metrics whose names begin so.
VOLATILE = ("seconds", "tokens_per_second", "memory")


class Clock:
    """Adds up seconds until they are taken."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time spent inside towards `phase`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """The seconds by phase since the last call."""
        taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken


def phases(clocks: Iterable[Clock]) -> dict[str, float]:
    """The seconds of several clocks as metrics: `seconds_logprobs`, …"""
    total: dict[str, float] = defaultdict(float)
    for clock in clocks:
        for phase, seconds in clock.take().items():
            total[f"seconds_{phase}"] += seconds
    return dict(total)


def repeatable(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that the same run gives again, to the bit."""
    return {name: value for name, value in metrics.items() if not name.startswith(VOLATILE)}


def peak_memory() -> float:
    """MiB: the most that tensors held on the GPU, or without one the most this process has been resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident() / 2**20


def peak_resident() -> float:
    """Bytes: the most that this process has been resident. Linux's `ru_maxrss` begins with the parent's."""
    if sys.platform == "darwin":
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.partition("VmHWM:")[2].split()[0])
