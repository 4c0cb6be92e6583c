"""How quickly the studio opens a long run, and how much memory it holds.

    python -m benchmarks.studio                  10,000 steps with every metric, 200 evals of 300 tasks

Measured are a server of its own, from the outside: the first page of the run after the server has started, the
next one after a step was added, the answer while nothing has changed, and the most memory the process has held;
where Chromium is installed, also the time from the address to a drawn page.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.browser import CHROMIUM, browser
from tests.story_run import SIZES, metrics, story_run
from vertigym.core.files import append_jsonl


def main() -> None:
    """Build the run, serve it, measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--evals", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=300)
    chosen = parser.parse_args()
    SIZES["eval"] = chosen.tasks
    with tempfile.TemporaryDirectory() as folder:
        every = chosen.steps // chosen.evals
        run = story_run(Path(folder), steps=chosen.steps, evals=range(0, chosen.steps, every))
        command = [sys.executable, "-m", "vertigym", "studio", folder, "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr
            try:
                address = server.stderr.readline().split()[1]
                measure(address, run, chosen.steps, server.pid)
            finally:
                server.terminate()


def measure(address: str, run: Path, steps: int, process: int) -> None:
    """Ask for the page of the run as a browser does, and print what it took."""
    page, data = f"{address}run?name=runs/loans", f"{address}run.json?name=runs/loans"

    def row(what: str, url: str, tag: str = "") -> str:
        cpu = cpu_seconds(process)
        wall, body, found = timed(url, tag)
        cpu = cpu_seconds(process) - cpu
        print(f"{what:24}{wall:7.2f} s, {cpu:5.2f} s of CPU, {len(body) / 1e6:.1f} MB")
        return found

    row("first page", page)
    append_jsonl(run / "metrics.jsonl", metrics(steps + 1, steps))
    tag = row("after a new step", data)
    row("while nothing changes", data, tag)
    row("the list of runs", f"{address}runs.json")
    if CHROMIUM:
        with browser() as tab:
            tab.open(page, wait="#rollouts")
            at = tab.ask("performance.getEntriesByType('navigation')[0].toJSON()")
            print(
                f"Chromium                {at['duration'] / 1000:7.2f} s from the address to the drawn page, of"
            )
            drawing = (at["domContentLoadedEventEnd"] - at["responseEnd"]) / 1000
            print(f"                        {drawing:7.2f} s after the answer was there")
    status = Path(f"/proc/{process}/status").read_text()
    print(f"most memory             {int(status.partition('VmHWM:')[2].split()[0]) / 1024:7.0f} MiB")
    print(f"load of the machine     {os.getloadavg()[0]:7.1f} on {os.cpu_count()} cores")


def cpu_seconds(process: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(url: str, tag: str = "") -> tuple[float, bytes, str]:
    """Seconds, body and ETag of an answer."""
    request = urllib.request.Request(url, headers={"If-None-Match": tag} if tag else {})
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as answer:
            body, found = answer.read(), answer.headers.get("ETag", "")
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
        body, found = b"", tag
    return time.perf_counter() - began, body, found


if __name__ == "__main__":
    main()
