"""The files of a project's tests: the package, the tests, and the environment's folder that holds both.

    DIR/
      env.toml        kind = "code", format = "pytest"
      tasks.jsonl     one function a task: prompt, the original as answer, which tests judge it
      package/        the package, as it is imported; the policy's function runs in here
      hidden/         the tests, with their conftest.py and helpers; the policy's function never sees them

The one idea: in both folders a file's path is its module's name, whatever folder pytest found it in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vertigym.core.errors import DataError
from vertigym.core.files import read_text, write_text
from vertigym.core.types import Task
from vertigym.envs.tasks import TaskSet

FORMAT, TASKS, PACKAGE, HIDDEN = "pytest", "tasks.jsonl", "package", "hidden"
_NEVER = {"setup.py", "conftest.py", "noxfile.py"}
_NO_PACKAGES = {"tests", "test", "docs", "examples", "benchmarks", "build", "dist", "node_modules"}

Sources = dict[str, str]


@dataclass(frozen=True, slots=True)
class TestedProject:
    """The texts of a package and of its tests, by path; `paths`: those with tests in them. `left_out`: files
    that cannot be used, and why."""

    package: Sources
    hidden: Sources
    paths: tuple[str, ...]
    left_out: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Into an environment's folder."""
        for name, sources in ((PACKAGE, self.package), (HIDDEN, self.hidden)):
            for path, source in sources.items():
                write_text(folder / name / path, source)


def read_project(tests: Path, package: Path) -> TestedProject:
    """The project whose tests lie in `tests` (a folder or a file). `package`: the package's folder, the one
    that it lies in, or a module's file.

    Raises:
        DataError: a path is missing, `package` holds nothing that can be imported, `tests` no tests.
    """
    for path in (tests, package):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    left_out: dict[str, str] = {}
    base, modules = _package_files(package)
    mine = sorted(_python(tests)) if tests.is_dir() else [tests, *_beside(tests)]
    found = [file for file in mine if is_test(file)]
    if not found:
        raise DataError(f"{tests}: no tests; pytest's are functions test_… in files test_*.py or *_test.py")
    hidden: Sources = {}
    paths: list[str] = []
    for file in mine:
        name = _module_path(file, base)
        if name in hidden:
            left_out[str(file)] = f"another file is the module {name}, too: put an __init__.py into its folder"
        elif (text := _text(file, left_out)) is not None:
            hidden[name] = text
            paths += [name] if file in found else []
    taken = {file.resolve() for file in mine}
    texts = {
        str(file.relative_to(base)): _text(file, left_out) for file in modules if file.resolve() not in taken
    }
    sources = {path: text for path, text in texts.items() if text is not None}
    if not sources:
        raise DataError(f"{package}: holds nothing but tests: --package is what they test")
    return TestedProject(sources, hidden, tuple(paths), left_out)


def find_tests(folder: Path) -> tuple[Path, Path] | None:
    """(tests, package) of a project's folder, or of its folder of tests; None where it has no tests."""
    if not any(map(is_test, _python(folder))):
        return None
    inside = [folder / name for name in ("tests", "test") if (folder / name).is_dir()]
    is_tests = folder.name in ("tests", "test") or (not inside and not _packages(folder) and not _src(folder))
    root = folder.parent if is_tests else folder
    tests = folder if is_tests else next(iter(inside), folder)
    if (root / "__init__.py").is_file():  # tests that lie in their package
        return tests, root
    return tests, _src(root) or root


def pytest_tasks(file: Path) -> list[Task]:
    """The tasks of such a folder, by its `tasks.jsonl`.

    Raises:
        DataError: a file is missing or malformed.
    """
    shared = {
        "package": _read(file.parent / PACKAGE),
        "hidden": _read(file.parent / HIDDEN),
    }
    return [
        task.model_copy(update={"info": {**task.info, "tests": {**task.info.get("tests", {}), **shared}}})
        for task in TaskSet.read(file)
    ]


def is_test(file: Path) -> bool:
    """Whether pytest looks for tests in a file of this name."""
    return file.name.startswith("test_") or file.name.endswith("_test.py")


def _read(folder: Path) -> Sources:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; tasks of format {FORMAT} have one beside them")
    return {str(file.relative_to(folder)): read_text(file) for file in sorted(_python(folder))}


def _package_files(package: Path) -> tuple[Path, list[Path]]:
    """(the folder that is on the path, the modules' files)."""
    if package.is_file():
        if package.suffix != ".py":
            raise DataError(
                f"{package}: no Python; --package is a package's folder, the one it lies in, or a .py file"
            )
        return package.parent, [package]
    if (package / "__init__.py").is_file():
        base = package.parent
        while (base / "__init__.py").is_file():
            base = base.parent
        return base, sorted(_python(package))
    modules = [file for file in package.glob("*.py") if file.name not in _NEVER and not is_test(file)]
    found = [file for folder in _packages(package) for file in _python(folder)] + modules
    if not found:
        src = f"; {package / 'src'} does" if _src(package) else ""
        raise DataError(f"{package}: holds no package (a folder with __init__.py) and no module{src}")
    return package, sorted(found)


def _packages(folder: Path) -> list[Path]:
    below = (file.parent for file in folder.glob("*/__init__.py"))
    return sorted(one for one in below if one.name not in _NO_PACKAGES)


def _src(folder: Path) -> Path | None:
    src = folder / "src"
    return src if src.is_dir() and (_packages(src) or any(src.glob("*.py"))) else None


def _python(folder: Path) -> Iterator[Path]:
    """The Python files below a folder that are no links."""
    return (
        file
        for file in folder.rglob("*.py")
        if file.is_file()
        and not file.is_symlink()
        and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )


def _beside(file: Path) -> list[Path]:
    conftest = file.parent / "conftest.py"
    return [conftest] if conftest.is_file() else []


def _module_path(file: Path, base: Path) -> str:
    """The path under which pytest imports it: below the package's own folder, or below the first folder above
    that is no package."""
    top = file.parent
    while (top / "__init__.py").is_file() and top != top.parent:
        top = top.parent
    inside = top != file.parent and file.is_relative_to(base)
    return str(file.relative_to(base if inside else top))


def _text(file: Path, left_out: dict[str, str]) -> str | None:
    try:
        return read_text(file)
    except DataError as error:
        left_out[str(file)] = str(error)
        return None
