"""A decision model as a page draws it: its nodes in layers, and of every rule how many tasks and how many
sampled cases hit it, and what is proven to be wrong with it.
"""

from collections import Counter
from functools import lru_cache
from typing import Any

from vertigym.core.errors import InputError
from vertigym.core.types import SPLITS
from vertigym.decisions.findings import analyse
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.sampler import Sampler
from vertigym.envs.explained import decision_model, task_rules
from vertigym.studio.hand_play import opened

Json = dict[str, Any]
_CASES = 1000  # as `rules check` samples


@lru_cache(maxsize=8)
def rules_data(name: str) -> Json:
    """Nodes with their rules, edges, and findings.

    Raises:
        InputError: the environment is not made from a decision model.
    """
    env, model = opened(name), _model(name)
    faults: dict[str, list[str]] = {}
    for finding in analyse(model).findings:
        faults.setdefault(finding.rule, []).append(f"{finding.kind}: {finding.reason}")
    hits = {
        split: Counter(r for rules in task_rules(env, ids).values() for r in rules)
        for split in SPLITS
        if (ids := env.tasks.ids(split))
    }
    layers = _layers(model)
    return {
        "splits": list(hits),
        "nodes": [
            {
                "id": node.id,
                "name": node.name,
                "kind": node.kind,
                "layer": layers[node.id],
                "expressions": [f"{key} = {' '.join(text.split())}" for key, text in node.expressions],
                "rules": [
                    {
                        "id": rule.id,
                        "text": rule.text,
                        "tasks": [count[rule.id] for count in hits.values()],
                        "faults": faults.get(rule.id, []),
                    }
                    for rule in node.rules
                ],
            }
            for node in model.in_order()
        ],
        "edges": [[source, target] for source, target, _ in dict.fromkeys(model.edges)],
    }


@lru_cache(maxsize=8)
def coverage(name: str) -> Json:
    """How many sampled cases hit each rule; takes seconds for a large model."""
    model = _model(name)
    sampled = Sampler(model, 0, known=analyse(model)).run(_CASES)
    hits = Counter(rule for sample in sampled.samples for rule in sample.evaluation.rules)
    return {
        "cases": len(sampled.samples),
        "refused": sampled.refused,
        "refusal": sampled.refusal,
        "hits": dict(hits),
        "rules": len(model.rules),
        "hit": len(sampled.hit),
    }


def _model(name: str) -> RuleModel:
    model = decision_model(opened(name))
    if model is None:
        raise InputError(f"{name}: it is not made from a decision model, so there are no rules to draw")
    return model


def _layers(model: RuleModel) -> dict[str, int]:
    """How many nodes lie before each node, on the longest way to it."""
    layers: dict[str, int] = {}
    for node in model.in_order():
        before = [layers.get(source, 0) for source, target, _ in model.edges if target == node.id]
        layers[node.id] = 1 + max(before, default=-1)
    return layers
