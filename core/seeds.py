"""Random numbers by name: one root seed, and a path that says what the numbers are for.

Two consumers never share a stream, and adding a consumer never shifts another one's numbers, because each
derives its own seed from the whole path: `generator(seed, "rollout", step, task_id, sample)`.
"""

from hashlib import blake2b

import numpy as np

Key = int | str


def derive(*path: Key) -> int:
    """A 63-bit seed that depends on every element of `path` and on nothing else (not on the process, not on
    `PYTHONHASHSEED`)."""
    text = "\x1f".join(f"{type(k).__name__}:{k}" for k in path)
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def generator(*path: Key) -> np.random.Generator:
    """A NumPy generator for `path`."""
    return np.random.Generator(np.random.PCG64(derive(*path)))
