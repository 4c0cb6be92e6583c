"""The atoms of a FEEL syntax tree (`expressions.Atom`): which names stand beside which literals, so that cases
are
sampled at the boundaries that the rules speak of."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vertigym.decisions.dmn.names import dotted
from vertigym.decisions.expressions import Atom, Wrapper, within
from vertigym.feel import (
    Date,
    DateTime,
    DaysTime,
    Expr,
    Time,
    UnaryTests,
    Value,
    YearsMonths,
    evaluate,
    to_json,
)
from vertigym.feel.syntax import (
    Between,
    Binary,
    Call,
    CompareNode,
    Constant,
    ContextNode,
    Filter,
    For,
    FunctionNode,
    If,
    InTests,
    ListNode,
    Path,
    Quantified,
    Variable,
)

_DAY = 86_400 * 1_000_000_000
_SECOND = 1_000_000_000
_MONTH_S = 30.436875 * 86_400  # of the Gregorian calendar, on average
_MINUTE = 60 * 1_000_000_000
_WRAPPERS: dict[str, Wrapper] = {
    "lower case": "case", "upper case": "case",
    "string length": "len", "count": "count", "contains": "text", "starts with": "text", "ends with": "text",
    "matches": "pattern", "list contains": "member", "date": "date", "date and time": "date", "sum": "member",
    "min": "", "max": "", "split": "split", "substring before": "split", "substring after": "split",
    "substring": "text", "years and months duration": "date",
}  # fmt: skip
_DATED = {"date", "time", "date and time", "duration", "years and months duration"}
_COMPARING = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class AtomReader:
    """Reads trees. Only names that begin with one of `roots` count; a local name stands for what `aliases`
    says, or for the literals in `values`."""

    roots: Collection[str]
    aliases: Mapping[str, Sequence[str]]
    values: Mapping[str, Sequence[Value]] = field(default_factory=dict)

    def read(self, tree: Expr | UnaryTests) -> Sequence[Atom]:
        """The atoms that say anything."""
        found = [atom for part in _tests(tree) for atom in self._split(part)]
        return [a for a in found if a.names or a.numbers or a.strings or a.dates or a.booleans or a.null]

    def _split(self, tree: Expr, *, decides: bool = False) -> Iterator[Atom]:
        """One atom for each condition in a tree; a name that `decides` by itself is true or false."""
        match tree:
            case Binary(operator="and" | "or"):
                yield from self._split(tree.left, decides=True)
                yield from self._split(tree.right, decides=True)
            case If(then_value=then, else_value=other):
                yield from self._split(tree.condition, decides=True)
                yield from self._split(then, decides=then == other)  # a condition that holds whatever `?` is
                yield from self._split(other)
            case ListNode(items=items):
                for item in items:
                    yield from self._split(item)
            case ContextNode(entries=entries):
                yield from self._bound({key: [value] for key, value in entries})._split_all(
                    [value for _, value in entries]
                )
            case For(iterations=iterations, body=body) | Quantified(iterations=iterations, body=body):
                domains = [one.domain for one in iterations] + [one.end for one in iterations if one.end]
                yield from self._split_all(domains)
                yield from self._inside({one.name: one.domain for one in iterations})._split(body)
            case Filter(source=source, condition=condition) if not isinstance(condition, Constant):
                yield from self._split(source)
                yield from self._inside({"item": source}, of=source)._split(condition)
            case FunctionNode(body=body):
                yield from self._split(body)
            case _:
                atom, nested = Atom(booleans=decides and isinstance(tree, Variable | Path)), list[Expr]()
                self._note(tree, atom, "", nested)
                yield atom
                yield from self._split_all(nested)

    def _split_all(self, trees: Sequence[Expr]) -> Iterator[Atom]:
        for tree in trees:
            yield from self._split(tree)

    def _bound(self, values: Mapping[str, Sequence[Expr]]) -> "AtomReader":
        """The reader where local names have values: they stand for what those name."""
        made = {name: [n for tree in trees for n in self.names(tree)] for name, trees in values.items()}
        return self._with({name: list(trees) for name, trees in values.items()}, made)

    def _with(self, trees: Mapping[str, Sequence[Expr]], names: Mapping[str, Sequence[str]]) -> "AtomReader":
        """The reader where local names stand for further names, and for the literals in their trees."""
        values = {
            name: [part.value for tree in found for part in tree.walk() if isinstance(part, Constant)]
            for name, found in trees.items()
        }
        return replace(self, aliases={**self.aliases, **names}, values={**self.values, **values})

    def _inside(self, loops: Mapping[str, Expr], of: Expr | None = None) -> "AtomReader":
        """The reader inside a loop: its variable is a member of what it goes over; so is, in a filter, any
        name."""
        made = {name: [f"{n}[]" for n in self.names(domain)] for name, domain in loops.items()}
        if of is not None:
            made[""] = [f"{n}[]" for n in self.names(of)]
        return self._with({name: [domain] for name, domain in loops.items()}, made)

    def names(self, tree: Expr) -> list[str]:
        """The inputs and decisions that a tree names."""
        found = dict[str, None]()
        for part in tree.walk():
            if isinstance(part, Variable | Path):
                path, root = dotted(part)
                if isinstance(root, Variable):
                    found |= dict.fromkeys(self._resolved(path))
        return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]

    def _resolved(self, path: tuple[str, ...]) -> list[str]:
        """What a path stands for."""
        if path[0] in self.aliases:
            return [".".join((name, *path[1:])) for name in self.aliases[path[0]]]
        if path[0] in self.roots:
            return [".".join(path)]
        return [".".join((name, *path)) for name in self.aliases.get("", ())]

    # One atom.

    def _note(self, tree: Expr, atom: Atom, wrapper: Wrapper, nested: list[Expr]) -> None:
        """Put a tree into an atom; conditions inside it are left for `nested`."""
        match tree:
            case Constant(value=value):
                _add(value, atom)
            case Variable() | Path():
                self._name(tree, atom, wrapper, nested)
            case CompareNode(bound=bound):
                atom.open |= not atom.names
                atom.compares = True
                self._note(bound, atom, wrapper, nested)
            case Call(function=Variable(name=name), arguments=arguments):
                if name in _DATED and all(isinstance(a, Constant) for a in arguments):
                    _add(evaluate(tree, {}), atom)
                    return
                for place, argument in enumerate(arguments):
                    held = name == "list contains" and place > 0  # an item, which is no list itself
                    self._note(argument, atom, "" if held else within(wrapper, _WRAPPERS.get(name, "")), nested)
            case Filter(source=source, condition=Constant()):  # one item, by its place
                self._note(source, atom, wrapper, nested)
            case Binary(operator="and" | "or") | If() | For() | Quantified() | Filter() | FunctionNode():
                nested.append(tree)
                atom.names += [(name, "count" if wrapper == "count" else "member") for name in self.names(tree)]
            case _:
                atom.scales |= isinstance(tree, Binary) and tree.operator in ("*", "/", "**")
                atom.joins |= isinstance(tree, Binary) and tree.operator == "+" and _has_text(tree)
                atom.compares |= isinstance(tree, Between | InTests)
                atom.compares |= isinstance(tree, Binary) and tree.operator in _COMPARING
                for part in tree.children():
                    self._note(part, atom, wrapper, nested)

    def _name(self, tree: Variable | Path, atom: Atom, wrapper: Wrapper, nested: list[Expr]) -> None:
        path, root = dotted(tree)
        if not isinstance(root, Variable):
            self._note(root, atom, wrapper, nested)
        elif path[0] == "?":
            atom.names.append(("$", wrapper))
        else:
            atom.names += [(name, wrapper) for name in self._resolved(path)]
            for value in self.values.get(path[0], ()):
                _add(value, atom)


def _has_text(tree: Expr) -> bool:
    return any(isinstance(part, Constant) and isinstance(part.value, str) for part in tree.walk())


def _tests(tree: Expr | UnaryTests) -> Sequence[Expr]:
    return tree.tests if isinstance(tree, UnaryTests) else (tree,)


def _add(value: Value, atom: Atom) -> None:
    """Add a literal; beside a time or a duration also what lies right around it."""
    match value:
        case None:
            atom.null = True
        case bool():
            atom.booleans = True
        case str():
            atom.strings.append(value)
        case Date() | DateTime():
            atom.dates.append(str(to_json(value)))
        case Time():
            near = (Time.of_nanoseconds(value.nanoseconds + n * _MINUTE, value.zone) for n in (-1, 0, 1))
            atom.strings += [str(to_json(time)) for time in near]
        case DaysTime():
            atom.strings += [str(to_json(DaysTime(value.nanoseconds + n * _DAY))) for n in (-1, 0, 1)]
            atom.offsets.append(abs(value.nanoseconds) / _SECOND)
        case YearsMonths():
            atom.strings += [str(to_json(YearsMonths(value.months + n))) for n in (-1, 0, 1)]
            atom.offsets += [abs(value.months) * _MONTH_S + days * 86_400 for days in (-2, 0, 2)]
        case list() | dict():
            pass
        case _:
            try:
                atom.numbers.append(float(value))  # type: ignore[arg-type]
            except (TypeError, ValueError, OverflowError):
                return
