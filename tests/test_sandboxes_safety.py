"""What a sandbox must not leak, let change, or let come out; and what must not end the pool."""

import fcntl
import json
import math
import os
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pydantic
import pytest

import vertigym
from vertigym.core.errors import InputError, SandboxError
from vertigym.sandboxes import Job, JobLimits, Level, Reply, SandboxPool, Status, call, cgroups, codec, levels
from vertigym.sandboxes.contract import JobOutcome, safe_text
from vertigym.sandboxes.live_program import LiveProgram
from vertigym.sandboxes.session import Session
from vertigym.sandboxes.tagged_json import MAX_DEPTH, loads, shown

pytestmark = pytest.mark.usefixtures("sandbox")

SAFE = [row.name for row in levels() if row.available and row.name is not Level.UNSAFE]
NAMESPACED = Level.NAMESPACED in SAFE
needs_namespaces = pytest.mark.skipif(not NAMESPACED, reason="no namespaces here")
TASKS = Path(vertigym.__file__).parent / "envs" / "code" / "tasks" / "functions.jsonl"


@pytest.fixture(scope="module", params=SAFE)
def pool(request: pytest.FixtureRequest) -> Iterator[SandboxPool]:
    with SandboxPool(request.param, size=1) as made:
        yield made


def run(pool: SandboxPool, program: str, **rest: Any) -> JobOutcome:
    return pool.run(Job(program, **rest))


# Files.

READ = """
import os
for path in {paths!r}:
    try:
        if os.path.isdir(path): found = os.listdir(path)
        else: found = open(path, "rb").read()
    except OSError: found = b""
    if found: print("PWNED", path)
"""


def base_packages() -> list[str]:
    """Package folders of the interpreter that environments are made from, and some files in them."""
    base = {"base": os.path.realpath(sysconfig.get_config_var("installed_base"))}
    folder = Path(sysconfig.get_path("purelib", vars=base))
    return [str(path) for path in (folder, *list(folder.glob("*/__init__.py"))[:5])]


@pytest.mark.parametrize("processes", [1, 4])
def test_installed_packages_and_task_data_cannot_be_read(processes: int, pool: SandboxPool) -> None:
    if processes > 1 and pool.level is Level.LANDLOCK:
        pytest.skip("no processes there")
    paths = [*base_packages(), "/usr/lib/python3/dist-packages", "/usr/src", str(TASKS), pydantic.__file__]
    paths = [os.path.realpath(path) for path in paths]
    assert any(map(os.path.exists, paths))
    outcome = run(pool, READ.format(paths=paths), limits=JobLimits(processes=processes))
    assert (outcome.status, outcome.stdout) == (Status.OK, "")


def test_a_profile_shows_its_package_and_not_the_neighbours(pool: SandboxPool) -> None:
    if pool.level is Level.DOCKER:
        pytest.skip("needs an image with numpy")
    seen = run(pool, "import numpy.fft\nprint(numpy.fft.__name__)", profile="numpy")
    assert seen.stdout == "numpy.fft\n"
    paths = [pydantic.__file__, str(TASKS)]
    assert run(pool, READ.format(paths=[*paths, numpy.__file__]), profile="numpy").stdout == (
        f"PWNED {numpy.__file__}\n"
    )
    missing = run(pool, "try: import pydantic\nexcept ModuleNotFoundError: print('none')", profile="numpy")
    assert missing.stdout == "none\n"


