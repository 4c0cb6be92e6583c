"""Words of a text as verifiers compare them: lower case, numbers in one form, sentences."""

import re

_WORDS = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_ENGLISH = {"no", "not", "never", "none", "nor", "neither", "without", "cannot"}
_OTHERS = {"nicht", "kein", "keine", "keinen", "nie", "ohne", "ne", "pas", "jamais", "sans", "nunca", "sin"}
_NEGATIONS = frozenset(_ENGLISH | _OTHERS)


def words(text: str) -> list[str]:
    """Words and numbers in order: `The fee: 1,250.0 EUR` -> the, fee, 1250, eur."""
    return [
        _number(word) if word[0].isdigit() else word.replace("\u2019", "'")
        for word in _WORDS.findall(text.casefold())
    ]


def numbers(text: str) -> list[str]:
    """The numbers of a text, sorted."""
    return sorted(word for word in words(text) if word[0].isdigit())


def sentences(text: str) -> list[str]:
    """The sentences of a text; a line's end ends one, too."""
    return [part for part in _SENTENCES.split(text) if part.strip()]


def turns_around(word: str) -> bool:
    """Whether the word is a negation (of English, and the commonest of German, French and Spanish)."""
    return word in _NEGATIONS or word.endswith("n't")


def overlap(left: list[str], right: list[str]) -> float:
    """F1 of two bags of words (Rajpurkar et al. 2016); 0 when either is empty."""
    rest = list(right)
    shared = 0
    for word in left:
        if word in rest:
            rest.remove(word)
            shared += 1
    return 2 * shared / (len(left) + len(right)) if shared else 0.0


def _number(text: str) -> str:
    """`1,250.50` -> 1250.5; `1.250,50` (the last mark is a decimal one) -> 1250.5; `3,000` -> 3000."""
    marks = [mark for mark in text if mark in ".,"]
    if not marks:
        return text
    head, last, tail = text.rpartition(marks[-1])
    if len(tail) == 3 and len(set(marks)) == 1 and (last == "," or len(marks) > 1):
        return re.sub("[.,]", "", text)
    whole, fraction = re.sub("[.,]", "", head), tail.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
