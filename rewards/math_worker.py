"""The process that compares mathematical answers (see `rewards.process_pool`): a list of rules, the engine
last.

Each rule takes the tidied reference and answer and returns whether they agree, or None: not its case.
docs/rewards.md has the rules in this order.
"""

import logging
import re
import sys
from fractions import Fraction

from sympy import Expr

from vertigym.rewards.answers import normalised
from vertigym.rewards.math_objects import (
    UnreadableError,
    is_set,
    proportional,
    read,
    real_set,
    same_object,
    same_set,
)
from vertigym.rewards.math_text import (
    chosen,
    no_answer,
    parts,
    plain,
    sentence,
    split,
    split_at,
    stated,
    stripped_lead,
    tidy,
)
from vertigym.rewards.process_pool import serve
from vertigym.rewards.quantities import Quantity, clock, exact, quantity, same_number

_TO_COMPUTE = re.compile(
    r"[\d)}\]]\s*[-+*!]"  # a sum, a product, a factorial
    r"|\d\s*(?:\\cdot|\\times)(?!\s*10\s*\^)"  # a product, but not 1.5 \times 10^3
    r"|(?<!10)(?<!10\s)\^(?!\s*\{?\s*\\circ)"  # a power, but not of ten, and not degrees
    r"|\\sqrt|\\binom"
)
_MOST_PARTS = 100


def compare(request: list[object]) -> list[str]:
    """`[reference, reply, worked out, decimal comma]` -> `[verdict, reason]`; the verdicts are those of
    `math.MathVerdict`."""
    reference, reply, worked_out, comma = str(request[0]), str(request[1]), bool(request[2]), bool(request[3])
    gold, answer = _one_counter(*(_localised(stripped_lead(tidy(one)), comma) for one in (reference, reply)))
    places = [answer]
    if sentence(answer):
        letter = chosen(answer) if _option(gold)[0] else None
        places += [letter] if letter else [_localised(one, comma) for one in stated(reply)]
    try:
        if no_answer(gold) and gold != answer:
            return ["unscored", "the reference cannot be read as mathematics"]
        return list(_judged(gold, places, worked_out))
    except (MemoryError, RecursionError) as error:
        return ["unscored", f"{type(error).__name__} in the comparison"]


def _judged(gold: str, places: list[str], worked_out: bool) -> tuple[str, str]:
    """The verdict on the first place that can be read."""
    why = no_answer(places[0]) if plain(gold) != plain(places[0]) else None
    if why:
        return "no answer", why
    if _in_words(gold):
        return _words(gold, places)
    for place in places:
        try:
            if any(_in_words(one) for one in split(place)):
                raise UnreadableError("a sentence in which nothing can be read as the answer")
            same = _same(gold, place, worked_out)
        except UnreadableError as error:
            why = why or str(error)
            continue
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # sympy refuses what it cannot compare with all kinds of exceptions
            return "wrong", f"cannot be compared: {type(error).__name__}"
        return ("right", "") if same else ("wrong", "")
    return _unread(gold, why or "nothing in it can be read")


def _in_words(text: str) -> bool:
    measured = quantity(text)
    read = measured is not None and not sentence(measured.value)
    return sentence(text) and not read and not _option(text)[0] and clock(text) is None


def _unread(gold: str, why: str) -> tuple[str, str]:
    """No answer, unless it is the reference that the engine cannot read."""
    try:
        _same(gold, "0", False)
    except UnreadableError as error:
        return "unscored", f"the reference cannot be read as mathematics: {error}"
    except Exception:  # it was read
        return "no answer", why
    return "no answer", why


def _words(gold: str, places: list[str]) -> tuple[str, str]:
    """A reference in words: the same words but for case, articles, punctuation and a plural's s."""
    same = any(_singular(gold) == _singular(place) for place in places[:2])
    return ("right", "") if same else ("wrong", "other words")


def _singular(text: str) -> list[str]:
    return [word.rstrip("s") for word in normalised(text.replace("\\", " ")).split()]


def _same(gold: str, answer: str, worked_out: bool) -> bool:
    if plain(gold) == plain(answer):
        return True
    for rule in (_choice, _clock, _number, _based, _quantity, _set, _parts, _equation):
        verdict = rule(gold, answer, worked_out)
        if verdict is not None:
            return verdict
    if worked_out and exact(gold) is not None and "\\" not in gold and _TO_COMPUTE.search(answer):
        return "." in gold and "\\sqrt" in answer and same_object(read(gold), read(answer))
    return same_object(read(gold), read(answer))


_OPTION = re.compile(r"(?:\(([A-J])\)|([A-J])(?=[).:]|\s*$|\s+(?:because|since)\b))[).:]*\s*(.*)", re.DOTALL)


