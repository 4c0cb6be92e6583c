"""Built-in functions declared by their signatures, as the standard prints them.

    @builtin("substring(string: string, start position: number, length?: number)")

Arguments are bound by position or by name, and checked: one that is null or of another type makes the result
null, with the signature as the reason. `name?` may be left out, `type?` may be null, `...name` takes the rest.
A function of several signatures takes the first that fits; if none does, the first after FEEL's conversions.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vertigym.feel.conformance import coerced, conforms
from vertigym.feel.feel_types import FeelType
from vertigym.feel.values import Function, NoValue, Value, kind_of

Run = TypeVar("Run", bound=Callable[..., Value])
_PARAMETER = re.compile(
    r"(?P<rest>\.\.\.)?(?P<name>[\w ]+?)(?P<optional>\?)?: (?P<type>[\w ]+)(?:<(?P<item>\w+)>)?(?P<null>\?)?"
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a signature."""

    name: str
    type: FeelType
    optional: bool
    nullable: bool
    rest: bool

    @classmethod
    def of(cls, text: str) -> "Parameter":
        """Reads `name?: type?`."""
        match = _PARAMETER.fullmatch(text)
        assert match, text
        kind = FeelType(match["type"], (FeelType(match["item"]),) if match["item"] else ())
        nullable = bool(match["null"]) or kind.name == "Any"
        return cls(match["name"], kind, bool(match["optional"]), nullable, bool(match["rest"]))

    def accepts(self, value: Value, *, convert: bool) -> Value:
        """The value as this parameter takes it.

        Raises:
            NoValue: it does not.
        """
        if convert:
            value = coerced(value, self.type)
        if self.nullable if value is None else conforms(value, self.type):
            return value
        raise NoValue("")


@dataclass(frozen=True, slots=True)
class Signature:
    """What may be passed, and what computes the result."""

    text: str
    parameters: tuple[Parameter, ...]
    run: Callable[..., Value]

    def bound(self, arguments: Sequence[Value], names: Sequence[str], *, convert: bool) -> list[Value] | None:
        """The arguments as `run` takes them, or none where they do not fit."""
        pairs = self._by_name(dict(zip(names, arguments, strict=True))) if names else self._by_place(arguments)
        if pairs is None or len(pairs) < len(arguments):
            return None
        try:
            return [parameter.accepts(value, convert=convert) for parameter, value in pairs]
        except NoValue:
            return None

    def _by_name(self, given: dict[str, Value]) -> list[tuple[Parameter, Value]] | None:
        """Parameters with their arguments; null is what is left out. None where a name is unknown."""
        if not given.keys() <= {parameter.name for parameter in self.parameters}:
            return None
        taken = list(self.parameters)
        while taken[-1].optional and taken[-1].name not in given:
            taken.pop()
        return [
            (
                replace(each, nullable=True) if each.optional and each.name not in given else each,
                given.get(each.name),
            )
            for each in taken
        ]

    def _by_place(self, arguments: Sequence[Value]) -> list[tuple[Parameter, Value]] | None:
        """Parameters with their arguments, as far as there are parameters; none where there are too few."""
        parameters = list(self.parameters)
        if parameters and parameters[-1].rest:
            parameters += [parameters[-1]] * (len(arguments) - len(parameters))
        required = sum(not parameter.optional for parameter in self.parameters)
        return list(zip(parameters, arguments, strict=False)) if required <= len(arguments) else None


@dataclass(frozen=True, slots=True, eq=False)
class BuiltIn(Function):
    """A function that FEEL defines. One that reads the clock gets it as its first argument."""

    signatures: list[Signature] = field(default_factory=list)
    clocked: bool = False

    def bind(
        self, arguments: Sequence[Value], names: Sequence[str]
    ) -> tuple[Callable[..., Value], list[Value]]:
        """What to run, and with which values.

        Raises:
            NoValue: no signature fits.
        """
        for convert in (False, True):
            for signature in self.signatures:
                values = signature.bound(arguments, names, convert=convert)
                if values is not None:
                    return signature.run, values
        given = ", ".join(map(kind_of, arguments))
        known = " or ".join(signature.text for signature in self.signatures)
        raise NoValue(f"{self.name}({given}) does not fit {known}")


BUILT_INS: dict[str, BuiltIn] = {}


def builtin(*signatures: str, clocked: bool = False) -> Callable[[Run], Run]:
    """Declares a function of FEEL by its signatures, all of one name."""

    def declare(run: Run) -> Run:
        for text in signatures:
            name, _, rest = text.partition("(")
            parameters = tuple(Parameter.of(part) for part in rest.rstrip(")").split(", ") if part)
            if name not in BUILT_INS:
                BUILT_INS[name] = BuiltIn(
                    name, tuple(p.name for p in parameters), _applied(name), clocked=clocked
                )
            BUILT_INS[name].signatures.append(Signature(text, parameters, run))
        return run

    return declare


def _applied(name: str) -> Callable[..., Value]:
    """A built-in function as a plain call, for where it is passed as a value."""

    def call(*arguments: Value) -> Value:
        run, values = BUILT_INS[name].bind(arguments, ())
        return run(*values)

    return call
