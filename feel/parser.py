"""FEEL's grammar by precedence climbing.

From the loosest: `or`, `and`, comparisons with `between` and `in`, `+ -`, `* /`, `**`, unary minus,
`instance of`, then paths, filters and calls. Operators of one level are read from the left, `**` too.

Source: OMG Decision Model and Notation 1.5, chapter 10.3.1.
"""

from collections.abc import Collection
from typing import cast

from vertigym.feel.cursor import Cursor
from vertigym.feel.feel_types import ANY, FeelType
from vertigym.feel.lexer import KEYWORDS, Names, string_value, syntax_error
from vertigym.feel.syntax import (
    Between,
    Binary,
    Call,
    CompareNode,
    Constant,
    ContextNode,
    Expr,
    Filter,
    For,
    FunctionNode,
    If,
    InstanceOf,
    InTests,
    Iteration,
    ListNode,
    Negation,
    NullNode,
    Operator,
    Path,
    Quantified,
    RangeNode,
    UnaryTests,
    Variable,
)
from vertigym.feel.temporal_text import temporal
from vertigym.feel.values import FeelError, NoValue, number

MOST_OPERATORS = 500  # in a row, without brackets
_COMPARISON, _SUM, _UNARY = 3, 4, 7
_LEVELS = {"or": 1, "and": 2, "+": _SUM, "-": _SUM, "*": 5, "/": 5, "**": 6} | dict.fromkeys(
    ["=", "!=", "<", "<=", ">", ">=", "between", "in"], _COMPARISON
)
_COMPARATORS = ("=", "!=", "<", "<=", ">", ">=")
_LITERALS = {"true": True, "false": False, "null": None}
_NEVER_FIRST = {"", ",", ")", "]", "}", ".."} | (KEYWORDS - {"if", "for", "some", "every", "function"})


