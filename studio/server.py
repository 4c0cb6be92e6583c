"""The studio's server: each view is a page, `/NAME`, and what it draws, `/NAME.json`. It writes nothing.

It listens on this machine only and answers only to this machine's host names, so that no page from elsewhere
can read it under a name of its own. A page of runs asks for its data every few seconds; while no file has
changed the answer is 304 (RFC 9110, 15.4.5).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlencode

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vertigym.core.errors import ConfigError, InputError, UnknownNameError, VertigymError
from vertigym.core.files import jsonable
from vertigym.dialects.chat_call import RefusedError
from vertigym.envs import registry
from vertigym.evals.report import Report
from vertigym.reports.page import render, report_data, verdict_of
from vertigym.serving.admission import LOCAL_NAMES, Admission
from vertigym.serving.service import listen, url_of
from vertigym.studio.hand_play import HandPlay, environment_data, environment_rows, play
from vertigym.studio.rule_graph import coverage, rules_data
from vertigym.studio.run_list import RunList, report_groups

SCRIPT = Path(__file__).with_name("studio.js")
Json = dict[str, Any]
Query = Mapping[str, str]
_NAV = (("Runs", "runs"), ("Evals", "evals"), ("Environments", "environments"))
_LIVE = ("runs", "run")
# Nothing from elsewhere, nothing sent elsewhere, and no page elsewhere frames it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Studio:
    """The views over a folder of runs. One request at a time reads runs: they are kept between requests."""

    def __init__(self, runs: RunList) -> None:
        self._runs = runs
        self._reading = Lock()
        self._views: dict[str, Callable[[Query], Json]] = {
            "runs": self._list,
            "run": self._run,
            "evals": self._evals,
            "compare": self._compare,
            "environments": self._environments,
            "environment": self._environment,
            "rules": self._rules,
            "coverage": self._coverage,
        }

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/play.json", self._play, methods=["POST"]),
            Route("/{view}.json", self._data, methods=["GET"]),
            Route("/", self._page, methods=["GET"]),
            Route("/{view}", self._page, methods=["GET"]),
        ]
        return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard)])

    def data(self, view: str, query: Query) -> Json:
        """What a view draws.

        Raises:
            InputError: no such view, or what `query` names cannot be shown.
        """
        if view not in self._views:
            raise UnknownNameError("page", view, self._views)
        found = self._views[view](query)
        feed = f"{view}.json?{urlencode(dict(query))}"
        nav = [[label, f"/{name}", name == view] for label, name in _NAV]
        return {"view": view, "nav": nav, "live": view in _LIVE, "feed": feed} | found

    def state(self, view: str, query: Query) -> str:
        """Another text whenever a live view would be another; empty for the others."""
        with self._reading:
            if view == "run" and "name" in query:
                return self._runs.page(query["name"]).state()
            return self._runs.state() if view == "runs" else ""

    async def _page(self, http: Request) -> Response:
        view = http.path_params.get("view", "runs")
        try:
            data, status = await run_in_threadpool(self.data, view, http.query_params), 200
        except InputError as error:
            data, status = _error_data(error), 404
        return HTMLResponse(render(data, SCRIPT), status)

    async def _data(self, http: Request) -> Response:
        view, query = http.path_params["view"], http.query_params
        try:
            tag = f'"{await run_in_threadpool(self.state, view, query)}"'
            if tag != '""' and tag == http.headers.get("if-none-match"):
                return Response(status_code=304, headers={"ETag": tag})
            data = await run_in_threadpool(self.data, view, query)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(_json(data), media_type="application/json", headers={"ETag": tag})

    async def _play(self, http: Request) -> Response:
        # A page elsewhere can send text unasked, but JSON only after asking, which is never granted.
        if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return JSONResponse({"error": "send JSON"}, 415)
        try:
            episode = HandPlay.model_validate_json(await http.body())
            await run_in_threadpool(self._known, {"id": episode.id})
            found = await run_in_threadpool(play, episode)
        except ValidationError as error:
            return JSONResponse({"error": error.errors()[0]["msg"]}, 400)
        except VertigymError as error:
            return JSONResponse({"error": str(error)}, 404 if isinstance(error, InputError) else 503)
        return Response(_json(found), media_type="application/json")

    def _list(self, _: Query) -> Json:
        with self._reading:
            return {"title": "Runs", "root": str(self._runs.root), "runs": self._runs.rows()}

    def _run(self, query: Query) -> Json:
        with self._reading:
            return {"view": "story"} | self._runs.page(_given(query, "name")).data(live=True)

    def _evals(self, _: Query) -> Json:
        with self._reading:
            return {"title": "Evals", "groups": report_groups(self._runs.reports())}

    def _compare(self, query: Query) -> Json:
        with self._reading:
            reports = self._runs.reports()
            rules = self._runs.rule_texts(_given(query, "b"))
        before, after = (_report(reports, _given(query, name)) for name in ("a", "b"))
        samples = reports[query["b"]] / "samples.jsonl"
        found = report_data(after, baseline=before, samples=samples if samples.is_file() else None, rules=rules)
        return found | {"view": "story", "title": f"{query['a']} → {query['b']}"}

    def _environments(self, _: Query) -> Json:
        return {"title": "Environments", "environments": environment_rows(self._near())}

    def _environment(self, query: Query) -> Json:
        name = self._known(query)
        return {"title": registry.spec(name).id, "env": name} | environment_data(name)

    def _rules(self, query: Query) -> Json:
        name = self._known(query)
        return {"title": f"{registry.spec(name).id}: rules", "env": name} | rules_data(name)

    def _coverage(self, query: Query) -> Json:
        return coverage(self._known(query))

    def _near(self) -> list[str]:
        with self._reading:
            return self._runs.environments()

    def _known(self, query: Query) -> str:
        """An environment that is listed: a name from elsewhere could be of any module."""
        name, known = _given(query, "id"), [row["name"] for row in environment_rows(self._near())]
        if name not in known:
            raise UnknownNameError("environment", name, known)
        return name


def serve(
    root: Path,
    *,
    run: str = "",
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the studio over the runs in `root` until SIGINT or SIGTERM; `run` names the one that `on_ready`'s
    address opens. Port 0 takes a free one.

    Raises:
        DataError: there is no such folder. ConfigError: others can reach `host`, or the port is taken.
    """
    if host not in LOCAL_NAMES:
        names = ", ".join(LOCAL_NAMES)
        raise ConfigError(f"host {host!r}: the studio is for this machine only: use one of {names}")
    runs = RunList(root)
    with listen(host, port) as listening:
        page = f"run?{urlencode({'name': run})}" if run else ""
        on_ready(f"{url_of(listening)}/{page}")
        uvicorn.Server(uvicorn.Config(Studio(runs).app(), log_level="warning", ws="none")).run([listening])


async def _guard(http: Request, answer: RequestResponseEndpoint) -> Response:
    """Refuse other host names; say to browsers what a page may do."""
    try:
        Admission("", 0).check_host(http)
    except RefusedError as error:
        return JSONResponse({"error": str(error)}, error.status)
    response = await answer(http)
    response.headers.update(
        {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    )
    return response


def _given(query: Query, name: str) -> str:
    if name not in query:
        raise ConfigError(f"this page needs ?{name}=…")
    return query[name]


def _report(reports: Mapping[str, Path], name: str) -> Report:
    if name not in reports:
        raise UnknownNameError("report", name, reports)
    return Report.load(reports[name])


def _error_data(error: InputError) -> Json:
    nav = [[label, f"/{name}", False] for label, name in _NAV]
    return {
        "view": "error",
        "nav": nav,
        "title": "Not here",
        "verdict": verdict_of(False, "not here", str(error)),
    }


def _json(data: Json) -> str:
    return json.dumps(jsonable(data), allow_nan=False, separators=(",", ":"))
