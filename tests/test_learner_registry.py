"""A loss and an advantage of one's own: by import path, and entered under a name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.learner import registry
from vertigym.learner.batch import Batch
from vertigym.learner.config import PolicyConfig
from vertigym.learner.objective import policy_loss, token_advantages
from vertigym.learner.registry import EpisodeRewards, PolicyAdvantage, PolicyLoss
from vertigym.learner.samples import TokenColumns

MODULE = '''
import torch
from vertigym.learner.registry import PolicyAdvantage, PolicyLoss

def squared(tokens, config):
    """A ratio that is punished quadratically."""
    loss = (tokens.logp_T - tokens.old_logp_T).square() - tokens.advantage_T * tokens.logp_T
    return loss, torch.zeros_like(loss, dtype=torch.bool)

def signs(rewards, config):
    """Better or worse than half."""
    return rewards.spread(torch.sign(rewards.totals() - 0.5))

narrow = PolicyLoss(squared, tokenwise=True, defaults={"clip_low": 0.05}, requires={"epochs": (1, "is shy")})
compared = PolicyAdvantage(signs, relative=True)
'''
REWARDS = EpisodeRewards(torch.tensor([0.0, 1.0, 0.2]), torch.tensor([0, 0, 1]), torch.tensor([0, 0]))


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_objective.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def config(**policy: Any) -> PolicyConfig:
    return parse(PolicyConfig, policy, source="run.toml")


def loss_of(cfg: PolicyConfig) -> tuple[float, list[float]]:
    logp_T = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantage_T = torch.tensor([1.0, -1.0])
    columns: TokenColumns[Tensor] = TokenColumns(
        sampler_logp=torch.tensor([-1.5, -2.0]), advantage=advantage_T, weight=torch.ones(2)
    )
    empty = torch.zeros(0, dtype=torch.long)
    total, _ = policy_loss(cfg)(logp_T, None, Batch(empty, empty, empty, torch.tensor([0, 1]), columns))
    total.backward()
    assert logp_T.grad is not None
    return total.item(), logp_T.grad.tolist()


def test_a_function_by_its_import_path_is_the_loss() -> None:
    value, gradient = loss_of(config(loss="own_objective:squared"))
    assert value == pytest.approx(0.25 + 1 - 2)
    assert gradient == pytest.approx([2 * 0.5 - 1, 1.0])


def test_a_function_by_its_import_path_is_the_advantage() -> None:
    cfg = config(advantage="own_objective:signs")
    advantage_T, returns_T = token_advantages(cfg, REWARDS)
    assert advantage_T.tolist() == [1, 1, -1]
    assert returns_T is None
    assert not cfg.relative, "of a plain function nothing is known: no group may be left out"
    assert config(advantage="own_objective:compared").relative


def test_an_entry_says_its_defaults_and_needs() -> None:
    assert config(loss="own_objective:narrow").clip_low == 0.05
    assert config(loss="own_objective:narrow", clip_low=0.1).clip_low == 0.1
    with pytest.raises(ConfigError, match=r'run.toml: .*loss "own_objective:narrow" is shy: epochs = 1'):
        config(loss="own_objective:narrow", epochs=2)


def test_an_entry_under_a_name_is_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import own_objective  # type: ignore[import-not-found]

    monkeypatch.setitem(registry.LOSSES, "toy", PolicyLoss(own_objective.squared))
    monkeypatch.setitem(registry.ADVANTAGES, "toy", PolicyAdvantage(own_objective.signs, nonnegative=True))
    assert loss_of(config(loss="toy")) == loss_of(config(loss="own_objective:squared"))
    assert token_advantages(config(advantage="toy"), REWARDS)[0].tolist() == [1, 1, -1]
    with pytest.raises(ConfigError, match="divides by the mean reward"):
        config(advantage="toy", overlong=3)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"loss": "ppo_klip"}, r"run.toml: .*unknown loss 'ppo_klip' .*; did you mean 'ppo_clip'"),
        ({"advantage": "gripo"}, r"run.toml: .*unknown advantage 'gripo' .*; did you mean 'grpo'"),
        ({"loss": "no_such_module:fn"}, "cannot be imported .*no_such_module.*PYTHONPATH"),
        ({"loss": "own_objective:nothing"}, "cannot be imported .*nothing"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(**policy)
    assert "\n" not in str(caught.value)


def test_only_a_loss_that_says_so_is_taken_token_by_token() -> None:
    assert not hasattr(policy_loss(config(loss="own_objective:squared")), "tokenwise")
    assert hasattr(policy_loss(config(loss="own_objective:narrow")), "tokenwise")
