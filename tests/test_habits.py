"""What surrounds the code: workflows, forms, the changelog; documents that are found and whose links hold."""

import re
import tomllib
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from vertigym import __version__

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
FRONT = sorted(ROOT.glob("*.md"))  # what a visitor meets first
DOCS = sorted((ROOT / "docs").glob("*.md"))
ROOMS = sorted(file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_yaml(file: Path) -> Any:
    return pytest.importorskip("yaml").safe_load(file.read_text())


def links(page: Path) -> list[tuple[Path, str]]:
    """The files of this project that a page links to, each with the heading named (or "")."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    found = (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link)
    return [((page.parent / path).resolve() if path else page, heading) for path, _, heading in found]


@cache
def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them in links."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "file", [*WORKFLOWS, *FORMS, ROOT / ".pre-commit-config.yaml"], ids=lambda file: file.name
)
def test_yaml_parses_into_something(file: Path) -> None:
    assert isinstance(read_yaml(file), dict)


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.name)
def test_every_form_says_what_it_is_and_demands_something(file: Path) -> None:
    form = read_yaml(file)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_foreign_actions_are_pinned_to_a_commit_and_rights_are_given_by_job(file: Path) -> None:
    for used in re.findall(r"uses: (.*)", file.read_text()):
        assert re.match(r"\./|[\w./-]+@[0-9a-f]{40} # v\d", used), used
    workflow = read_yaml(file)
    assert workflow["permissions"] == {}
    assert all("permissions" in job for job in workflow["jobs"].values())


def test_the_tests_begin_with_the_oldest_python_allowed() -> None:
    pythons = read_yaml(GITHUB / "workflows" / "test.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["requires-python"]


def test_only_checked_files_are_published_and_only_that_job_may() -> None:
    jobs = read_yaml(GITHUB / "workflows" / "release.yml")["jobs"]
    assert jobs["publish"]["needs"] == "check"
    assert {name for name, job in jobs.items() if "id-token" in job["permissions"]} == {"publish"}


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(
        r"^## ([\d.]+) - (?:Unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert versions[0] == PROJECT["version"] == __version__
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize("page", [*FRONT, *DOCS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for file, heading in links(page):
        assert file.exists(), f"{page.name} links to {file}, which is not there"
        assert not heading or heading in anchors(file), (
            f"{page.name} links to #{heading}, no heading of {file.name}"
        )


def test_every_page_is_found_from_the_front() -> None:
    found, following = set(FRONT), [*FRONT]
    while following:
        new = {file for file, _ in links(following.pop()) if file.suffix == ".md"} - found
        found |= new
        following += new
    lost = set(DOCS) - found
    assert not lost, f"no page leads to {', '.join(sorted(page.name for page in lost))}"


def test_every_entry_of_the_log_says_what_was_decided_and_where_the_evidence_is() -> None:
    entries = re.split(r"^### ", (ROOT / "docs" / "log.md").read_text(), flags=re.MULTILINE)[1:]
    for entry in entries:
        title = entry.splitlines()[0]
        assert "- **Decided.**" in entry, title
        assert "- **Evidence.**" in entry, title


def _resolved(name: str) -> None:
    """What is named is there; of a module for a neighbour that is not installed, its text is."""
    try:
        resolve_name(name)
    except (AttributeError, ModuleNotFoundError) as error:
        path, _, last = name.removeprefix("vertigym.").partition(".")[2].partition(".")
        file = ROOT / "interop" / f"{path}.py"
        there = name.startswith("vertigym.interop.") and file.is_file() and f"class {last}" in file.read_text()
        if not there:
            raise AssertionError(name) from error


@pytest.mark.parametrize("page", [*FRONT, *DOCS], ids=lambda page: page.name)
def test_what_a_page_says_to_import_is_there(page: Path) -> None:
    text = page.read_text() if page.name != "CHANGELOG.md" else ""  # which also names what is gone
    named = re.findall(rf"`(?:vertigym\.)?((?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+)", text)
    for module, names in re.findall(r"^from vertigym(?:\.([\w.]+))? import ([\w, ]+)", text, re.MULTILINE):
        named += [f"{module}.{name.split()[0]}".strip(".") for name in names.split(",")]
    for name in named:
        if name.rpartition(".")[2] not in ("jsonl", "json", "toml", "md", "py"):
            _resolved(f"vertigym.{name}")
