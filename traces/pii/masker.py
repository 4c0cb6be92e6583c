"""Masking: what is found is replaced by a placeholder, the same for the same value everywhere in an import.

`[EMAIL_17]` stands for one address, however it is spelt and wherever it stands: in a message, in the
arguments of a tool's call, in its result. What is kept is a hash of its normal form, and numbers are given in
the order of appearance, so nothing of the value is in them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import regex

from vertigym.traces.config import KINDS, PiiKind
from vertigym.traces.messages import decoded
from vertigym.traces.pii.normal_text import FOUND, NormalText
from vertigym.traces.pii.numbers import (
    Span,
    cards,
    ibans,
    luhn_valid,
    metadata,
    national_numbers,
    phones,
    trunk_prefix,
)
from vertigym.traces.pii.secrets_and_addresses import addresses, emails, secrets

_WORD = re.compile(r"\w+")
_MAY = re.compile(
    r"[@\uff20]|%40|\d(?:\D{0,3}\d){6}|\d\.\d+\.\d|[0-9a-fA-F]:[0-9a-fA-F:]*:|\S{20}|[A-Z]{6}\d\d"
    r"|[A-Z]{2} ?\d\d"
    r"|(?i:passw|pwd|secret|token|api.?key|kennwort|mot de passe|contrase)"
)
MASKED = re.compile(rf"\[({'|'.join(KINDS).upper()})_\d+\]")
_NUMBERS, _OF_NUMBERS = re.compile(r"\d(?:\D{0,3}\d){5}"), {"card", "iban", "phone"}
_KIND_OF = {kind.upper(): kind for kind in KINDS}
_KEEP = frozenset({"id", "time", "model", "version", "role", "type", "tool_call_id", "finish_reason"})
_REMEMBERED = 256  # texts
_LONG_NUMBER = 10**8  # shorter ones in JSON are counts and amounts

Placeholder = tuple[
    PiiKind, int, int, str
]  # kind, digest of the value, number, the value as it was first written


class Masker:
    """Replaces personal data by placeholders; counts what it replaced. `regions` are the countries (DE, US)
    whose phone numbers are known without a country's code; `ner` finds names that are in no list (`entities`).

    Raises:
        MissingDependencyError: phonenumbers or python-stdnum is not installed.
    """

    def __init__(
        self,
        kinds: Iterable[PiiKind] = KINDS,
        names: Iterable[str] = (),
        *,
        regions: Sequence[str] = (),
        ner: Callable[[str], Iterator[Span]] | None = None,
    ) -> None:
        listed = sorted({name.strip() for name in names if name.strip()})
        metadata()
        luhn_valid("0")  # what is missing or wrong is said before anything is read
        for region in regions:
            trunk_prefix(region)
        self._ner = ner
        self._names = _name_pattern(listed) if listed else None
        self._first_words = {_WORD.findall(name.casefold())[0] for name in listed if _WORD.search(name)}
        finders: dict[PiiKind, Callable[[str], Iterator[Span]]] = {
            "secret": secrets,
            "email": emails,
            "iban": ibans,
            "card": cards,
            "national_id": national_numbers,
            "ip": addresses,
            "phone": lambda text: phones(text, regions),
            "name": self._named,
        }
        self._found = lru_cache(_REMEMBERED)(self.find)  # system messages and tools stand in call after call
        self._finders = [(kind, find) for kind, find in finders.items() if kind in set(kinds)]
        self._numbers: dict[PiiKind, dict[int, int]] = {kind: {} for kind in KINDS}
        self._fresh: list[Placeholder] = []
        self.replaced: Counter[PiiKind] = Counter()

    @property
    def values(self) -> Mapping[PiiKind, int]:
        """How many different values of each kind were met."""
        return {kind: len(numbers) for kind, numbers in self._numbers.items() if numbers}

    def fresh(self) -> list[Placeholder]:
        """The placeholders given since this was last asked."""
        given, self._fresh = self._fresh, []
        return given

    def restore(self, given: Iterable[tuple[PiiKind, int]], replaced: Mapping[PiiKind, int]) -> None:
        """Go on where another masker stopped: its placeholders (kind, digest) in order, and its counts."""
        for kind, digest in given:
            self._numbers[kind][digest] = len(self._numbers[kind]) + 1
        self.replaced.update(replaced)

    def mask(self, text: str, name: str = "") -> str:
        """The text with placeholders; `name` is what the text is called where it stands, for example its
        key."""
        if "[" in text and MASKED.search(text):  # of an earlier import: renumbered, so that none is taken twice
            text = MASKED.sub(self._renumbered, text)
        pieces, at = [], 0
        for start, end, kind, normal in self._found(text, name):
            pieces += [text[at:start], self._placeholder(kind, normal, text[start:end])]
            at = end
        return "".join([*pieces, text[at:]])

    def find(self, text: str, name: str = "") -> list[tuple[int, int, PiiKind, str]]:
        """What is personal in a text, in order: start, end, kind, and the value in its normal form."""
        if not _MAY.search(f"{name}: {text}") and not self._may_name(text) and self._ner is None:
            return []
        before = f"{name}: " if name else ""
        copy = NormalText.of(before + text)
        found: list[tuple[int, int, PiiKind, str]] = []
        numbers = _NUMBERS.search(copy.text) is not None
        for kind, find in self._finders:
            if (kind in _OF_NUMBERS and not numbers) or (kind == "email" and "@" not in copy.text):
                continue
            for start, end, normal in list(find(copy.text)):
                if start >= len(before) and FOUND not in copy.text[start:end]:
                    found.append(
                        (copy.places[start] - len(before), copy.places[end] - len(before), kind, normal)
                    )
                    copy.blank(start, end)
        return sorted(found)

    def mask_all(self, value: Any, name: str = "", *, row: bool = False) -> Any:
        """Every text inside of a JSON value masked, keys apart; of a `row` the fields that are no text of
        people stay, such as its id. Text that is JSON is masked inside, and long numbers count as text."""
        if isinstance(value, str):
            inside = decoded(value)
            try:
                masked = self.mask(value, name) if inside is value else self.mask_all(inside, name)
            except RecursionError:  # nested too deeply to be read as JSON
                inside, masked = value, self.mask(value, name)
            if inside is value:
                return masked
            return value if masked == inside else json.dumps(masked, ensure_ascii=False)
        if isinstance(value, Mapping):
            return {
                key: item
                if row and key in _KEEP
                else self.mask_all(item, "" if row else str(key), row=key == "messages")
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.mask_all(item, name, row=row) for item in value]
        if isinstance(value, int) and abs(value) >= _LONG_NUMBER:
            masked = self.mask(str(value), name)
            return value if masked == str(value) else masked
        return value

    def _named(self, text: str) -> Iterator[Span]:
        if self._names is not None and self._may_name(text):
            for match in self._names.finditer(text):
                yield match.start(), match.end(), " ".join(match[0].casefold().split())
        if self._ner is not None:
            yield from self._ner(text)

    def _may_name(self, text: str) -> bool:
        """Whether a word of the text begins a name: most have none, and the search for all names is slow."""
        return bool(self._names) and not self._first_words.isdisjoint(_WORD.findall(text.casefold()))

    def _renumbered(self, match: re.Match[str]) -> str:
        return self._placeholder(_KIND_OF[match[1]], match[0], match[0])

    def _placeholder(self, kind: PiiKind, normal: str, written: str) -> str:
        digest = int.from_bytes(blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        numbers = self._numbers[kind]
        self.replaced[kind] += 1
        if digest not in numbers:
            numbers[digest] = len(numbers) + 1
            self._fresh.append((kind, digest, numbers[digest], written))
        return f"[{kind.upper()}_{numbers[digest]}]"


def _name_pattern(names: Sequence[str]) -> "regex.Pattern[str]":
    """Full names in any case; single words only as listed or in capitals: "will" and "mark" are words, too."""
    single = [name for name in names if " " not in name]
    whole = [name for name in names if " " in name]
    parts, lists = [], {}
    if whole:
        parts.append(r"(?i:\L<whole>)")
        lists["whole"] = [re.sub(r"\s+", " ", name) for name in whole]
    if single:
        parts.append(r"\L<single>")
        lists["single"] = [*single, *(name.upper() for name in single)]
    return regex.compile(rf"\b(?:{'|'.join(parts)})\b", **lists)
