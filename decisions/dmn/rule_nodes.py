"""A decision as a node of rules: what the analysis walks, the sampler aims at, and a prompt shows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

from vertigym.decisions.dmn.atoms import AtomReader
from vertigym.decisions.dmn.decision_tables import DecisionTable
from vertigym.decisions.dmn.elements import EXPRESSIONS, Element, body_of, child, children, inner_text, local
from vertigym.decisions.dmn.graph import DecisionGraph
from vertigym.decisions.dmn.reader import DrgElement
from vertigym.decisions.model import Node, Rule
from vertigym.feel import Expr, FeelError, parse
from vertigym.feel.syntax import Call, Variable

_FIRST = ("UNIQUE", "ANY", "FIRST", "PRIORITY")
_POLICIES = {
    "UNIQUE": "At most one row matches, and it decides.",
    "ANY": "All rows that match say the same.",
    "PRIORITY": "Of the rows that match, the one whose result comes first in the order of priority decides",
    "FIRST": "The first row that matches decides.",
    "RULE ORDER": "Every row that matches adds a result, in the order of the rows.",
    "OUTPUT ORDER": "Every row that matches adds a result, in the order of priority",
    "COLLECT": "Every row that matches adds a result.",
}


def nodes_of(element: DrgElement) -> Iterator[Node]:
    """The nodes of a decision or a business knowledge model: its table, or its tables and the whole as text."""
    if element.table:
        yield _table_node(element, element.table)
        return
    if not element.texts:
        return
    if element.kind == "decision" and local(body_of(element.element)) == "literalExpression":
        yield Node(element.key, element.name, "expression", expressions=((element.name, element.texts[0]),))
        return
    yield from (_table_node(element, table) for table in element.tables)
    name = element.name
    if element.kind != "decision":
        name = f"{name}({', '.join(p.name for p in element.parameters)})"
    logic = element.element if element.kind == "decision" else child(element.element, "encapsulatedLogic")
    texts = tuple((element.name, text) for text in element.texts)
    yield Node(element.key, name, "boxed", expressions=texts, source="\n".join(shown(body_of(logic))))


def _table_node(element: DrgElement, table: DecisionTable) -> Node:
    """A table's rules; those of a priority in the order of it, so that the first that matches decides. The
    result of a table that gives a list, or stands inside something else, is not known by a name of its own."""
    ranked = table.policy == "PRIORITY" and all(table.constant(rule) is not None for rule in table.rules)
    first = element.table is table and table.policy in _FIRST and (table.policy != "PRIORITY" or ranked)
    single, head = len(table.outputs) == 1, element.name if first else ""
    fields = tuple(
        ".".join(part for part in (head, "" if single else output.name) if part) for output in table.outputs
    )
    rules = [
        Rule(
            f"{table.id}:{rule.number}",
            table.id,
            place,
            tuple(
                (column.text, "" if cell == "-" else cell)
                for column, cell in zip(table.columns, rule.cells, strict=True)
            ),
            tuple(zip(fields, ("" if text == "-" else text for text in rule.results), strict=True)),
        )
        for place, rule in enumerate(table.by_priority() if ranked else table.rules)
    ]
    return Node(
        table.id,
        table.id,
        "table" if element.table is table else "inner table",
        rules=tuple(rules),
        columns=tuple(column.text for column in table.columns),
        outputs=fields,
        hit_policy="first" if first else "collect",
        target="" if first else element.name,
        unique=first and table.policy == "UNIQUE",
        source=_policy_text(table),
    )


def _policy_text(table: DecisionTable) -> str:
    text = _POLICIES[table.policy]
    if table.policy in ("PRIORITY", "OUTPUT ORDER"):
        text += f": {'; '.join(output.limit_text for output in table.outputs if output.limit_text)}."
    if table.aggregate:
        text += f" The answer is their {table.aggregate.lower()}."
    if table.defaults:
        text += f" Where no row matches: {table.defaults}."
    return text


def shown(element: Element | None) -> Iterator[str]:
    """A boxed expression as lines of text."""
    if element is None:
        return
    match local(element):
        case "literalExpression":
            yield " ".join(inner_text(element).split())
        case "context":
            for entry in children(element, "contextEntry"):
                variable = child(entry, "variable")
                name = variable.get("name") if variable is not None else "result"
                yield from _headed(f"- {name} = ", shown(body_of(entry)))
        case "invocation":
            called = inner_text(body_of(element))
            yield f"{called}, where"
            for binding in children(element, "binding"):
                parameter = child(binding, "parameter")
                name = parameter.get("name") if parameter is not None else ""
                yield from _headed(f"  - {name} = ", shown(body_of(binding)))
        case "decisionTable":
            policy = f"{element.get('hitPolicy') or 'UNIQUE'} {element.get('aggregation') or ''}"
            yield f"a table, hit policy {policy.strip()}"
            heads = [inner_text(child(e, "inputExpression")) for e in children(element, "input")]
            heads += [f"→ {e.get('name') or 'result'}" for e in children(element, "output")]
            yield f"| {' | '.join(heads)} |"
            for rule in children(element, "rule"):
                cells = [inner_text(e) for e in children(rule, "inputEntry", "outputEntry")]
                yield f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"
        case "list" | "relation" | "row" as kind:
            yield kind
            for part in children(element, "column", "row", *EXPRESSIONS):
                yield from _headed(
                    "  - ", iter([part.get("name") or ""]) if local(part) == "column" else shown(part)
                )
        case kind:
            yield f"{kind} {element.get('iteratorVariable') or ''}".strip()
            for part in element:
                if local(part) in ("formalParameter", "column"):
                    yield f"  - {part.get('name')}"
                else:
                    yield from _headed(f"  - {local(part)}: ", shown(body_of(part)))


def _headed(head: str, lines: Iterator[str]) -> Iterator[str]:
    first = next(lines, "")
    yield f"{head}{first}"
    yield from (f"  {line}" for line in lines)


def local_aliases(
    elements: Sequence[DrgElement], graph: DecisionGraph, roots: Mapping[str, str]
) -> tuple[dict[str, list[str]], set[str]]:
    """What local names stand for: an output's name for its decision, a context's entry for what its expression
    names, a parameter for the arguments that it is ever given; and the inputs and decisions whose name means
    something else somewhere. Read in two rounds, so that what is passed on is followed."""
    known = {*roots, *(e.name for e in elements if e.kind == "decision")}
    aliases: dict[str, list[str]] = {}
    ambiguous = set[str]()

    def stands_for(name: str, names: Sequence[str]) -> None:
        own = [name] if name in known else []
        aliases[name] = list(dict.fromkeys([*own, *aliases.get(name, ()), *names]))
        ambiguous.update(own)

    for element in elements:
        for name, (key, output) in element.aliases.items():
            stands_for(name, [".".join(part for part in (graph.elements[key].name, output) if part)])
    invoked = {e.name: e for e in elements if e.parameters}
    for _ in range(2):
        reader = AtomReader(known, dict(aliases))
        for element in elements:
            found = [(name, tree) for name, tree in _local_trees(element.element, graph.words) if name]
            for name, tree in [*found, *_arguments(element, invoked, graph.words)]:
                if tree != Variable(name):
                    stands_for(name, reader.names(tree))
    return aliases, ambiguous


def _arguments(
    element: DrgElement, invoked: Mapping[str, DrgElement], words: Collection[str]
) -> Iterator[tuple[str, Expr]]:
    """The parameters of knowledge models and what an element's texts give for them."""
    for text in dict.fromkeys(element.texts):
        if not any(name in text for name in invoked):
            continue
        try:
            tree = parse(text, words)
        except FeelError:
            continue
        for part in tree.walk():
            if isinstance(part, Call) and isinstance(part.function, Variable) and part.function.name in invoked:
                names = part.names or tuple(p.name for p in invoked[part.function.name].parameters)
                yield from zip(names, part.arguments, strict=False)


def _local_trees(element: Element, words: Collection[str]) -> Iterator[tuple[str, Expr]]:
    """Names that an element gives to parts of its own, and the expressions they stand for."""
    for part in element.iter():
        if local(part) == "contextEntry" and child(part, "variable") is not None:
            name = child(part, "variable").get("name") or ""  # type: ignore[union-attr]
        elif local(part) == "binding" and child(part, "parameter") is not None:
            name = child(part, "parameter").get("name") or ""  # type: ignore[union-attr]
        else:
            continue
        for inner in part.iter():
            if local(inner) == "text":
                with suppress(FeelError):
                    yield " ".join(name.split()), parse((inner.text or "").strip(), words)
