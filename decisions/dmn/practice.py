"""Functions of a DMN file as decisions to practise: a case has a field for each parameter, the answer is the
result.

A knowledge model, a decision service, and a function in a decision's context are such functions. Each is made a
decision that invokes it, as a modeller would draw one, so that everything else treats it as any decision.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from xml.etree.ElementTree import Element as NewElement
from xml.etree.ElementTree import SubElement

from vertigym.decisions.dmn.boxed import FormalParameter
from vertigym.decisions.dmn.elements import Element, body_of, children, inner_text, local, name_of
from vertigym.decisions.dmn.reader import DrgElement

_FUNCTION = re.compile(r"\s*function\s*\(([^()]*)\)\s*(?!\s|external)(.+)", re.DOTALL)
_REQUIREMENTS = ("informationRequirement", "knowledgeRequirement")


def invoking(function: DrgElement, parameters: list[FormalParameter]) -> tuple[Element, list[Element]]:
    """A decision that invokes a function, and its input data, one a parameter."""
    id_ = function.key.rpartition("#")[2]
    decision = NewElement("decision", id=f"{id_}~decision", name=function.name)
    inputs = [NewElement("inputData", id=f"{id_}~{p.name}", name=p.name) for p in parameters]
    for data in inputs:
        requirement = SubElement(decision, "informationRequirement")
        SubElement(requirement, "requiredInput", href=f"#{data.get('id')}")
    requirement = SubElement(decision, "knowledgeRequirement")
    SubElement(requirement, "requiredKnowledge", href=f"#{id_}")
    text = SubElement(SubElement(decision, "literalExpression"), "text")
    text.text = f"{function.name}({', '.join(p.name for p in parameters)})"
    return decision, inputs


def inner_functions(decision: DrgElement) -> Iterator[Element]:
    """The functions that stand in a decision, or in its context, each as a knowledge model of its own."""
    body = body_of(decision.element)
    entries = children(body, "contextEntry") if body is not None and local(body) == "context" else []
    for holder in [decision.element, *entries]:
        if (logic := _logic(body_of(holder))) is not None:
            name = name_of(holder)
            made = NewElement(
                "businessKnowledgeModel", id=f"{decision.key.rpartition('#')[2]}~{name}", name=name
            )
            made.append(logic)
            made.extend(deepcopy(children(decision.element, *_REQUIREMENTS)))
            yield made


def _logic(body: Element | None) -> Element | None:
    """A function definition, boxed or as text, as the logic of a knowledge model."""
    if body is None:
        return None
    if local(body) == "functionDefinition":
        logic: Element = deepcopy(body)
        logic.tag = "encapsulatedLogic"
        return logic
    found = _FUNCTION.fullmatch(inner_text(body)) if local(body) == "literalExpression" else None
    if found is None:
        return None
    logic = NewElement("encapsulatedLogic")
    for parameter in filter(None, map(str.strip, found[1].split(","))):
        name, _, kind = (part.strip() for part in parameter.partition(":"))
        SubElement(logic, "formalParameter", name=name, typeRef=kind)
    SubElement(SubElement(logic, "literalExpression"), "text").text = found[2]
    return logic
