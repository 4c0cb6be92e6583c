"""What Camunda, Flowable and bpmn.io write where the standard writes FEEL, said in FEEL where it means the
same.

Their own expression language (JUEL) and the scripts (Groovy, JavaScript) share literals, names, comparisons,
`&&`, `||`, `!`, arithmetic and `a ? b : c`. A text of these only is rewritten word by word; anything else
(methods, beans, statements) is refused by name. Texts that FEEL reads as they stand are left alone.
"""

import re
from collections.abc import Iterator

from vertigym.decisions.dmn.elements import Element
from vertigym.decisions.model import DecisionError

CELL_INPUT = re.compile(r"\bcellInput\b")  # Camunda's name for the value that a cell tests
_TOOL = re.compile(r"camunda|flowable|activiti|bpmn\.io|DMN/(20130901|20153011)\}", re.IGNORECASE)
_SCRIPTS = ("juel", "groovy", "javascript", "ecmascript")
_PLAIN = re.compile(r'-?\d+(\.\d+)?|"[^"\\$#]*"|true|false|null|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*')
_TOKEN = re.compile(
    r"""\s*(?:(?P<call>[A-Za-z_][\w.]*\.(?:startsWith|endsWith|contains)\(\s*(?:'[^'\\]*'|"[^"\\]*")\s*\))
    |(?P<text>"[^"\\]*"|'[^'\\]*')
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?!\s*[(\[:\w])
    |(?P<mark>==|!=|<=|>=|&&|\|\||[<>+\-*/()!?:]))""",
    re.VERBOSE,
)
_WORDS = {
    "==": "=", "&&": "and", "||": "or", "eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "and", "or": "or", "cellInput": "?", "true": "true", "false": "false", "null": "null",
}  # fmt: skip
_METHOD = re.compile(r"""([A-Za-z_][\w.]*)?\.(startsWith|endsWith|contains)\(\s*('[^'\\]*'|"[^"\\]*")\s*\)""")
_ARGUMENT = r"""\s*('[^'\\]*'|"[^"\\]*"|[A-Za-z_][\w.]*|-?\d+(?:\.\d+)?)\s*"""
_COLLECTION = re.compile(rf"collection:(\w+)\({_ARGUMENT},{_ARGUMENT}\)")
_HELD = "list contains(for y in {0} return string(y), string(x))"
_COLLECTIONS = {
    "contains": f"every x in {{1}} satisfies {_HELD}", "allOf": f"every x in {{1}} satisfies {_HELD}",
    "containsAny": f"some x in {{1}} satisfies {_HELD}", "anyOf": f"some x in {{1}} satisfies {_HELD}",
    "notContains": f"not(every x in {{1}} satisfies {_HELD})",
    "notAllOf": f"not(every x in {{1}} satisfies {_HELD})",
    "notContainsAny": f"not(some x in {{1}} satisfies {_HELD})",
    "noneOf": f"not(some x in {{1}} satisfies {_HELD})",
}  # fmt: skip
_FUNCTIONS = {"startsWith": "starts with", "endsWith": "ends with", "contains": "contains"}
_WRAPPED = re.compile(r"[$#]\{(.*)\}", re.DOTALL)


def is_tool(root: Element) -> bool:
    """Whether a file was written by one of these tools."""
    told = f"{root.get('namespace')} {root.get('exporter')} {root.tag}"
    return bool(_TOOL.search(told))


def is_feel(language: str) -> bool:
    """Whether an expression language's name or address stands for FEEL."""
    return not language.strip() or "feel" in language.lower()


def feel_text(text: str, language: str, *, is_test: bool = False) -> str:
    """A text of another language in FEEL. A test's own text is a condition of its own there, not a value to
    compare.

    Raises:
        DecisionError: it is more than literals, names and operators.
    """
    found = _rewritten(text, is_test=is_test, language=language)
    if found is None:
        said = f"expression language {language!r} is not supported, only FEEL" if language else "not FEEL"
        raise DecisionError(f"{said}: {text[:60]!r}")
    return found


def _rewritten(text: str, *, is_test: bool, language: str) -> str | None:
    if not is_test and _PLAIN.fullmatch(text):
        return text
    if language and language.lower() not in _SCRIPTS:
        return None
    wrapped = _WRAPPED.fullmatch(text)
    inner = wrapped[1].strip() if wrapped else text
    if is_test and (method := _METHOD.fullmatch(text)) and not method[1]:
        return _called(method)
    if (asked := _COLLECTION.fullmatch(inner)) and asked[1] in _COLLECTIONS:
        made = _COLLECTIONS[asked[1]].format(_listed(asked[2]), _listed(asked[3]))
        return f"if ? = null then {made} else {made}" if is_test else made
    words = _words(inner)
    if words is None or not words:
        return None
    if words[0] in ("=", "!=", "<", "<=", ">", ">="):
        return " ".join(words) if is_test else None
    made = _conditional(words)
    if is_test and (wrapped or language) and not any("?" in word for word in words):
        return f"if ? = null then {made} else {made}"  # the condition itself, whatever the column's value is
    return made


def _words(text: str) -> list[str] | None:
    """The words of FEEL, None where there are others."""
    found, at = list[str](), 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        word = match[match.lastgroup or 0]
        if match.lastgroup == "call" and (method := _METHOD.fullmatch(word)):
            word = _called(method)
        found.append(_quoted(word) if match.lastgroup == "text" else _WORDS.get(word, word))
        at = match.end()
    return list(_negated(found))


def _negated(words: list[str]) -> Iterator[str]:
    """`!name` as `not(name)`."""
    place = 0
    while place < len(words):
        if words[place] == "!" and place + 1 < len(words):
            yield f"not({words[place + 1]})"
            place += 1
        else:
            yield words[place]
        place += 1


def _conditional(words: list[str]) -> str:
    """`a ? b : c` as `if a then b else c`."""
    if ":" not in words:
        return " ".join(words)
    test, rest = words[: words.index("?")], words[words.index("?") + 1 :]
    place = rest.index(":") if ":" in rest else 0
    return f"if {' '.join(test)} then {' '.join(rest[:place])} else {_conditional(rest[place + 1 :])}"


def _called(method: re.Match[str]) -> str:
    """A text's method as a function; without a text before it, of the column's value."""
    subject, text = _WORDS.get(method[1] or "cellInput", method[1]), _quoted(method[3])
    made = f"{_FUNCTIONS[method[2]]}({subject}, {text})"
    if method[2] != "contains":
        return made
    return f"(if {subject} instance of list<Any> then list contains({subject}, {text}) else {made})"


def _listed(argument: str) -> str:
    """An argument of Flowable's collection functions: a text holds a list of literals, or is one itself."""
    if argument[0] not in "\"'":
        return argument
    inner = argument[1:-1].strip()
    return f"[{inner}]" if re.match(r"[\"\d]", inner) else f"[{_quoted(argument)}]"


def _quoted(word: str) -> str:
    """A text in FEEL's quotes."""
    inner = word[1:-1]
    return '"' + inner.replace('"', '\\"') + '"'
