"""Attacks and forgeries: each works against a plain subprocess, and against no backend."""

import builtins
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import SandboxError
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import Asserts, Case, Cases
from vertigym.sandboxes import Job, JobLimits, Level, SandboxPool, Status, call, levels
from vertigym.sandboxes.docker import ContainerWorker

from . import hostile

pytestmark = pytest.mark.usefixtures("sandbox")

SAFE = [row.name for row in levels() if row.available and row.name is not Level.UNSAFE]
PLAIN = [sys.executable, "-I", "-c"]


@pytest.fixture(scope="module", params=SAFE)
def pool(request: pytest.FixtureRequest) -> Iterator[SandboxPool]:
    with SandboxPool(request.param, size=1) as made:
        yield made


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A secret, a folder, two listening sockets and a victim, all within reach of an unprotected program."""
    secret = tmp_path / "secret"
    secret.write_text("the expected values")
    tmp_path.chmod(0o777)
    monkeypatch.setenv("VERTIGYM_TEST_SECRET", "1")
    abstract = f"vertigym-{os.getpid()}"
    victim = subprocess.Popen(["sleep", "60"])
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0" + abstract)
        unix.listen()
        yield {
            "secret": secret,
            "folder": tmp_path,
            "port": tcp.getsockname()[1],
            "abstract": abstract,
            "victim": victim.pid,
        }
    victim.kill()
    victim.wait()


def no_leftovers(pool: SandboxPool) -> None:
    """The worker's server has no process left, and holds only what it started with."""
    for worker in pool._workers:
        if isinstance(worker, ContainerWorker):
            assert len(worker._container.top()["Processes"]) <= 3  # init, relay, server
            continue
        for server in _children(worker.pid) or [worker.pid]:
            assert _children(server) == []
            assert len(os.listdir(f"/proc/{server}/fd")) < 16


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("name", [n for n, attack in hostile.ATTACKS.items() if attack.plain])
def test_the_attack_works_on_a_plain_subprocess(name: str, facts: dict[str, Any]) -> None:
    if os.geteuid() != 0:
        pytest.skip("written for root, whom nothing holds back")
    source = hostile.fill(hostile.ATTACKS[name], **facts)
    ran = subprocess.run([*PLAIN, source], capture_output=True, timeout=60, cwd=facts["folder"])
    assert b"PWNED" in ran.stdout, ran.stderr[-300:].decode()


@pytest.mark.parametrize("name", hostile.ATTACKS)
def test_the_attack_fails_and_leaves_nothing(name: str, pool: SandboxPool, facts: dict[str, Any]) -> None:
    attack = hostile.ATTACKS[name]
    if attack.processes > 1 and pool.level is Level.LANDLOCK:
        with pytest.raises(SandboxError, match="processes"):
            pool.run(Job("pass", limits=JobLimits(processes=attack.processes)))
        return
    wall_s = 3 if attack.statuses.startswith("wall") else 60  # on a busy machine a CPU second takes many
    limits = JobLimits(cpu_s=attack.cpu_s, wall_s=wall_s, processes=attack.processes)
    outcome = pool.run(Job(hostile.fill(attack, **facts), limits=limits))
    assert outcome.status in attack.statuses.split(), outcome
    if "flood" in name or "loop" in name:
        assert len(outcome.stdout) <= limits.output_bytes
    else:
        assert "PWNED" not in outcome.stdout, outcome
    assert len(outcome.stderr) <= limits.output_bytes
    assert sorted(p.name for p in facts["folder"].iterdir()) == ["secret"]
    look = "import os\ndef f(): return sorted(os.listdir('.')) if os.getcwd() != '/' else []"
    clean = pool.run(Job(look, call="f", inputs=[call()]))
    assert clean.status is Status.OK
    assert clean.result[0].value == []
    no_leftovers(pool)
    if "daemon" in name:
        time.sleep(2)
        assert not (facts["folder"] / "daemon").exists()


def test_the_daemon_attack_works_on_a_plain_subprocess(facts: dict[str, Any]) -> None:
    source = hostile.fill(hostile.ATTACKS["double-fork daemon"], **facts)
    subprocess.run([*PLAIN, source], timeout=10, check=True)
    time.sleep(2.5)
    assert (facts["folder"] / "daemon").exists()


MARK = "ALL TESTS PASSED"
TOKEN = "the-payload-of-an-earlier-job-" + "7" * 40


def test_nothing_of_an_earlier_job_can_be_read_by_a_later_one(pool: SandboxPool) -> None:
    """Scan every readable page near any object, and the whole file system, for an earlier job's token."""
    earlier = f"token = {TOKEN!r}\nprint(token)\ntry: open('left', 'w').write(token)\nexcept OSError: pass"
    for _ in range(20):
        assert pool.run(Job(earlier)).status is Status.OK
    scan = f"""
import ctypes, gc, os
backwards = {TOKEN[:30].encode()[::-1]!r}  # so that the program itself holds no copy of it
gc.unfreeze()
pages = {{id(o) & ~0xFFF for o in gc.get_objects()}}
for o in gc.get_objects(): pages |= {{id(r) & ~0xFFF for r in gc.get_referents(o)}}
found = 0
for page in pages:
    found += backwards in ctypes.string_at(page, 4096)[::-1]
for folder, _, names in os.walk("/tmp"): found += len(names)
print(found, len(pages) > 500)
"""
    limits = JobLimits(cpu_s=5, wall_s=20)
    outcome = pool.run(Job(scan, limits=limits))
    assert outcome.stdout.split() == ["0", "True"], outcome
    found = pool.run(Job(f"{earlier}\n{scan}", limits=limits)).stdout.split()
    assert int(found[1]) > 0, "the scan sees what is there"


