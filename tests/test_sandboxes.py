"""The sandbox's contract, on every level this machine has; the pool; sessions; an ordinary user."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vertigym.core.errors import InputError, SandboxError, UnknownNameError
from vertigym.sandboxes import (
    Job,
    JobLimits,
    JobOutcome,
    Level,
    Reply,
    SandboxPool,
    Status,
    call,
    cgroups,
    levels,
    session,
)
from vertigym.sandboxes.session import Session

pytestmark = pytest.mark.usefixtures("sandbox")

AVAILABLE = {row.name: row for row in levels()}
HERE = [name for name, row in AVAILABLE.items() if row.available]


@pytest.fixture(scope="module", params=HERE)
def pool(request: pytest.FixtureRequest) -> Iterator[SandboxPool]:
    with SandboxPool(request.param, size=1) as made:
        yield made


def job(program: str, **rest: object) -> Job:
    return Job(program, min_level=Level.UNSAFE, **rest)  # type: ignore[arg-type]


QUICK = JobLimits(cpu_s=1, wall_s=60)  # on a busy machine a CPU second takes many


def test_a_call_gives_values_and_exceptions(pool: SandboxPool) -> None:
    outcome = pool.run(job("def add(a, b): return a + b", call="add", inputs=[call(1, b=2), call(1, b="x")]))
    assert outcome.status is Status.OK
    assert outcome.level is pool.level
    assert outcome.result[0] == Reply(value=3)
    assert outcome.result[1].error == "TypeError"
    assert 0 < outcome.cpu_s < 1
    assert outcome.peak_bytes > 1 << 20


def test_a_script_reads_stdin_and_prints(pool: SandboxPool) -> None:
    outcome = pool.run(job("import sys\nprint(input()[::-1])\nprint('é', file=sys.stderr)", stdin="héllo"))
    assert (outcome.status, outcome.stdout, outcome.stderr) == (Status.OK, "olléh\n", "é\n")


def test_tests_in_a_second_sandbox_report_each(pool: SandboxPool) -> None:
    tests = ["", "assert f(2) == 4", "assert f(2) == 5", "assert f([1]) == [1, 1]"]
    outcome = pool.run(job("def f(x): return x * 2", tests=tests, exports={"f": "f"}))
    assert [reply.error for reply in outcome.result] == ["", "AssertionError", ""]


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("x = 1", "ok"),
        ("import sys; sys.exit(0)", "ok"),
        ("import sys; sys.exit(3)", "error"),
        ("def f(:", "error"),
        ("1 / 0", "error"),
        ("while True: pass", "cpu"),
        ("import time\ntime.sleep(30)", "wall"),
        ("x = bytearray(900 << 20)", "memory"),
        ("print('x' * 100_000)", "output"),
        ("import ctypes\nctypes.string_at(0)", "crash"),
    ],
)
def test_every_end_has_its_status(program: str, status: str, pool: SandboxPool) -> None:
    limits = JobLimits(wall_s=1) if status == "wall" else QUICK
    outcome = pool.run(job(program, limits=limits))
    assert outcome.status == status, outcome
    if status == "output":
        assert outcome.truncated
        assert len(outcome.stdout) == QUICK.output_bytes


def test_a_result_over_its_limit_is_output(pool: SandboxPool) -> None:
    outcome = pool.run(job("def f(): return 'x' * 10**6", call="f", inputs=[call()]))
    assert outcome.status is Status.OUTPUT


def test_what_is_not_data_comes_back_as_nothing_equal(pool: SandboxPool) -> None:
    outcome = pool.run(job("def f(): return object()", call="f", inputs=[call()]))
    assert outcome.result[0].value != outcome.result[0].value


def test_random_numbers_and_hashes_repeat(pool: SandboxPool) -> None:
    source = "import random\ndef f(): return random.random(), hash('x'), sorted({'a', 'b'}, key=hash)"
    first, second = (pool.run(job(source, call="f", inputs=[call()])).result for _ in range(2))
    assert first == second


def test_numpy_is_warm(pool: SandboxPool) -> None:
    if pool.level is Level.DOCKER:
        pytest.skip("needs an image with numpy")
    source = "import numpy as np\ndef f(n): return np.arange(n) * 2, float(np.eye(n).sum())"
    outcome = pool.run(job(source, call="f", inputs=[call(3)], profile="numpy"))
    array, total = outcome.result[0].value
    assert (array.items, total) == ([0, 2, 4], 3.0)


def test_jobs_of_a_batch_and_coroutines_come_back_in_order(pool: SandboxPool) -> None:
    jobs = [job("def f(x): return x", call="f", inputs=[call(i)]) for i in range(20)]
    assert [o.result[0].value for o in pool.run_many(jobs)] == list(range(20))

    async def gathered() -> list[JobOutcome]:
        return await asyncio.gather(*map(pool.arun, jobs))

    assert [o.result[0].value for o in asyncio.run(gathered())] == list(range(20))


def test_files_where_there_is_a_disk(pool: SandboxPool) -> None:
    made = job("from m import x\nprint(x, open('d/t').read())", files={"m.py": "x = 1", "d/t": b"y"})
    if pool.level is Level.LANDLOCK:
        with pytest.raises(SandboxError, match="files"):
            pool.run(made)
    elif pool.level is not Level.UNSAFE:
        assert pool.run(made).stdout == "1 y\n"


# The pool.


def test_a_lost_worker_is_retried_then_infra_and_the_others_go_on() -> None:
    with SandboxPool(size=1, retries=1) as pool:
        pool.run(Job("pass"))
        futures = [pool.submit(Job("import time\ntime.sleep(0.4)\nprint('done')")) for _ in range(3)]
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        assert [future.result().stdout for future in futures] == ["done\n"] * 3


def test_what_cannot_be_run_at_all_is_infra_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertigym.sandboxes.forkserver_worker.interpreter", lambda: "/bin/false")
    with SandboxPool(Level.UNSAFE, size=1, retries=1) as pool:
        with pytest.raises(SandboxError):
            pool.run(job("pass"))
        assert [o.status for o in pool.run_many([job("pass")] * 2)] == [Status.INFRA] * 2


def test_workers_are_recycled() -> None:
    with SandboxPool(size=1, recycle_after=5) as pool:
        seen = set()
        for _ in range(12):
            pool.run(Job("pass"))
            seen |= {worker.pid for worker in pool._workers}
        assert len(seen) >= 3


def test_a_long_queue_takes_the_idle_worker_of_another_profile() -> None:
    add = job("def f(x): return x + 1", call="f", inputs=[call(1)])
    with SandboxPool(size=2) as pool:
        pool.run_many([add] * 10)
        assert pool.run(job("pass", profile="numpy")).status is Status.OK
        assert {worker.kind.profile for worker in pool._workers} == {"plain", "numpy"}
        pool.run_many([add] * 10)
        assert {worker.kind.profile for worker in pool._workers} == {"plain", "numpy"}  # not worth a start
        outcomes = pool.run_many([add] * 300)
        assert [worker.kind.profile for worker in pool._workers] == ["plain", "plain"]
        assert all(outcome.result[0].value == 2 for outcome in outcomes)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with SandboxPool(Level.LANDLOCK, size=1) as pool:
        with pytest.raises(SandboxError, match="asks for namespaced"):
            pool.run(Job("pass", min_level=Level.NAMESPACED))
        with pytest.raises(UnknownNameError, match="numpy"):
            pool.run(Job("pass", profile="nump"))
    with pytest.raises(SandboxError, match="closed"):
        pool.run(Job("pass"))
    with pytest.raises(InputError, match="below the job's folder"):
        Job(files={"../x": ""})
    with pytest.raises(InputError, match="above 0"):
        JobLimits(cpu_s=0)
    with pytest.raises(InputError, match="both must be above 0"):
        SandboxPool(size=0)
    with pytest.raises(InputError, match="call and argv"):
        Job(call="f", argv=["x"])


def test_the_doctor_names_what_is_missing() -> None:
    rows = levels()
    assert [row.name for row in rows] == list(reversed(Level))
    assert all(row.available or (row.missing and row.fix) for row in rows)


# Sessions.

needs_namespaces = pytest.mark.skipif(Level.NAMESPACED not in HERE, reason="no namespaces here")


@needs_namespaces
def test_a_session_keeps_its_folder_and_ends_with_it() -> None:
    with Session({"a/b.txt": "one"}) as session:
        assert session.run(["cat", "a/b.txt"]).stdout == "one"
        session.write("c.txt", "two")
        linked = session.run(["bash", "-c", "ln -s /usr/bin/env l; sleep 60 & echo $((1 + 1)); exit 3"])
        assert (linked.stdout, linked.exit_code, linked.status) == ("2\n", 3, Status.ERROR)
        assert session.snapshot() == {"a/b.txt": b"one", "c.txt": b"two"}
        pid = session._worker.pid
    assert not Path(f"/proc/{pid}").exists()


# An ordinary user.


as_nobody = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become `nobody`, and setpriv"
)


@as_nobody
def test_an_ordinary_user_has_the_same_isolation(tmp_path: Path) -> None:
    """The `namespaced` level through a user namespace."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from vertigym.sandboxes import *
