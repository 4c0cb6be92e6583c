"""The `docker` level against a real engine: the same contract, attacks and forgeries as every other level."""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vertigym.core.errors import SandboxError
from vertigym.sandboxes import Job, JobLimits, Level, SandboxPool, Status, call, levels
from vertigym.sandboxes.docker import IMAGE
from vertigym.sandboxes.session import Session

from . import engine

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def host() -> Iterator[str]:
    """An engine for this module, gone with it: no process, no mount, no file is left."""
    pytest.importorskip("docker")
    folder = Path(tempfile.mkdtemp(prefix="vertigym-docker-"))
    mounts = Path("/proc/self/mounts").read_text()
    with pytest.MonkeyPatch.context() as patch:
        try:
            engine.install()
            with engine.dockerd(folder) as made:
                patch.setenv("DOCKER_HOST", made)
                patch.setenv(IMAGE, engine.IMAGE)
                yield made
        except engine.NoEngineError as error:
            folder.rmdir()
            pytest.skip(str(error))
    assert Path("/proc/self/mounts").read_text() == mounts
    assert not folder.exists()
    assert str(folder) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def containers(host: str) -> list[str]:
    return subprocess.run(
        ["docker", "-H", host, "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("module", ["test_sandboxes.py", "test_sandboxes_attacks.py"])
def test_the_checks_of_every_level_hold(module: str, host: str) -> None:
    """Those modules take the levels they find; in a new process they find this engine."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "docker",
        "-p",
        "no:cacheprovider",
        str(HERE / module),
    ]
    ran = subprocess.run(command, cwd=HERE.parent, env=os.environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert " passed" in ran.stdout.splitlines()[-1]
    assert containers(host) == []


def test_the_doctor_finds_it() -> None:
    docker = next(row for row in levels() if row.name is Level.DOCKER)
    assert docker.available, docker
    assert docker.note == ""


def test_jobs_share_a_warm_container_until_an_anomaly(host: str) -> None:
    with SandboxPool(Level.DOCKER, size=1) as pool:
        add = Job("def f(a): return a + 1", call="f", inputs=[call(1)])
        assert [o.result[0].value for o in pool.run_many([add] * 8)] == [2] * 8
        warm = containers(host)
        assert pool.run(add).status is Status.OK
        assert containers(host) == warm
        assert pool.run(Job("import ctypes\nctypes.string_at(0)")).status is Status.CRASH
        assert pool.run(add).status is Status.OK
        assert len(containers(host)) == 1
        assert containers(host) != warm


def test_a_job_with_processes_never_shares_its_container() -> None:
    """What it leaves running cannot see the next job, even one that was already waiting."""
    linger = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True:\n"
        "        time.sleep(0.01)\n        open('/tmp/still-here', 'w').close()\n"
    )
    look = "import os, time\ntime.sleep(0.3)\nprint(os.listdir('/tmp'))"
    limits = JobLimits(processes=8)
    with SandboxPool(Level.DOCKER, size=1) as pool:
        left = pool.run_many([Job(linger, limits=limits), Job(look, limits=limits)] * 2)
    assert [outcome.stdout for outcome in left] == ["", "[]\n"] * 2


def test_a_session_has_a_container_of_its_own(host: str) -> None:
    with Session({"a/b.txt": "one"}, level=Level.DOCKER) as session:
        assert session.run(["cat", "a/b.txt"]).stdout == "one"
        session.write("c.py", "print(6 * 7)")
        assert session.run(["python3", "c.py"]).stdout == "42\n"
        assert session.run(["sh", "-c", "exit 3"]).exit_code == 3
        assert session.snapshot() == {"a/b.txt": b"one", "c.py": b"print(6 * 7)"}
        assert len(containers(host)) == 1
        with Session(level=Level.DOCKER) as other:
            assert other.run(["ls", "-A"]).stdout == ""
    assert containers(host) == []


def test_a_killed_controller_leaves_nothing_running(host: str) -> None:
    script = (
        "import sys, time\nfrom vertigym.sandboxes import *\npool = SandboxPool('docker', size=1)\n"
        "pool.run(Job('pass'))\nprint('up', flush=True)\ntime.sleep(60)"
    )
    controller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert controller.stdout is not None
    assert controller.stdout.readline() == "up\n"
    (container,) = containers(host)
    controller.kill()
    controller.communicate()
    waited = subprocess.run(["docker", "-H", host, "wait", container], capture_output=True, timeout=30)
    assert waited.returncode == 0
    with SandboxPool(Level.DOCKER, size=1) as pool:  # the next pool sweeps what is left of it
        pool.run(Job("pass"))
        assert container not in containers(host)
    assert containers(host) == []


def test_a_container_that_the_engine_fails_to_start_is_tried_again(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk, http = importlib.import_module("docker"), importlib.import_module("requests")
    start, failures = sdk.models.containers.Container.start, [500, 502]

    def failing(container: object) -> None:
        if failures:
            response = http.Response()
            response.status_code = failures.pop()
            raise sdk.errors.APIError("a container that was not started", response)
        start(container)

    monkeypatch.setattr(sdk.models.containers.Container, "start", failing)
    with SandboxPool(Level.DOCKER, size=1) as pool:
        assert pool.run(Job("print(1)")).stdout == "1\n"
        assert len(containers(host)) == 1
        failures += [404]
        with pytest.raises(SandboxError, match="404"):
            pool.run(Job("print(1)", limits=JobLimits(processes=2)))
    assert containers(host) == []
