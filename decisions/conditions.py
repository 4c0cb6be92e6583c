"""Which input fields a model looks at, and the values worth trying for each.

Every literal that a condition sets beside a field is a boundary, so the values at it and just around it are
candidates (18 in `age >= 18` gives 17, 18, 19). A literal beside a *computed* name (`score > 40`, where
`score` comes from `debt` and `income`) is passed down to the fields that name is computed from, as a *wide*
candidate: less likely to matter, tried when the near ones have not been enough.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, pairwise, product
from math import prod
from typing import Any

from vertigym.decisions import candidates
from vertigym.decisions.cases import value_key
from vertigym.decisions.expressions import Atom, Wrapper, within
from vertigym.decisions.model import TABLES, Case, Node
from vertigym.decisions.protocols import Language, RuleModel

Path = tuple[str, ...]

_MOST = 1 << 62  # beyond, no random number is drawn
_MIXED = 60  # longer lists of records that are tried


@dataclass(frozen=True, slots=True)
class Field:
    """An input field that the model looks at: `near` candidates, and `wide` ones that are tried less often.
    `span` is the least and the greatest near number in units of its finest digit, and that unit; its numbers
    are `whole`, or may have a fraction; a `free` text may be any; `closed`: only what is listed; `far` is twice
    the greatest near number, where the schema allows that."""

    path: Path
    near: tuple[Any, ...]
    wide: tuple[Any, ...]
    whole: bool = False
    free: bool = False
    closed: bool = False
    far: tuple[Any, ...] = ()
    span: tuple[int, int, float] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "span", None if self.closed else _span(self.near))

    @property
    def name(self) -> str:
        """Its dotted name."""
        return ".".join(self.path)


@dataclass(slots=True)
class _Derived:
    """A name that the model computes: what it is computed from, its literal values, and the `calls` of one name
    that it may be (`major` in `major = number(split(version, ".")[0])` is a call of `version`)."""

    names: set[str] = field(default_factory=set)
    calls: set[tuple[str, Wrapper]] = field(default_factory=set)
    literals: candidates.Hints = field(default_factory=candidates.Hints)


class Conditions:
    """The fields of a model and their candidates, read from its expressions and its tests' inputs."""

    def __init__(self, model: RuleModel) -> None:
        self.nodes, self._speak = model.nodes, model.language
        self._seen = _leaves(case for case, _ in model.tests)
        self._schema = model.schema
        self._derived: dict[str, _Derived] = defaultdict(_Derived)
        self._hints: dict[str, candidates.Hints] = defaultdict(candidates.Hints)
        self._wide: dict[str, candidates.Hints] = defaultdict(candidates.Hints)
        for node in model.nodes:
            self._learn_outputs(node)
        found = [atom for node in model.nodes for atom in _atoms(node, self._speak)]
        for atom in found:
            self._learn(atom)
        self.fields = self._fields(_without_parents([*self._hints, *self._script_fields(model)]))

    def sources(self, expression: str, node: Node) -> frozenset[str]:
        """Names of the input fields that `expression` depends on, through whatever is computed between."""
        names = {name for atom in self._speak.atoms(expression) for name, _ in _scoped(atom, node.scope).names}
        return frozenset(
            next((root for root in self._lists if _lies_in(n, root)), n) for n in self._inputs_of(names)
        )

    # Reading the model.

    def _learn_outputs(self, node: Node) -> None:
        """Note what each name computed by `node` is computed from."""
        subjects = [
            name for column in node.columns for atom in self._speak.atoms(column) for name, _ in atom.names
        ]
        pairs = [*node.expressions, *(pair for rule in node.rules for pair in rule.outcome)]
        for key, expression in pairs:
            derived = self._derived[_join(node.target, key)]
            derived.names |= {_join(node.scope, subject) for subject in subjects}
            derived.calls |= self._call(expression, node) if (key, expression) in node.expressions else set()
            for atom in self._speak.atoms(expression):
                if not atom.names:  # a value the name can take, not one that a condition compares with
                    derived.literals.add(atom)
                derived.names |= {name for name, _ in _scoped(atom, node.scope).names}
        if node.kind in TABLES:
            free = (cell for rule in node.rules for _, cell in rule.cells)
            names = {
                n for cell in free for a in self._speak.atoms(cell) for n, _ in _scoped(a, node.scope).names
            }
            for output in node.outputs:
                self._derived[_join(node.target, output)].names |= names

    def _learn(self, atom: Atom) -> None:
        """Spread an atom's literals over the names beside them."""
        inputs = [(name, wrapper) for name, wrapper in atom.names if self._is_input(name)]
        computed = [name for name, _ in atom.names if name in self._derived or not self._is_input(name)]
        for name, wrapper in inputs:
            self._hints[name].add(atom, wrapper)
            for other, _ in inputs:  # two fields compared with each other try each other's values
                if other != name:
                    self._hints[name].add_values(self._seen.get(other, ()))
            for key in [] if atom.scales else [k for other in computed for k in self._keys(other)]:
                self._hints[name].add_literals(self._derived[key].literals)
        for name in computed:
            for source in self._inputs_of({name}):
                self._wide[source].add(replace(atom, strings=[], booleans=False, null=False))
            for source, wrapper in self._calls_of(name):
                plain = replace(atom, booleans=False, null=False) if wrapper else atom
                self._hints[source].add(plain, wrapper)

    def _call(self, expression: str, node: Node) -> set[tuple[str, Wrapper]]:
        """The one name in an expression, and the call around it; none where there are more, or it is changed
        by what the candidates do not undo."""
        found = [_scoped(atom, node.scope) for atom in self._speak.atoms(expression)]
        pairs = {pair for atom in found for pair in atom.names}
        changed = any(atom.scales or atom.joins or atom.compares for atom in found)
        return set() if changed or len(pairs) > 1 else pairs

    def _calls_of(self, name: str, depth: int = 8) -> Iterator[tuple[str, Wrapper]]:
        """The input fields that a computed name is a call of, through other names."""
        for source, wrapper in self._derived[name].calls if name in self._derived and depth else ():
            if self._is_input(source):
                yield source, wrapper
            else:
                yield from (
                    (deeper, within(wrapper, inner)) for deeper, inner in self._calls_of(source, depth - 1)
                )

    def _is_input(self, name: str) -> bool:
        """Whether `name` is a field of the input: seen in a test, or named and never computed."""
        if any(isinstance(value, dict) for value in self._seen.get(name, ())):
            return False
        return name in self._seen or not self._keys(name)

    def _keys(self, name: str) -> list[str]:
        """Computed names that are `name`, lie under it, or hold it."""
        return [
            key
            for key in self._derived
            if key == name or key.startswith(f"{name}.") or (key and name.startswith(f"{key}."))
        ]

    def _inputs_of(self, names: Iterable[str]) -> set[str]:
        """Input fields behind `names`, transitively."""
        inputs, seen, open_names = set[str](), set[str](), list(names)
        while open_names:
            name = open_names.pop()
            if name in seen:
                continue
            seen.add(name)
            if self._is_input(name):
                inputs.add(name)
            for key in self._keys(name):
                open_names += self._derived[key].names
        return inputs

    @staticmethod
    def _script_fields(model: RuleModel) -> list[str]:
        return [] if model.rules else [n for node in model.nodes for n in candidates.script_names(node.source)]

    # Making values.

    def _fields(self, names: Sequence[str]) -> tuple[Field, ...]:
        lists: dict[str, list[str]] = {name.partition("[]")[0]: [] for name in names if "[]" in name}
        plain = []
        for name in names:
            root = next((root for root in lists if _lies_in(name, root)), "")
            if not root:
                plain.append(name)
            elif name != root:  # `items.price` are the prices of the items
                member = name if "[]" in name else f"{root}[].{name.removeprefix(f'{root}.')}"
                if member != name:
                    self._hints[member].add_literals(self._hints[name])
                lists[root].append(member)
        self._lists = tuple(lists)
        fields = [self._field(name) for name in plain]
        fields += [self._list_field(name, members) for name, members in lists.items()]
        return tuple(sorted((f for f in fields if len(f.near) + len(f.wide) > 1), key=lambda f: f.path))

    def _field(self, name: str) -> Field:
        seen = self._seen.get(name, [])
        path = tuple(name.split("."))
        schema = _part_of(self._schema, path)
        self._hints[name].is_list |= "array" in schema.get("type", ())
        near = candidates.candidates(self._hints[name], seen)
        wide = candidates.wide_candidates(self._hints[name], self._wide[name], seen)
        if schema:
            near = candidates.allowed([*near, *schema.get("enum", ())], schema)
            wide = candidates.allowed(wide, schema)
        known = set(map(_typed, near))
        rest = tuple(value for value in wide if _typed(value) not in known)
        free = candidates.OTHER in near and not {"enum", "pattern"} & schema.keys()
        whole = "integer" in schema.get("type", ())
        far = () if "exclusiveMaximum" in schema else candidates.allowed(_twice(near), schema)
        return Field(path, near, rest, whole=whole, free=free, closed="enum" in schema, far=far)

    def _list_field(self, name: str, members: Sequence[str]) -> Field:
        """A list of records: one-element lists over each member field's candidates, then longer ones."""
        lists = [value for value in self._seen.get(name, ()) if isinstance(value, list)]
        seen = [element for value in lists for element in value if isinstance(element, dict)]
        base: Case = seen[0] if seen else {}
        singles: list[list[Any]] = []
        choices: list[list[tuple[Path, Any]]] = []
        for member in members:
            path = tuple(member.removeprefix(f"{name}[]").strip(".").split("."))
            if path == ("",):  # the members are plain values
                plain = candidates.candidates(self._hints[member].joined(self._hints[name]), lists)
                singles += [value for value in plain if isinstance(value, list)]
                continue
            known = [v for v in (get(element, path) for element in seen) if v is not None]
            choices.append([(path, value) for value in candidates.candidates(self._hints[member], known)])
            singles += [[put(base, path, value)] for _, value in choices[-1]]
        if len(choices) > 1:  # a rule may ask for two members at once
            count = prod(map(len, choices))
            every = max(count // _MIXED, 1) + (count > _MIXED)
            singles += [[_all_put(base, chosen)] for chosen in islice(product(*choices), 0, 20_000, every)]
        mixed = islice(chain(pairwise(singles), product(singles, repeat=2), product(singles, repeat=3)), _MIXED)
        longer = [
            single * length for length in sorted(self._hints[name].longer()) for single in singles[:_MIXED]
        ]
        near = candidates.distinct([*self._seen.get(name, ()), *singles, *map(_joined, mixed), *longer, []])
        return Field(tuple(name.split(".")), near, (None,))


def _lies_in(name: str, root: str) -> bool:
    """Whether a name is a list, or stands inside its members."""
    return name == root or name.startswith((f"{root}.", f"{root}[]"))


def _twice(values: Sequence[Any]) -> list[Any]:
    """Twice the greatest number, where it is above 0."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return [2 * greatest] if (greatest := max(numbers, default=0)) > 0 else []


def _span(values: Sequence[Any]) -> tuple[int, int, float] | None:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < 2 or not all(-_MOST < v < _MOST for v in numbers):
        return None
    unit = 10.0 ** -candidates.decimals(numbers)
    low, high = round(min(numbers) / unit), round(max(numbers) / unit)
    return (low, high, unit) if -_MOST < low <= high < _MOST else None


def _atoms(node: Node, language: Language) -> Iterator[Atom]:
    """A node's atoms in the scope it works in; a cell's atom carries its column's names, as `$` stands for
    them."""
    for _, expression in node.expressions:
        yield from (_scoped(atom, node.scope) for atom in language.atoms(expression))
    for column in node.columns:
        yield from (_scoped(atom, node.scope) for atom in language.atoms(column))
    for rule in node.rules:
        for column, cell in rule.cells:
            for atom in language.atoms(cell) if cell else ():
                asked = _with_column(atom, language.atoms(column)) if column else atom
                yield _scoped(asked, node.scope)
        for _, expression in rule.outcome:
            yield from (_scoped(atom, node.scope) for atom in language.atoms(expression))


def _with_column(atom: Atom, column: Sequence[Atom]) -> Atom:
    """A cell's atom with the names of its column, where it does not name something else."""
    calls = [wrapper for name, wrapper in atom.names if name == "$" and wrapper]
    subject = [pair for each in column for pair in each.names]
    held = [(name, wrapper or next(iter(calls), "")) for name, wrapper in subject]
    implicit = atom.open or all(name[0] in "$#" for name, _ in atom.names)
    joins = any(each.joins for each in column)
    return replace(
        atom,
        names=[*(held if implicit else []), *atom.names],
        booleans=atom.booleans and not any(each.compares for each in column),  # of a comparison, not its names
        joins=atom.joins or joins,
        compares=atom.compares or joins,
    )


def _scoped(atom: Atom, scope: str) -> Atom:
    """Names as seen from the root: inside `scope`; `$.x` and `$root.x` are `x`; `$` and `#` name nothing."""
    names = []
    for name, wrapper in atom.names:
        bare = name.removeprefix("$root.").removeprefix("$.")
        if bare[0] not in "$#":
            names.append((bare if name.startswith("$root.") else _join(scope, bare), wrapper))
    return replace(atom, names=names)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _leaves(cases: Iterable[Case]) -> dict[str, list[Any]]:
    """Dotted name -> the values seen there (records on the way included)."""
    found: dict[str, list[Any]] = defaultdict(list)

    def walk(value: Any, name: str) -> None:
        if name and not _among(value, found[name]):
            found[name].append(value)
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, _join(name, key))

    for case in cases:
        walk(case, "")
    return dict(found)


