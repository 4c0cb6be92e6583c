"""Generated hostile programs against every verdict protocol and level: none passes, changes the machine or ends
the pool, as root and as an ordinary user."""

import ast
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from vertigym.sandboxes import Level, SandboxPool, levels
from vertigym.tests import hostile_grammar as grammar
from vertigym.tests import hostile_judge as judge

from .test_sandboxes import as_nobody, run_as_nobody

SAFE = [row.name for row in levels() if row.available and row.name in (Level.NAMESPACED, Level.LANDLOCK)]
SOME, MANY = 30, 300  # `python tests/hostile_judge.py` lets loose more


def each_attack(start: int) -> Iterator[int]:
    """The programs from `start` on that make an attack which none of them made before, until all are made."""
    left, chosen = {attack for kind in grammar.ATTACKS.values() for attack in kind}, grammar._chosen

    def noting(draw: random.Random, template: str) -> str:
        made.add(template)
        return chosen(draw, template)

    for seed in range(start, start + 2 * MANY):
        made: set[str] = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grammar, "_chosen", noting)
            grammar.program(seed)
        if made & left:
            left -= made
            yield seed
    assert not left


def test_a_program_is_one_of_its_seed_and_reads_as_python() -> None:
    with judge.machine() as facts:
        sources = [grammar.fill(grammar.program(seed), facts) for seed in range(MANY)]
    assert sources[0] == grammar.fill(grammar.program(0), facts)
    assert len(set(sources)) == MANY
    for source in sources:
        ast.parse(source)


@pytest.mark.parametrize("level", SAFE)
def test_some_generated_programs_get_nothing(level: Level) -> None:
    with SandboxPool(level) as pool, judge.machine() as facts:
        tally = judge.attack(pool, range(SOME), facts, step=SOME)
    assert tally.harm == []
    assert tally.verdicts.total() == SOME * len(judge.tests_for(level))


@pytest.mark.slow
@pytest.mark.parametrize("level", SAFE)
def test_every_attack_gets_nothing(level: Level) -> None:
    with SandboxPool(level) as pool, judge.machine() as facts:
        tally = judge.attack(pool, list(each_attack(0)), facts)
    print(tally.verdicts)
    assert tally.harm == []


@pytest.mark.slow
@as_nobody
@pytest.mark.parametrize("level", SAFE)
def test_every_attack_of_an_ordinary_user_gets_nothing(level: Level, tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, sys.argv[1])
from vertigym.tests import hostile_judge
print(hostile_judge.tried({level.value!r}, {list(each_attack(MANY))}))
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
    with SandboxPool(Level.UNSAFE, size=1) as pool, judge.machine() as facts:
        tally = judge.attack(pool, [0], facts)
    assert tally.forged
    assert any("file" in what for _, what in tally.effects)
    assert any("secret" in what for _, what in tally.effects)
