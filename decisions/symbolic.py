"""A decision model run on all inputs at once: which rules some input may reach, and which none can.

The nodes are walked in order with *states*. A state says what each name holds, a constant or something unknown
with a name of its own, and a box (`boxes.py`) that the unknown values lie in. A table splits a state by the row
that decides; what a row writes is bound, so that a later row which asks for the opposite finds its box empty:

    parts:1     age > 10 -> supply 'none'        state: supply = 'none', age in (10…
    repair:3    supply 'none', age <= 8          supply holds, age lies outside: not on this way

States only ever grow too large (what is not understood is unknown and free), so a rule that no state reaches is
*proven* unreachable, and one that some state reaches is not proven to be anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vertigym.decisions.bindings import (
    Bound,
    Const,
    Env,
    Symbol,
    frozen,
    join,
    lookup,
    merged,
    named,
    written,
)
from vertigym.decisions.boxes import Box, Classes, Cover, Mask, hull, schema_mask, without
from vertigym.decisions.model import TABLES, Node, Rule
from vertigym.decisions.protocols import RuleModel

MOST_STATES = 300  # more are joined into fewer, wider ones
AS = " as "  # between a value's name and the kind of moment it is compared as


@dataclass(slots=True)
class State:
    """`outs` holds what the nodes that ran handed on; `live` the branches (node, branch) that were taken."""

    outs: dict[str, Env]
    box: Box
    live: frozenset[tuple[str, str]] = frozenset()
    hits: frozenset[str] = frozenset()


@dataclass(slots=True)
class Reachable:
    """Rules that some state reaches, and pairs (earlier, later) of rules of different nodes that one does."""

    rules: set[str] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class RuleRegion:
    """A rule in one state: the box its conditions make. `exact`: the box is all there is to it. `asks` is the
    part of the box that the rule itself makes: what is known before tells none of a table's rules apart."""

    rule: Rule
    box: Box | None
    exact: bool
    asks: Box = field(default_factory=dict)


