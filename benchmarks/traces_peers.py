"""Equal and nearly equal calls: `vertigym traces import` beside `datasets` and `datatrove`, on the same rows.

    python benchmarks/traces_peers.py [ROWS...] --peer VENV/bin/python

The peers need an environment of their own, with `datasets datatrove[processing] xxhash spacy nltk orjson`. Rows
are a prompt and a completion, of the requests in the made-up log of the tests (half of its calls). Each program
runs in a process of its own, on one core: ours reads, drops equal and nearly equal calls, splits and writes;
`datasets` reads, drops equal rows and writes; `datatrove` reads, drops nearly equal prompts by MinHash (24
bands of 5 hashes, as ours) and writes. Processor seconds, peak memory, and how many rows stay.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MAKE = """
import sys
from pathlib import Path
from vertigym.tests.trace_log import Log
Log(Path(sys.argv[1]), int(sys.argv[2]), seed=1)
"""
OURS = """
import sys
from pathlib import Path
from vertigym.core.config import parse
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
out = Path(sys.argv[2])
settings = {"pii": {"mask": []}}
report = import_traces([Path(sys.argv[1])], out, parse(ImportConfig, settings, source="benchmark"))
print({step.name: (step.rows_in, step.rows_out) for step in report.steps})
"""
DATASETS = """
import sys, xxhash, datasets
datasets.disable_progress_bars()
rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
seen = set()
def new(row):
    key = xxhash.xxh3_64_intdigest((row["prompt"] + row["completion"]).encode())
    return key not in seen and not seen.add(key)
kept = rows.filter(new)
kept.to_json(sys.argv[2] + "/kept.jsonl")
print({"exact": (len(rows), len(kept))})
"""
DATATROVE = """
import sys
from loguru import logger
logger.remove()
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
from datatrove.pipeline.dedup import MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from pathlib import Path
file, out = Path(sys.argv[1]), sys.argv[2]
how = MinhashConfig(n_grams=5, num_buckets=24, hashes_per_bucket=5)
def reader():
    return JsonlReader(str(file.parent), glob_pattern=file.name, text_key="prompt")
def run(name, pipeline, tasks=1):
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{out}/logs/{name}").run()
run("signatures", [reader(), MinhashDedupSignature(f"{out}/signatures", how)])
run("buckets", [MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=how)], 24)
run("clusters", [MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=how)])
run("filter", [reader(), MinhashDedupFilter(f"{out}/remove"), JsonlWriter(f"{out}/kept", compression=None)])
kept = sum(1 for found in Path(out, "kept").glob("*") for _ in found.open())
print({"near": (sum(1 for _ in file.open()), kept)})
"""
USED = """
import re, resource
from pathlib import Path
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(sum(one.ru_utime + one.ru_stime for one in used), int(peak) / 1024)
"""


def plain_rows(log: Path) -> Iterator[dict[str, str]]:
    """The requests and responses of the log that are whole."""
    for number, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        with suppress(ValueError, LookupError, TypeError):
            call = json.loads(line)
            text, answer = call["request"]["messages"][-1], call["response"]["choices"][0]["message"]
            yield {"id": str(number), "prompt": text["content"], "completion": answer["content"]}


def used(python: str, program: str, file: Path, out: Path) -> tuple[str, float, float]:
    """What a program says, its processor seconds and its peak MiB."""
    out.mkdir()
    command = ["taskset", "-c", "0", python, "-c", program + USED, str(file), str(out / "made")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(said.stderr[-2000:])
    *lines, last = said.stdout.strip().splitlines()
    seconds, peak = last.split()
    return lines[-1], float(seconds), float(peak)


def main() -> None:
    """Print one line a program and size."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("rows", type=int, nargs="*", default=[25_000, 100_000])
    options.add_argument("--peer", required=True, help="a Python with datasets and datatrove")
    chosen = options.parse_args()
    ways = {
        "vertigym": (sys.executable, OURS),
        "datasets": (chosen.peer, DATASETS),
        "datatrove": (chosen.peer, DATATROVE),
    }
    for size in chosen.rows:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            subprocess.run([sys.executable, "-c", MAKE, str(root / "log"), str(size)], check=True)
            file = root / "rows.jsonl"
            rows = list(plain_rows(root / "log" / "calls.jsonl"))
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            for way, (python, program) in ways.items():
                said, seconds, peak = used(python, program, file, root / way)
                rate = len(rows) / seconds
                print(
                    f"{len(rows):>9,} {way:<10} {seconds:8.1f} s {rate:9,.0f}/s {peak:6.0f} MiB  {said}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
