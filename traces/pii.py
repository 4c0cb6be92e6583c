"""Masking: e-mail addresses, IBANs, card and phone numbers, names from a list.

The same value gets the same placeholder everywhere in an import (`[EMAIL_17]`), however it is spelt: what is
kept is a hash of its normal form, and numbers are given in the order of appearance, so that nothing of the
value is in them. IBANs and cards must pass their checksums (ISO 7064 mod 97-10; Luhn), so that order numbers
stay. A phone number is one that says so: an international prefix, the shape of a national number, or a word
before it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Any

import regex

from vertigym.traces.config import KINDS, PiiKind

_EMAIL = re.compile(r"[\w.+%-]+@(?:[\w-]+\.)+[^\W\d_]{2,}")
_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}(?![^\W_])", re.IGNORECASE)
_BRANDS = re.compile(  # first digits and lengths that are issued
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|6\d{15,18}"
)
_CARD = re.compile(r"(?<![\d.,+-])[2-6]\d{3}(?:[ -]?\d){8,14}\d(?![\d])")
_PHONES = (
    # +49 30 901820, 0049 (0)30 901820
    re.compile(
        r"(?<![\w+])(?:\+|(?<!\d{4} )00(?=[1-9]))\d"
        r"(?:(?! 00[1-9](?:[ ().\-/]{0,2}\d){6})[ ().\-/]{0,2}\d){6,14}(?!\d)"  # up to the next one
    ),
    # (415) 555-0132, 415-555-0132
    re.compile(r"(?<![\w\-.+(])(?:\(\d{3}\) ?|\d{3}[\-. ])\d{3}[\-. ]\d{4}(?![\w\-])"),
    # 030 901820, 0171/2345678, but no date such as 05.06.2026
    re.compile(
        r"(?<![\w.,/+\-(])(?<!\d{4} )(?!\d{1,2}[./-]\d{1,2}[./-]\d{2,4})"
        r"\(?0[1-9]\d{0,4}\)?(?:[ \-/]?\d){6,9}(?!\w|[.,]\d)"
    ),
    # phone 4471829
    regex.compile(
        r"\b(?:phone|telephone|tel|mobile|cell|cellphone|call|text|ring|fax|whatsapp)\b[^\d\n+\[]{0,15}\K"
        r"\d(?:[ .\-]?\d){6,14}(?!\d)",
        regex.IGNORECASE,
    ),
)
_WORD = re.compile(r"\w+")
_SEVEN_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")
_MASKED = re.compile(r"\[(EMAIL|IBAN|CARD|PHONE|NAME)_\d+\]")
_KEEP = frozenset({"id", "time", "model", "version", "role", "type", "tool_call_id", "finish_reason"})

# ISO 13616: how long a country's IBAN is.
_LENGTHS = {
    code: int(length)
    for length, codes in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL OM SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG DZ", 25: "LY PT ST", 26: "IS TR", 27: "FR GR IT MC MR SM BI DJ",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip


class Masker:
    """Replaces personal data by placeholders; counts what it replaced."""

    def __init__(self, kinds: Iterable[PiiKind] = KINDS, names: Iterable[str] = ()) -> None:
        listed = sorted({name.strip() for name in names if name.strip()})
        self._kinds = [kind for kind in KINDS if kind in set(kinds) and (kind != "name" or listed)]
        self._names = _name_pattern(listed) if listed else None
        self._first_words = {_WORD.findall(name.casefold())[0] for name in listed if _WORD.search(name)}
        self._numbers: dict[PiiKind, dict[int, int]] = {kind: {} for kind in KINDS}
        self.replaced: Counter[PiiKind] = Counter()

    @property
    def values(self) -> Mapping[PiiKind, int]:
        """How many different values of each kind were met."""
        return {kind: len(numbers) for kind, numbers in self._numbers.items() if numbers}

    def mask(self, text: str) -> str:
        """The text with placeholders."""
        if "[" in text and _MASKED.search(
            text
        ):  # of an earlier import: renumbered, so that none is taken twice
            text = _MASKED.sub(lambda m: self._placeholder(m[1].lower(), m[0]), text)  # type: ignore[arg-type]
        numbers = _SEVEN_DIGITS.search(text) is not None
        for kind in self._kinds:
            if kind == "email" and "@" in text:
                text = _EMAIL.sub(lambda m: self._placeholder("email", m[0].casefold()), text)
            elif kind == "iban" and numbers:
                text = _IBAN.sub(self._iban, text)
            elif kind == "card" and numbers:
                text = _CARD.sub(self._card, text)
            elif kind == "phone" and numbers:
                for pattern in _PHONES:
                    text = pattern.sub(self._phone, text)
            elif kind == "name" and self._names and self._may_name(text):
                text = self._names.sub(lambda m: self._placeholder("name", m[0].casefold()), text)
        return text

    def _may_name(self, text: str) -> bool:
        """Whether a word of the text begins a name: most have none, and the search for all names is slow."""
        return not self._first_words.isdisjoint(_WORD.findall(text.casefold()))

    def mask_all(self, value: Any) -> Any:
        """Every text inside of a JSON value masked, but for ids, roles and the like."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, Mapping):
            return {key: item if key in _KEEP else self.mask_all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mask_all(item) for item in value]
        return value

    def _placeholder(self, kind: PiiKind, normal: str) -> str:
        digest = int.from_bytes(blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        numbers = self._numbers[kind]
        self.replaced[kind] += 1
        return f"[{kind.upper()}_{numbers.setdefault(digest, len(numbers) + 1)}]"

    def _iban(self, match: re.Match[str]) -> str:
        """The IBAN at the start of what looks like one; words behind it stay."""
        found, length = match[0], _LENGTHS.get(match[0][:2].upper(), 0)
        ends = list(accumulate(int(character.isalnum()) for character in found))
        if length == 0 or ends[-1] < length:
            return found
        end = ends.index(length) + 1
        normal = "".join(filter(str.isalnum, found[:end])).upper()
        if found[end : end + 1].isalnum() or not iban_valid(normal):
            return found
        return self._placeholder("iban", normal) + self.mask(found[end:])

    def _card(self, match: re.Match[str]) -> str:
        normal = "".join(filter(str.isdigit, match[0]))
        return (
            self._placeholder("card", normal) if _BRANDS.fullmatch(normal) and luhn_valid(normal) else match[0]
        )

    def _phone(self, match: "re.Match[str] | regex.Match[str]") -> str:
        written = match[0]
        international = written.startswith(("+", "00"))
        normal = "".join(filter(str.isdigit, written.replace("(0)", "") if international else written))
        if written.startswith("00"):
            normal = normal[2:]
        return self._placeholder("phone", f"+{normal}" if international else normal)


def iban_valid(iban: str) -> bool:
    """ISO 7064 mod 97-10 over an IBAN in capitals without spaces; its check digits are 02 to 98."""
    if not "02" <= iban[2:4] <= "98":
        return False
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def luhn_valid(digits: str) -> bool:
    """Luhn's checksum: from the right, every second digit counts double, its digits added up."""
    doubled = (2 * int(d) if i % 2 else int(d) for i, d in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


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
