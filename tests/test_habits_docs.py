"""The documents: every block says what it is, names only commands and options that are there, and is read by
what reads such a file. `make docs-check` runs them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vertigym import cli

from .doc_blocks import LANGUAGES, PAGES, Block, agrees, blocks, read_part, run_page
from .surface import ROOT, config_models, sections
from .test_habits import ROOMS

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language in ("console", "sh")]
SUITE = """
name = "returns"
[[env]]
id = "vertigym/Returns-v0"
split = "eval"
tasks = 40
[[gate]]
rule = "improves"
"""


def of(page: str, language: str) -> list[Block]:
    return [block for block in BLOCKS if block.page.name == page and block.language == language]


def test_every_fence_says_what_it_is() -> None:
    assert not {str(block) for block in BLOCKS if block.language not in LANGUAGES | {"indented"}}


def test_commands_stand_in_fences_that_are_run() -> None:
    plain = re.compile(r"^(\$ |(vertigym|python|make|pip|torchrun) [\w-])", re.MULTILINE)
    assert not {
        str(block) for block in BLOCKS if block.language in ("text", "indented") and plain.search(block.text)
    }
    assert sum(len(block.to_run()) for block in COMMANDS) > 10


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "toml" and not b.note("not run")[0]], ids=str
)
def test_toml_is_read(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in blocks(block.page):
        if (name := other.note("file")[0]).endswith(".py"):  # a config may name what is in it
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(other.text)
    monkeypatch.syspath_prepend(tmp_path)
    read_part(block.text, str(block))


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_a_config_of_an_example_is_read(file: Path) -> None:
    read_part(file.read_text(), str(file))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python" and b.to_run()], ids=str)
def test_python_compiles(block: Block) -> None:
    compile(f"{block.note('first')[0]}\n{block.text}", str(block), "exec")


def unknown(line: str) -> str:
    """The first word of a command line of ours that is no command or option of it, or ""."""
    command: Any = typer.main.get_command(cli.app)
    for word in re.sub(r"\s#.*", "", line).split():
        below = getattr(command, "commands", None)
        if below and word in below:
            command = below[word]
        elif word.partition("=")[0] not in known(command) and re.match(
            "--?[a-z]" if not below else "[a-z-]+$", word
        ):
            return word
    return ""


def known(command: Any) -> set[str]:
    return {"--help", "-h", *(option for p in command.params for option in (*p.opts, *p.secondary_opts))}


def lines_of_ours() -> list[tuple[str, str]]:
    """In blocks, and in the prose."""
    found = []
    for page in PAGES:
        if page.name not in ("CHANGELOG.md", "log.md"):  # which also name what is gone
            text = page.read_text().replace("\\\n", " ")
            found += [
                (page.name, line)
                for line in re.findall(r"(?:^|\$ |-m |[`;|] ?)vertigym ([^`|;\n]*)", text, re.M)
            ]
    return found


@pytest.mark.parametrize("page", sorted({page for page, _ in lines_of_ours()}))
def test_commands_and_options_are_there(page: str) -> None:
    faults = [(line, word) for name, line in lines_of_ours() if name == page and (word := unknown(line))]
    assert not faults


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("env check A --strict", ""),
        ("env check A --strikt", "--strikt"),
        ("env chek A", "chek"),
        ("train run.toml steps=4 --resume   # --what", ""),
    ],
)
def test_a_command_line_is_compared_with_the_commands(line: str, word: str) -> None:
    assert unknown(line) == word


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a b\nc", "a  b c\n", True),
        ("a b c", "a b d", False),
        ("a 1.5 s", "a 12 s", True),
        ("a 1.5", "a 12", False),
        ("a\n…\nz", "a\nb\nc\nz", True),
        ("a … z", "a b", False),
        ("a (x … y)", "a (x 1 y)", True),
        ("step 3 0:00:12", "step 3 1:02:03", True),
    ],
)
def test_what_may_differ(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


PAGE = """
<!-- file: name.txt -->
```text
one
```

