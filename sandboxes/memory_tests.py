"""pytest over modules that are texts: nothing of the tests or of the package under test lies on a disk that the
program could reach.

    judged = judge(modules, tests, remote)    beside the tests: one function of the package is `remote`
    load(modules, module)                     beside the program: the function itself
    survey(modules, tests)                    no program: which tests pass, and which functions each one enters

The one idea: the function under test carries one decorator more, `__under_test__`. On the side of the tests it
puts a call of the other sandbox in the function's place; on the program's side it says which function that is.
So the rest of the package, which is trusted, runs beside the tests as it is.

`modules`: dotted name -> [path, source]. Sent into the sandbox as text; standard library and pytest only.
"""

import builtins
import contextlib
import functools
import importlib
import importlib.machinery
import io
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "__under_test__"
# Of one test in a survey: signal, timer, seconds, of what.
_LIMITS = (
    (signal.SIGPROF, signal.ITIMER_PROF, 2.0, "processor time"),
    (signal.SIGALRM, signal.ITIMER_REAL, 20.0, "waiting"),
)
_STEERING = (StopIteration, StopAsyncIteration)
_OPTIONS = [
    *("-q", "--no-header", "--capture=sys", "--assert=plain", "--rootdir=/", "-c", os.devnull),
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:threadexception", "-W", "ignore"),
]

Modules = Mapping[str, Sequence[str]]


class MemoryModules:
    """Finds and loads modules from texts."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        for name in [name for name in sys.modules if name in modules]:
            del sys.modules[name]
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A spec for each of the modules, and for the folders above them."""
        found = self._modules.get(fullname)
        if found is None and not any(name.startswith(f"{fullname}.") for name in self._modules):
            return None
        origin = found[0] if found else None
        package = found is None or found[0].endswith("__init__.py")
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = found is not None
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The usual one."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Run its text."""
        path, source = self._modules.get(module.__name__, ("", ""))
        exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102

    def get_source(self, fullname: str) -> str:
        """Its text, for tracebacks and `inspect`."""
        return self._modules.get(fullname, ("", ""))[1]


def load(modules: Modules, module: str) -> Any:
    """What carries the mark in `module`: a function, or a class."""
    found: list[Any] = []

    def mark(marked: Any) -> Any:
        found.append(marked)
        return marked

    setattr(builtins, MARK, mark)
    MemoryModules(modules)
    importlib.import_module(module)
    return found[-1]


def judge(modules: Modules, tests: Sequence[str], remote: Callable[..., Any]) -> Callable[[str], None]:
    """Run `tests` (`path::name`); a function that raises AssertionError for one that did not pass."""

    def mark(marked: Any) -> Any:
        if isinstance(marked, type):
            return remote

        @functools.wraps(marked)
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                return remote(*arguments, **keywords)
            except Exception as error:
                raise _own(error, modules) from None

        return call

    setattr(builtins, MARK, mark)
    found = _run(modules, tests)

    def assert_passed(test: str) -> None:
        assert not found.faults[test], found.faults[test]

    return assert_passed


def survey(modules: Modules, paths: Sequence[str]) -> dict[str, Any]:
    """For each test in these files why it is of no use (empty: it passes), and which functions of the other
    modules it enters, as `path:qualified name`."""
    sources = {path for path, _ in modules.values()} - {*paths}
    found = _run(modules, (), paths, sources)
    entered = {test: sorted(found.entered.get(test, ())) for test in found.faults}
    return {"faults": found.faults, "entered": entered, "broken": found.broken}


def _own(error: Exception, modules: Modules) -> Exception:
    """The package's own exception of the name that the program raised, where it has one."""
    remote = type(error).__name__ == "RemoteError"
    name, message = str(error).split(": ", 1) if remote and ": " in str(error) else (type(error).__name__, "")
    for module in filter(None, map(sys.modules.get, modules)):
        kind = vars(module).get(name)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _STEERING):
            made: Exception = kind.__new__(kind)
            made.args = (message,) if remote else error.args
            return made
    return error


