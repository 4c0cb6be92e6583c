"""Files appear whole or not at all: write beside, fsync, rename. Nothing that exists is replaced by
accident, and two processes never write to one place. JSON errors name the line.
"""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from vertigym.core.bounds import json_value
from vertigym.core.errors import DataError, OutputError

MOST_CHARACTERS = 2 << 30  # of a file that is read as a whole

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_SURROGATE = re.compile("[\\ud800-\\udfff]")


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` (UTF-8); readers see the old file or the new one, never half of it."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """The same for any content. A pipe or a device is written through, and a link to a file stays one."""
    with _written(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """
    Raises:
        OutputError: the machine refused to write there.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}): name another place, or mend it"
        ) from error


def claim(path: Path | None, *, force: bool = False) -> None:
    """Make sure, before the work begins, that its result can be written to the file `path` (None: no such
    result) and replaces nothing; an empty file counts as nothing.

    Raises:
        OutputError: it holds something and `force` is not given, it is a folder, or cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"{path}: is a folder, a file's name is needed")
    if path.exists() and not path.is_file():  # a pipe or a device is written through
        return
    if not force and path.exists() and path.stat().st_size:
        raise OutputError(f"{path} exists: name another file, or replace it with --force")
    place = path.resolve()
    missing = [folder for folder in place.parents if not folder.exists()]
    with _written(path):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place.parent):
                pass
        finally:  # it is only tried
            for folder in missing:
                if folder.exists():
                    folder.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file or folder, which need not exist yet, against other processes that lock it, through a file
    beside it. The lock goes with the process, however that ends.

    Raises:
        OutputError: another process holds it, or a lock cannot be written there.
    """
    file = _beside(path, "lock")  # however the place is named
    lock = filelock.FileLock(file)
    with _written(path):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise OutputError(f"{path}: another process writes there: wait for it, or name another") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder beside `path`; on leaving without an error it takes `path`'s place. Who may read files
    here may read those in it, whatever the library that wrote them thought.

    with whole_folder(run / "checkpoints" / "step-000100") as folder:
        model.save_pretrained(folder)
    """
    with _written(path):
        path = path.resolve()  # a link stays one
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        beside.mkdir(0o755)
    mode = stat.S_IMODE(beside.stat().st_mode)  # less what the umask forbids
    try:
        yield beside
        for file in beside.rglob("*"):
            file.chmod(stat.S_IMODE(file.stat().st_mode) | mode & (0o777 if file.is_dir() else 0o444))
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        if path.exists():
            # A folder cannot be replaced in one step; the old one steps aside first and goes last.
            aside = _beside(path)
            path.rename(aside)
            beside.rename(path)
            shutil.rmtree(aside)
        else:
            beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _beside(path: Path, end: str = "") -> Path:
    """A hidden name in the folder of what `path` leads to (`.` and links too); a new one, unless `end` says how
    it ends."""
    place = path.resolve()
    if not place.name:
        raise OutputError(f"{path}: nothing can be written in its place: name a folder in it")
    return place.with_name(f".{place.name}.{end or secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON with real Unicode and no NaN or Infinity (they are not JSON). Half a surrogate pair, which models do
    write and no file can hold, is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) if indent else _encode(value)
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return json.dumps(value, allow_nan=False, indent=indent)


def whole_characters(value: Any) -> Any:
    """`value` with U+FFFD for half surrogate pairs, in every text in it."""
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(item) for key, item in value.items()}
    return type(value)(map(whole_characters, value)) if type(value) in (list, tuple) else value


def jsonable(value: Any) -> Any:
    """`value` with what JSON cannot hold replaced: NaN and infinities by None, other objects by their text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set):
        kinds = set(map(type, value))  # of most lists one, that needs no look at each: token ids, log-probs
        if kinds <= {int, str, bool} or (kinds == {float} and all(map(math.isfinite, value))):
            return list(value)
        return [jsonable(item) for item in value]
    return str(value)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, dumps(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, whole or not at all."""
    write_text(path, "".join(dumps(row) + "\n" for row in rows))


def append_jsonl(path: Path, row: Any) -> None:
    """Append one line and sync it. A crash can tear the last line; `read_jsonl(torn_tail=True)` drops that."""
    line = dumps(row) + "\n"
    with _written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", newline="\n")
    with file, _written(path):
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_text(path: Path, most: int = MOST_CHARACTERS) -> str:
    """The file's text, without a byte order mark.

    Raises:
        DataError: it is missing, a folder, unreadable, not UTF-8, or of more than `most` characters.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(most + 1)
        if len(text) > most:
            raise DataError(f"{path}: too large: at most {most:,} characters are read")
        return text
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, a file is needed") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path) -> Any:
    """The file's JSON value.

    Raises:
        DataError: missing, or not JSON (names line and column).
    """
    try:
        return json_value(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def read_jsonl(path: Path, *, torn_tail: bool = False) -> list[Any]:
    """All that `iter_jsonl` gives."""
    return list(iter_jsonl(path, torn_tail=torn_tail))


def iter_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[Any]:
    """One JSON value a line, with one line in memory; blank lines are skipped. With `torn_tail`, a last line
    without its newline that is not JSON is dropped: a crash cut it off.

    Raises:
        DataError: missing, or a line that is not JSON (names the line).
    """
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            if torn_tail and not line.endswith("\n"):
                return
            reason = f"not JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else error
            raise DataError(f"{path}:{number}: {reason}") from None
        yield row


def _lines(path: Path) -> Iterator[str]:
    """
    Raises:
        DataError: as `read_text` says it; no line is longer than what that reads.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(MOST_CHARACTERS + 1):
                if len(line) > MOST_CHARACTERS:
                    read_text(path)
                yield line
    except (OSError, UnicodeDecodeError):
        read_text(path)
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error comes of a full disk or quota: it, what caused it, or what it says (libraries that write
    by themselves raise errors of their own)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
