"""The words of header rows: marks, groups, notes, rules' numbers, hit policies; what can be a header at all."""

import re
from collections.abc import Mapping, Sequence

from vertigym.decisions.spreadsheets.declared import Role
from vertigym.decisions.spreadsheets.sheet_pages import Cell

POLICIES = {
    "U": ("UNIQUE", ""), "A": ("ANY", ""), "P": ("PRIORITY", ""), "F": ("FIRST", ""), "R": ("RULE ORDER", ""),
    "O": ("OUTPUT ORDER", ""), "C": ("COLLECT", ""), "C+": ("COLLECT", "SUM"), "C<": ("COLLECT", "MIN"),
    "C>": ("COLLECT", "MAX"), "C#": ("COLLECT", "COUNT"),
}  # fmt: skip
_GROUP_WORDS: Mapping[Role, str] = {
    "condition": "if when condition conditions input inputs wenn bedingung bedingungen eingabe eingaben si "
    "entrées",
    "outcome": "then action actions outcome outcomes output outputs result results dann aktion aktionen "
    "ausgabe ausgaben ergebnis ergebnisse alors résultat résultats sorties",
    "annotation": "annotation annotations remarks notes comments bemerkungen remarques",
}
GROUPS = {word: role for role, words in _GROUP_WORDS.items() for word in words.split()}
REMARKS = {
    "remark", "remarks", "note", "notes", "comment", "comments", "annotation", "annotations", "bemerkung",
    "bemerkungen", "anmerkung", "anmerkungen", "hinweis", "hinweise", "kommentar", "kommentare", "remarque",
    "remarques", "commentaire", "commentaires",
}  # fmt: skip
RULE_NUMBERS = {
    "", "#", "no", "no.", "nr", "nr.", "n°", "№", "rule", "rules", "rule #", "rule no", "rule no.", "rule id",
    "rule number", "id", "s.no", "s.no.", "s. no.", "sr. no.", "sl. no.", "row", "regel", "regelnr.",
    "regel-nr.", "lfd. nr.", "règle",
}  # fmt: skip
MAYBE_NOTES = {
    "description", "descriptions", "beschreibung", "source", "quelle", "reference", "ref", "author", "name",
    "title",
}  # fmt: skip

_ENDS = dict.fromkeys(
    ("from", "min", "minimum", "lower", "start", "von", "ab", ">", ">=", "de", "low"), "low"
) | (dict.fromkeys(("to", "max", "maximum", "upper", "end", "bis", "<", "<=", "à", "high", "until"), "high"))
_MARK = re.compile(r"^(?:(?:->|→|⇒|then\b)\s*(?=\S)|=>\s*(?=[^\W\d_]))", re.IGNORECASE)
_LABEL = re.compile(r"(?:[^\W\d_]+[ .#_-]*)?(\d{1,9})[.)]?")
_TEST = re.compile(r"\s*(?:[<>≤≥≠=\[]|not\s*\(|[-+]?\d[\d.,]*\s*(?:%|$|\.\.))")


def is_marked(cell: Cell) -> bool:
    """Whether a header is marked as an outcome."""
    return isinstance(cell.value, str) and _MARK.match(cell.value) is not None


def unmarked(cell: Cell) -> str:
    """A header without its mark."""
    return _MARK.sub("", cell.text)


def is_test(cell: Cell) -> bool:
    """Whether a cell reads like a test or a number."""
    return _TEST.match(cell.text) is not None


def is_name(cell: Cell) -> bool:
    """Whether a cell could be a header: a text that is no test, number, wildcard or truth value."""
    return (
        isinstance(cell.value, str)
        and not is_test(cell)
        and re.search(r"[^\W\d_]", cell.value) is not None
        and cell.value.lower() not in ("true", "false", "any", "null")
    )


def range_end(header: str) -> tuple[str, str]:
    """`Age from` is the low end of `age`, `max. Age` its high end; ("", "") for other headers."""
    words = re.findall(r"[^\W_]+|[<>]=?", re.sub(r"([a-z])([A-Z])", r"\1 \2", header).lower())
    ends = {_ENDS[word] for word in words if word in _ENDS}
    subject = " ".join(word for word in words if word not in _ENDS)
    return (subject, ends.pop()) if len(ends) == 1 else ("", "")


def is_wrong_policy(text: str) -> bool:
    """Whether a header may be meant as a hit policy and is none: another letter, or the name of one."""
    names = {name for name, _ in POLICIES.values()}
    return text not in POLICIES and ((len(text) == 1 and text.isalpha()) or text.upper() in names)


def is_numbering(cells: Sequence[Cell]) -> bool:
    """Whether cells number the rules: `1 2 3`, `R10 R20`, `Rule 1`: one prefix, rising numbers."""
    found = [match for cell in cells if (match := _LABEL.fullmatch(cell.text))]
    if not found or len(found) < len(cells):
        return False
    prefixes = {match.group()[: match.start(1)].strip() for match in found}
    numbers = [int(match[1]) for match in found]
    return len(prefixes) == 1 and numbers == sorted(set(numbers))