rows = {row.name: row for row in levels()}
assert rows[Level.NAMESPACED].available, rows[Level.NAMESPACED]
with SandboxPool(Level.NAMESPACED, size=1) as pool:
    print(pool.run(Job("def f(): return 41 + 1", call="f", inputs=[call()])).result[0].value)
    fork = "import os\\ntry:\\n    os.fork()\\n    print('PWNED')\\nexcept OSError: print('no')"
    print(pool.run(Job(fork)).stdout, end="")
    print(pool.run(Job("open('/etc/passwd')")).status, pool.run(Job("import socket\\nsocket.socket()")).status)
    bomb = (
        "import os, time\\nn = 0\\ntry:\\n    while n < 60:\\n"
        "        if os.fork() == 0: time.sleep(2); os._exit(0)\\n        n += 1\\n"
        "except OSError: pass\\nprint('PWNED' if n >= 60 else 'held')"
    )
    print(pool.run(Job(bomb, limits=JobLimits(processes=8, wall_s=5))).stdout, end="")
    print(pool.run(Job("print('clean')")).stdout, end="")
"""
    assert run_as_nobody(script, tmp_path).split() == ["42", "no", "error", "error", "held", "clean"]


@pytest.mark.slow
@as_nobody
@pytest.mark.parametrize("level", [Level.NAMESPACED, Level.LANDLOCK])
def test_every_attack_fails_for_an_ordinary_user(level: Level, tmp_path: Path) -> None:
    script = f"""