class Explorer:
    """Walks one model. `domains` are the classes that the input's schema leaves open, by dotted path."""

    def __init__(self, model: RuleModel) -> None:
        self.model = model
        self.language = speak = model.language
        cells = list(dict.fromkeys(cell for rule in model.rules.values() for cell in rule.cells))
        parts = [part for _, cell in cells for part in speak.parts(cell)]
        simple = [cell for column, cell in cells if speak.is_simple(cell, column) or speak.simple_name(cell)]
        simple += [part for part in parts if speak.is_simple(part) or speak.simple_name(part)]
        self.classes = Classes(simple, _limits(model.schema), speak)
        self.domains = dict(_domains(self.classes, model.schema, ""))
        self._read = _names_read(model)
        self._edges = _edges_into(model)

    def run(self) -> Reachable:
        """Walk all nodes."""
        reached = Reachable()
        states = [State({}, dict(self.domains))]
        order = self.model.in_order()
        last = self._last_readers(order)
        for place, node in enumerate(order):
            states = [new for state in states for new in self._step(node, state, reached)]
            gone = {source for source, reader in last.items() if reader <= place}
            states = self._fewer([_forgotten(state, gone) for state in states], node)
        return reached

    def _last_readers(self, order: Sequence[Node]) -> dict[str, int]:
        """Node -> the place in `order` of the last node that it leads to."""
        places = {node.id: place for place, node in enumerate(order)}
        last = dict(places)
        for source, target, _ in self.model.edges:
            if source in last and target in places:
                last[source] = max(last[source], places[target])
        return last

    # One node.

    def _step(self, node: Node, state: State, reached: Reachable) -> Iterator[State]:
        env = self._entry(node, state)
        if env is None:
            yield state
        elif node.kind in TABLES:
            yield from self._table(node, state, env, reached)
        elif node.kind == "switch":
            yield from self._switch(node, state, env, reached)
        else:
            yield self._after(state, node, self._other(node, env))

    def _entry(self, node: Node, state: State) -> Env | None:
        """What the node sees; None where no way leads to it in this state."""
        if node.kind == "input":
            return {"": Symbol("")}
        envs = []
        for source, handle in self._edges.get(node.id, ()):
            if source in state.outs and (not handle or (source, handle) in state.live):
                envs.append(state.outs[source])
        return merged(envs, node.id) if envs else None

    def _table(self, node: Node, state: State, env: Env, reached: Reachable) -> Iterator[State]:
        rows = [self.row(rule, node, env, state.box) for rule in node.rules]
        if node.hit_policy != "first" or node.scope.endswith("[]"):
            first = node.hit_policy == "first"
            names = {r.rule.id for r in (self._decides(rows, state)[0] if first else rows) if r.box is not None}
            self._note(names, state, reached)
            out = written(env, node.target, Symbol(f"{node.id}!"), node.pass_through)
            yield self._after(_with_hits(state, names), node, out)
            return
        deciding, none_may = self._decides(rows, state)
        for row in deciding:
            self._note({row.rule.id}, state, reached)
            chosen = State(state.outs, row.box or {}, state.live, state.hits | {row.rule.id})
            yield self._after(chosen, node, self._outcome(row.rule, node, env))
        if none_may:
            yield self._after(state, node, env if node.pass_through else {"": Const({})})

    def _decides(self, rows: Sequence[RuleRegion], state: State) -> tuple[list[RuleRegion], bool]:
        """The rows that can be the first to match, each with a box around where it is; and whether none may."""
        earlier, deciding = Cover(), list[RuleRegion]()
        for row in rows:
            if row.box is None:
                continue
            pieces = without(row.box, earlier, self.classes.all)
            if pieces is None or pieces:
                deciding.append(
                    RuleRegion(row.rule, pieces[0] if pieces and len(pieces) == 1 else row.box, row.exact)
                )
                if row.exact:  # what the earlier ones cover needs no more covering
                    earlier.add(row.asks)
        rest = without(state.box, earlier, self.classes.all)
        return deciding, rest is None or bool(rest)

    def _switch(self, node: Node, state: State, env: Env, reached: Reachable) -> Iterator[State]:
        rows = [self.row(rule, node, env, state.box) for rule in node.rules]
        if node.hit_policy != "first":
            names = {row.rule.id for row in rows if row.box is not None}
            self._note(names, state, reached)
            taken = _with_hits(state, names)
            taken.live |= {(node.id, name) for name in names}
            yield self._after(taken, node, env)
            return
        deciding, none_may = self._decides(rows, state)
        for row in deciding:
            self._note({row.rule.id}, state, reached)
            live = state.live | {(node.id, row.rule.id)}
            chosen = State(state.outs, row.box or {}, live, state.hits | {row.rule.id})
            yield self._after(chosen, node, env)
        if none_may:
            yield state

    def _note(self, names: Iterable[str], state: State, reached: Reachable) -> None:
        for name in names:
            reached.rules.add(name)
            reached.pairs |= {(before, name) for before in state.hits}

    def _after(self, state: State, node: Node, env: Env) -> State:
        """The state once the node has handed on `env`."""
        return State({**state.outs, node.id: env}, state.box, state.live, state.hits)

    def _other(self, node: Node, env: Env) -> Env:
        """An expression node writes its keys one by one; a function may write anything."""
        if node.kind == "function":
            return {"": Symbol(f"{node.id}!")}
        if node.kind != "expression":
            return env
        if node.scope.endswith("[]"):
            return written(env, node.target, Symbol(f"{node.id}!"), node.pass_through)
        out: Env = dict(env) if node.pass_through else {"": Const({})}
        own: Env = {}
        for key, expression in node.expressions:
            value = self._value(expression, env, node, own, f"{node.id}:{key}")
            own = written(own, key, value, True)
            out = self._write(out, join(node.target, key), value)
        return out

    def _outcome(self, rule: Rule, node: Node, env: Env) -> Env:
        out: Env = dict(env) if node.pass_through else {"": Const({})}
        for key, expression in rule.outcome:
            if key and expression.strip():
                value = self._value(expression, env, node, {}, f"{rule.id}.{key}")
                out = self._write(out, join(node.target, key), value)
        return out

    def _write(self, env: Env, path: str, value: Bound) -> Env:
        """Bind `path`, unless no condition ever reads it."""
        top = path.partition(".")[0]
        if top not in self._read:
            return env
        return written(env, path, value, True)

    def _value(self, expression: str, env: Env, node: Node, own: Env, fresh: str) -> Bound:
        """What an expression gives: a constant where all it names is known, another name's value, or
        unknown."""
        names = self.language.names(expression)
        found = {name: named(name, env, node, own) for name in names}
        if len(names) == 1 and self.language.is_name(expression):
            return found[names[0]]
        if all(isinstance(v, Const) for v in found.values()) and "#" not in expression:
            return self._evaluated(expression, found) or Symbol(fresh)
        return Symbol(fresh)

    def _evaluated(self, expression: str, found: Mapping[str, Bound]) -> Const | None:
        """The engine's value of an expression over known names; None where it has none, or depends on more."""
        made = self.language.computed(expression, _values(found))
        return None if made is None else Const(made[0])

    # One row.

    def row(self, rule: Rule, node: Node, env: Env, box: Box) -> RuleRegion:
        """The rule's conditions as a box inside `box`."""
        found, exact = dict(box), True
        for column, cell in rule.cells:
            if not cell:
                continue
            for name, mask in self._parts(column, cell, node, env):
                if mask is None:
                    exact = False
                    continue
                if name:
                    mask = found[name] = found.get(name, self.classes.all) & mask
                if not mask:
                    return RuleRegion(rule, None, exact)
        computable = self._computable(rule, node, env)
        if computable is False:
            return RuleRegion(rule, None, False)
        asks = {name: mask for name, mask in found.items() if box.get(name) != mask}
        return RuleRegion(rule, found, exact and computable is True, asks)

    def _computable(self, rule: Rule, node: Node, env: Env) -> bool | None:
        """Whether the row's outcome can be computed (the engine passes over a row where it cannot); None: in
        some cases it may not."""
        sure = True
        for _, expression in rule.outcome if self.language.skips_failing_rules else ():
            names = self.language.names(expression)
            if not expression or (len(names) == 1 and self.language.is_name(expression)):
                continue
            found = {name: named(name, env, node, {}) for name in names}
            if "#" in expression or not all(isinstance(v, Const) for v in found.values()):
                sure = False
            elif self._evaluated(expression, found) is None:
                if self.language.depends_on_more(expression, names):
                    sure = False
                else:
                    return False
        return True if sure else None

    def _parts(self, column: str, cell: str, node: Node, env: Env) -> Iterator[tuple[str, Mask | None]]:
        """A cell as masks over named values; the mask is None for what is not understood."""
        if column:
            yield self._cell(column, cell, node, env)
            return
        for part in self.language.parts(cell):
            names = self.language.names(part)
            found = {name: named(name, env, node, {}) for name in names}
            if all(isinstance(v, Const) for v in found.values()) and "#" not in part:
                value = self._evaluated(part, found)
                yield "", self.classes.all if value is not None and value.value is True else 0
            elif (name := self.language.simple_name(part)) and isinstance(bound := found.get(name), Symbol):
                yield bound.name, self.classes.where(part, name)
            else:
                yield "", None

    def _cell(self, column: str, cell: str, node: Node, env: Env) -> tuple[str, Mask | None]:
        bound = self._column(column, node, env)
        others = {n: named(n, env, node, {}) for n in self.language.names(cell)}
        if isinstance(bound, Const) and all(isinstance(v, Const) for v in others.values()):
            matched = self.language.matches(cell, bound.value, _values(others))
            return "", None if matched is None else self.classes.all if matched else 0
        if isinstance(bound, Symbol) and self.language.is_simple(cell, column):
            axis = self.language.axis(cell)
            return f"{bound.name}{AS}{axis}" if axis else bound.name, self.classes.where(cell)
        return "", None

    def _column(self, column: str, node: Node, env: Env) -> Bound:
        """A column's value; an expression over unknown values is an unknown value named by all it depends
        on."""
        names = self.language.names(column)
        found = {name: named(name, env, node, {}) for name in names}
        if len(names) == 1 and self.language.is_name(column):
            return found[names[0]]
        if "#" not in column and found and all(isinstance(v, Const) for v in found.values()):
            return self._evaluated(column, found) or Symbol(f"{node.id}:{column}")
        signature = ", ".join(f"{n}={v}" for n, v in found.items())
        return Symbol(f"{column} with {signature}")

    # Few states.

    def _fewer(self, states: Sequence[State], node: Node) -> list[State]:
        """States that hand on the same are one; too many are joined, name by name."""
        grouped: dict[Any, State] = {}
        for state in states:
            key = (frozen(state.outs), state.live)
            old = grouped.get(key)
            box = hull(old.box, state.box) if old else state.box
            hits = old.hits | state.hits if old else state.hits
            grouped[key] = State(state.outs, box, state.live, hits)
        if len(grouped) <= MOST_STATES:
            return list(grouped.values())
        joined: dict[Any, State] = {}
        for state in grouped.values():
            key = (frozenset(state.outs), state.live)
            joined[key] = self._joined(joined[key], state, node) if key in joined else state
        return list(joined.values())

    def _joined(self, one: State, other: State, node: Node) -> State:
        """A state that holds both: a name on which they differ is unknown."""
        box = hull(one.box, other.box)
        outs = {}
        for source, env in one.outs.items():
            outs[source] = {
                path: value if value == second else Symbol(f"{node.id}?{source}?{path}")
                for path in env.keys() | other.outs[source].keys()
                for value, second in [(lookup(path, env), lookup(path, other.outs[source]))]
            }
        return State(outs, box, one.live, one.hits | other.hits)


