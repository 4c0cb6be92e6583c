"""`vertigym tinker` in a process of its own, for tests of programs that are its clients."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def served(base: Path, store: Path, *, name: str = "tiny") -> Iterator[str]:
    """The address of a server of the model folder `base`, called `name`."""
    command = [sys.executable, "-P", "-m", "vertigym", "tinker", "--base", f"{name}={base}", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--store", str(store)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / ".cache" / "src")},
    )
    try:
        assert server.stderr
        yield next(m[1] for line in server.stderr if (m := re.search(r"TINKER_BASE_URL=(http://\S+),", line)))
    finally:
        server.terminate()
        server.wait(20)
