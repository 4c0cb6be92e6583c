"""An environment on OpenEnv's wire: a WebSocket connection is a session, which plays one episode at a time.

    -> {"type": "reset", "data": {"task": "…"}}         or {"split": "eval", "index": 3, "seed": 0}
    <- {"type": "observation", "data": {"observation": {"messages": […], …}, "reward": null, "done": false}}
    -> {"type": "step", "data": {"message": "…"}}
    <- {"type": "observation", "data": {…, "reward": 1.0, "done": true}}

The messages are those to show next: the opening, then what the environment answers. A reward is given at the
end; null there means that the episode could not be scored, and the observation says why. The protocol is that
of OpenEnv 0.10, whose HTTP calls keep no session either: an episode is played over `/ws`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal
from uuid import uuid4

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vertigym.core.errors import InputError
from vertigym.core.files import jsonable
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Split
from vertigym.envs.env import Env
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.interop.served_env import serve_env
from vertigym.serving.admission import asks_from_here

_FULL = 1013  # WebSocket: try again later


class ResetRequest(BaseModel):
    """Which episode to open: a task by its id, or by its place in a split; else one that the seed draws."""

    model_config = ConfigDict(extra="forbid")

    seed: int | None = Field(None, ge=0)
    episode_id: str | None = Field(None, max_length=255)
    split: Split = "train"
    index: int | None = Field(None, ge=0)
    task: str | None = None


class OpenEnvAction(BaseModel):
    """What the model wrote."""

    model_config = ConfigDict(extra="forbid")

    message: str
    metadata: dict[str, Any] = {}


class OpenEnvObservation(BaseModel):
    """What to show the model next, and its tools; at the end why there is no reward, where there is none."""

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    task: str = ""
    unscored: str = ""


class SessionState(BaseModel):
    """Where a session is."""

    episode_id: str | None = None
    step_count: int = 0


class ClientMessage(BaseModel):
    """What a client sends."""

    type: Literal["reset", "step", "state", "close"]
    data: dict[str, Any] = {}


class OpenEnvSession:
    """One client's episodes."""

    def __init__(self, env: Env, name: str) -> None:
        self._env, self._name = env, name
        self._episode: PlayedEpisode | None = None
        self.state = SessionState()

    def reset(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Open an episode.

        Raises:
            ValidationError: unknown keys or values. InputError: no such task.
        """
        asked = ResetRequest.model_validate(data)
        self._episode = PlayedEpisode(self._env, self._task(asked), self._name)
        self.state = SessionState(episode_id=asked.episode_id or str(uuid4()))
        return self._seen(self._episode.messages)

    def step(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Play what the model wrote.

        Raises:
            ValidationError: no action. InputError: there is no episode, or it is over.
        """
        action = OpenEnvAction.model_validate(data)
        if self._episode is None or self._episode.over:
            raise InputError("no episode is under way: send a reset")
        self.state.step_count += 1
        return self._seen(self._episode.step(action.message))

    def _task(self, asked: ResetRequest) -> str:
        if asked.task is not None:
            return self._env.tasks.get(asked.task).id
        ids = self._env.tasks.ids(asked.split)
        if not ids:
            raise InputError(f"no task in split {asked.split}")
        if asked.index is not None and asked.index >= len(ids):
            raise InputError(
                f"split {asked.split} has {len(ids)} tasks, and index {asked.index} is none of them"
            )
        drawn = int(generator(asked.seed or 0, "openenv").integers(len(ids)))
        return ids[drawn if asked.index is None else asked.index]

    def _seen(self, messages: Any) -> dict[str, Any]:
        assert self._episode
        score = self._episode.score
        reason = str(score.evidence.get("reason", "no verdict")) if score and score.value is None else ""
        observation = OpenEnvObservation(
            messages=messages, tools=list(self._episode.tools), task=self._episode.task.id, unscored=reason
        )
        reward = None if score is None else score.value
        return {"observation": jsonable(observation.model_dump()), "reward": reward, "done": score is not None}


class OpenEnvServer:
    """The application. `sessions`: how many clients play at once; `anywhere`: others than this machine may."""

    def __init__(self, env: Env, name: str, *, sessions: int = 64, anywhere: bool = False) -> None:
        self._env, self._name, self._most, self._anywhere = env, name, sessions, anywhere
        self._playing = 0

    def app(self) -> Starlette:
        """The routes of OpenEnv."""
        return Starlette(
            routes=[
                Route("/health", lambda _: JSONResponse({"status": "healthy"})),
                Route("/metadata", lambda _: JSONResponse({"name": self._name, "description": self._about()})),
                Route("/schema", lambda _: JSONResponse(_schemas())),
                Route("/state", lambda _: JSONResponse(SessionState().model_dump())),
                Route("/tasks", lambda _: JSONResponse({s: list(self._env.tasks.ids(s)) for s in SPLITS})),
                Route("/reset", self._reset, methods=["POST"]),
                Route("/step", _refuse_step, methods=["POST"]),
                WebSocketRoute("/ws", self._session),
            ]
        )

    def _about(self) -> str:
        tasks = ", ".join(f"{len(self._env.tasks.ids(split))} {split}" for split in SPLITS)
        return f"{self._name}: {tasks} tasks, at most {self._env.max_turns} turns"

    def _ours(self, connection: HTTPConnection) -> bool:
        return self._anywhere or asks_from_here(connection.headers)

    async def _reset(self, request: Request) -> Response:
        if not self._ours(request):
            return JSONResponse({"detail": "this server answers to localhost only"}, 403)
        try:
            data = json.loads(await request.body() or b"{}")
            return JSONResponse(await anyio.to_thread.run_sync(self._fresh().reset, data))
        except (ValidationError, InputError, ValueError) as error:
            return JSONResponse({"detail": _line(error)}, 422)

    def _fresh(self) -> OpenEnvSession:
        return OpenEnvSession(self._env.fresh(), self._name)

    async def _session(self, socket: WebSocket) -> None:
        if not self._ours(socket):
            await socket.close(1008, "this server answers to localhost only")
            return
        await socket.accept()
        if self._playing >= self._most:
            await _send(
                socket,
                "error",
                {"message": f"all {self._most} sessions are in use", "code": "CAPACITY_REACHED"},
            )
            await socket.close(_FULL)
            return
        self._playing += 1
        try:
            await _play(socket, self._fresh())
        except WebSocketDisconnect:
            pass
        finally:
            self._playing -= 1


def serve_environment(
    id: str,  # noqa: A002
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    sessions: int = 64,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve an environment: see `serve_env`."""

    def app(env: Env, name: str, anywhere: bool) -> Starlette:
        return OpenEnvServer(env, name, sessions=sessions, anywhere=anywhere).app()

    serve_env(id, app, host=host, port=port, on_ready=on_ready, ws="websockets-sansio")


async def _play(socket: WebSocket, session: OpenEnvSession) -> None:
    """Answer until the client leaves."""
    while True:
        text = await socket.receive_text()
        try:
            wire = ClientMessage.model_validate_json(text)
            if wire.type == "close":
                await socket.close()
                return
            if wire.type == "state":
                await _send(socket, "state", session.state.model_dump())
                continue
            played = session.reset if wire.type == "reset" else session.step
            await _send(socket, "observation", await anyio.to_thread.run_sync(played, wire.data))
        except ValidationError as error:
            await _send(socket, "error", {"message": _line(error), "code": "VALIDATION_ERROR"})
        except InputError as error:
            await _send(socket, "error", {"message": str(error), "code": "EXECUTION_ERROR"})


async def _send(socket: WebSocket, kind: str, data: Mapping[str, Any]) -> None:
    await socket.send_text(json.dumps({"type": kind, "data": data}))


async def _refuse_step(_: Request) -> Response:
    return JSONResponse({"detail": "HTTP keeps no episode: play it over the WebSocket at /ws"}, 409)


def _schemas() -> dict[str, Any]:
    kinds: dict[str, type[BaseModel]] = {
        "action": OpenEnvAction,
        "observation": OpenEnvObservation,
        "state": SessionState,
    }
    return {name: kind.model_json_schema() for name, kind in kinds.items()}


def _line(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