def _forgotten(state: State, gone: set[str]) -> State:
    """The state without what nodes handed on that nobody reads any more."""
    outs = {node: env for node, env in state.outs.items() if node not in gone}
    return State(outs, state.box, frozenset(p for p in state.live if p[0] not in gone), state.hits)


def _with_hits(state: State, names: Iterable[str]) -> State:
    """The state with more rules hit."""
    return State(state.outs, state.box, state.live, state.hits | set(names))


def _limits(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The values that a schema names anywhere."""
    yield from (schema[key] for key in ("minimum", "maximum") if key in schema)
    yield from schema.get("enum", ())
    properties = schema.get("properties")
    for part in properties.values() if isinstance(properties, dict) else ():
        if isinstance(part, dict):
            yield from _limits(part)


def _domains(classes: Classes, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mask]]:
    properties = schema.get("properties")
    for key, part in properties.items() if isinstance(properties, dict) else ():
        if isinstance(part, dict):
            name = join(path, key)
            if part.keys() & {"enum", "type", "minimum", "maximum"}:
                yield name, schema_mask(classes, part)
            yield from _domains(classes, part, name)


def _values(found: Mapping[str, Bound]) -> dict[str, Any]:
    """The known values by name."""
    return {name: bound.value if isinstance(bound, Const) else None for name, bound in found.items()}


def _names_read(model: RuleModel) -> set[str]:
    """First parts of all names that anything reads; "" where a script may read anything."""
    texts = [text for node in model.nodes for text in node.texts()]
    names = {
        name.removeprefix("$root.").removeprefix("$.") for text in texts for name in model.language.names(text)
    }
    scopes = {node.scope.removesuffix("[]") for node in model.nodes if node.scope}
    return {name.partition(".")[0] for name in names | scopes}


def _edges_into(model: RuleModel) -> dict[str, list[tuple[str, str]]]:
    """Node -> (source, the rule id of the branch it hangs on or "")."""
    into: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, target, branch in model.edges:
        into[target].append((source, branch))
    return into
