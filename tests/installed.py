"""A package as `pip install` would leave it: one module and its entry points, on the path for one test."""

from pathlib import Path
from textwrap import dedent

import pytest


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, group: str, **points: str
) -> None:
    """Write the module `name` and the entry points `points` (name -> object in it) of `group`."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}.py").write_text(dedent(source))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"{point} = {name}:{what}" for point, what in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    monkeypatch.syspath_prepend(folder)
