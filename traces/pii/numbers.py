"""Cards, IBANs, national numbers and phone numbers: every sub-run of groups of digits is tried.

A regular expression that takes the longest run hides a number beside another one (`4111 1111 1111 1111
12/27`). Here a run is cut into its groups, and every window of groups is checked: cards by Luhn and issued
lengths, IBANs and national numbers by `stdnum`, phone numbers by `phonenumbers` (Google's metadata). Numbers
that say they are something else (an order, an ISBN, a time) stay.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.traces.pii.number_labels import label_before

Span = tuple[int, int, str]  # start, end, and the value in its normal form

_GROUPS = re.compile(r"\d+")
_GROUPED = re.compile(r"\d+(?:[ \-+]{1,2}\d+)*")
_EXTENSION = re.compile(r"-\d{1,4}")
_AGAIN = re.compile(r"00[1-9]\d")  # another number begins
_OPENS = re.compile(r"(?:\(?\+ ?|\()?$")
_BRANDS = re.compile(  # first digits and lengths that are issued
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|6\d{15,18}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|(?:2131|1800)\d{11}"
)
_LABELLED = re.compile(r"\d{12,19}")  # Maestro, and whatever else a word calls a card
_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?=[ -]?[A-Z0-9])", re.IGNORECASE)
_STRONG = {  # national numbers that show by their shape and their checksum; the others need a label
    "es.dni": r"\d{8}-?[A-Z]",
    "es.nie": r"[XYZ]-?\d{7}-?[A-Z]",
    "it.codicefiscale": r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]",
    "fr.nir": r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}",
    "us.ssn": r"\d{3}-\d{2}-\d{4}",
    "br.cpf": r"\d{3}\.\d{3}\.\d{3}-\d{2}",
    "gb.nino": r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
}
_NATIONAL = re.compile(
    r"(?<![\w.])(?=\d|[A-Z]{2} ?\d|[A-Z]{6}\d|[XYZ]-?\d)(?:"  # most words end here, and quickly
    + "|".join(f"(?P<{name.replace('.', '_')}>{shape})" for name, shape in _STRONG.items())
    + r")(?!\w)",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d+(?:[ .\-/]\d+)*")
_NEUTRAL = re.compile(  # ids, accounts, dates, times, decimals, ISBNs, addresses: never part of a phone number
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\b[A-Z]{2}\d{2}(?:[ -][A-Z0-9]{4}){2,7}(?:[ -][A-Z0-9]{1,3})?\b"
    r"|(?<![\d+])(?!00)\d{4}(?:[ -]\d{4}){3}\b|(?<![\d.+])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]\d|\d)|"
    r"(?<![\d.])(?:\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?|\d{1,2}[./-]\d{1,2}[./-](?:19"
    r"|20)\d{2}"
    r"|\d{1,2}[./]\d{1,2}[./]\d{2}|\d{1,2}:\d{2}(?::\d{2})?|\d{1,2}/\d{2}|97[89](?:-\d+){3}-\d"
    r"|97[89](?: \d+){3} \d|97[89]\d{10}"
    r"|\d{1,3}(?:[.,]\d{3})*[.,]\d{1,2}|\d+,\d+|(?P<decimal>(?!0\d)\d+\.\d+))(?![\d.]\d|\d)"
)
_RUN = re.compile(r"(?:\(?\+ ?|\()?\d(?:(?:[ .\-/]|\) ?|\)[\-/]| ?\(| - )?\d){5,40}")
_NATIONAL_SHAPES = re.compile(  # of North America; of lands with a leading 0, with a break; of France
    r"(?:1[ .\-])?(?:\(\d{3}\) ?|\d{3}[ .\-])\d{3}[ .\-]\d{4}"
    r"|\(?0[1-9]\d{0,4}\)?[ \-/](?:[ \-/]?\d){5,9}"
    r"|0[1-9](?:[ .\-]\d{2}){4}"
)


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards: an unbroken run of digits, or groups of two to seven with one kind of
    separator."""
    for run in _GROUPED.finditer(text):
        groups, first = list(_GROUPS.finditer(text, run.start(), run.end())), 0
        while first < len(groups):
            last = next((n for n in _lasts(groups, first) if _is_card(text, groups[first : n + 1])), None)
            if last is not None:
                start, end = groups[first].start(), groups[last].end()
                yield start, end, _joined(groups[first : last + 1])
            first = (first if last is None else last) + 1