import os, subprocess, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/vertigym/tests"]
import hostile
from vertigym.sandboxes import *
victim = subprocess.Popen(["sleep", "600"])
facts = dict(secret="/etc/passwd", folder="/var/tmp", port=9, abstract="none", victim=victim.pid)
print("here", len(hostile.ATTACKS))
with SandboxPool({level.value!r}, size=1) as pool:
    for name, attack in hostile.ATTACKS.items():
        if attack.processes > 1 and pool.level is Level.LANDLOCK:
            continue
        limits = JobLimits(cpu_s=attack.cpu_s, wall_s=4, processes=attack.processes)
        outcome = pool.run(Job(hostile.fill(attack, **facts), limits=limits))
        failed = "PWNED" not in outcome.stdout[:100] and outcome.status is not Status.INFRA
        if not (failed or "flood" in name or "loop" in name):
            print(name, outcome)
        assert pool.run(Job("print(1)")).stdout == "1\\n", name
assert victim.poll() is None
victim.kill()
victim.wait()
"""
    said = run_as_nobody(script, tmp_path).splitlines()
    assert said[0].startswith("here ")
    assert said[1:] == []


def run_as_nobody(script: str, folder: Path, timeout: float = 400) -> str:
    """What `script` prints, run by `nobody` with the folder of the package as its argument."""
    # The interpreter and the packages, where anyone may read them: a private view of this machine's folders.
    home = Path(sys.base_prefix)
    packages = sysconfig.get_path("purelib")
    view = f"""
set -e
mount -t tmpfs none /mnt; chmod 755 /mnt; mkdir -p /mnt/python /mnt/packages /mnt/code/vertigym
mount --bind {home} /mnt/python; mount --bind {packages} /mnt/packages
for path in {Path(__file__).parents[1]}/*; do  # one by one: the checkout's own folder may be its owner's alone
    here=/mnt/code/vertigym/"${{path##*/}}"
    if [ -d "$path" ]; then mkdir "$here"; else touch "$here"; fi; mount --bind "$path" "$here"
done
mount -t tmpfs none /root; chmod 755 /root; mkdir -p {home} && mount --bind /mnt/python {home} || true
exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i PYTHONPATH=/mnt/packages PATH=/usr/bin:/bin \
    {home}/bin/python3 -B {folder}/run.py /mnt/code
"""
    (folder / "run.py").write_text(script)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    ran = subprocess.run(["unshare", "-m", "bash", "-c", view], capture_output=True, text=True, timeout=timeout)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


TREE = """
import os, time
held = bytearray(200 << 20); held[::4096] = b'1' * len(held[::4096])
for _ in range(4):
    if os.fork() == 0:
        mine = bytearray({each} << 20); mine[::4096] = b'1' * len(mine[::4096])
        time.sleep(0.5); os._exit(0)
for _ in range(4): os.wait()
print("done")
"""


@pytest.fixture
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "create", lambda memory_bytes: None)


@needs_namespaces
@pytest.mark.usefixtures("no_cgroups")
@pytest.mark.parametrize(("each", "status"), [(10, Status.OK), (120, Status.MEMORY)])
def test_without_a_cgroup_a_tree_of_processes_is_still_capped(each: int, status: Status) -> None:
    """Pages that forked processes share count once."""
    tree = Job(TREE.format(each=each), limits=JobLimits(processes=8, wall_s=60))
    with SandboxPool(Level.NAMESPACED, size=1) as pool:
        outcome = pool.run(tree)
        assert outcome.status is status, outcome
        assert pool.run(Job("print(1)", limits=tree.limits)).stdout == "1\n"


@needs_namespaces
@pytest.mark.usefixtures("no_cgroups")
def test_without_a_cgroup_a_session_outlives_a_command_over_its_memory() -> None:
    limits = replace(session.LIMITS, memory_bytes=512 << 20)
    with Session({"tree.py": TREE.format(each=120)}, level=Level.NAMESPACED, limits=limits) as made:
        assert made.run(["python3", "tree.py"]).status is Status.MEMORY
        assert made.run(["ls"]).stdout == "tree.py\n"
