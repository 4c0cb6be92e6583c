"""An environment as a resources server of NeMo Gym (0.7), by its protocol.

With its `simple_agent`, a session is seeded by a row, tool calls go to `/NAME`, and `/verify` judges the
response: what the model said last is played, and the score is the `reward`; what could not be scored is masked
(`mask_sample`). With its `gymnasium_agent`, which several turns without tools need, an episode is `/reset` and
`/step`; there an episode without a score is an error, as that agent knows no mask.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from vertigym.core.bounds import json_value
from vertigym.core.chat_client import tool_call_text
from vertigym.core.errors import InputError
from vertigym.core.files import dumps, jsonable
from vertigym.core.types import Split
from vertigym.envs.env import Env
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.interop.responses_items import flat_tool, input_items, said
from vertigym.interop.served_env import serve_env
from vertigym.serving.admission import asks_from_here

_COOKIE = "session"
_OURS = "verifier_metadata"  # where a row names its task
_FAILURE = "vertigym:not_scored"


def nemo_gym_rows(env: Env, split: Split) -> Iterator[dict[str, Any]]:
    """The rows of a split, as NeMo Gym's datasets have them."""
    for task in env.tasks.ids(split):
        episode = PlayedEpisode(env, task)
        asked = {"input": input_items(episode.messages), "tools": [flat_tool(tool) for tool in episode.tools]}
        yield {"responses_create_params": asked, _OURS: {"task": task}}


class NemoGymServer:
    """The application. At most `sessions` episodes are kept, the oldest goes first. `anywhere`: others than
    this machine may play."""

    def __init__(self, env: Env, name: str, *, sessions: int = 4096, anywhere: bool = False) -> None:
        self._env, self._name, self._most, self._anywhere = env, name, sessions, anywhere
        self._episodes: OrderedDict[str, PlayedEpisode] = OrderedDict()

    def app(self) -> Starlette:
        """The routes."""
        answers: dict[str, Callable[..., Any]] = {
            "/seed_session": self._seed,
            "/verify": self._verify,
            "/close_session": self._close,
            "/aggregate_metrics": _metrics,
            "/reset": self._reset,
            "/step": self._step,
            "/{tool}": self._call,
        }
        return Starlette(
            routes=[Route(path, self._answered(do), methods=["POST"]) for path, do in answers.items()]
        )

    def _answered(self, do: Callable[[str, Any, str], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            if not self._anywhere and not asks_from_here(request.headers):
                return JSONResponse({"detail": "this server answers to localhost only"}, 403)
            session = request.cookies.get(_COOKIE) or str(uuid4())
            try:
                body = json_value((await request.body()).decode() or "{}")
                found = await anyio.to_thread.run_sync(do, session, body, request.path_params.get("tool", ""))
            except (InputError, ValueError, KeyError, TypeError) as error:
                return JSONResponse({"detail": str(error)}, 422)
            except RuntimeError as error:  # an episode that has no score, where there is no mask
                return JSONResponse({"detail": str(error)}, 500)
            done = PlainTextResponse(found) if isinstance(found, str) else JSONResponse(jsonable(found))
            done.set_cookie(_COOKIE, session)
            return done

        return answer

    def _opened(self, body: Mapping[str, Any]) -> PlayedEpisode:
        if not isinstance(row := body.get(_OURS), Mapping) or "task" not in row:
            raise InputError(f"the row names no task: {_OURS} must be {{'task': ID}}")
        return PlayedEpisode(self._env, str(row["task"]), self._name)

    def _kept(self, session: str, episode: PlayedEpisode) -> PlayedEpisode:
        self._episodes[session] = episode
        while len(self._episodes) > self._most:
            self._episodes.popitem(last=False)
        return episode

    def _seed(self, session: str, body: Mapping[str, Any], _: str) -> dict[str, Any]:
        self._kept(session, self._opened(body.get("task_data", body)))
        named = body.get("resources_session_id")
        return {} if named is None else {"resources_session_id": named}

    def _call(self, session: str, body: Mapping[str, Any], tool: str) -> str:
        episode = self._episodes.get(session)
        if episode is None:
            raise InputError("no episode is under way: POST /seed_session first")
        if episode.over:
            return "The episode is over."
        answer = episode.step(tool_call_text(tool, dumps(body)))
        return "\n\n".join(message["content"] for message in answer)

    def _verify(self, session: str, body: Mapping[str, Any], _: str) -> dict[str, Any]:
        items, seeded = body["response"]["output"], self._episodes.pop(session, None)
        written = [text for item in items if (text := said(item)) is not None]
        if seeded:  # its calls have been played
            written = written[-1:] if items and items[-1].get("type", "message") == "message" else []
        episode = seeded or self._opened(body)
        for text in written:
            if not episode.over:
                episode.step(text)
        score = episode.end()
        masked = score.value is None
        reason = str(score.evidence.get("reason", "no verdict")) if masked else None
        failure = {"failure_kind": _FAILURE, "failure_reason": reason} if masked else {}
        reward = 0.0 if score.value is None else score.value
        return {**body, **score.parts, "reward": reward, "mask_sample": masked, **failure}

    def _close(self, session: str, body: Mapping[str, Any], _: str) -> dict[str, Any]:
        self._episodes.pop(session, None)
        return {"resources_session_id": body.get("resources_session_id")}

    def _reset(self, session: str, body: Mapping[str, Any], _: str) -> dict[str, Any]:
        self._kept(session, self._opened(body))
        return {"observation": None, "info": {}}

    def _step(self, session: str, body: Mapping[str, Any], _: str) -> dict[str, Any]:
        episode = self._episodes.get(session)
        if episode is None:
            raise InputError("no episode is under way: POST /reset first")
        outputs, shown = [], []
        for item in body["response"]["output"]:
            if episode.over or (text := said(item)) is None:
                continue
            answer = "\n\n".join(message["content"] for message in episode.step(text))
            if item.get("type") == "function_call":
                outputs.append({"call_id": item["call_id"], "output": answer})
            else:
                shown.append(answer)
        if episode.score and episode.score.value is None:
            raise RuntimeError(f"not scored: {episode.score.evidence.get('reason')}")
        reward = episode.score.value if episode.score else 0.0
        return {
            "observation": "\n\n".join(filter(None, shown)) or None,
            "reward": reward,
            "terminated": episode.over,
            "truncated": False,
            "info": {"tool_outputs": outputs},
        }


def serve_nemo_gym(
    id: str,  # noqa: A002
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    sessions: int = 64,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve an environment: see `serve_env`."""

    def app(env: Env, name: str, anywhere: bool) -> Starlette:
        return NemoGymServer(env, name, sessions=sessions, anywhere=anywhere).app()

    serve_env(id, app, host=host, port=port, on_ready=on_ready)


def _metrics(_: str, body: Mapping[str, Any], __: str) -> dict[str, Any]:
    """The mean reward of what is not masked."""
    rewards = [one["reward"] for one in body["verify_responses"] if not one.get("mask_sample")]
    mean = {"mean/reward": sum(rewards) / len(rewards)} if rewards else {}
    return {"group_level_metrics": [], "agent_metrics": mean, "key_metrics": mean}
