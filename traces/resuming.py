"""Where the reading of logs stands, kept in the store: an import that was broken off goes on from there.

All that reading adds lies in one transaction between two such points, so what came after the last one is gone
with the process, and is read again. What is kept belongs to one import: to the same files, settings, names and
held-out texts, by the same version.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from pydantic import BaseModel, Field

from vertigym import __version__
from vertigym.core.files import dumps
from vertigym.traces.config import ImportConfig, PiiKind
from vertigym.traces.contamination import Item


class Tally(BaseModel):
    """What was counted while reading. By file: `counts` (rows, calls, rejected, …), and `forms`, as what its
    rows were read."""

    rejected: Counter[str] = Field(default_factory=Counter)
    skipped: Counter[str] = Field(default_factory=Counter)
    contaminated: Counter[str] = Field(default_factory=Counter)
    replaced: Counter[PiiKind] = Field(default_factory=Counter)
    masked_rows: int = 0
    feedback: int = 0
    examples: dict[str, list[str]] = {"rejected": [], "contaminated": [], "masked": []}
    counts: dict[str, Counter[str]] = Field(default_factory=dict)
    forms: dict[str, Counter[str]] = Field(default_factory=dict)


class ReadingState(BaseModel):
    """`of` says what is read, and how. The first `file` files are in the store, and the first `done` rows of
    the next one; `rejects` is the size of the file of what was set aside, in bytes."""

    of: str
    file: int = 0
    done: int = 0
    rejects: int = 0
    joined: bool = Field(False, description="nothing is left to be read")
    tally: Tally = Field(default_factory=Tally)


def identity(files: Sequence[Path], config: ImportConfig, names: Iterable[str], held: Iterable[Item]) -> str:
    """A hash of what an import reads and how. Of the files their places, sizes and times count."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = blake2b(digest_size=16)
    for part in (__version__, config.model_dump(mode="json"), stats, list(names)):
        digest.update(dumps(part).encode("utf-8", "surrogatepass"))
    for item in held:
        digest.update(f"{item.source}\n{item.text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
