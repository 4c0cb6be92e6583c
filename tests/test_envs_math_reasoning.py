"""reasoning-gym's data sets as environments (skipped where the extra is not installed)."""

import pytest

from vertigym import envs
from vertigym.core.errors import MissingDependencyError, UnknownNameError
from vertigym.envs.check import check
from vertigym.envs.math import reasoning


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    with pytest.raises(MissingDependencyError, match=r"vertigym\[reasoning-gym\]"):
        reasoning.load("basic_arithmetic")


@pytest.mark.slow
def test_every_data_set_is_registered_and_a_sound_one_passes() -> None:
    package = pytest.importorskip("reasoning_gym.factory")
    assert set(reasoning.names()) == set(package.DATASETS)
    assert "reasoning_gym/basic_arithmetic-v0" in envs.ids()
    report = check("reasoning_gym/basic_arithmetic-v0", tasks=20)
    assert report.passed(), report.findings
    with pytest.raises(UnknownNameError, match="did you mean 'basic_arithmetic'"):
        reasoning.load("basic_arithmetics")


@pytest.mark.slow
def test_the_check_finds_the_data_set_that_pays_for_anything() -> None:
    pytest.importorskip("reasoning_gym")
    report = check("reasoning_gym/game_of_life_halting-v0", tasks=10, arguments={"sizes": {"train": 20}})
    assert "I don't know earns 1.000" in " ".join(finding.message for finding in report.findings)
