"""The key of an import: the values behind its placeholders, in a file of its owner alone, apart from the
rows."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from vertigym.core.errors import OutputError
from vertigym.core.files import dumps, read_jsonl
from vertigym.traces.pii.masker import MASKED


def claim_key(path: Path) -> None:
    """Make sure, before the work begins, that a key may be written to a new file there.

    Raises:
        OutputError: something is there, or the folder cannot be written.
    """
    if path.exists() or not os.access(path.resolve().parent, os.W_OK):
        raise _refused(path, "it exists" if path.exists() else "its folder is missing or closed")


def write_key(path: Path, values: Iterable[tuple[str, str]]) -> None:
    """Write placeholders with their values to a new file of mode 0600.

    Raises:
        OutputError: as `claim_key`.
    """
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _refused(path, str(error.strerror)) from None
    with os.fdopen(opened, "wb") as file:
        for placeholder, value in values:
            line = dumps({"placeholder": placeholder, "value": value})
            file.write(f"{line}\n".encode("utf-8", "replace"))


def unmasked(text: str, key: Path) -> str:
    """The text with the values of a key file in the place of their placeholders, as each was first written;
    inside of JSON they are escaped.

    Raises:
        DataError: the key file is missing, or no key file.
    """
    values = {str(row.get("placeholder")): str(row.get("value")) for row in read_jsonl(key)}
    inside = text.lstrip().startswith(("{", "["))

    def value(match: re.Match[str]) -> str:
        found = values.get(match[0], match[0])
        return json.dumps(found, ensure_ascii=False)[1:-1] if inside else found

    return MASKED.sub(value, text)


def _refused(path: Path, why: str) -> OutputError:
    return OutputError(f"{path}: no key file can be written there ({why}); name a new file")
