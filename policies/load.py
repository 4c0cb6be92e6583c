"""From the name of a model on the command line to a Policy: a model, an endpoint, or a script."""

from pathlib import Path

from vertigym.core.types import Policy
from vertigym.policies.model_source import ModelSource, find_model
from vertigym.policies.registry import LoadOptions, engine_names, find_engine


def load_policy(name: str | Path, *, concurrency: int = 16, requests_per_minute: float = 0) -> Policy:
    """The policy called `name`: a model (`find_model` says which names lead to one), or `ENGINE:REST`:
    `vllm:MODEL` to run it with vLLM, `openai:MODEL@http://host/v1`, `scripted:expert`, `scripted:echo`,
    `scripted:constant:TEXT`, and what other engines take. The other arguments are for endpoints.

    Raises:
        DataError: no such model. UnknownNameError: no such scripted policy. ConfigError: an endpoint without
            a model or an address; a model that vLLM cannot run. MissingDependencyError: vLLM is not installed.
    """
    engine, rest = split_name(str(name))
    source = source_of(str(name))
    return find_engine(engine).load(
        str(source.folder) if source else rest, LoadOptions(concurrency, requests_per_minute)
    )


def source_of(name: str) -> ModelSource | None:
    """The model folder behind a policy's name; its own name is that of the policy. None where there is none: an
    endpoint, a script.

    Raises:
        DataError: no such model.
    """
    engine, rest = split_name(name)
    if not find_engine(engine).reads_folder:
        return None
    found = find_model(rest)
    return found if engine == "transformers" else ModelSource(found.folder, f"{engine}:{found.name}")


def split_name(name: str) -> tuple[str, str]:
    """`(engine, rest)` of a policy's name. Without an engine, it is a model for transformers."""
    engine, colon, rest = name.partition(":")
    if colon and engine in engine_names():
        return engine, rest
    attribute, colon, behind = rest.partition(":")
    if colon and "/" not in engine and attribute.isidentifier() and not Path(name).exists():
        return f"{engine}:{attribute}", behind  # an import path
    return "transformers", name