@pytest.mark.parametrize("level", [level for level in SAFE if level in (Level.NAMESPACED, Level.LANDLOCK)])
def test_a_package_below_tmp_is_shown_read_only_and_its_neighbours_are_not(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a whole environment lies in /tmp, which is a job's own folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        lent = f"lent_{level}"  # where a package lies is looked up once
        for name in (lent, "kept"):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "__init__.py").touch()
            (Path(folder) / name / "part.py").write_text(f"NAME = {name!r}")
        os.chmod(folder, 0o755)
        monkeypatch.syspath_prepend(folder)
        program = f"""
def look():
    import {lent}.part, os
    def tried(call, *arguments):
        try:
            return bool(call(*arguments)) or True
        except OSError:
            return False
    kept = os.path.join({folder!r}, "kept", "part.py")
    written = tried(open, os.path.join({folder!r}, "new"), "w")
    return [{lent}.part.NAME, tried(open, kept), written, tried(os.rmdir, os.path.join({folder!r}, {lent!r}))]
"""
        with LiveProgram(program, packages=(lent,), level=level) as live:
            assert live.call("look") == [lent, False, False, False]


CHANGES = {
    "mode": "os.chmod({path!r}, 0o4777)",
    "mode by descriptor": "os.fchmod(os.open({path!r}, os.O_RDONLY), 0o4777)",
    "times": "os.utime({path!r}, (1, 1))",
    "owner": "os.chown({path!r}, 1, 1)",
    "attribute": "os.setxattr({path!r}, 'user.x', b'x')",
    "size": "os.truncate({path!r}, 0)",
    "name": "os.rename({path!r}, {path!r} + '.x')",
    "second name": "os.link({path!r}, '/tmp/link')",
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_of_the_machine_cannot_be_changed(change: str, pool: SandboxPool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    before = file.stat()
    source = (
        "import os\ntry:\n    " + CHANGES[change].format(path=str(file)) + "\nexcept OSError: print('refused')"
    )
    assert run(pool, source).stdout == "refused\n"
    assert (file.read_text(), os.listdir(tmp_path)) == ("content", ["file"])
    after = file.stat()
    assert (before.st_mode, before.st_mtime_ns, before.st_uid, before.st_nlink) == (
        after.st_mode,
        after.st_mtime_ns,
        after.st_uid,
        after.st_nlink,
    )


LOCKS = ["flock(f, fcntl.LOCK_EX)", "lockf(f, fcntl.LOCK_SH)", "fcntl(f, fcntl.F_SETLEASE, 0)"]


@pytest.mark.parametrize("lock", [*LOCKS, "fcntl(f, 37, bytes(32))"])
def test_files_of_the_interpreter_cannot_be_locked(lock: str, pool: SandboxPool) -> None:
    source = f"import fcntl, os\nf = open(os.__file__)\ntry: fcntl.{lock}\nexcept OSError as e: print(e.errno)"
    assert run(pool, source).stdout == "1\n"
    with open(os.__file__) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@needs_namespaces
def test_a_program_still_changes_and_locks_files_of_its_own() -> None:
    source = (
        "import os, shutil\nopen('a', 'w').write('x')\nos.chmod('a', 0o700)\nos.utime('a', (1, 1))\n"
        "shutil.copy2('a', 'b')\nprint(os.stat('b').st_mode & 0o777, int(os.stat('b').st_mtime))\n"
    )
    locked = "import sqlite3\nsqlite3.connect('t.db').execute('create table t (a)')\nprint('locked')"
    with SandboxPool(Level.NAMESPACED, size=1) as pool:
        assert run(pool, source).stdout == "448 1\n"
        assert run(pool, locked, limits=JobLimits(processes=4)).stdout == "locked\n"


# The border.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_s", math.inf),
        ("wall_s", math.inf),
        ("cpu_s", math.nan),
        ("cpu_s", -1.0),
        ("wall_s", 1e30),
        ("cpu_s", "2"),
        ("cpu_s", True),
        ("memory_bytes", 1.5),
        ("memory_bytes", 1 << 90),
        ("processes", 0),
        ("processes", 1 << 40),
        ("disk_bytes", -1),
        ("output_bytes", 1 << 70),
    ],
)
def test_an_absurd_limit_is_refused_in_one_line(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"limit {name} is") as caught:
        JobLimits(**{name: value})
    assert "\n" not in str(caught.value)


