"""DMN's XML, read safely: no document type, no entities, bounded size and depth; names without their
namespaces.

Comparing local names makes all versions, and the tools' own spellings of the namespace, one language.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vertigym.core.errors import MissingDependencyError
from vertigym.decisions.model import DecisionError

Element = Any  # xml.etree's, which defusedxml builds

VERSIONS = {
    "20130901": "1.0", "20151101": "1.1", "20153011": "1.1", "20180521": "1.2", "20191111": "1.3",
    "20211108": "1.4", "20230324": "1.5", "20240513": "1.6",
}  # fmt: skip
_MOST_BYTES = 10_000_000
_MOST_DEPTH = 200
EXPRESSIONS = {
    "decisionTable", "literalExpression", "context", "relation", "list", "invocation", "functionDefinition",
    "conditional", "filter", "for", "every", "some",
}  # fmt: skip


def read_root(file: Path) -> Element:
    """The `definitions` element of a DMN file.

    Raises:
        DecisionError: not XML, not DMN, too large or too deep, or with a document type or entities.
        MissingDependencyError: defusedxml is not installed.
    """
    root = read_xml(file)
    if not version_of(root):
        raise DecisionError(f"{file}: not DMN 1.1 to 1.6: the root is {root.tag[:100]!r}")
    return root


def read_xml(file: Path) -> Element:
    """The root of an XML file.

    Raises:
        DecisionError: not XML, too large or too deep, or with a document type or entities.
        MissingDependencyError: defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import fromstring
    except ImportError:
        raise MissingDependencyError("defusedxml", "formats", "reading DMN") from None
    if (size := file.stat().st_size) > _MOST_BYTES:
        raise DecisionError(f"{file}: {size:,} bytes; a DMN file has at most {_MOST_BYTES:,}")
    try:
        root = fromstring(file.read_bytes(), forbid_dtd=True)
    except DefusedXmlException:
        raise DecisionError(f"{file}: has a document type or entities; DMN needs neither") from None
    except (SyntaxError, ValueError, LookupError) as error:  # ParseError is a SyntaxError
        raise DecisionError(f"{file}: not XML ({error})") from None
    if _depth(root) > _MOST_DEPTH:
        raise DecisionError(f"{file}: elements lie in each other more than {_MOST_DEPTH} deep")
    return root


def version_of(root: Element) -> str:
    """The version of DMN, by the date in the namespace; empty where it is none."""
    space, _, name = str(root.tag).lstrip("{").rpartition("}")
    parts = urlsplit(space)
    if name != "definitions" or parts.netloc.replace(" ", "") != "www.omg.org":
        return ""
    return next((VERSIONS[p] for p in parts.path.split("/") if p in VERSIONS and "/DMN/" in parts.path), "")


def _depth(root: Element) -> int:
    layer, depth = [root], 0
    while layer:
        layer, depth = [inner for element in layer for inner in element], depth + 1
    return depth


def local(element: Element) -> str:
    """The element's name without its namespace; empty for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def children(element: Element, *names: str) -> list[Element]:
    """The children of these names, in order."""
    return [inner for inner in element if local(inner) in names]


def child(element: Element, name: str) -> Element | None:
    """The first child of a name."""
    return next(iter(children(element, name)), None) if element is not None else None


def text_of(element: Element | None) -> str:
    """The text right inside an element, stripped."""
    return (element.text or "").strip() if element is not None else ""


def inner_text(element: Element | None) -> str:
    """The text of an element's `text` child, as all expressions of DMN hold theirs."""
    return text_of(child(element, "text")) if element is not None else ""


def name_of(element: Element) -> str:
    """The name of an element, or of the variable that it gives; inner spaces written as one."""
    variable = child(element, "variable")
    name = (variable.get("name") if variable is not None else None) or element.get("name") or element.get("id")
    return " ".join((name or "").split())


def body_of(element: Element) -> Element | None:
    """The one expression right inside an element, None where there is none.

    Raises:
        DecisionError: it has several.
    """
    bodies = children(element, *EXPRESSIONS)
    if len(bodies) > 1:
        raise DecisionError(f"{local(element)} has {len(bodies)} expressions instead of one")
    return bodies[0] if bodies else None
