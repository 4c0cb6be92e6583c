"""A sandbox backend of somebody else's: implemented, registered and used in one file."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from vertigym.core.errors import SandboxError, UnknownNameError
from vertigym.sandboxes import Job, JobOutcome, Level, SandboxPool, Status, backends, register_backend
from vertigym.sandboxes.sandbox_worker import WorkerKind


class PlainPython:
    """Scripts in a Python of their own, and nothing else: no isolation."""

    level = Level.UNSAFE

    def __init__(self) -> None:
        self.opened = self.closed = 0

    def open(self, kind: WorkerKind) -> "PlainSandbox":
        self.opened += 1
        return PlainSandbox(self)


class PlainSandbox:
    def __init__(self, owner: PlainPython) -> None:
        self._owner = owner

    def run(self, job: Job) -> JobOutcome:
        if "lose me" in job.program:
            raise ConnectionError("gone")
        command = [sys.executable, "-c", job.program]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=job.limits.wall_s)
        return JobOutcome(Status.ERROR if ran.returncode else Status.OK, stdout=ran.stdout)

    def close(self) -> None:
        self._owner.closed += 1


@pytest.fixture(autouse=True)
def _only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_registered", {})
    for name in ("memfd_create", "pipe2", "setresuid"):  # a backend of one's own needs no Linux
        monkeypatch.delattr(os, name, raising=False)


def script(program: str) -> Job:
    return Job(program, min_level=Level.UNSAFE)


def test_a_registered_backend_runs_jobs_side_by_side() -> None:
    mine = PlainPython()
    register_backend("plain", mine)
    with SandboxPool("plain", size=2) as pool:
        outcomes = pool.run_many([script(f"print({i})") for i in range(6)] + [script("1 / 0")])
        assert [outcome.stdout for outcome in outcomes[:6]] == [f"{i}\n" for i in range(6)]
        assert outcomes[6].status is Status.ERROR
    assert mine.opened == 2


def test_a_job_that_it_loses_is_tried_again_then_infra_and_the_pool_goes_on() -> None:
    mine = PlainPython()
    register_backend("plain", mine)
    with SandboxPool("plain", size=1, retries=1) as pool:
        lost, kept = pool.run_many([script("lose me"), script("print(1)")])
        assert (lost.status, kept.stdout) == (Status.INFRA, "1\n")
        with pytest.raises(SandboxError, match="gone"):
            pool.run(script("lose me"))


def test_its_level_is_compared_with_what_a_job_asks_for() -> None:
    register_backend("plain", PlainPython())
    with SandboxPool("plain", size=1) as pool, pytest.raises(SandboxError, match="asks for landlock"):
        pool.run(Job("pass"))


def test_an_installed_package_registers_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("plain", f"{__name__}:PlainPython", backends.ENTRY_POINTS)
    monkeypatch.setattr("vertigym.core.plugins.entry_points", lambda group: EntryPoints([entry]))
    with SandboxPool("plain", size=1) as pool:
        assert pool.run(script("print(1)")).stdout == "1\n"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    register_backend("plain", PlainPython())
    with pytest.raises(UnknownNameError, match="did you mean"):
        SandboxPool("plane")
