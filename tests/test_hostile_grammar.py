"""Generated hostile programs against every verdict protocol and level: none passes, changes the machine or ends
the pool, as root and as an ordinary user."""

import ast
import json
import random
from pathlib import Path

import pytest

from vertigym.sandboxes import Level, SandboxPool, levels

from . import hostile_grammar as grammar
from .test_sandboxes import as_nobody, run_as_nobody

SAFE = [row.name for row in levels() if row.available and row.name in (Level.NAMESPACED, Level.LANDLOCK)]
MANY = 300  # every attack occurs among so many; `python tests/hostile_grammar.py` lets loose more


def test_a_program_is_one_of_its_seed_and_reads_as_python() -> None:
    with grammar.machine() as facts:
        sources = [grammar.fill(grammar.program(seed), facts) for seed in range(MANY)]
    assert sources[0] == grammar.fill(grammar.program(0), facts)
    assert len(set(sources)) == MANY
    for source in sources:
        ast.parse(source)


def test_every_attack_is_made_by_some_program(monkeypatch: pytest.MonkeyPatch) -> None:
    made, choose = set(), grammar._chosen

    def noting(draw: random.Random, template: str) -> str:
        made.add(template)
        return choose(draw, template)

    monkeypatch.setattr(grammar, "_chosen", noting)
    for seed in range(MANY):
        grammar.program(seed)
    assert {attack for kind in grammar.ATTACKS.values() for attack in kind} <= made


@pytest.mark.parametrize("level", SAFE)
def test_some_generated_programs_get_nothing(level: Level) -> None:
    with SandboxPool(level) as pool, grammar.machine() as facts:
        tally = grammar.attack(pool, range(60), facts, step=60)
    assert tally.harm == []
    assert tally.verdicts.total() == 60 * len(grammar.tests_for(level))


@pytest.mark.slow
@pytest.mark.parametrize("level", SAFE)
def test_many_generated_programs_get_nothing(level: Level) -> None:
    with SandboxPool(level) as pool, grammar.machine() as facts:
        tally = grammar.attack(pool, range(MANY), facts)
    print(tally.verdicts)
    assert tally.harm == []


@pytest.mark.slow
@as_nobody
@pytest.mark.parametrize("level", SAFE)
def test_many_generated_programs_of_an_ordinary_user_get_nothing(level: Level, tmp_path: Path) -> None:
    script = f"""
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/vertigym/tests"]
import hostile_grammar
sys.argv[1:] = ["--level", {level.value!r}, "--programs", "{MANY}"]
hostile_grammar.main()
"""
    found = json.loads(run_as_nobody(script, tmp_path, timeout=1800))
    print(found["verdicts"])
    assert found["user"] == 65534
    assert found["harm"] == []


def test_the_judge_sees_each_kind_of_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no isolation, and with programs that are right, there is harm."""
    right = "def solve(x): return 2 * x + 1\nif __name__ == '__main__': print(solve(int(input())))\n"
    changing = "import os\nos.chmod('{folder}/file', 0o777)\nprint(open('{folder}/secret').read())\n"
    monkeypatch.setattr(grammar, "program", lambda seed: changing + right)
    with SandboxPool(Level.UNSAFE, size=1) as pool, grammar.machine() as facts:
        tally = grammar.attack(pool, [0], facts)
    assert tally.forged
    assert any("file" in what for _, what in tally.effects)
    assert any("secret" in what for _, what in tally.effects)
