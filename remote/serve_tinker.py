"""`vertigym tinker`: bases are loaded, and the API answers until it is told to end."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.core.files import locked
from vertigym.serving.service import listen, url_of

KEY_VARIABLE = "VERTIGYM_TINKER_KEY"
KEY_START = "tml-"  # the client sends no other


def base_names(said: Sequence[str]) -> dict[str, str]:
    """`NAME=FOLDER` or `FOLDER`, whose name is then what was given, as a mapping.

    Raises:
        ConfigError: none, or two of one name.
    """
    pairs = [
        (name, folder) if eq else (name, name) for name, eq, folder in (one.partition("=") for one in said)
    ]
    names = [name for name, _ in pairs]
    if not pairs or "" in [part for pair in pairs for part in pair]:
        raise ConfigError("no base model: say --base NAME=FOLDER, for example --base tiny=runs/tiny")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--base {twice!r} is there twice: give each base its own name")
    return dict(pairs)


def serve_tinker(
    bases: Sequence[str], store: Path, *, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Answer until SIGINT or SIGTERM. The key, needed where others can reach `host`, is read from
    VERTIGYM_TINKER_KEY.

    Raises:
        MissingDependencyError: starlette, uvicorn, protobuf or peft is not installed. ConfigError: no base, a
            reachable host without a key, a key that the client would not send, a port that is taken.
            DataError: a base that cannot be loaded. OutputError: another server has this store.
    """
    try:
        import peft  # noqa: F401
        import uvicorn

        from vertigym.remote.adapted_base import AdaptedBase
        from vertigym.remote.client_sessions import ClientSessions
        from vertigym.remote.endpoints import TinkerServer
        from vertigym.serving.admission import check_address
    except ImportError as error:
        raise MissingDependencyError(error.name or "protobuf", "tinker", "vertigym tinker") from None
    named, key = base_names(bases), os.environ.get(KEY_VARIABLE, "")
    if key and not key.startswith(KEY_START):
        raise ConfigError(f"{KEY_VARIABLE} must begin with {KEY_START!r}: the client sends no other key")
    check_address(host, key)
    with listen(host, port) as listening:
        loaded = {name: AdaptedBase(name, source) for name, source in named.items()}
        with locked(store):  # last: what cannot be served leaves no folder
            server = TinkerServer(ClientSessions(loaded, store), key=key)
            on_ready(url_of(listening))
            uvicorn.Server(server.config()).run(sockets=[listening])
