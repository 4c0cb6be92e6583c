"""vertigym: rules, tests and traces of a business domain in; RL environments, a trained model and a gate out.

Importing the package costs next to nothing; each room is imported when it is used:

    core       the words everything speaks
    envs       environments on gymnasium, and their registry
    rewards    verifiers: something the policy wrote -> Score
    sandboxes  run untrusted programs
    policies   models and how they generate
    kernels    fused log-prob and entropy
    trainer    SFT, GRPO, checkpoints, runs
    evals      suites, statistics, gates, reports
    interop    our environments and evals in other programs, theirs here
"""

from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "from_trl", "to_trl"]


def __getattr__(name: str) -> Any:
    """The few names of the package itself, imported when first used."""
    if name in ("to_trl", "from_trl"):
        from vertigym.interop import trl_tasks

        return getattr(trl_tasks, name)
    raise AttributeError(f"module 'vertigym' has no attribute {name!r}")
