"""Requests and responses of batches, which stand on lines of their own, often in two files: joined by their
key."""

import json
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from vertigym.traces.store import Store

_IN_ORDER = """
    SELECT key, side, file, number, body FROM halves
    ORDER BY min(file::UBIGINT << 32 | number) OVER (PARTITION BY key), key, side, file, number
"""
SPENT = "a line of a batch, joined with its other half"


class HalfLine(NamedTuple):
    """A request or a response of a batch, as the table `halves` has it."""

    key: str
    side: str
    file: int
    number: int
    body: str


def join_halves(
    store: Store, refuse: Callable[[HalfLine, str], None], spend: Callable[[HalfLine], None]
) -> Iterator[tuple[dict[str, Any], HalfLine]]:
    """Each request with its response, as one row, and the response's line. `refuse` gets a line without its
    other half, and all lines of a key that says two things; `spend` gets those that a row took along."""
    lines = (HalfLine(*row) for batch in store.select(_IN_ORDER) for row in batch)
    for key, group in groupby(lines, lambda line: line.key):
        found = list(group)
        bodies = {
            side: {line.body: line for line in found if line.side == side} for side in ("request", "response")
        }
        counts = [len(said) for said in bodies.values()]
        if counts == [1, 1]:
            (asked, _), (told, last) = (next(iter(said.items())) for said in bodies.values())
            for line in found:
                if line is not last:
                    spend(line)
            yield {"id": key, "request": json.loads(asked), "response": json.loads(told)}, last
            continue
        lacking = "response" if not counts[1] else "request"
        two = max(counts) > 1
        for line in found:
            refuse(
                line,
                "several lines of a batch with one key, which differ" if two else f"its {lacking} is not here",
            )