class _Run:
    """A pytest plugin: collects from memory, keeps what became of each test."""

    def __init__(
        self, modules: Modules, wanted: Sequence[str], paths: Sequence[str], sources: set[str]
    ) -> None:
        self._names = {path: name for name, (path, _) in modules.items()}
        self._wanted, self._paths, self._sources = wanted, paths, sources
        self.faults: dict[str, str] = dict.fromkeys(wanted, "it did not run")
        self.entered: dict[str, set[str]] = {}
        self.broken: dict[str, str] = {}

    def pytest_collection(self, session: Any) -> bool:
        """In place of a walk over folders."""
        import pytest

        names = self._names

        class Module(pytest.Module):
            def _getobj(self) -> Any:
                try:
                    return importlib.import_module(names[self.nodeid])
                except Exception as error:
                    raise self.CollectError(f"{type(error).__name__}: {error}") from None

        for path in self._paths or sorted({test.partition("::")[0] for test in self._wanted}):
            module = Module.from_parent(session, path=Path("/", path), nodeid=path)
            session.items += [one for one in session.genitems(module) if self._takes(one)]
        session.config.hook.pytest_collection_modifyitems(
            session=session, config=session.config, items=session.items
        )
        session.testscollected = len(session.items)
        return True

    def _takes(self, item: Any) -> bool:
        return not self._wanted or _name(item.nodeid) in self.faults

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported."""
        if report.failed:
            why = self.broken[report.nodeid] = str(report.longrepr).strip().splitlines()[-1]
            self.faults |= {test: why for test in self._wanted if test.startswith(f"{report.nodeid}::")}

    def pytest_runtest_protocol(self, item: Any) -> None:
        """Watch what a test enters, and for how long."""
        if not self._sources:
            return
        entered = self.entered.setdefault(_name(item.nodeid), set())
        sources = self._sources

        def look(frame: types.FrameType, event: str, _: Any) -> None:
            if event == "call" and frame.f_code.co_filename in sources:
                entered.add(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")

        for number, timer, seconds, what in _LIMITS:
            signal.signal(number, functools.partial(_late, f"it did not end within {seconds:g} s of {what}"))
            signal.setitimer(timer, seconds)
        sys.setprofile(look)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Every part of every case of a test must pass."""
        test = _name(report.nodeid)
        if report.when == "teardown" and self._sources:
            sys.setprofile(None)
            for _, timer, _, _ in _LIMITS:
                signal.setitimer(timer, 0)
        if report.outcome != "passed" or hasattr(report, "wasxfail"):
            why = getattr(report, "wasxfail", None)
            fault = f"expected to fail: {why}" if why is not None else _reason(report)
            if self.faults.get(test, "") in ("", "it did not run"):
                self.faults[test] = fault or "it failed"
        elif report.when == "call" and self.faults.get(test, "it did not run") == "it did not run":
            self.faults[test] = ""


def _run(
    modules: Modules, tests: Sequence[str], paths: Sequence[str] = (), sources: set[str] | None = None
) -> _Run:
    import pytest

    MemoryModules(modules)
    plugin = _Run(modules, tests, paths, sources or set())
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        conftests = [importlib.import_module(name) for name in modules if name.split(".")[-1] == "conftest"]
        status = pytest.main([*_OPTIONS, os.devnull], plugins=[plugin, *conftests])
    if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        raise RuntimeError(f"pytest could not run: {said.getvalue()[-1500:]}")
    return plugin


def _late(why: str, *_: Any) -> None:
    raise TimeoutError(why)


def _name(nodeid: str) -> str:
    """The test function of a case of it."""
    return nodeid.partition("[")[0]


def _reason(report: Any) -> str:
    """Why, in a line."""
    if report.skipped:
        return f"skipped: {report.longrepr[-1]}" if isinstance(report.longrepr, tuple) else "skipped"
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = [line.strip() for line in (crash.message if crash else str(report.longrepr)).splitlines()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]  # where it is a whole report
    return next(filter(None, [*marked, *lines]), "failed")[:300]
