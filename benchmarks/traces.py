"""`vertigym traces import` on a made-up log: rows a second, processor seconds and peak memory by size.

    python benchmarks/traces.py [ROWS...]

Each size is imported by a process of its own, so that its peak memory is its own; one only starts up. Then the
two MinHash libraries on the same 2,000 inputs: `rensa`, which the import uses, and `datasketch`.
"""

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from vertigym.tests.trace_log import Log
from vertigym.traces.ngrams import char_grams, distinct, plain
from vertigym.traces.records import read_traces

PROGRAM = """
import json, resource, sys
from pathlib import Path
from vertigym.core.config import parse
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
*files, names, out = sys.argv[1:]
settings = {"pii": {"names": names}, "split": {"by": "customer"}}
if files:
    import_traces([Path(file) for file in files], Path(out), parse(ImportConfig, settings, source="benchmark"))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def imported(files: list[Path], folder: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds, peak MiB of one import in its own process."""
    arguments = [*map(str, files), str(folder / "names.txt"), str(folder / "out")]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    processor, peak = json.loads(done.stdout)
    return time.perf_counter() - start, processor, peak


def minhash(folder: Path, texts: int = 2000) -> None:
    """Signatures of 120 hashes by both libraries, in one run."""
    from rensa import RMinHash

    inputs = [plain(trace.question) for trace in read_traces(folder / "out" / "train.jsonl")][:texts]
    grams, offsets = char_grams(inputs, 5)
    start = time.perf_counter()
    RMinHash.digest_matrix_from_flat_token_hashes(grams, offsets.astype(np.uint64), 120, 0).to_rows()
    print(f"rensa:      {len(inputs) / (time.perf_counter() - start):>9,.0f} signatures/s")
    try:
        from datasketch import MinHash
    except ImportError:
        print("datasketch: not installed")
        return
    start = time.perf_counter()
    for a, b in pairwise(offsets):
        MinHash(120, hashfunc=int).update_batch((distinct(grams[a:b]) & np.uint64(0xFFFFFFFF)).tolist())
    print(f"datasketch: {len(inputs) / (time.perf_counter() - start):>9,.0f} signatures/s")


def main() -> None:
    """Print one line a size."""
    sizes = [int(size) for size in sys.argv[1:]] or [25_000, 50_000, 100_000, 200_000]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "names.txt").write_text("")
        print(f"start-up alone: {imported([], root)[2]:.0f} MiB")
        print("    rows  log MiB  seconds  processor s  rows/processor s  peak MiB")
        for size in sizes:
            folder = root / str(size)
            planted = Log(folder, size, seed=1).planted
            (folder / "names.txt").write_text("\n".join(planted.names))
            size_mb = sum(file.stat().st_size for file in planted.files) / 2**20
            wall, processor, peak = imported(planted.files, folder)
            speed = size / processor
            print(
                f"{size:>8,}  {size_mb:>7.0f}  {wall:>7.0f}  {processor:>11.0f}  {speed:>16,.0f}  {peak:>8.0f}"
            )
        minhash(folder)


if __name__ == "__main__":
    main()
