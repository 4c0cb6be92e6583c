"""A server of one environment, whatever its protocol: it runs until it is told to end."""

from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette

from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.serving.admission import is_loopback
from vertigym.serving.service import listen, url_of


def serve_env(
    id: str,  # noqa: A002
    make_app: Callable[[Env, str, bool], Starlette],
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    **settings: Any,
) -> None:
    """Serve `make_app(env, name, anywhere)` until SIGINT or SIGTERM; `anywhere`: others than this machine can
    reach it. `port` 0 takes a free one; `on_ready` is told the address. `settings` are uvicorn's.

    Raises:
        UnknownNameError: no such environment. ConfigError: the port is taken.
    """
    app = make_app(registry.make(id), registry.spec(id).id, not is_loopback(host))
    with listen(host, port) as listening:
        on_ready(url_of(listening))
        config = uvicorn.Config(app, log_level="warning", loop="asyncio", **settings)
        uvicorn.Server(config).run(sockets=[listening])
