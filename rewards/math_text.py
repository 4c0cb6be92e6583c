# ruff: noqa: RUF001 (signs that people write)
r"""What a mathematical answer is once its presentation is off: Markdown, lead words, delimiters, a sentence
around it.

Text in, text out; nothing here computes. `tidy` and `stated` say what is compared, `parts` are the answers that
it holds, `plain` is what makes two texts the same. The rules are numbered in docs/rewards.md.
"""

import re
from typing import NamedTuple

_THIN = re.compile(r"(?<=\d)\\!\s*|(?<=,)\s*\\!\s*|(?<=\d)(?:\\,|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_SPACES = re.compile(r"(?<!\\)\\[,;:! ]|~|\\q?quad|[\s\u00a0\u2009\u202f]+")
_MARKDOWN = re.compile(
    r"(?<![\w)\]}])\*\*|\*\*(?![\w(\[{\\-])|(?<!\w)__|__(?!\w)|`+|</?(?:b|i|em|strong|u|code|p)>|^\s*(?:#{1,6}|>)\s+"
)
_MARKS = re.compile(r"^[\s✓✔✅☑✗→⇒∴—–•:,;\u20e3\ufe0f]+|[\s✓✔✅☑□∎■,;:\ufe0f]+$")
_STYLES = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|normal)?|math(?:bf|rm|it|sf|tt)|mbox|operatorname|bm|boldsymbol|boxed|fbox)\s*\{([^{}]*)\}"
)
_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}", "°": r"^\circ ", "²": "^2", "³": "^3", "‘": "'",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "’": "'", "“": '"', "”": '"',
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\varnothing": r"\emptyset",
    r"\geqslant": r"\ge ", r"\leqslant": r"\le ", r"\geq": r"\ge ", r"\leq": r"\le ", r"\neq": r"\ne ",
    r"\lt": "<", r"\gt": ">", "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", r"\therefore": " ", r"{,}": ",",
    r"\thinspace": " ", r"\langle": "(", r"\rangle": ")", r"\%": "%", r"\$": "$", r"\degree": r"^\circ ",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]",
}  # fmt: skip
_SYMBOL = re.compile(
    "|".join(
        re.escape(s) + ("(?![A-Za-z])" if s[-1].isalpha() and s[0] == "\\" else "")
        for s in sorted(_SYMBOLS, key=len, reverse=True)
    )
)
_LEAD = re.compile(
    r"^(?:so|thus|hence|therefore|and|then|finally|in total|at)\b[,:]?\s*"
    r"|^(?:(?:the|our|my|its|final|correct|right|best|full|required|desired|possible|only)\s+)*"
    r"(?:answers?|solutions?|results?|values?|options?|choices?|roots?|probability)\s*"
    r"(?:\b(?:is|are|to be)\b\s*[:=]?|[:=-]|(?=[\d(\\]))\s*"
    r"|^=\s*",
    re.IGNORECASE,
)
_LATEX_WORD = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\}|\\[A-Za-z]+")
_SUBSCRIPT = re.compile(r"_\s*\{[^{}]*\}")
_FUNCTIONS = frozenset(
    ["sqrt", "frac", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "inf", "infty", "arcsin", "arccos",
     "arctan", "sinh", "cosh", "tanh", "gcd", "lcm", "min", "max", "mod", "det", "dim", "lim", "and"]
)  # fmt: skip

_WORD = re.compile(r"[A-Za-z]{3,}")
_SEGMENT = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$(?!\s?\d[\d,.]*\s[A-Za-z]{2})([^$]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]",
    re.DOTALL,
)
_ANSWER_IS = re.compile(
    r".*\b(?:answers?|solutions?|results?)\b[^.]*?(?:\b(?:is|are)\b|:)", re.IGNORECASE | re.DOTALL
)
_IS = re.compile(
    r".*(?:\b(?:is|are|equals|of|be|by|has|have|costs?|takes?|makes?|gives?|gets?|pays?|earns?|totals?|weighs?)\b|:\s)",
    re.IGNORECASE | re.DOTALL,
)
_ENDS_WITH = re.compile(r"\b(?:is|are|equals)(?:\s+\S+){1,4}\s*$")
_SENTENCES = re.compile(r"(?<=[.!?])\$*\s+(?=[A-Z<])")
_BOUND = re.compile(
    r"(?:\bnot|\bat (?:least|most)|\b(?:more|less|fewer|greater) than|\bup to|\bover|\bunder)"
    r"\s+[$€£]?[-+]?\d[\d,.]*\d?",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"<\|\w+\|>.*", re.DOTALL)