def _option(text: str) -> tuple[str, str]:
    """The letter of a multiple choice and its text, or ("", "")."""
    found = _OPTION.fullmatch(text)
    return (found[1] or found[2], found[3].strip()) if found else ("", "")


def _choice(gold: str, answer: str, worked_out: bool) -> bool | None:
    (wanted, text), (named, _) = _option(gold), _option(answer)
    if not wanted or not (named or text):
        return None
    return wanted == named if named else _same(text, answer, worked_out)


def _clock(gold: str, answer: str, worked_out: bool) -> bool | None:
    wanted, found = clock(gold), clock(answer)
    if wanted is None or found is None:
        return None
    half_day = 12 * 3600
    return (wanted[0] - found[0]) % (24 * 3600 if wanted[1] and found[1] else half_day) == 0


def _number(gold: str, answer: str, worked_out: bool) -> bool | None:
    same = same_number(gold, answer)
    return same or (None if "," in gold + answer else same)  # `1,200` may be a list, too


_BASE = re.compile(r"([0-9A-Za-z]+)_\s*\{?\s*(\d+)\s*\}?")


def _based(gold: str, answer: str, worked_out: bool) -> bool | None:
    """`101_2`: the digits and, where both name it, the base."""
    wanted, found = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if wanted is None or not wanted[1][0].isdigit():
        return None
    digits, base = found.groups() if found else (answer.replace(" ", ""), wanted[2])
    return (digits.casefold(), base) == (wanted[1].casefold(), wanted[2])


def _quantity(gold: str, answer: str, worked_out: bool) -> bool | None:
    if any(is_set(one) or (len(split(one)) > 1 and quantity(one) is None) for one in (gold, answer)):
        return None
    wanted, found = quantity(_sides(gold)[-1]), quantity(_sides(answer)[-1])
    if wanted and found:
        return _both_measured(wanted, found, worked_out)
    if (wanted is None) == (found is None):
        return None
    measured, other = (wanted, answer) if wanted else (found, gold)
    if re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", _sides(other)[-1])):
        return None  # what looks like a unit may be a variable
    assert measured is not None
    values = [_scaled(measured) if not measured.dimension else measured.value]
    kinds = dict(measured.dimension)
    if "percent" in kinds:
        values.append(f"({measured.value})/100")
    if "degree" in kinds and "\\pi" in other:
        values.append(rf"({measured.value})*\pi/180")
    return any(_same(*((v, answer) if wanted else (gold, v)), worked_out) for v in values)


def _both_measured(wanted: Quantity, found: Quantity, worked_out: bool) -> bool:
    kinds = {*dict(wanted.dimension), *dict(found.dimension)}
    if kinds == {"degree", "radian"}:
        turn = [rf"({q.value})*\pi/180" if "degree" in dict(q.dimension) else q.value for q in (wanted, found)]
        return same_object(*(read(one) for one in turn))
    if wanted.dimension and found.dimension and wanted.dimension != found.dimension:
        return False
    if wanted.words and found.words and not _nested(wanted.words, found.words):
        return False
    return _same(_scaled(wanted), _scaled(found), worked_out)


def _nested(one: str, other: str) -> bool:
    """Whether the words of one are among those of the other."""
    first, second = set(_singular(one)), set(_singular(other))
    return first <= second or second <= first


def _scaled(measured: Quantity) -> str:
    if measured.factor == 1:
        return measured.value
    value = exact(measured.value)
    return (
        f"({measured.value})*({measured.factor})"
        if value is None
        else _written(value * measured.factor, measured.value)
    )


def _written(value: Fraction, source: str) -> str:
    """A product, as a decimal where one of its factors is."""
    decimal = repr(float(value))
    return decimal if "." in source and "e" not in decimal else str(value)


def _set(gold: str, answer: str, worked_out: bool) -> bool | None:
    if not (is_set(gold) or is_set(answer)):
        return None
    try:
        wanted, variable = real_set(gold)
    except UnreadableError:
        return None if is_set(gold) else not _readable(answer)
    try:
        found, other = real_set(answer)
    except UnreadableError:
        if is_set(answer):
            raise
        return not _readable(answer)
    return (not variable or not other or variable == other) and same_set(wanted, found)


def _readable(answer: str) -> bool:
    """True, where it is a set or something that the engine can read.

    Raises:
        UnreadableError: it is neither.
    """
    if not is_set(answer):
        read(answer)
    return True


