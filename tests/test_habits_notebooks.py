"""The notebooks run as they stand, and hold what they print."""

from pathlib import Path

import pytest

from .notebooks import FOLDER, NOTEBOOKS, printed, run

ENDS = {  # what each comes to
    "logs": "PROMOTED improves on right",
    "rules": "PROMOTED improves on exact",
    "verbs": "-> 1.00",
}


def test_each_notebook_is_known() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(ENDS)


@pytest.mark.parametrize("name", ENDS)
def test_a_notebook_holds_what_it_printed(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text()
    assert ENDS[name] in text
    assert "Traceback" not in text
    assert "\\u001b" not in text  # no colours, nothing drawn over


@pytest.mark.slow(first=True)
@pytest.mark.parametrize("name", ENDS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    assert ENDS[name] in printed(run(FOLDER / f"{name}.ipynb", tmp_path))