_NOT = re.compile(r",\s*(?:and\s+)?not\s.*", re.DOTALL)
_FILLER = re.compile(r"\s*(?:i hope|i checked|let me know|this is correct|q\.?e\.?d)", re.IGNORECASE)
_ASKS = re.compile(
    r"\s*(?:how|what|which|who|find|calculate|compute|determine|if|suppose|let)\b", re.IGNORECASE
)
LONGEST_SENTENCE, LONGEST_CLAIM = 30, 15  # words
_CANDIDATE = re.compile(
    r"[$€£]?\s?[-+]?(?<![\w.])(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?[/:]\s?\d+)?"
    r"(?:\s?(?:%|\^\\circ|[€£$¢])|(?:\s?(?:[kcm]?m|[mk]?g|m?[lL]|km/h|m/s|s)\b(?:\^\d)?))?"
)
_BELOW_TWENTY = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMERALS = {word: at for at, word in enumerate(_BELOW_TWENTY)} | {
    word: 10 * at for at, word in enumerate(_TENS, 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6}
_NUMERAL = re.compile(
    rf"\b(?:(minus|negative) )?((?:{'|'.join([*_NUMERALS, 'a(?= (?:hundred|thousand|million))'])})"
    rf"(?:(?: and|,)?[ -](?:{'|'.join([*_NUMERALS, *_SCALES])}))*)\b",
    re.IGNORECASE,
)
_OUT_OF = re.compile(r"(\d+) (?:out of|in) (?:every )?(\d+)")
_EXCLAIMED = re.compile(r"(?<=[\w)}%])\s*!+[\s*]*$")
_TURNED = re.compile(
    r"(?:[(\[]([^()\[\]]*,[^()\[\]]*)[)\]]|(\\begin\{.*\\end\{\w+\}))\s*\^\s*\{?\s*(?:T|\\(?:top|intercal))\s*\}?",
    re.DOTALL,
)
_TRIGONOMETRIC = re.compile(r"(?<!arc)(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_UNKNOWN = re.compile(
    r"(?:n/?a|none|unknown|undetermined|unclear|not sure|\?+|\.+|-+|…|no (?:idea|answer)"
    r"|i (?:do not|don't|cannot|can't|am not|could not)\b.*"
    r"|(?:cannot|can't|could not) be (?:determined|found|solved))",
    re.IGNORECASE | re.DOTALL,
)


def tidy(text: str) -> str:
    r"""Without Markdown, delimiters, ticks and quotes; symbols as LaTeX writes them; single spaces."""
    text = _MARKDOWN.sub(" ", _THIN.sub("", text).strip()).strip()
    if sentence(text):
        text = _EXCLAIMED.sub("", text)
    if not text.startswith("$") or text.startswith("$$") or text.count("$") % 2 == 0:
        text = _wrapped(text)
    text = _SYMBOL.sub(lambda found: _SYMBOLS[found[0]], _MARKS.sub("", text))
    text = _SPACES.sub(" ", re.sub(r"\\(?:left|right|displaystyle)(?![a-z])", " ", text))
    text = re.sub(r"\\[()\[\]]", " ", text).strip()
    for _ in range(3):
        text = _STYLES.sub(lambda found: found[1] if len(found[1]) == 1 else f" {found[1]} ", text)
    text = re.sub(r"(?<=[\w)}!%\]])\s*\.$", "", _MARKS.sub("", text.strip().strip("*\"'").strip()))
    if (turned := _TURNED.fullmatch(text)) and turned[1]:
        text = f"({turned[1]})"  # a column written as a row
    if _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(r"(\1\\pi/180)", text)
    return _balanced(re.sub(r"\\{ *\\}", r"\\emptyset", " ".join(text.split())))


def _wrapped(text: str) -> str:
    """Dollar signs that delimit mathematics become spaces; those of money stay."""
    return re.sub(r"\$\$|(?<!\\)\$([^$]*)(?<!\\)\$", lambda m: f" {m[1]} " if m[1] is not None else " ", text)


def _balanced(text: str) -> str:
    """Without a pair of brackets that holds all of a single value: `(73)`, `{73}`."""
    while len(text) > 2 and text[0] + text[-1] in ("()", "{}") and _closes(text, 0) == len(text) - 1:
        if len(split(text[1:-1])) > 1:
            break
        text = text[1:-1].strip()
    return text


def plain(text: str) -> str:
    """What makes two texts the same: no spaces, no case where there are words, no braces around one
    character."""
    text = re.sub(r"\{(\w)\}", r"\1", re.sub(r"(?<!\d) | (?!\d)", "", text))
    return text.casefold() if _WORD.search(_LATEX_WORD.sub("", text)) else text


def sentence(text: str) -> bool:
    """Whether there are words in it that are no function's name."""
    return any(
        word.lower() not in _FUNCTIONS
        for word in _WORD.findall(_LATEX_WORD.sub(" ", _SUBSCRIPT.sub(" ", text)))
    )


def no_answer(text: str) -> str | None:
    """Why a tidied text is no answer, or None."""
    if not re.search(r"\w|\\[a-z{]", text):
        return "no answer where it should be"
    if _UNKNOWN.fullmatch(text):
        return "it says that there is no answer"
    if text.endswith("?"):
        return "a question is no answer"
    return None


def stripped_lead(text: str) -> str:
    """Without `So`, `The answer is`, `Final answer:` and the like, and without what it says not to be."""
    text = _NOT.sub("", text)
    while (shorter := _LEAD.sub("", text, count=1).strip()) != text:
        text = shorter
    out_of = _OUT_OF.fullmatch(text)
    return f"{out_of[1]}/{out_of[2]}" if out_of else text


def numeral(words: str) -> int | None:
    """`forty-two`, `a hundred and five` as a number; None where two numbers follow each other."""
    total, group, last = 0, 0, 100
    for word in re.findall(r"(?!and\b)\b[a-z]+", words.lower()):
        if word in _SCALES:
            scale, group = _SCALES[word], group or 1
            total, group = (total, 100 * group) if scale == 100 else (total + scale * group, 0)
            last = 100
        elif word != "a":
            value = _NUMERALS[word]
            if (value >= 10 and last < 100) or (value < 10 and last < 20):
                return None
            group, last = group + value, value
    return total + group


def stated(text: str) -> list[str]:
    """Where in a reply in words its answer may stand, the best place first: in the last sentence that says what
    the answer is, then in the last sentence of all; in each what follows `is` or a colon, its last formula, its
    last number.

    Numbers in words are numbers. In a long sentence there is always some number, so that repeating a
    question would pay: past `LONGEST_CLAIM` words only what follows `is` counts, past `LONGEST_SENTENCE` only a
    sentence that ends there.
    """
    sentences = [
        one for one in _SENTENCES.split(_CONTROL.sub("", text)) if one.strip() and not _FILLER.match(one)
    ][::-1]
    named = [one for one in sentences if _ANSWER_IS.match(one)]
    last = [one for one in sentences[:1] if not _ASKS.match(one)]
    return [place for one in [*named, *last] for place in _places(one)]


_LETTER = re.compile(r"(?<![\w'\\])\(?([B-HJ]|A(?!\s+[a-z]{2}))\)?(?![\w'])")
_DENIES = re.compile(r"\b(?:not|wrong|incorrect|false|\w+n't)\b", re.IGNORECASE)


def chosen(text: str) -> str | None:
    """The one letter of a multiple choice that a short claim in words names; None: several, none, a denial."""
    letters = set(_LETTER.findall(text))
    short = len(text.split()) <= LONGEST_CLAIM and not _DENIES.search(text)
    return letters.pop() if short and len(letters) == 1 else None


def _places(text: str) -> list[str]:
    text = _EXCLAIMED.sub("", _BOUND.sub(" ", text))
    found, length = list[str](), len(re.findall(r"[A-Za-z']+|\d+", _SEGMENT.sub(" ", text)))
    cues = [cue for pattern in (_ANSWER_IS, _IS) if (cue := pattern.match(text))]
    if length <= LONGEST_SENTENCE or _ENDS_WITH.search(text) or _ANSWER_IS.match(text):
        found += [text[cue.end() :] for cue in cues]
    if length <= LONGEST_CLAIM or _ANSWER_IS.match(text):
        bare = tidy(text)
        found += ["".join(one) for one in _SEGMENT.findall(text)][-1:]
        found += [one[0] for one in _CANDIDATE.finditer(bare)][-1:]
        for sign, words in _NUMERAL.findall(bare)[-1:]:
            value = numeral(words)
            found += [] if value is None else [f"{'-' if sign else ''}{value}"]
    return [place for one in found if (place := stripped_lead(tidy(one)))]


class Parts(NamedTuple):
    """The answers in a text, the brackets around them, and whether order counts."""

    items: list[str]
    brackets: str

    @property
    def ordered(self) -> bool:
        """Whether another order is another answer."""
        return self.brackets in ("()", "matrix") and len(self.items) > 1


_ENVIRONMENT = re.compile(r"\\begin\s*\{([pbvBV]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_TUPLE_NAME = re.compile(r"^\(?\s*[A-Za-z]\w*(?:\s*,\s*[A-Za-z]\w*)+\s*\)?\s*(?:=|\\in)\s*(?=\()")


def parts(text: str) -> Parts:
    r"""`3, 5 and 9` -> 3, 5, 9; `\{1, 2\}`, `(1, 2)`, a matrix (rows, or cells of a single row or column), `a
    \pm b`."""
    turned = _TURNED.fullmatch(text)
    if turned and turned[2] and not parts(turned[2]).items[0].startswith("("):
        text = turned[2]  # a row and a column are the same list
    matrix = _ENVIRONMENT.fullmatch(text)
    if matrix and "\\begin" not in matrix[2]:
        rows = [
            [cell.strip() for cell in row.split("&")] for row in re.split(r"\\\\", matrix[2]) if row.strip()
        ]
        if len(rows) == 1 or all(len(row) == 1 for row in rows):
            return Parts([cell for row in rows for cell in row], "matrix")
        return Parts(["(" + " , ".join(row) + ")" for row in rows], "matrix")
    text = _TUPLE_NAME.sub("", text)
    if re.fullmatch(r"\[\s*\[.*\]\s*\]", text, re.DOTALL):
        return Parts([f"({row.strip('[] ')})" for row in split(text[1:-1])], "matrix")
    for opening, closing in (("\\{", "\\}"), ("(", ")"), ("{", "}")):
        inside = text[len(opening) : -len(closing)]
        if (
            text.startswith(opening)
            and text.endswith(closing)
            and _closes(text, len(opening) - 1) == len(text) - 1
        ):
            found = _both_signs(split(inside))
            if len(found) > 1 or opening == "\\{":
                return Parts(found, "()" if opening == "(" else "{}")
    return Parts(_both_signs(split(text)), "")


_OPENING, _CLOSING = "([{", ")]}"
_SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*(?:\\?\s*(?:and|or)\b)?|(?<![A-Za-z\\])(?:and|or)(?=[^A-Za-z])|\\vee|\\lor)\s*"
)
_SEMICOLON = re.compile(r"\s*;\s*")


def split(text: str) -> list[str]:
    """The text at its commas, semicolons, `and` and `or`, brackets kept whole; `1, 2; 3, 4` is two pairs."""
    text = re.sub(r"^(?:both|either)\s+", "", text, flags=re.IGNORECASE)
    groups = split_at(_SEMICOLON, text)
    if len(groups) > 1 and any(len(split_at(_SEPARATOR, one)) > 1 for one in groups):
        return [f"({one})" for one in groups]
    return split_at(_SEPARATOR, text)


def split_at(separator: re.Pattern[str], text: str) -> list[str]:
    """The text at each match of `separator` that is in no bracket."""
    found, level, start, at = list[str](), 0, 0, 0
    while at < len(text):
        level += (text[at] in _OPENING) - (text[at] in _CLOSING)
        match = separator.match(text, at) if level == 0 else None
        if match and match.end() > at:
            found.append(text[start:at])
            start = at = match.end()
        else:
            at += 1
    return [one.strip() for one in [*found, text[start:]] if one.strip()]


def _closes(text: str, opening: int) -> int:
    """Where the bracket at `opening` is closed, -1 if nowhere."""
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] in _OPENING) - (text[at] in _CLOSING)
        if depth == 0:
            return at
    return -1


def _both_signs(items: list[str]) -> list[str]:
    r"""Each `a \pm b` as two."""
    found = list[str]()
    for item in items:
        signs = [("+", "-"), ("-", "+")] if "\\pm" in item else [("", "")]
        found += [item.replace("\\pm", plus).replace("\\mp", minus) for plus, minus in signs]
    return found


def depth(text: str) -> int:
    """How deep brackets are nested."""
    level = deepest = 0
    for char in text:
        level += (char in _OPENING) - (char in _CLOSING)
        deepest = max(deepest, level)
    return deepest
