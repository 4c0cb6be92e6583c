"""Real decision models, imported and checked: every third. What the check finds is in the data, not in our
code. All of them: `benchmarks/found_models.py DIR --pattern "*.json"`."""

from pathlib import Path

import pytest

from vertigym.core.types import Split
from vertigym.envs.check import check
from vertigym.envs.decision.importer import import_decision


@pytest.mark.slow
def test_every_third_decision_model_passes_the_check(data: Path, tmp_path: Path) -> None:
    files = sorted((data / "jdm").glob("*.json"))
    assert len(files) == 45
    failed: dict[str, list[str]] = {}
    for file in files[::3]:
        folder = tmp_path / file.stem
        sizes: dict[Split, int] = {"train": 600, "eval": 150, "test": 150}  # the check looks at 60
        import_decision(file, f"jdm/{file.stem}-v0", folder, now="2026-01-31T12:00:00Z", sizes=sizes)
        report = check(str(folder), tasks=60)
        failures = [finding.message for finding in report.findings if finding.level == "failure"]
        if failures:
            failed[file.stem] = failures
    assert not failed