def _is_card(text: str, groups: Sequence[re.Match[str]]) -> bool:
    grouped = len(groups) > 1
    if grouped and not all(2 <= len(group[0]) <= 7 for group in groups):
        return False
    if grouped and len({text[a.end() : b.start()] for a, b in pairwise(groups)}) > 1:
        return False
    digits = _joined(groups)
    issued = _BRANDS.fullmatch(digits) is not None
    if not (issued or _LABELLED.fullmatch(digits)) or not luhn_valid(digits):
        return False
    start = groups[0].start()
    label = label_before(text, start)
    return _alone(text, start, groups[-1].end()) and (
        label == "card" or (issued and (grouped or label != "other"))
    )


def ibans(text: str) -> Iterator[Span]:
    """IBANs, from every place where one may begin."""
    for match in _IBAN.finditer(text):
        at, normal = match.start(), ""
        while at < len(text) and len(normal) < 34 and (text[at].isalnum() or text[at] in " -+"):
            normal += text[at].upper() if text[at].isalnum() else ""
            at += 1
            whole = at == len(text) or not text[at].isalnum()
            if (
                len(normal) >= 15
                and text[at - 1].isalnum()
                and whole
                and normal.isascii()
                and iban_valid(normal)
            ):
                yield match.start(), at, normal
                break


def national_numbers(text: str) -> Iterator[Span]:
    """National numbers of persons, by their shape and checksum, or by the word before them and checksum."""
    for match in _NATIONAL.finditer(text):
        name = str(match.lastgroup).replace("_", ".", 1)
        label = label_before(text, match.start())
        normal = re.sub(r"[ .\-]", "", match[0]).upper()
        if label != "other" and (name == "gb.nino" or _checked(name, normal)):
            yield match.start(), match.end(), normal
    for run in _DIGITS.finditer(text):
        groups = list(_GROUPS.finditer(text, run.start(), run.end()))
        label = label_before(text, run.start())
        for last in _lasts(groups, 0) if "." in label else ():
            start, end, normal = run.start(), groups[last].end(), _joined(groups[: last + 1])
            if _alone(text, start, end) and _checked(label, normal):
                yield start, end, normal
                break


def phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Phone numbers: with a country's code, after a word such as *phone*, in a national shape, or valid in
    one of the regions."""
    text = _NEUTRAL.sub(
        lambda m: m[0] if m["decimal"] and label_before(text, m.start()) == "phone" else "\0" * len(m[0]), text
    )
    for run in _RUN.finditer(text):
        groups, first = list(_GROUPS.finditer(text, run.start(), run.end())), 0
        while first < len(groups):
            found = _phone_at(text, groups, first, regions)
            if found is not None:
                yield found[1]
            first = (first if found is None else found[0]) + 1


def _phone_at(
    text: str, groups: Sequence[re.Match[str]], first: int, regions: Sequence[str]
) -> tuple[int, Span] | None:
    """The longest phone number whose first group of digits is this one, and which group is its last."""
    at = groups[first].start()
    start = at - len(_OPENS.search(text, max(0, at - 3), at)[0])  # type: ignore[index]
    plus, label = "+" in text[start:at] or groups[first][0].startswith("00"), label_before(text, start)
    if label == "other" and not plus:
        return None
    if text[start - 1 : start] in ("-", "_") and text[start - 2 : start - 1].isalpha():
        return None  # of an id: INV-07982108
    digits_of = {last: _joined(groups[first : last + 1]) for last in _lasts(groups, first)}
    windows = [
        last
        for last, digits in digits_of.items()
        if 6 <= len(digits) <= 17 and _alone(text, start, groups[last].end())
    ]
    windows.sort(
        key=lambda last: not _even(text, groups[first : last + 1])
    )  # one kind of separator comes first
    later = reversed(_lasts(groups, first)[:-1])
    if again := next((n for n in later if _AGAIN.match(groups[n][0])), None):
        windows.sort(key=lambda last: last >= again)  # 00 opens a number, or is inside of one: +33 96 406 0056
    sure = "+" in text[start:at] or not text[:start].rstrip()[-1:].isdecimal()
    for check in (parsed, *((_possible, _dialled) if sure else ())) if plus else (None,):
        for last in windows:
            end, digits = groups[last].end(), digits_of[last]
            if check is not None:
                number = check(re.sub(r"^00", "+", text[start:end].lstrip("( ").replace("(0)", "")))
            else:
                number = _national(
                    text[start:end], digits, label, regions, broken=last > first, first=first == 0
                )
            if number is not None:
                if plus and (more := _EXTENSION.match(text, end)) and _alone(text, start, more.end()):
                    end, last, number = more.end(), last + 1, f"{number}{more[0][1:]}"
                opens = text.count("(", start, end) > text.count(")", start, end)
                return last, (start + opens, end, number)
    return None


def _national(
    written: str, digits: str, label: str, regions: Sequence[str], *, broken: bool, first: bool
) -> str | None:
    if broken and max(map(len, _GROUPS.findall(written))) > 8:
        return None
    shown = broken or digits.startswith("0") or label == "phone"
    known = [region for region in regions if digits.startswith("0") or trunk_prefix(region) != "0"]
    valid = (parsed(written, region) for region in known) if shown else ()
    if number := next(filter(None, valid), None):
        return number
    if label == "phone" and 7 <= len(digits) <= 15:
        return digits
    return digits if not regions and first and _NATIONAL_SHAPES.fullmatch(written) else None


def parsed(written: str, region: str | None = None) -> str | None:
    """A phone number in the form of E.164, or None where it is not valid in its country."""
    return _phone(written, region, "is_valid_number")


def trunk_prefix(region: str) -> str | None:
    """What a country's numbers begin with when they are written without its code.

    Raises:
        ConfigError: no country has this name.
    """
    known = metadata().PhoneMetadata.metadata_for_region(region)
    if known is None:
        raise ConfigError(f"pii.regions: {region!r} is no country; two letters are needed, as in US or DE")
    return None if known.national_prefix is None else str(known.national_prefix)


def _possible(written: str) -> str | None:
    """The same of a number whose length alone is right: no plan of numbers is complete."""
    return _phone(written, None, "is_possible_number")


def _dialled(written: str) -> str | None:
    """The same of any number with a country's code: one digit too many is a slip of somebody's finger."""
    digits = "".join(_GROUPS.findall(written))
    return f"+{digits}" if 8 <= len(digits) <= 15 else None


def _phone(written: str, region: str | None, check: str) -> str | None:
    phonenumbers = metadata()
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None
    right = getattr(phonenumbers, check)(number)
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)) if right else None


def _even(text: str, groups: Sequence[re.Match[str]]) -> bool:
    """Whether nine digits and more are written with one kind of separator."""
    between = {text[a.end() : b.start()] for a, b in pairwise(groups)}
    return len(between) <= 1 and len(_joined(groups)) >= 9


def _lasts(groups: Sequence[re.Match[str]], first: int) -> range:
    """The last groups of the windows that begin at one, the longest window first: a card or a phone number has
    at most nine groups."""
    return range(min(len(groups), first + 9) - 1, first - 1, -1)


def _joined(groups: Sequence[re.Match[str]]) -> str:
    return "".join(group[0] for group in groups)


def _alone(text: str, start: int, end: int) -> bool:
    """Whether what stands there is no part of a word, of a decimal or of an amount."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    inside = before[-1:].isalnum() or before[-1:] == "_" or after[:1].isalnum() or after[:1] == "_"
    decimal = (before[-1:] in (".", ",") and before[:1].isdecimal()) or (
        after[:1] in (".", ",") and after[1:].isdecimal()
    )
    return not inside and not decimal


def luhn_valid(digits: str) -> bool:
    """Luhn's checksum."""
    return bool(_standard("luhn").is_valid(digits))


def iban_valid(iban: str) -> bool:
    """An IBAN in capitals without spaces: its country's length and form, and check digits from 02 to 98."""
    return "02" <= iban[2:4] <= "98" and bool(_standard("iban").is_valid(iban))


def _checked(name: str, number: str) -> bool:
    return bool(_standard(name).is_valid(number))


@cache
def _standard(name: str) -> Any:
    """A module of stdnum.

    Raises:
        MissingDependencyError: python-stdnum is not installed.
    """
    try:
        return import_module(f"stdnum.{name}")
    except ImportError:
        raise MissingDependencyError("stdnum", "traces", "checking cards, IBANs and national numbers") from None


@cache
def metadata() -> Any:
    """phonenumbers.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import phonenumbers
    except ImportError:
        raise MissingDependencyError("phonenumbers", "traces", "finding phone numbers") from None
    return phonenumbers
