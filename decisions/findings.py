"""What is wrong with a set of rules, proven: rules that no case can hit, rules that cover the same cases.

    shadowed      an earlier rule of the table, or several together, match wherever it matches
    never         its own conditions exclude each other or the input's schema, or its outcome cannot be computed
    unreachable   what is decided before its table leaves no case for it
    overlap       two rules of a table whose rules must exclude each other (hit policy unique) match one value
    cell          a literal is no value (the 30th of February), or not of its column's type or values

Each is an argument over all inputs (`boxes.py`, `symbolic.py`), so a rule that is not listed is not thereby
shown to be reachable: it is *not proven* either way until a case hits it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from vertigym.decisions.bindings import Env, Symbol
from vertigym.decisions.boxes import MOST_PIECES, Box, both, meet, minus, within, without
from vertigym.decisions.model import Node
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.symbolic import AS, Explorer, Reachable, RuleRegion

Kind = Literal["shadowed", "never", "unreachable", "overlap", "cell"]


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """`by` are the rules that stand in the way; `example` is what an overlap's columns hold where both match;
    `proven` is false only for an overlap whose columns are computed (they may never take that value); `cell` is
    a faulty cell and why."""

    kind: Kind
    rule: str
    text: str
    by: tuple[str, ...] = ()
    example: tuple[tuple[str, Any], ...] = ()
    proven: bool = True
    cell: str = ""

    @property
    def reason(self) -> str:
        """In words."""
        match self.kind:
            case "shadowed":
                verb = "matches" if len(self.by) == 1 else "match together"
                return f"{', '.join(self.by)} {verb} wherever it matches"
            case "never":
                return "no input meets its conditions"
            case "unreachable":
                return "what is decided before it leaves no case for it"
            case "cell":
                return self.cell
            case "overlap":
                where = ", ".join(f"{name} = {value!r}" for name, value in self.example) or "every case"
                return f"{'overlaps' if self.proven else 'may overlap'} with {self.by[0]} ({where})"


@dataclass(frozen=True, slots=True)
class RuleAnalysis:
    """A model's findings, and what some input may reach (rules, and pairs of rules of different nodes). `rows`
    are the rules of each node by themselves, as `explorer` reads them."""

    findings: tuple[RuleFinding, ...]
    reached: Reachable
    explorer: Explorer
    rows: Mapping[str, list[RuleRegion]]

    @property
    def unreachable(self) -> frozenset[str]:
        """Rules that are proven not to be hit by any case."""
        return frozenset(f.rule for f in self.findings if f.kind not in ("overlap", "cell"))


def analyse(model: RuleModel) -> RuleAnalysis:
    """Examine a model. Takes milliseconds; nothing is sampled."""
    explorer = Explorer(model)
    reached = explorer.run()
    found = [
        RuleFinding("cell", rule, model.rules[rule].text, cell=f"{cell} ({why})")
        for rule, cell, why in model.cell_faults()
    ]
    free = {node.id: free_rows(explorer, node) for node in model.nodes}
    for node in model.nodes:
        rows = free[node.id]
        for place, row in enumerate(rows):
            if row.rule.id not in reached.rules:
                found.append(_explained(explorer, node, rows, place))
        if node.hit_policy == "first" and not (node.unique or model.language.skips_failing_rules):
            proven = {finding.rule for finding in found}
            found += (finding for finding in _repeated(node) if finding.rule not in proven)
        if node.unique:
            found += _overlaps(explorer, rows)
            found += _never_alone(explorer, rows, reached)
    return RuleAnalysis(tuple(found), reached, explorer, free)


def _repeated(node: Node) -> Iterator[RuleFinding]:
    """Rules whose conditions, whatever they are, an earlier rule has already."""
    first: dict[tuple[tuple[str, str], ...], str] = {}
    for rule in node.rules:
        if (earlier := first.setdefault(rule.cells, rule.id)) != rule.id:
            yield RuleFinding("shadowed", rule.id, rule.text, (earlier,))


def free_rows(explorer: Explorer, node: Node) -> list[RuleRegion]:
    """A node's rules by themselves: nothing is known but the input's schema."""
    env: Env = {"": Symbol("")}
    return [explorer.row(rule, node, env, dict(explorer.domains)) for rule in node.rules]


def region(explorer: Explorer, rows: Sequence[RuleRegion], place: int) -> list[Box]:
    """Where a rule decides: its box without the earlier rules'; its whole box where that is not known."""
    row = rows[place]
    if row.box is None:
        return []
    earlier = [r.asks for r in rows[:place] if r.exact and r.box is not None]
    pieces = without(row.box, earlier, explorer.classes.all)
    return [row.box] if pieces is None else pieces


