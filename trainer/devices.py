"""GPUs in numbers, for plans made without one at hand: dense rates, from the makers' data sheets.

Sources: NVIDIA's data sheets "H100 Tensor Core GPU" (SXM), "H200 Tensor Core GPU" (SXM), "A100 Tensor Core
GPU" (80 GB SXM), "L40S GPU", "HGX B200", and the "Ada GPU Architecture" white paper (GeForce RTX 4090). Where a
sheet gives a rate with sparsity, half of it stands here. None was measured here.
"""

import re
from dataclasses import dataclass

from vertigym.core.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Device:
    """One device: bytes of memory, operations a second by precision, bytes a second of its memory and of its
    link to the others (one way). `count`: how many there are."""

    name: str
    memory: float
    bf16: float
    tf32: float
    fp32: float
    bandwidth: float
    link: float
    count: int = 1

    def rate(self, precision: str) -> float:
        """Operations a second of a matmul in `bfloat16`, `tf32` or `float32`."""
        return {"bfloat16": self.bf16, "tf32": self.tf32, "float32": self.fp32}[precision]


_T, _G = 1e12, 1e9
DEVICES = {
    one.name: one
    for one in (
        Device("a100-80", 80 * _G, 312 * _T, 156 * _T, 19.5 * _T, 2.039 * _T, 300 * _G),
        Device("b200", 180 * _G, 2250 * _T, 1100 * _T, 75 * _T, 7.7 * _T, 900 * _G),
        Device("h100", 80 * _G, 989 * _T, 494 * _T, 67 * _T, 3.35 * _T, 450 * _G),
        Device("h200", 141 * _G, 989 * _T, 494 * _T, 67 * _T, 4.8 * _T, 450 * _G),
        Device("l40s", 48 * _G, 362 * _T, 183 * _T, 91.6 * _T, 0.864 * _T, 32 * _G),
        Device("rtx4090", 24 * _G, 165 * _T, 82.6 * _T, 82.6 * _T, 1.008 * _T, 32 * _G),
    )
}


def find_device(name: str) -> Device:
    """The device called `h100`, or eight of them: `h100x8`.

    Raises:
        UnknownNameError: not in the table. ConfigError: a count of 0.
    """
    known, count = name.strip().lower(), 1
    if known not in DEVICES and (several := re.fullmatch(r"(.+)x(\d+)", known)):
        known, count = several[1], int(several[2])
    if known not in DEVICES:
        raise UnknownNameError("gpu", name, sorted(DEVICES), "Several of them: h100x8")
    if not count:
        raise ConfigError(f"--gpu {name}: a count of at least 1 is needed, as in {known}x8")
    one = DEVICES[known]
    return Device(one.name, one.memory, one.bf16, one.tf32, one.fp32, one.bandwidth, one.link, count)