def _parts(gold: str, answer: str, worked_out: bool) -> bool | None:
    wanted, found = parts(gold), parts(answer)
    if len(wanted.items) == len(found.items) == 1 and (wanted.items, found.items) == ([gold], [answer]):
        return None
    if any("\\begin" in one and parts(one).brackets != "matrix" for one in (gold, answer)):
        return None  # a sum of matrices
    if not wanted.ordered and len(set(wanted.items)) == len(wanted.items):
        found = found._replace(
            items=list({plain(one): one for one in found.items}.values())
        )  # named twice is named
    if len(wanted.items) == 1 and wanted.items != [gold] and found.brackets == "()":
        return _same(wanted.items[0], answer, worked_out)  # a set of one tuple
    if len(wanted.items) != len(found.items) or len(found.items) > _MOST_PARTS:
        for item in found.items:
            _same("0", item, False)  # raises where it cannot be read
        return False
    if wanted.ordered:
        return all(_same(a, b, worked_out) for a, b in zip(wanted.items, found.items, strict=True))
    left = list(found.items)
    for item in wanted.items:
        match = next((one for one in left if _same(item, one, worked_out)), None)
        if match is None:
            return False
        left.remove(match)
    return True


_NAME = re.compile(
    r"\\?[A-Za-z]+'*(?:_\{?[\w, ]+\}?)?(?:\s*\([^()]*\))?"  # x, x_1, f(x)
    r"|\|[A-Z]+\|"  # |AB|
    r"|(?:\\[a-z]+|[^a-z\\])*[A-Z](?:\\[a-z]+|[^a-z\\])*"  # AB/CD, S:T: names of points and figures
)


def _equation(gold: str, answer: str, worked_out: bool) -> bool | None:
    wanted, found = _sides(gold), _sides(answer)
    if len(wanted) == len(found) == 1:
        return None
    if len(wanted) > 1 and len(found) > 1:
        names = [_NAME.fullmatch(side[0]) and re.split(r"[(_]", side[0])[0].strip() for side in (wanted, found)]
        if names[0] and names[0] == names[1] and _index(wanted[0]) in (_index(found[0]), ""):
            return _same(wanted[-1], found[-1], worked_out)
        if not re.search(r"[A-Za-z]", wanted[0] + wanted[-1]):
            return _same(wanted[-1], found[-1], worked_out)
        sides = [read(side) for side in (wanted[0], wanted[-1], found[0], found[-1])]
        solved = names[0] and isinstance(sides[1], Expr) and not sides[1].free_symbols
        return not solved and proportional((sides[0], sides[1]), (sides[2], sides[3]))
    longer = wanted if len(wanted) > 1 else found
    named = _NAME.fullmatch(longer[0]) or not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", longer[0]))
    if not named or (exact(longer[0]) is not None and re.search(r"[A-Za-z]", longer[-1]) and len(longer) == 2):
        return False
    return _same(wanted[-1], found[-1], worked_out)


def _index(name: str) -> str:
    found = re.search(r"_\{?(\w+)", name)
    return found[1] if found else ""


_EQUALS = re.compile("=")


_COUNTED = re.compile(
    r"(.*?)[,;.]?\s*(?:\b(?:for|where|with)\b\s*)?(?:\b(?:all|any|some|an|integers?)\b\s*)*"
    r"\(?\s*([a-z])\s*(?:\\in\s*(?:\\mathbb\s*\{?\s*Z\s*\}?|Z)|is (?:an|any) integer)\s*\)?",
    re.DOTALL,
)


def _one_counter(gold: str, answer: str) -> tuple[str, str]:
    r"""`\pi k, k \in \mathbb{Z}` and `\pi n, n \in \mathbb{Z}` as `\pi k` twice: a counter's name is free."""
    wanted, found = _COUNTED.fullmatch(gold), _COUNTED.fullmatch(answer)
    if not (wanted and wanted[1] and found and found[1]):
        return gold, answer
    return wanted[1], re.sub(rf"(?<![A-Za-z\\]){found[2]}(?![A-Za-z])", wanted[2], found[1])


def _sides(text: str) -> list[str]:
    r"""`x = 1/3 \approx 0.3` -> x, 1/3; `3 = x` -> x, 3."""
    exactly, _, about = text.partition("\\approx")
    sides = split_at(_EQUALS, exactly if "=" in exactly or not about else f"{exactly}={about}") or [text]
    if len(sides) == 2 and exact(sides[0]) is not None and re.fullmatch(r"[A-Za-z]", sides[1]):
        sides.reverse()
    return sides


def _localised(text: str, comma: bool) -> str:
    """With a decimal point and without points between thousands, where the data write a decimal comma."""
    if not comma:
        return text
    text = re.sub(r"\d{1,3}(?:\.\d{3})+(?![\d.])", lambda found: found[0].replace(".", ""), text)
    return re.sub(r"(?<=\d),(?=\d)", ".", text)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(5000)
    serve(compare)