def test_processes_mounts_and_cgroups_go_with_the_pool() -> None:
    before = _state()
    with SandboxPool(SAFE[-1] if Level.NAMESPACED not in SAFE else Level.NAMESPACED) as pool:
        pool.run_many([Job("print(1)")] * 4)
        pids = [worker.pid for worker in pool._workers]
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)
    assert _state() == before


def _state() -> tuple[str, list[str]]:
    """The mount table and our cgroups."""
    cgroups = [str(p) for p in Path("/sys/fs/cgroup").rglob(f"vertigym-{os.getpid()}-*")]
    return Path("/proc/self/mounts").read_text(), sorted(cgroups)


def test_a_killed_controller_leaves_nothing_running(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom vertigym.sandboxes import *\n"
        "pool = SandboxPool()\npool.run(Job('pass'))\n"
        "for _ in range(4): pool.submit(Job('while True: pass', limits=JobLimits(cpu_s=60, wall_s=60)))\n"
        "time.sleep(0.3)\nprint(*[w._process.pid for w in pool._workers], flush=True)\ntime.sleep(60)"
    )
    controller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert controller.stdout is not None
    pids = [int(pid) for pid in controller.stdout.readline().split()]
    tree = {pid for outer in pids for pid in [outer, *_children(outer)]}
    tree |= {job for server in list(tree) for job in _children(server)}
    assert len(tree) >= 3
    controller.send_signal(signal.SIGKILL)
    controller.communicate()
    deadline = time.monotonic() + 10
    while (left := [pid for pid in tree if _alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert not list(Path("/sys/fs/cgroup").rglob(f"vertigym-{controller.pid}-*"))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Forgeries.

# Above 255: from Python 3.14 smaller numbers are part of the instructions, and no constant of the caller's.
ASKED = (300, 1000, 2500)
LINES = "def check(f):" + "".join(f"\n    assert f({x}) == {2 * x + 1}" for x in ASKED)
CASES = Cases(entry="solve", cases=[Case(args=[x], expected=2 * x + 1) for x in ASKED])
ASSERTS = Asserts(
    setup=LINES,
    tests=["check(solve)", "assert solve(4) == 9"],
    exports={"solve": "solve"},
)
CHECK = f"\n{LINES}\ncheck(solve)\n"


def naive_verdicts(program: str) -> dict[str, bool]:
    """What judges that share a process with the program say of it."""
    nonce = "b7e1c9"
    run = {"capture_output": True, "timeout": 30}
    by_exit = subprocess.run([*PLAIN, program + CHECK], **run)  # type: ignore[call-overload]
    marked = f"{program}{CHECK}print({MARK!r})"
    by_marker = subprocess.run([*PLAIN, marked], **run)  # type: ignore[call-overload]
    secret = f"import sys\nnonce = sys.argv[1]\n{program}{CHECK}print(nonce)"
    by_nonce = subprocess.run([*PLAIN, secret, nonce], **run)  # type: ignore[call-overload]
    dump = f"sys.stdout.buffer.write(pickle.dumps([solve(x) for x in {ASKED}]))"
    pickled = f"import sys, pickle\n{program}\n{dump}"
    by_pickle = subprocess.run([*PLAIN, pickled], **run)  # type: ignore[call-overload]
    return {
        "exit status": by_exit.returncode == 0,
        "marker": MARK.encode() in by_marker.stdout,
        "nonce": nonce.encode() in by_nonce.stdout,
        "pickle": _runs_code(by_pickle.stdout),
    }


def _runs_code(data: bytes) -> bool:
    try:
        pickle.loads(data)
    except Exception:
        return False
    return bool(builtins.__dict__.pop("vertigym_pwned", 0))


@pytest.mark.parametrize("name", hostile.FORGERIES)
def test_a_forgery_fools_a_naive_judge_and_not_ours(name: str, pool: SandboxPool) -> None:
    program = hostile.FORGERIES[name]
    assert any(naive_verdicts(program).values())
    verifier = Verifier(pool, cache=0)
    for tests in (CASES, ASSERTS):
        checked = verifier.check(program, tests)
        assert not any(checked.passed), (tests.kind, checked)


def test_honest_solutions_pass_every_judge(pool: SandboxPool) -> None:
    program = "def solve(x): return 2 * x + 1"
    assert naive_verdicts(program) == {"exit status": True, "marker": True, "nonce": True, "pickle": False}
    for tests in (CASES, ASSERTS):
        assert Verifier(pool).check(program, tests).all_pass


@pytest.mark.parametrize(
    "program", ["", "pass", "def solve(x): return 7", "def solve(x): return float(2 * x + 1)"]
)
def test_degenerate_solutions_fail(program: str, pool: SandboxPool) -> None:
    assert not Verifier(pool).check(program, CASES).all_pass
