"""Whether a launcher such as torchrun started this process among others."""

import os

_SAYS = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def launched() -> int:
    """How many processes were started together; 1 where this one was started by itself."""
    return int(os.environ["WORLD_SIZE"]) if os.environ.keys() >= _SAYS else 1


def local_rank() -> int:
    """Which of those on this machine this process is, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))
