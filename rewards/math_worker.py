"""The process that compares mathematical expressions with `math-verify` (see `rewards.process_pool`)."""

import logging
import re
import sys

from math_verify import parse, verify

from vertigym.rewards.process_pool import serve

_LONGEST_SENTENCE = 12  # words; in a long one there is always some number, so repeating a question would pay
_WORD = re.compile(r"(?<![\\A-Za-z{])(?!(?:sqrt|frac|sin|cos|tan|log|exp|inf)\b)[A-Za-z]{3,}")


def compare(request: list[str]) -> list[object]:
    """`[reference, reply]` in LaTeX or plain text -> `[verdict, reason]`; the verdict is None when the
    reference itself cannot be read, or when the comparison ran out of memory or stack."""
    reference, reply = request
    try:
        wanted = _read(reference)
        if not wanted:
            return [None, "the reference cannot be read as mathematics"]
        if _WORD.search(reply) and len(reply.split()) > _LONGEST_SENTENCE:
            return [False, f"a sentence of more than {_LONGEST_SENTENCE} words"]
        found = _read(reply)
        # The reference comes first: the comparison is not symmetric.
        verdict = verify(wanted, found, timeout_seconds=None, raise_on_error=True)
        return [bool(verdict), ""]
    except (MemoryError, RecursionError) as error:
        return [None, f"{type(error).__name__} in the comparison"]
    except Exception as error:  # sympy refuses what it cannot compare with all kinds of exceptions
        return [False, f"cannot be compared: {type(error).__name__}"]


def _read(text: str) -> list[object]:
    """A sentence ("18 dollars") is searched for an expression; anything else is one as a whole."""
    found: list[object] = parse(text, parsing_timeout=None) if _WORD.search(text) else []
    return found or parse(f"\\boxed{{{text}}}", parsing_timeout=None)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(5000)
    serve(compare)
