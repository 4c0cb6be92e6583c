"""Environments: gymnasium environments that speak strings, and the registry that finds them.

from vertigym import envs
env = envs.make("vertigym/Returns-v0")
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step("{}")
info["score"]
"""

from vertigym.envs.env import Env, SingleTurnEnv, Turn
from vertigym.envs.registry import absolute, ids, make, register, spec
from vertigym.envs.tasks import GeneratedTasks, Tasks, TaskSet

__all__ = [
    "Env",
    "GeneratedTasks",
    "SingleTurnEnv",
    "TaskSet",
    "Tasks",
    "Turn",
    "absolute",
    "ids",
    "make",
    "register",
    "spec",
]