class Parser(Cursor):
    """Reads one text."""

    def __init__(self, text: str, names: Collection[str], known: Names) -> None:
        super().__init__(text, names, known)
        self._range_ends = 0  # inside how many `..b`, where `[` may close the range
        self._no_tests: set[int] = set()  # brackets after `in` that hold an operand: none is read thrice

    def whole(self) -> Expr:
        """The text as one expression."""
        found = self.test()
        if self.next.kind != "end":
            self.fail()
        return found

    def unary_tests(self) -> UnaryTests:
        """The text as a decision table's cell."""
        if self.next.kind == "end" or (self.is_next("-") and self.after().kind == "end"):
            return UnaryTests(())
        if self.is_next("not") and self.after().text == "(":
            self.at += 2
            tests = self.tests()
            if self.accept(")") and self.next.kind == "end":
                return UnaryTests(tests, negated=True)
            self.at = 0
        tests = self.tests()
        if self.next.kind != "end":
            self.fail()
        return UnaryTests(tests)

    def tests(self) -> tuple[Expr, ...]:
        """Unary tests with commas between."""
        found = [self.test()]
        while self.accept(","):
            found.append(self.test())
        return tuple(found)

    def test(self, level: int = 0) -> Expr:
        """A comparison without a left side, or any expression."""
        if operator := self.accept(*_COMPARATORS):
            return CompareNode(operator, self.operation(_SUM))  # type: ignore[arg-type]
        return self.operation(level) if level else self.expression()

    def expression(self) -> Expr:
        """Any expression, one level deeper."""
        with self.nested():
            return self.operation(1)

    def operation(self, lowest: int) -> Expr:
        """Operands joined by operators of `lowest` precedence or tighter."""
        left = self.unary()
        for _ in range(MOST_OPERATORS):
            word = self.next.text if self.next.kind in ("symbol", "name") else ""
            level = _LEVELS.get(word, 0)
            if level < max(lowest, 1):
                return left
            self.at += 1
            if word == "between":
                low = self.operation(_SUM)
                self.expect("and")
                left = Between(left, low, self.operation(_SUM))
            elif word == "in":
                left = InTests(left, self.in_tests())
            else:
                left = Binary(cast(Operator, word), left, self.operation(level + 1))
        raise FeelError(f"more than {MOST_OPERATORS} operators in a row; put brackets around parts of them")

    def in_tests(self) -> tuple[Expr, ...]:
        """What follows `in`: one test, or several in brackets."""
        start = self.at
        if start not in self._no_tests and self.accept("("):
            with self.nested():
                tests = self.tests()
            if self.accept(")") and not self.is_next("[", ".", "+", "-", "*", "/", "**", "("):
                return tests
            self._no_tests.add(start)
            self.at = start
        return (self.test(_SUM),)

    def unary(self) -> Expr:
        """A minus sign before an operand, or `operand instance of type`."""
        if self.is_next("-"):
            self.at += 1
            if self.next.kind == "number":
                return self.instance_of(self.postfix(self.numeral("-")))
            with self.nested():
                return Negation(self.unary())
        return self.instance_of(self.postfix(self.primary()))

    def instance_of(self, value: Expr) -> Expr:
        """`value`, or a test of its type."""
        if self.is_next("instance") and self.after().text == "of":
            self.at += 2
            return InstanceOf(value, self.type())
        return value

    def postfix(self, source: Expr) -> Expr:
        """Paths, filters and calls after a primary expression."""
        for _ in range(MOST_OPERATORS):
            if self.accept("."):
                source = Path(source, self.name(field=True))
            elif self.is_next("("):
                source = self.call(source)
            elif self.is_next("[") and not (self._range_ends and self.after().text in _NEVER_FIRST):
                self.at += 1
                source = Filter(source, self.filter_condition())
                self.expect("]")
            else:
                return source
        raise FeelError(f"more than {MOST_OPERATORS} paths, filters and calls in a row")

    def filter_condition(self) -> Expr:
        """A filter's condition, where the fields of the text's contexts are names."""
        ends, self._range_ends = self._range_ends, 0
        self.filters += 1
        found = self.test()
        self.filters -= 1
        self._range_ends = ends
        return found

    def call(self, function: Expr) -> Expr:
        """`function(…)`: the arguments, all by position or all by name."""
        self.expect("(")
        ends, self._range_ends = self._range_ends, 0
        names: list[str] = []
        arguments: list[Expr] = []
        while not self.is_next(")") and (not arguments or self.expect(",")):
            if self.is_named():
                names.append(self.declared(":"))
                self.expect(":")
            arguments.append(self.test())
            if names and len(names) != len(arguments):
                self.fail("either all arguments have names or none")
        self.expect(")")
        self._range_ends = ends
        return Call(function, tuple(arguments), tuple(names))

    def is_named(self) -> bool:
        """Whether `name:` comes next."""
        at = self.at
        while self.lexemes[at].kind in ("name", "number") or self.lexemes[at].text in (
            "-",
            "+",
            "*",
            "/",
            "'",
            ".",
        ):
            at += 1
        return at > self.at and self.next.kind == "name" and self.lexemes[at].text == ":"

    def primary(self) -> Expr:
        """A literal, a name, or something in brackets."""
        lexeme = self.next
        if lexeme.kind == "number":
            return self.numeral()
        if lexeme.kind == "string":
            self.at += 1
            return Constant(string_value(lexeme.text))
        if lexeme.text in _BRACKETS and lexeme.kind == "symbol":
            self.at += 1
            ends, self._range_ends = self._range_ends, 0
            found = _BRACKETS[lexeme.text](self)
            self._range_ends = ends
            return found
        match = self.known_name()
        if not (match and match[1] > 1) and lexeme.kind == "name":
            if lexeme.text in _WORDS:
                self.at += 1
                return _WORDS[lexeme.text](self)
            if lexeme.text in _LITERALS:
                self.at += 1
                return Constant(_LITERALS[lexeme.text])
        if not match and lexeme.kind != "name":
            self.fail("a value is expected")
        return Variable(self.name())

    def numeral(self, sign: str = "") -> Expr:
        """A number, with the sign that stood before it."""
        lexeme = self.next
        self.at += 1
        try:
            return Constant(number(sign + lexeme.text))
        except ArithmeticError:
            raise syntax_error(self.text, lexeme.start, "a number out of range") from None

    def at_literal(self) -> Expr:
        """`@"…"`: a date, time or duration."""
        if self.next.kind != "string":
            self.fail("a date, time or duration in quotes is expected")
        self.at += 1
        lexeme = self.lexemes[self.at - 1]
        try:
            return Constant(temporal(string_value(lexeme.text)))
        except NoValue as error:
            return NullNode(str(error))

    def parenthesis(self) -> Expr:
        """`(expression)`, `(< 5)`, or a range that excludes its low end."""
        found = self.test()
        if self.is_next(".."):
            return self.range_from(found, closed=False)
        self.expect(")")
        return found

    def square(self) -> Expr:
        """A list, or a range that includes its low end."""
        if self.accept("]"):
            return ListNode(())
        items = [self.test()]
        if self.is_next(".."):
            return self.range_from(items[0], closed=True)
        while self.accept(","):
            items.append(self.test())
        self.expect("]")
        return ListNode(tuple(items))

    def outward(self) -> Expr:
        """`]low..high`: a range that excludes its low end."""
        return self.range_from(self.expression(), closed=False)

    def range_from(self, low: Expr, *, closed: bool) -> Expr:
        """`..high` and the bracket that ends the range."""
        self.expect("..")
        self._range_ends += 1
        high = self.expression()
        self._range_ends -= 1
        return RangeNode(low, high, closed, self.expect("]", ")", "[") == "]")

    def curly(self) -> Expr:
        """A context; each entry's name is known in the later ones."""
        entries: list[tuple[str, Expr]] = []
        with self.nested(), self.names.scope():
            while not self.accept("}"):
                if entries:
                    self.expect(",")
                if self.next.kind == "string":
                    key = string_value(self.next.text)
                    self.at += 1
                else:
                    key = self.declared(":")
                self.expect(":")
                entries.append((key, self.test()))
                self.names.add(key)
                self.keys.add(key)
        return ContextNode(tuple(entries))

    def if_(self) -> Expr:
        """`if … then … else …`; a chain of `else if` is read in a loop, not in recursion."""
        cases: list[tuple[Expr, Expr]] = []
        while True:
            condition = self.expression()
            self.expect("then")
            cases.append((condition, self.expression()))
            self.expect("else")
            if len(cases) > MOST_OPERATORS:
                raise FeelError(f"more than {MOST_OPERATORS} `else if` in a row")
            if not self.accept("if"):
                break
        found = self.expression()
        for condition, value in reversed(cases):
            found = If(condition, value, found)
        return found

    def iterations(self, end: str) -> tuple[tuple[Iteration, ...], Expr]:
        """`name in domain, …`, the word `end`, and the body, which sees the names."""
        found: list[Iteration] = []
        with self.names.scope(["partial"] if end == "return" else []):
            while not found or self.accept(","):
                name = self.declared("in")
                self.expect("in")
                domain = self.expression()
                found.append(Iteration(name, domain, self.expression() if self.accept("..") else None))
                self.names.add(name)
            self.expect(end)
            return tuple(found), self.expression()

    def for_(self) -> Expr:
        """`for … return …`."""
        return For(*self.iterations("return"))

    def some(self) -> Expr:
        """`some … satisfies …`."""
        return Quantified("some", *self.iterations("satisfies"))

    def every(self) -> Expr:
        """`every … satisfies …`."""
        return Quantified("every", *self.iterations("satisfies"))

    def function(self) -> Expr:
        """`function(name: type, …) body`."""
        self.expect("(")
        names: list[str] = []
        types: list[FeelType] = []
        while not self.is_next(")") and (not names or self.expect(",")):
            names.append(self.declared(":", ",", ")"))
            types.append(self.type() if self.accept(":") else ANY)
        self.expect(")")
        external = bool(self.accept("external"))
        with self.names.scope(names):
            return FunctionNode(tuple(names), tuple(types), self.expression(), external)


_BRACKETS = {
    "(": Parser.parenthesis,
    "[": Parser.square,
    "]": Parser.outward,
    "{": Parser.curly,
    "@": Parser.at_literal,
}
_WORDS = {
    "if": Parser.if_,
    "for": Parser.for_,
    "some": Parser.some,
    "every": Parser.every,
    "function": Parser.function,
}
