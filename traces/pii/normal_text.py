"""A text as it is searched: full-width letters and digits narrow; spaces, dashes and digits of all scripts
plain; what URLs and JSON escape (`%40`, `\\n`) as what it stands for; and what has no width gone. Each
character knows where it stood, so that what is found there is replaced here.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

_QUOTES = {"\u2019": "'", "\u2018": "'", "\u02bc": "'"}
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+|\\+u[0-9A-Fa-f]{4}|\\+[nrt\"/]|.", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\n", "t": " ", '"': '"', "/": "/"}
_QUERY = re.compile(r"(?<=[?&])[\w.~%-]+=[^&\s\"'<>]*")
FOUND = "\0"


@dataclass(slots=True)
class NormalText:
    """`text` is searched; its character i stood at `places[i]`, and the last place is the end."""

    text: str
    places: Sequence[int]

    @classmethod
    def of(cls, text: str) -> "NormalText":
        """The copy of a text; a plain one is its own."""
        if "=" in text:  # a URL's query has + for spaces
            text = _QUERY.sub(lambda match: match[0].replace("+", " "), text)
        if text.isascii() and "%" not in text and "\\" not in text:
            return cls(text, range(len(text) + 1))
        pieces, places = [], []
        for match in _ESCAPED.finditer(text):
            for offset, plain in _characters(match[0]):
                pieces.append(plain)
                places += [match.start() + offset] * len(plain)
        return cls("".join(pieces), [*places, len(text)])

    def blank(self, start: int, end: int) -> None:
        """What was found is not found again, and nothing runs over it."""
        self.text = f"{self.text[:start]}{FOUND * (end - start)}{self.text[end:]}"


@cache
def _characters(written: str) -> tuple[tuple[int, str], ...]:
    """What a character or an escape stands for, each with where it begins there."""
    if len(written) == 1:
        return ((0, _plain(written)),)
    if written[0] == "\\":
        bare = written.lstrip("\\")
        return ((0, _plain(chr(int(bare[1:], 16))) if bare[0] == "u" else _ESCAPES[bare]),)
    try:
        text = bytes.fromhex(written.replace("%", "")).decode()
    except UnicodeDecodeError:
        return tuple(enumerate(written))
    places, at = [], 0
    for character in text:
        places.append((at, _plain(character)))
        at += 3 * len(character.encode())
    return tuple(places)


@cache
def _plain(written: str) -> str:
    kind = unicodedata.category(written)
    if kind == "Cf":
        return ""  # joiners, marks of direction, soft hyphens
    if kind == "Zs":
        return " "
    if kind == "Pd" or written == "\u2212":
        return "-"
    if kind == "Nd":
        return str(unicodedata.digit(written))
    wide = unicodedata.normalize("NFKC", written)
    return _QUOTES.get(written, wide if len(wide) == 1 else written)
