"""`vertigym serve`: open the model and the record, listen, and answer until a signal."""

import os
import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.core.files import sha256
from vertigym.core.types import Policy
from vertigym.policies.load import load_policy, source_of, split_name
from vertigym.policies.registry import find_engine

KEY_VARIABLE = "VERTIGYM_SERVE_KEY"


def serve(model: str, record: Path, *, name: str = "", engine: str = "auto", **options: Any) -> None:
    """Serve `model` (whatever an eval takes: a folder, a run, `openai:MODEL@URL`) as `serve_policy` does.
    `engine` decodes a model that names none; `auto` is vLLM where it is installed.

    Raises:
        DataError: no such model. UnknownNameError: no such engine. MissingDependencyError: the engine is not
            installed. And what `serve_policy` raises.
    """
    source = source_of(model := with_engine(model, engine))
    named = source.name if source else model
    serve_policy(
        lambda: load_policy(named),
        record,
        name=name or default_name(named),
        version=version_of(source.folder) if source else model,
        **options,
    )


def with_engine(model: str, engine: str) -> str:
    """`ENGINE:MODEL` for a model that another engine than transformers decodes; anything else as it is.

    Raises:
        UnknownNameError: no such engine.
    """
    if engine == "auto":
        engine = "vllm" if find_spec("vllm") else "transformers"
    find_engine(engine)
    return f"{engine}:{model}" if engine != "transformers" and split_name(model)[0] == "transformers" else model


def serve_policy(
    load: Callable[[], Policy],
    record: Path,
    *,
    name: str,
    version: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    per_minute: float = 600,
    max_tokens: int = 512,
    proxies: Sequence[str] = (),
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer with the policy that `load` gives, until SIGINT or SIGTERM.

    Calls and feedback are appended to `record`. `port` 0 takes a free one; `on_ready` is told the address. The
    key, needed where others can reach `host`, is read from VERTIGYM_SERVE_KEY. Only `proxies` (addresses or
    networks) are believed for whom they ask.

    Raises:
        MissingDependencyError: starlette or uvicorn is not installed. ConfigError: a reachable host without a
            key, a proxy's address that is none, a port that is taken, a record that another server writes.
    """
    try:
        import uvicorn

        from vertigym.serving.admission import check_address, trusted_networks
        from vertigym.serving.app import ChatServer, ServerLimits
    except ImportError as error:
        raise MissingDependencyError(error.name or "starlette", "serve", "vertigym serve") from None
    from vertigym.serving.recorder import Recorder

    key = os.environ.get(KEY_VARIABLE, "")
    check_address(host, key, proxies)
    trusted_networks(proxies)
    with listen(host, port) as listening:
        policy = load()
        limits = ServerLimits(per_minute=per_minute, max_tokens=max_tokens)
        server = ChatServer(policy, Recorder(record), name=name, version=version, key=key, limits=limits)
        on_ready(f"{url_of(listening)}/v1")
        uvicorn.Server(server.config(proxies)).run(sockets=[listening])


def default_name(model: str) -> str:
    """What clients call the model: the folder's name, that of its run for a checkpoint, or that on the hub."""
    _, rest = split_name(model)
    if not Path(rest).is_dir():
        return rest.partition("@")[0]
    folder = Path(rest).resolve()
    return folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name


def version_of(folder: Path) -> str:
    """`step-000050-1f0c55d2a9b1`: the folder's name and the start of its weights' SHA-256."""
    weights = sorted(folder.glob("*.safetensors"))
    return "-".join([folder.resolve().name, *(sha256(file)[:12] for file in weights[:1])])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen(2048)  # clients that connect before the model is loaded wait
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; --port names another, 0 any that is free"
        ) from None
    return listening


def url_of(listening: socket.socket) -> str:
    """The address of a server on this socket."""
    at, port = listening.getsockname()[:2]
    return f"http://{f'[{at}]' if ':' in at else at}:{port}"
