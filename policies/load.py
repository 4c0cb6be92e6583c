"""From the name of a model on the command line to a Policy: a folder, an endpoint, or a script."""

from pathlib import Path

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.types import Policy
from vertigym.policies.scripted import scripted


def load_policy(name: str | Path, *, concurrency: int = 16, requests_per_minute: float = 0) -> Policy:
    """The policy called `name`: a Hugging Face model folder, `vllm:FOLDER` to run it with vLLM,
    `openai:MODEL@http://host/v1`, or `scripted:expert`, `scripted:echo`, `scripted:constant:TEXT`. The other
    arguments are for endpoints.

    Raises:
        DataError: no such folder. UnknownNameError: no such scripted policy. ConfigError: an endpoint without
            a model or an address; a model that vLLM cannot run. MissingDependencyError: vLLM is not installed.
    """
    kind, _, rest = str(name).partition(":")
    if kind == "scripted":
        return scripted(rest)
    if kind == "openai":
        model, at, url = rest.partition("@")
        if not (model and at):
            raise ConfigError(f"model {str(name)!r}: the form is openai:MODEL@http://host:port/v1")
        from vertigym.policies.endpoint import EndpointPolicy

        return EndpointPolicy(model, url, concurrency=concurrency, requests_per_minute=requests_per_minute)
    if kind == "vllm":
        from vertigym.policies.vllm_engine import open_vllm

        return open_vllm(rest)
    if not Path(name).is_dir():
        raise DataError(
            f"model {str(name)!r}: no such folder; give a model folder, vllm:FOLDER, openai:MODEL@URL or "
            "scripted:expert"
        )
    from vertigym.policies.engine import TransformersEngine  # torch is slow to import: only when needed

    return TransformersEngine.load(name)
