"""Registers the code environments vertigym ships."""

from vertigym.envs.registry import register

register(
    "vertigym/Functions-v0",
    "vertigym.envs.code.env:functions",
    description="Write a Python function; hidden calls decide.",
)
register(
    "vertigym/Programs-v0",
    "vertigym.envs.code.env:programs",
    description="Write a program that reads stdin and prints.",
)
register(
    "vertigym/Repair-v0",
    "vertigym.envs.code.env:repair",
    description="Write a function, see the public tests fail, try again; hidden calls decide.",
)
register(
    "vertigym/Repository-v0",
    "vertigym.envs.code.repository:load",
    description="Change a small repository through bash, read, edit and submit; hidden tests decide.",
)