<!-- first: echo two > second.txt -->
```console
$ cat name.txt
{shown}
$ cat \\
    second.txt
two
```

<!-- not run from 2 on: there is no such file -->
```sh
cat second.txt
cat third.txt
```

<!-- needs: third.txt -->
```console
$ cat third.txt
never
```

<!-- first: number = 2 -->
```python
assert number == {number}
```
"""


def test_a_page_is_run_and_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(shown="one", number=2))
    assert run_page(page) == (5, [])
    page.write_text(PAGE.format(shown="ten", number=3))
    done, faults = run_page(page, write=True)
    assert (done, len(faults)) == (5, 2)
    assert "-ten\n+one" in faults[0]
    assert "AssertionError" in faults[1]
    assert page.read_text() == PAGE.format(shown="one", number=3)


def test_every_config_key_has_a_meaning() -> None:
    silent = []
    for name, model in config_models().items():
        for table in tables(model):
            silent += [
                f"{name}: {table.__name__}.{key}"
                for key, field in table.model_fields.items()
                if not says(field)
            ]
    assert not silent


def tables(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for table in sections(field.annotation):
            yield from tables(table)


def says(field: FieldInfo) -> bool:
    """Whether it is described, is a table, or has one value only (`kind`)."""
    return bool(field.description or list(sections(field.annotation)) or len(get_args(field.annotation)) == 1)


def test_what_is_said_to_go_wrong_is_what_the_code_says() -> None:
    """Symptoms are quoted; `…` stands for what differs from case to case."""
    code = " ".join(file.read_text() for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    code = re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"', "", code))  # texts over several lines are one
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall("`([^`]+)`", " ".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE)))
    assert not {part for text in quoted for part in text.split("…") if part.strip() not in code}


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocs_jupyter")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    configs = (tmp_path / "reference" / "configs" / "index.html").read_text()
    assert "group_size" in configs
    for page in ("commands", "python"):
        assert "vertigym" in (tmp_path / "reference" / page / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "passes"), [("scripted:expert", True), ("scripted:constant:no", False)])
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_the_steps_of_the_ci_files_run(tmp_path: Path, service: str, model: str, passes: bool) -> None:
    yaml = pytest.importorskip("yaml")
    jobs = {name: job for block in of("ci.md", "yaml") for name, job in yaml.safe_load(block.text).items()}
    variables, junit_file = jobs["eval"]["variables"], "eval-out/junit.xml"
    steps = jobs["eval"]["script"]
    if service == "github":
        (given,) = [step["with"] for step in jobs["jobs"]["gate"]["steps"] if "suite" in step.get("with", {})]
        variables = {name.upper(): value for name, value in given.items()} | {"OUT": "eval-out"}
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        steps, junit_file = [step["run"] for step in action["runs"]["steps"]], "eval-out.junit.xml"
    (tmp_path / "evals").mkdir()
    (tmp_path / variables["SUITE"]).write_text(SUITE)
    environment = {
        **os.environ,
        **variables,
        "MODEL": model,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "step-summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }

    def run(command: str) -> int:
        return subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, timeout=120).returncode

    champion = 'vertigym eval evals/returns.toml -m scripted:constant:{} -b scripted:constant:{} -o "$CHAMPION"'
    assert run(champion) == 1  # no better than itself; its report is what is needed
    assert (tmp_path / variables["CHAMPION"] / "report.json").exists()
    codes = [run(step) for step in steps if "pip install" not in step]
    assert codes[0] == (0 if passes else 1)
    junit = (tmp_path / junit_file).read_text()
    assert ("<failure" in junit) is not passes
    if service == "github":
        summary = (tmp_path / "step-summary.md").read_text()
        assert summary.startswith("## ✅" if passes else "## ❌")
    (tmp_path / variables["SUITE"]).write_text(SUITE.replace("40", "30"))
    assert run(next(step for step in steps if "vertigym eval" in step)) == 2  # a changed suite is refused
