"""Between a Job and the bytes that go into a sandbox and come out of it. No process is touched here.

Out: one payload (JSON) a child; expected values are in none of them. Back: what each child wrote and how it
ended, which becomes a JobOutcome. Everything that comes back is hostile until decoded: sizes are capped before
parsing, and a line that is not in the protocol ends the result.
"""

import base64
import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import WEXITSTATUS, WIFSIGNALED, WTERMSIG
from typing import Any

from vertigym.core.errors import InputError
from vertigym.sandboxes import tagged_json
from vertigym.sandboxes.child import OUT_OF_MEMORY
from vertigym.sandboxes.contract import Job, JobLimits, JobOutcome, Level, Reply, Status

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108


@dataclass(frozen=True, slots=True)
class ChildExit:
    """How one process of a job ended: `os.wait` status, CPU seconds, peak bytes, killed at the wall limit."""

    status: int
    cpu_s: float
    peak_bytes: int
    killed: bool


@dataclass(frozen=True, slots=True)
class RawOutcome:
    """What came back, as bytes (each cut at its limit plus one)."""

    children: Sequence[ChildExit]
    wall_s: float
    stdout: bytes
    stderr: bytes
    results: Sequence[bytes]
    oom: bool = False


def payloads(job: Job, cwd: str = "") -> list[bytes]:
    """The payload of each child: one, or the program's and the tests'.

    Raises:
        InputError: an input has no data form.
    """
    program = {"program": job.program, "files": _files(job), "cwd": cwd}
    if job.tests:
        tests = {
            "mode": "check",
            "tests": list(job.tests),
            "exports": dict(job.exports),
            "modules": list(job.modules),
        }
        return [_dump({**program, "mode": "served"}), _dump(tests)]
    if job.argv:
        return [
            _dump({**program, "mode": "command", "argv": list(job.argv), "env": _ENVIRONMENT | dict(job.env)})
        ]
    if job.call:
        return [_dump({**program, "mode": "call", "call": job.call, "inputs": _inputs(job)})]
    return [_dump({**program, "mode": "script"})]


def collecting(cwd: str, path: str = "") -> bytes:
    """The payload that asks for the file `path`, or for all files below `cwd`."""
    return _dump({"mode": "collect", "cwd": cwd, "path": path})


def outcome(job: Job, raw: RawOutcome, level: Level) -> JobOutcome:
    """Judge how the job ended; its result is decoded, not compared."""
    limits = job.limits
    program = raw.children[0]
    results = [result[: limits.result_bytes] for result in raw.results]
    failure, replies = _decode(results[0], len(job.inputs) if job.call else 0)
    if job.tests:
        failure_of_tests, replies = _decode(results[1], len(job.tests) - 1)
        failure = failure or failure_of_tests
    cut = len(raw.stdout) > limits.output_bytes or len(raw.stderr) > limits.output_bytes
    flooded = len(raw.stdout) > limits.output_bytes or any(len(r) > limits.result_bytes for r in raw.results)
    return JobOutcome(
        status=_status(raw, limits, flooded, failure, tested=bool(job.tests)),
        result=replies,
        failure=failure,
        stdout=raw.stdout[: limits.output_bytes].decode("utf-8", "replace"),
        stderr=raw.stderr[: limits.output_bytes].decode("utf-8", "replace"),
        truncated=cut or flooded,
        exit_code=-WTERMSIG(program.status) if WIFSIGNALED(program.status) else WEXITSTATUS(program.status),
        cpu_s=sum(child.cpu_s for child in raw.children),
        wall_s=raw.wall_s,
        peak_bytes=max(child.peak_bytes for child in raw.children),
        level=level,
    )


def collected(raw: RawOutcome) -> dict[str, bytes]:
    """The files that a `collecting` payload gave, but for those whose names are not UTF-8."""
    files = {}
    for row in _rows(raw.results[0]):
        match row:
            case ["file", str(path), str(content)] if _is_text(path):
                files[path] = base64.b64decode(content)
    return files


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _status(
    raw: RawOutcome, limits: JobLimits, flooded: bool, failure: Reply | None, *, tested: bool
) -> Status:
    """The program's own end decides; with tests it is killed when they are done, which is no fault, and the
    tests can be drowned by what the program answers."""
    if flooded:
        return Status.OUTPUT
    program, tests = raw.children[0], raw.children[-1]
    if any(_spent(child, limits.cpu_s, raw.oom) for child in raw.children):
        return Status.CPU
    if any(child.killed for child in raw.children):
        return Status.WALL
    stopped_by_us = tested and WIFSIGNALED(program.status) and WTERMSIG(program.status) == signal.SIGKILL
    for child in (tests,) if stopped_by_us and not raw.oom else (program, tests):
        if WIFSIGNALED(child.status):
            return _death(WTERMSIG(child.status), raw.oom)
        if WEXITSTATUS(child.status) == OUT_OF_MEMORY:
            return Status.MEMORY
    if failure is not None or (not tested and WEXITSTATUS(program.status)):
        return Status.ERROR
    return Status.OK


def _spent(child: ChildExit, cpu_s: float, oom: bool) -> bool:
    """Over its CPU seconds; also when the kernel, which counts by the tick, shot it a little before."""
    shot = WIFSIGNALED(child.status) and WTERMSIG(child.status) == signal.SIGKILL
    return child.cpu_s > cpu_s or (shot and not (oom or child.killed) and child.cpu_s > 0.5 * cpu_s)


def _death(number: int, oom: bool) -> Status:
    if number == signal.SIGXCPU:
        return Status.CPU
    return Status.MEMORY if oom and number == signal.SIGKILL else Status.CRASH


def _decode(data: bytes, expected: int) -> tuple[Reply | None, tuple[Reply, ...]]:
    """(why it failed to load, replies): at most `expected`, whatever was written."""
    failure: Reply | None = None
    replies: list[Reply] = []
    for row in islice(_rows(data), expected + 1):
        match row:
            case ["loaded"]:
                continue
            case ["failed", str(kind), str(message)]:
                failure = Reply(error=kind, message=message)
            case ["value", str(tagged)]:
                replies.append(_value(tagged))
            case ["raised", str(kind), str(message)]:
                replies.append(Reply(error=kind, message=message))
            case _:
                break
    return failure, tuple(replies[:expected])


def _rows(data: bytes) -> Iterator[Any]:
    """The lines up to the first that is not JSON; the last is dropped when it was cut."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        try:
            yield json.loads(data[start:end])
        except (ValueError, RecursionError):
            return
        start = end + 1


def _value(tagged: str) -> Reply:
    try:
        return Reply(value=tagged_json.loads(tagged))
    except ValueError as error:
        return Reply(error="ValueError", message=str(error))


def _inputs(job: Job) -> str:
    try:
        inputs = [(list(one.args), dict(one.kwargs), list(one.calls), one.after) for one in job.inputs]
        return tagged_json.dumps(inputs)
    except RecursionError as error:
        raise InputError(f"an input of the job has no data form: {error}") from None


def _files(job: Job) -> list[list[str]]:
    return [
        [path, base64.b64encode(content.encode() if isinstance(content, str) else content).decode()]
        for path, content in job.files.items()
    ]


def _dump(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload).encode()
