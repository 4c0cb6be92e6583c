"""A folder's manifest: what it is, and the sha256 of every file in it. So damage is noticed before use, and
what somebody edited is not replaced by accident.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vertigym.core.errors import DataError, OutputError
from vertigym.core.files import read_json, sha256, whole_folder, write_json

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


def verify_top(folder: Path) -> None:
    """Make sure that the files at the top of a folder that we sealed are as they were written. What is gone is
    for its reader to miss; a folder of somebody else, with a manifest of another kind or none, passes.

    Raises:
        DataError: a file is damaged, or was edited (names it).
    """
    for name, digest in _digests(folder).items():
        file = folder / name
        if "/" not in name and file.is_file() and sha256(file) != digest:
            raise DataError(
                f"{folder}: {name} is damaged or was edited (its sha256 differs from the manifest); if it was "
                f"edited on purpose, remove {MANIFEST}"
            )


def claim_folder(path: Path, kind: str, *, force: bool = False) -> None:
    """Make sure, before the work begins, that a folder of this kind may be written to `path`: it replaces one
    of its kind that nobody has edited, with `force` also an edited one, and nothing else.

    Raises:
        OutputError: something else is there.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if sealed_as(path) != kind:
        raise OutputError(
            f"{path} exists and is no {kind} that vertigym wrote (no {MANIFEST} says so): name another folder, "
            "or remove it"
        )
    if not force and (edited := _edited(path, _digests(path))):
        raise OutputError(f"{path}: {edited} was edited: name another folder, or replace it with --force")


def sealed_as(folder: Path) -> str:
    """The kind that the folder's manifest says it is; empty where it has none."""
    return str(read_json(folder / MANIFEST).get("kind", "")) if _digests(folder) else ""


def _digests(folder: Path) -> Mapping[str, str]:
    """The digests in the folder's manifest, by file; none where it has no manifest of ours."""
    try:
        manifest = read_json(folder / MANIFEST)
    except DataError:
        return {}
    digests = manifest.get("sha256") if isinstance(manifest, dict) else None
    return digests if isinstance(digests, dict) else {}


@contextmanager
def sealed_folder(path: Path, kind: str, *, force: bool = False) -> Iterator[Path]:
    """Fill a new folder that takes the place of `path` with its manifest, whole or not at all.

    Raises:
        OutputError: as `claim_folder`, or it cannot be written.
    """
    claim_folder(path, kind, force=force)
    with whole_folder(path) as folder:
        yield folder
        seal(folder, kind=kind)


def _edited(folder: Path, digests: Mapping[str, str]) -> str:
    """A file that is not as the manifest has it; empty where there is none. One that is gone is no loss."""
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if name == MANIFEST or (file.is_dir() and not file.is_symlink()):
            continue
        if file.is_symlink() or not file.is_file() or digests.get(name) != sha256(file):
            return name
    return ""
