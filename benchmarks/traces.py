"""`vertigym traces import` on a made-up log: rows a second, processor seconds and peak memory by size.

    python benchmarks/traces.py [ROWS...] [--policy SENTENCES] [--kill] [--keep FOLDER]

Each size is imported by a process of its own, so that its peak memory is its own; one only starts up.
`--policy` lengthens the shops' system messages: 10^6 rows with 24 sentences are 2 GB. `--kill` kills each
import once, half way through reading, and starts it again. Then the two MinHash libraries on the same inputs:
`rensa`, which the import uses, and `datasketch`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from vertigym.traces.ngrams import char_grams, distinct, plain
from vertigym.traces.records import read_traces

MAKE = """
import sys
from pathlib import Path
from vertigym.tests.trace_log import Log
planted = Log(Path(sys.argv[1]), int(sys.argv[2]), seed=1, policy=int(sys.argv[3])).planted
(Path(sys.argv[1]) / "names.txt").write_text("\\n".join(planted.names))
"""
PROGRAM = """
import json, re, sys, time
from pathlib import Path
from vertigym.core.config import parse
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
*files, names, out = sys.argv[1:]
settings = {"pii": {"names": names}, "split": {"by": "customer"}}
said = -1
def progress(rows, done, total):
    global said
    if (step := 10 * done // total) != said:
        said = step
        print(json.dumps([rows, done / total, time.process_time()]), flush=True)
if files:
    config = parse(ImportConfig, settings, source="benchmark")
    import_traces([Path(file) for file in files], Path(out), config, progress)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(json.dumps([time.process_time(), int(peak[1]) / 1024]))
"""


@dataclass
class Used:
    """One import: seconds, processor seconds in all and while reading (by tenths), peak MiB."""

    seconds: float
    processor: float
    tenths: list[tuple[int, float]]
    peak: float


def imported(files: list[Path], folder: Path, kill: bool = False) -> Used:
    """One import in its own process; `kill`: in one that dies half way, and in one that goes on."""
    arguments = [*map(str, files), str(folder / "names.txt"), str(folder / "out")]
    tenths: list[tuple[int, float]] = []
    start, before = time.perf_counter(), 0.0
    while True:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in map(json.loads, process.stdout):
                if len(line) == 2:
                    return Used(time.perf_counter() - start, before + line[0], tenths, line[1])
                tenths.append((line[0], before + line[2]))
                print(f"  {time.perf_counter() - start:7,.0f} s  {line}", file=sys.stderr, flush=True)
                if kill and line[1] >= 0.5:
                    kill, before = False, before + line[2]
                    process.kill()
        if process.returncode not in (0, -9):
            raise SystemExit(process.returncode)


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
    """Print one line a size, and where its processor time went."""
    options = argparse.ArgumentParser()
    options.add_argument("rows", type=int, nargs="*", default=[25_000, 50_000, 100_000, 200_000])
    options.add_argument("--policy", type=int, default=0)
    options.add_argument("--kill", action="store_true")
    options.add_argument("--keep", type=Path, help="a folder for logs and imports")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = chosen.keep or Path(name)
        root.mkdir(parents=True, exist_ok=True)
        (root / "names.txt").write_text("")
        print(f"start-up alone: {imported([], root).peak:.0f} MiB")
        print(
            "     rows  log MiB  seconds  processor s  rows/processor s  peak MiB  "
            "by tenths of the log: rows/processor s"
        )
        for size in chosen.rows:
            folder = root / str(size)
            made = [sys.executable, "-c", MAKE, str(folder), str(size), str(chosen.policy)]
            subprocess.run(made, check=True)  # a process of its own: its memory goes with it
            files = sorted(folder.glob("*.jsonl"))
            log_mb = sum(file.stat().st_size for file in files) / 2**20
            used = imported(files, folder, chosen.kill)
            rates = [
                f"{(b[0] - a[0]) / (b[1] - a[1]):,.0f}"
                for a, b in pairwise(used.tenths)
                if b[0] > a[0] and b[1] > a[1]
            ]
            print(
                f"{size:>9,}  {log_mb:>7,.0f}  {used.seconds:>7,.0f}  {used.processor:>11,.0f}  "
                f"{size / used.processor:>16,.0f}  {used.peak:>8.0f}  {' '.join(rates)}",
                flush=True,
            )
        minhash(folder)


if __name__ == "__main__":
    main()
