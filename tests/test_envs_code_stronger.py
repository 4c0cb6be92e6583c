"""Weak tests are found by mutants, and mended by inputs that kill them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.core.types import Task
from vertigym.envs import registry
from vertigym.envs.check import check
from vertigym.envs.code.env import CodeEnv
from vertigym.envs.code.formats import humaneval
from vertigym.envs.code.stronger import strengthened, survivors
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import parse_tests
from vertigym.rewards.mutants import mutants
from vertigym.sandboxes import SandboxPool

from .conftest import CommandLine

pytestmark = pytest.mark.usefixtures("sandbox")
PROGRAM = "def fee(days, cents):\n    if days < 3:\n        return 0\n    return min(cents // 10, 250)"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with SandboxPool() as pool:
        yield Verifier(pool)


def task(tests: dict[str, Any], program: str = PROGRAM) -> Task:
    info = {"entry": "fee", "tests": tests}
    return Task(id="fee", prompt="Write fee.", answer=f"```python\n{program}\n```", info=info)


def cases(*rows: tuple[list[Any], Any]) -> dict[str, Any]:
    return {"kind": "cases", "entry": "fee", "cases": [{"args": a, "expected": e} for a, e in rows]}


WEAK = cases(([2, 1000], 0), ([9, 1000], 100))
STRONG = cases(
    ([2, 1000], 0), ([3, 1000], 100), ([3, 2505], 250), ([3, 9], 0), ([3, 99999], 250), ([3, 2500], 250)
)


def test_each_mutant_is_one_change_and_a_program() -> None:
    made = mutants(PROGRAM, most=100)
    assert len({mutant.program for mutant in made}) == len(made) > 8
    assert "`days < 3` became `days <= 3`" in " ".join(mutant.change for mutant in made)
    assert len(mutants(PROGRAM, most=5)) <= 5
    assert mutants("def (") == []


def test_weak_tests_let_mutants_pass_and_strong_ones_do_not(verifier: Verifier) -> None:
    weak, tried = survivors(task(WEAK), verifier, most=100)
    strong, _ = survivors(task(STRONG), verifier, most=100)
    assert tried > 8
    assert len(weak) > len(strong)


@pytest.mark.parametrize(
    "tests",
    [
        WEAK,
        {
            "kind": "asserts",
            "tests": ["assert fee(2, 1000) == 0", "assert fee(9, 1000) == 100"],
            "exports": {"fee": "fee"},
        },
    ],
)
def test_inputs_are_added_that_kill_mutants(tests: dict[str, Any], verifier: Verifier) -> None:
    before, _ = survivors(task(tests), verifier, most=100)
    better = strengthened(task(tests), verifier)
    assert better is not None
    after, _ = survivors(better, verifier, most=100)
    assert len(after) < len(before)
    assert verifier.check(PROGRAM, parse_tests(better.info["tests"])).all_pass
    again = strengthened(task(tests), verifier)
    assert again is not None
    assert again.info == better.info


def test_a_command_writes_the_tasks_with_more_tests(command: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "fees"
    other = task({"kind": "programs", "runs": [{"stdin": "1", "stdout": "1"}]}, "print(input())")
    rows = [task(WEAK), other.model_copy(update={"id": "echo"})]
    write_jsonl(folder / "tasks.jsonl", [row.model_dump(mode="json") for row in rows])
    (folder / "env.toml").write_text('id = "acme/Fees-v0"\nkind = "code"\nfiles = ["tasks.jsonl"]\n')
    done = command("env", "strengthen", folder, "-o", folder / "more.jsonl")
    assert done.code == 0, done.said
    assert "more.jsonl: 2 tasks, 1 of them with tests added" in done.said
    (folder / "env.toml").write_text('id = "acme/Fees-v0"\nkind = "code"\nfiles = ["more.jsonl"]\n')
    again = registry.make(str(folder))
    assert {again.tasks.get(name).id for name in again.tasks.ids("train")} == {"fee", "echo"}
    known = {one["id"]: one["info"]["tests"] for one in read_jsonl(folder / "more.jsonl")}
    assert len(known["fee"]["cases"]) > 2
    assert known["echo"] == other.info["tests"]
    assert command("env", "strengthen", "vertigym/Returns-v0", "-o", "x.jsonl").code == 2
    assert command("env", "strengthen", folder, "-o", folder / "more.jsonl").code == 2  # it exists


def test_nothing_is_added_where_no_input_is_known(verifier: Verifier) -> None:
    runs = {"kind": "programs", "runs": [{"stdin": "1", "stdout": "1"}]}
    assert strengthened(task(runs, "x = 1\nprint(input())"), verifier) is None


def test_a_check_names_tasks_with_weak_tests() -> None:
    weak = task(cases(([2, 1000], 0)))
    report = check(lambda: CodeEnv(TaskSet([weak])), tasks=1)
    (result,) = [one for one in report.results if one.check == "tests tell faults"]
    assert result.measured["weak"] == ["fee"]
    assert "faulty programs pass; line " in result.findings[0].message


@pytest.mark.slow
def test_tests_of_humaneval_are_mended(data: Path, verifier: Verifier) -> None:
    tasks = humaneval(data / "humaneval" / "HumanEval.jsonl.gz")
    before = after = tried = 0
    for one in tasks[::4]:
        alive, made = survivors(one, verifier)
        better = strengthened(one, verifier, most=12)
        before, tried = before + len(alive), tried + made
        after += len(survivors(better or one, verifier)[0])
    print(f"{before} of {tried} mutants pass, {after} with tests added")
    assert after < before
