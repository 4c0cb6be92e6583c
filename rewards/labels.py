"""The verifier of a classifier: the right label and nothing else, and what each confusion costs.

A right label earns 1. A wrong one is penalised (`rewards.chance`), so that always giving the commonest label
earns nothing, and is never rewarded, however cheap the confusion: were cheap mistakes rewarded, always giving
the cheapest label would be, too. A confusion dearer than the cheapest one costs on top, down to -1. What a
report needs for macro-F1 and the confusion matrix (the true label and the given one) is in the evidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.errors import ConfigError, suggest
from vertigym.core.types import Score, Task
from vertigym.rewards.answers import Extractor, extractor
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.chance import ChanceCorrection
from vertigym.rewards.text import named_option

Costs = Mapping[str, Mapping[str, float]]


def label(
    labels: Sequence[str],
    *,
    costs: Costs | None = None,
    correction: ChanceCorrection | None = None,
    where: str | Extractor = "whole",
) -> RewardFunction:
    """1 for the right one of `labels`; parts `right` and `error_cost` (less is better).

    `costs[true][given]` is what a confusion costs, 1 where it is not named; a reply that names no label costs
    as much as the dearest confusion of its true label. `correction` of the labels; without it a guess costs
    nothing.

    Raises:
        ConfigError: a cost names a label that is not there, or is not above 0.
    """
    find, table, chance = extractor(where), dict(costs or {}), correction or ChanceCorrection()
    _check(labels, table)
    named = [cost for row in table.values() for cost in row.values()]
    least, most = min([1.0, *named]), max([1.0, *named])

    @bounded
    def label(completion: str, answer: Any, task: Task) -> Score:
        if answer not in labels:
            return Score.unscored(f"the reference {answer!r} is not one of the labels {list(labels)}")
        given = named_option(find(completion) or "", labels) or ""
        right = given == answer
        row = table.get(answer, {})
        cost = 0.0 if right else row.get(given, 1.0) if given else max([1.0, *row.values()])
        value = 1.0 if right else max(-1.0, -chance.penalty(given, task) - (cost - least) / most)
        return Score(value, {"right": float(right), "error_cost": cost}, {"label": [answer, given]})

    return label


def _check(labels: Sequence[str], costs: Costs) -> None:
    for true, row in costs.items():
        for name in (true, *row):
            if name not in labels:
                raise ConfigError(f"costs: {name!r} is not a label{suggest(name, labels)}")
        for given, cost in row.items():
            if not cost > 0:
                raise ConfigError(f"costs.{true}.{given} = {cost}: a cost is above 0 (1 where none is named)")
