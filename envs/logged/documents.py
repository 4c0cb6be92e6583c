"""The team's own documents: rows `{"id", "text"}`, in a JSONL file."""

from pathlib import Path

from pydantic import ValidationError

from vertigym.core.errors import DataError
from vertigym.core.files import read_jsonl
from vertigym.traces.records import Document, reason


def read_documents(file: Path) -> dict[str, str]:
    """Texts by id.

    Raises:
        DataError: missing, a row that is no document, or an id twice (names the line).
    """
    found: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(file), 1):
        try:
            document = Document.model_validate(row)
        except ValidationError as error:
            raise DataError(f"{file}:{number}: not a document: {reason(error)}") from None
        if document.id in found:
            raise DataError(f"{file}:{number}: the id {document.id!r} is there twice")
        found[document.id] = document.text
    return found