LARGEST = JobLimits(1e6, 1e6, 1 << 46, 1 << 15, 1 << 40, 1 << 30, 1 << 30, 1 << 30)


def test_the_largest_and_smallest_limits_harm_no_pool() -> None:
    with SandboxPool(Level.NAMESPACED if NAMESPACED else SAFE[-1], size=1) as pool:
        if NAMESPACED:
            assert run(pool, "print(1)", limits=LARGEST).stdout == "1\n"
        tiny = JobLimits(1e-9, 1e-9, 1, 1, 1, 1, 1, 1)
        assert run(pool, "print(1)", limits=tiny).status not in (Status.OK, Status.INFRA)
        assert run(pool, "print(1)").stdout == "1\n"


HALF = "\ud800"


@pytest.mark.parametrize(
    "rest",
    [
        {"stdin": HALF},
        {"call": HALF},
        {"tests": [HALF]},
        {"tests": [""], "exports": {"f": HALF}},
        {"argv": ["true", HALF]},
        {"argv": ["true", "\0"]},
        {"argv": ["true"], "env": {"A": HALF}},
        {"files": {"a": HALF}},
        {"files": {HALF: ""}},
    ],
)
def test_text_that_is_not_utf_8_is_refused_in_one_line(rest: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"half a character|NUL"):
        Job(**rest)


def test_a_program_that_is_not_utf_8_does_not_load(pool: SandboxPool) -> None:
    assert run(pool, f"x = '{HALF}'").status is Status.ERROR
    assert run(pool, "print(1)").stdout == "1\n"


# What comes out.

TEXT = "a\x0b\x0c\x1c\x85\u2028\ud800\x00\x1b[31mb"


def test_texts_come_out_safe(pool: SandboxPool) -> None:
    source = f"import os, sys\nos.write(1, b'\\xed\\xa0\\x80\\0' + {TEXT!r}.encode('utf-8', 'surrogatepass'))\n"
    outcome = run(pool, source + f"class Odd(Exception): __str__ = lambda self: {TEXT!r}\nraise Odd")
    assert outcome.failure is not None
    for text in (outcome.stdout, outcome.stderr, outcome.failure.message):
        text.encode()
        assert len(text.splitlines()) == len(text.rstrip("\n").split("\n"))
        assert not {"\0", "\x1b"} & set(text)


def test_safe_text_keeps_what_readers_expect() -> None:
    assert safe_text("a\tb\r\nc é 語 \U0001f600") == "a\tb\r\nc é 語 \U0001f600"


DEEP = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)


@pytest.mark.parametrize(
    "tagged", ['{"int":"0x1' + "0" * 5000 + '"}', DEEP, '{"opaque":"\\ud800"}', '"\\ud800"']
)
def test_any_value_can_be_shown(tagged: str) -> None:
    value = loads(tagged)
    assert len(repr(Reply(value))) < 1000
    shown(value).encode()


@pytest.mark.parametrize(
    "value", [None, True, -1, 0.5, "a'b", b"x", [], [1, [2]], (), (1,), (1, 2), {}, {"a": {1: 2}}, {3}, set()]
)
def test_what_is_short_is_shown_as_its_repr(value: Any) -> None:
    assert shown(value) == repr(value)


def test_a_flood_of_lines_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    real = json.loads

    def counted(text: bytes) -> Any:
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(json, "loads", counted)
    job = Job("", call="f", inputs=[call()], limits=JobLimits(result_bytes=1 << 21))
    for flood in (b"\n" * (1 << 20), b"[]\n" * (1 << 18), b'["value","1"]\n' * (1 << 16)):
        raw = codec.RawOutcome([codec.ChildExit(0, 0.0, 0, False)], 0.0, b"", b"", [b'["loaded"]\n' + flood])
        assert len(codec.outcome(job, raw, Level.LANDLOCK).result) <= 1
    assert len(parsed) < 10