def _part_of(schema: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The schema of the field at `path`, empty where none is stated."""
    part: Any = schema
    for key in path:
        part = part.get("properties", {}).get(key) if isinstance(part, dict) else None
    return part if isinstance(part, dict) else {}


def _all_put(case: Case, chosen: Iterable[tuple[Path, Any]]) -> Case:
    for path, value in chosen:
        case = put(case, path, value)
    return case


def _joined(lists: Iterable[list[Case]]) -> list[Case]:
    return list(chain.from_iterable(lists))


def _without_parents(names: Iterable[str]) -> list[str]:
    """Drop a name where a longer one goes on from it: `customer` beside `customer.age`."""
    unique = sorted(set(names))
    return [n for n in unique if not any(o.startswith((f"{n}.", f"{n}[")) for o in unique)]


def _typed(value: Any) -> str:
    """A value as text; 1 and 1.0 are two."""
    return f"{type(value).__name__} {value_key(value)}"


def _among(value: Any, known: Iterable[Any]) -> bool:
    return any(type(value) is type(other) and value == other for other in known)


def get(case: Mapping[str, Any], path: Path) -> Any:
    """The value at `path`, None where there is none."""
    value: Any = case
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def put(case: Case, path: Path, value: Any) -> Case:
    """A copy of `case` with `value` at `path`; records are made where they are missing."""
    changed = dict(case)
    head, *rest = path
    if rest:
        inner = changed.get(head)
        value = put(inner if isinstance(inner, dict) else {}, tuple(rest), value)
    changed[head] = value
    return changed
