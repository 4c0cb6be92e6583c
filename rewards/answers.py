r"""Where the final answer stands in a reply: in `\boxed{}`, after `####`, on the last line, in a tag, or all.

An extractor takes the reply and returns the answer's text, or None when it is not there. Each returns the
*last* place only: naming several answers names one.
"""

import re
from collections.abc import Callable

from vertigym.core.errors import UnknownNameError

Extractor = Callable[[str], str | None]


def whole(reply: str) -> str | None:
    """All of the reply, stripped; None when that is empty."""
    return reply.strip() or None


def last_line(reply: str) -> str | None:
    r"""The last line that is not blank; of a formula displayed over several lines (`\[ … \]`, `$$ … $$`) all of
    it."""
    line = next((line.strip() for line in reversed(reply.splitlines()) if line.strip()), None)
    if line is not None and line.rstrip(".").strip() in ("\\]", "$$"):
        opening = "\\[" if line.startswith("\\]") else "$$"
        inside = reply[: reply.rindex(line)].rpartition(opening)
        return (inside[2].strip() or None) if inside[1] else None
    return line


def hashes(reply: str) -> str | None:
    """GSM8K's form: the rest of the line after the last `####`."""
    _, mark, rest = reply.rpartition("####")
    return (rest.split("\n", 1)[0].strip() or None) if mark else None


_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_BETWEEN = re.compile(
    r"(?:[\s$,;.:()\[\]\\*]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\band\b|\bor\b|\w{1,3}\s*=)*"
)
_MOST_BOXES = 20
_NO_LINE = re.compile(r"\n\s*\n")


def boxed(reply: str) -> str | None:
    r"""The contents of the last `\boxed{…}` (or `\fbox{…}`) with its braces balanced; of several in one line
    with nothing but commas, `and` or `or` between them all, with commas."""
    found, end = list[str](), -1
    for box in list(_BOX.finditer(reply))[-_MOST_BOXES:]:
        if box.start() < end:
            continue
        closed = _closing(reply, box.end())
        between = reply[end : box.start()] if found and closed is not None else "x" * 99
        joins = len(between) < 60 and _BETWEEN.fullmatch(between) and not _NO_LINE.search(between)
        inside = reply[box.end() : closed].strip() if closed is not None else ""
        found, end = [*(found if joins else ()), inside], (closed if closed is not None else box.end()) + 1
    return ", ".join(one for one in found if one) or None


def _closing(text: str, first: int) -> int | None:
    """Where the brace that opened before `first` is closed."""
    depth, escaped = 1, False
    for at in range(first, len(text)):
        char = text[at]
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return at
    return None


def tagged(name: str) -> Extractor:
    """The contents of the last `<name>…</name>`."""
    opening, closing = f"<{name}>", f"</{name}>"

    def extract(reply: str) -> str | None:
        head, mark, _ = reply.rpartition(closing)
        _, opened, inside = head.rpartition(opening)
        return (inside.strip() or None) if mark and opened else None

    return extract


def first_of(*extractors: Extractor) -> Extractor:
    """What the first extractor that finds anything finds."""
    return lambda reply: next((found for e in extractors if (found := e(reply)) is not None), None)


EXTRACTORS: dict[str, Extractor] = {
    "whole": whole,
    "last line": last_line,
    "####": hashes,
    "boxed": boxed,
    "tag": tagged("answer"),
    "boxed or last line": first_of(boxed, last_line),
    "#### or last line": first_of(hashes, last_line),
}


_FORMS = {"####": "#### {}", "boxed": "\\boxed{{}}", "tag": "<answer>{}</answer>"}


def form(where: str) -> str:
    """How an answer is written so that the extractor called `where` finds it; `{}` stands for the answer."""
    return _FORMS.get(where, "{}")


def extractor(where: str | Extractor) -> Extractor:
    """The extractor called `where`; a function is returned as it is.

    Raises:
        UnknownNameError: no such extractor.
    """
    if callable(where):
        return where
    try:
        return EXTRACTORS[where]
    except KeyError:
        raise UnknownNameError("place of the answer", where, EXTRACTORS) from None


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NOT_WORDS = re.compile(r"[^\w\s]")


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces: SQuAD's rule (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", _NOT_WORDS.sub(" ", text.casefold())).split())