def test_keys_that_share_a_hash_are_refused() -> None:
    """2**61 - 1 is the modulus of Python's hash of numbers: all of these have hash 0."""
    keys = [hex((2**61 - 1) * i) for i in range(1, 1000)]
    items = ",".join(f'{{"int":"{key}"}}' for key in keys)
    rows = ",".join(f'[{{"int":"{key}"}},0]' for key in keys)
    for text in (f'{{"set":[{items}]}}', f'{{"frozenset":[{items}]}}', f'{{"dict":[{rows}]}}'):
        with pytest.raises(ValueError, match="same hash"):
            loads(text)
    assert len(loads('{"set":[' + ",".join(map(str, range(1000))) + "]}")) == 1000


# The pool.


def test_a_fault_in_reading_one_outcome_costs_that_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = codec.outcome

    def faulty(job: Job, *rest: Any) -> JobOutcome:
        if job.program == "poison":
            raise ZeroDivisionError("a fault of ours")
        return real(job, *rest)

    monkeypatch.setattr(codec, "outcome", faulty)
    with SandboxPool(size=1) as pool:
        outcomes = pool.run_many([Job("print(1)"), Job("poison"), Job("print(2)")])
        assert [outcome.stdout for outcome in outcomes] == ["1\n", "", "2\n"]
        assert outcomes[1].status is Status.INFRA


@pytest.mark.parametrize("where", ["send", "look"])
def test_a_fault_in_the_pool_costs_what_was_under_way(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxPool(size=1) as pool:
        run(pool, "pass")
        (worker,) = pool._workers

        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(worker, where, fail)
        with pytest.raises(SandboxError, match="fault of ours"):
            run(pool, "import time; time.sleep(0.2)")
        monkeypatch.undo()
        assert run(pool, "print(1)").stdout == "1\n"


def test_a_cancelled_job_is_no_fault() -> None:
    with SandboxPool(size=1) as pool:
        futures = [pool.submit(Job("print(1)")) for _ in range(50)]
        for future in futures[1::2]:
            future.cancel()
        assert all(future.result().stdout == "1\n" for future in futures if not future.cancelled())
        assert run(pool, "print(2)").stdout == "2\n"


# CPU time of all processes.

BURN = """
import os, signal, time
{before}
for _ in range(4):
    if os.fork() == 0:
        end = time.process_time() + 0.4
        while time.process_time() < end: pass
        os._exit(0)
time.sleep(60)
"""


@needs_namespaces
@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
@pytest.mark.parametrize("counted", [True, False])
def test_processes_that_nobody_waits_for_use_the_jobs_cpu_time(
    before: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not counted:
        monkeypatch.setattr(cgroups, "create", lambda memory_bytes: None)
    limits = JobLimits(cpu_s=0.8, wall_s=50, processes=8)
    with SandboxPool(Level.NAMESPACED, size=1) as pool:
        outcome = run(pool, BURN.format(before=before), limits=limits)
        assert outcome.status is Status.CPU, outcome
        assert outcome.cpu_s > 0.8
        assert run(pool, "print(1)", limits=limits).cpu_s < 0.4


# Sessions.


@needs_namespaces
def test_a_session_reads_bytes_and_leaves_odd_names_out() -> None:
    with Session({"a": b"x\x0c\r\n\xff"}, level=Level.NAMESPACED) as session:
        assert session.read("a") == b"x\x0c\r\n\xff"
        assert session.read("none") is None
        session.run(["python3", "-c", r"open(b'\xff', 'w').write('1')"])
        assert list(session.snapshot()) == ["a"]
        with pytest.raises(InputError, match="half a character"):
            session.run(["echo", HALF])
        assert session.run(["echo", "1"]).stdout == "1\n"


def test_a_session_of_an_unknown_level_is_refused() -> None:
    with pytest.raises(SandboxError, match="nonsense"):
        Session(level="nonsense")


def test_a_closed_pool_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with SandboxPool(size=1) as pool:
            run(pool, "pass")
    assert len(os.listdir("/proc/self/fd")) == before
