"""Registers the math environments vertigym ships."""

from vertigym.envs.math import reasoning
from vertigym.envs.registry import register

register(
    "vertigym/Arithmetic-v0",
    "vertigym.envs.math.arithmetic:load",
    description="Whole-number arithmetic and linear equations, level=1 to 6.",
)

for _name in reasoning.names():
    register(
        f"reasoning_gym/{_name}-v0",
        "vertigym.envs.math.reasoning:load",
        description="A generated data set of the package reasoning-gym.",
        source="reasoning-gym",
        name=_name,
    )
