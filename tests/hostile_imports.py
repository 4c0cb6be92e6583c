"""A judge of hostile files: runs one import under limits, in a process of its own.

    python -m tests.hostile_imports [COUNT [SEED]]      what each import said, and which is a fault of ours

A file is well when the import reads it or refuses it in one line, within its limits of time and memory.
"""

import os
import resource
import sys
import tempfile
from pathlib import Path

from tests.hostile_files import HostileFile, hostile_files
from vertigym.core.config import parse
from vertigym.core.errors import InputError
from vertigym.envs import registry
from vertigym.envs.decision.importer import import_decision
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces

CPU_S, MEMORY = 5, 1 << 30


def read_file(file: Path) -> None:
    """Import a file as the command for its kind would."""
    if file.name == "env.toml":
        registry.make(str(file.parent))
    elif file.name.startswith("log"):
        columns = {"input": "input", "completion": "completion"} if ".csv" in file.suffixes else {}
        config = parse(ImportConfig, {"columns": columns}, source="test")
        import_traces([file], file.parent / "out", config)
    else:
        sizes = {"train": 40, "eval": 10, "test": 10}
        import_decision(file, "acme/X-v0", file.parent / "out", sizes=sizes)  # type: ignore[arg-type]


def fault(hostile: HostileFile, folder: Path) -> str:
    """What the import did that it must not do; empty where it read the file or refused it in one line."""
    folder.mkdir()
    file = folder / hostile.name
    file.write_bytes(hostile.content)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, _tried(file).encode("utf-8", "backslashreplace")[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    return "" if said.startswith("well: ") and not status else said or f"the process ended (status {status})"


def _tried(file: Path) -> str:
    """The import under limits, in a process of its own: `well: …`, or the fault."""
    import gc
    import traceback

    gc.freeze()  # or the import pays for looking through all that the test runner holds
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what panics write
    try:
        read_file(file)
    except InputError as error:
        return f"well: {error}" if "\n" not in str(error) else f"several lines: {error!r}"
    except BaseException:
        return traceback.format_exc()
    return "well: read"


def main() -> int:
    count, seed = (int(word) for word in (*sys.argv[1:3], *("200", "0")[len(sys.argv[1:3]) :]))
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, hostile in enumerate(hostile_files(count, seed)):
            if found := fault(hostile, Path(folder) / str(number)):
                faults += 1
                size = f"{len(hostile.content):,} bytes"
                print(f"--- {number} {hostile.name}, {hostile.kind} ({size})\n{found[-1500:]}")
    print(f"{count} files, {faults} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
