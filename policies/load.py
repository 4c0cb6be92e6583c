"""From the name of a model on the command line to a Policy: a folder, an endpoint, or a script."""

from pathlib import Path

from vertigym.core.errors import DataError
from vertigym.core.types import Policy
from vertigym.policies.registry import LoadOptions, engine_names, find_engine


def load_policy(name: str | Path, *, concurrency: int = 16, requests_per_minute: float = 0) -> Policy:
    """The policy called `name`: a Hugging Face model folder, or `ENGINE:REST`: `vllm:FOLDER` to run it with
    vLLM, `openai:MODEL@http://host/v1`, `scripted:expert`, `scripted:echo`, `scripted:constant:TEXT`, and what
    other engines take. The other arguments are for endpoints.

    Raises:
        DataError: no such folder. UnknownNameError: no such scripted policy. ConfigError: an endpoint without
            a model or an address; a model that vLLM cannot run. MissingDependencyError: vLLM is not installed.
    """
    engine, rest = split_name(str(name))
    if engine == "transformers" and not Path(rest).is_dir():
        raise DataError(
            f"model {str(name)!r}: no such folder; give a model folder, vllm:FOLDER, openai:MODEL@URL or "
            "scripted:expert"
        )
    return find_engine(engine).load(rest, LoadOptions(concurrency, requests_per_minute))


def split_name(name: str) -> tuple[str, str]:
    """`(engine, rest)` of a policy's name. Without an engine, it is a folder for transformers."""
    engine, colon, rest = name.partition(":")
    if colon and engine in engine_names():
        return engine, rest
    attribute, colon, behind = rest.partition(":")
    if colon and "/" not in engine and attribute.isidentifier() and not Path(name).exists():
        return f"{engine}:{attribute}", behind  # an import path
    return "transformers", name
