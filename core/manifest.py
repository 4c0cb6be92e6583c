"""A folder's manifest: what it is, and the sha256 of every file in it, so that damage is noticed before use."""

from pathlib import Path
from typing import Any

from vertigym.core.errors import DataError
from vertigym.core.files import read_json, sha256, write_json

MANIFEST = "manifest.json"


def seal(folder: Path, **about: Any) -> None:
    """Write the manifest of the folder as it is."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    digests = {str(file.relative_to(folder)): sha256(file) for file in files}
    write_json(folder / MANIFEST, {**about, "sha256": digests})


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, once every file matches its digest.

    Raises:
        DataError: a file is missing or damaged (names it), or the manifest is none.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict):
        raise DataError(f"{folder / MANIFEST}: not a manifest")
    for name, digest in manifest["sha256"].items():
        file = folder / name
        if not file.is_file():
            raise DataError(f"{folder}: {name} is missing")
        if sha256(file) != digest:
            raise DataError(f"{folder}: {name} is damaged (its sha256 differs from the manifest)")
    return manifest