def _explained(explorer: Explorer, node: Node, rows: list[RuleRegion], place: int) -> RuleFinding:
    row = rows[place]
    if row.box is None:
        return RuleFinding("never", row.rule.id, row.rule.text)
    earlier = _covering(explorer, row, rows[:place]) if node.hit_policy == "first" else []
    if earlier:
        for other in reversed(list(earlier)):  # as few as are needed, the first ones kept
            fewer = [r for r in earlier if r is not other]
            if not _left(explorer, row, fewer):
                earlier = fewer
        return RuleFinding("shadowed", row.rule.id, row.rule.text, tuple(other.rule.id for other in earlier))
    return RuleFinding("unreachable", row.rule.id, row.rule.text)


def _covering(explorer: Explorer, row: RuleRegion, rows: list[RuleRegion]) -> list[RuleRegion]:
    """The first rows that match wherever `row` does, but for those that meet it nowhere; where the difference
    falls into too many pieces, one that does so alone; none, where they leave something, or that is unknown."""
    box, everything = row.box or {}, explorer.classes.all
    near = [other for other in rows if other.exact and other.box is not None and meet(box, other.asks)]
    pieces = [box]
    for count, other in enumerate(near, 1):
        pieces = [piece for old in pieces for piece in minus(old, other.asks, everything)]
        if not pieces:
            return near[:count]
        if len(pieces) > MOST_PIECES:
            return [other for other in near if within(box, other.asks, everything)][:1]
    return []


def _left(explorer: Explorer, row: RuleRegion, earlier: list[RuleRegion]) -> bool:
    boxes = [other.asks for other in earlier if other.box is not None]
    return row.box is None or without(row.box, boxes, explorer.classes.all) != []


def _overlaps(explorer: Explorer, rows: list[RuleRegion]) -> Iterator[RuleFinding]:
    written = {
        key for node in explorer.model.nodes for key in (*node.outputs, *(k for k, _ in node.expressions))
    }
    for place, row in enumerate(rows):
        for other in rows[:place]:
            if row.box is None or other.box is None or not (row.exact and other.exact):
                continue
            if not meet(row.box, other.asks):
                continue
            common = both(row.box, other.box) or {}
            asked = {name for r in (row, other) for name in (r.box or {}) if name not in explorer.domains}
            names = sorted(asked | {n for n in common if n in explorer.domains and n in _columns(row)})
            free = not any(name in written or " with " in name for name in names)
            example = tuple(_example(explorer, name, common[name]) for name in names)
            yield RuleFinding("overlap", row.rule.id, row.rule.text, (other.rule.id,), example, free)


def _example(explorer: Explorer, name: str, mask: int) -> tuple[str, Any]:
    """A name and a value it may have."""
    bare, _, axis = name.partition(AS)
    return bare, explorer.language.example(explorer.classes.example(mask), axis)


def _never_alone(explorer: Explorer, rows: list[RuleRegion], reached: Reachable) -> Iterator[RuleFinding]:
    """Rules of a unique table that others match wherever they do: each of their cases is refused."""
    for row in rows:
        others = [other for other in rows if other is not row and other.exact and other.box is not None]
        if row.rule.id in reached.rules and not _left(explorer, row, others):
            near = [r for r in others if row.box is not None and meet(row.box, r.asks)]
            yield RuleFinding("shadowed", row.rule.id, row.rule.text, tuple(other.rule.id for other in near))


def compatible(model: RuleModel, node: Node) -> list[tuple[int, int]]:
    """Places of two rules of a table that are not proven to exclude each other."""
    rows = free_rows(Explorer(model), node)
    return [
        (a, b)
        for (a, one), (b, other) in combinations(enumerate(rows), 2)
        if one.box is not None and other.box is not None and meet(one.box, other.asks)
    ]


def _columns(row: RuleRegion) -> set[str]:
    return {column for column, _ in row.rule.cells}
