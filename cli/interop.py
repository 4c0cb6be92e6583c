"""`vertigym gate`, over results that are there already, ours or another program's; of `vertigym env` what other
programs use: `export`, `serve` and `mcp`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vertigym.cli.console import EnvId, Json, note, print_json, show
from vertigym.core.errors import MissingDependencyError

Score = Annotated[
    str, typer.Option("--score", help="Which score of another program's results, where there are several.")
]
Cluster = Annotated[
    str,
    typer.Option("--cluster", help="The metadata that samples of one piece of evidence share.", metavar="KEY"),
]


def gate(
    results: Annotated[
        Path, typer.Argument(help="A report, an Inspect log, samples of lm-eval, traces of verifiers.")
    ],
    baseline: Annotated[
        Path | None, typer.Option("-b", "--baseline", help="The champion's results on the same samples.")
    ] = None,
    gates: Annotated[
        Path | None,
        typer.Option(help="A TOML file of [[gate]] tables. Default: one gate, improves.", metavar="FILE.toml"),
    ] = None,
    score: Score = "",
    cluster: Cluster = "",
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.", metavar="FILE")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown summary.", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what exists.")] = False,
    as_json: Json = False,
) -> None:
    """Let gates pass (exit 0) or fail (exit 1) results that are there already, paired by sample."""
    from vertigym.core.files import claim, write_text
    from vertigym.interop.formats import load_results
    from vertigym.interop.gating import decide_results
    from vertigym.interop.results import Reading
    from vertigym.reports import ci
    from vertigym.reports.tables import decision_table

    for file in (junit, summary):
        claim(file, force=force)
    reading = Reading(score, cluster)
    report = load_results(results, reading)
    champion = load_results(baseline, reading) if baseline else None
    decision = decide_results(gates, report, champion)
    if junit:
        write_text(junit, ci.junit([(decision, report)]))
    if summary:
        write_text(summary, ci.summary(decision, report))
    print_json(decision.model_dump(mode="json")) if as_json else show(decision_table(decision))
    if not decision.passed:
        raise typer.Exit(1)


def env_export(
    id: EnvId,  # noqa: A002
    to: Annotated[
        str,
        typer.Option("--to", help="inspect, verifiers, trl, openenv, nemo-gym or harbor.", metavar="PROGRAM"),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the package.", metavar="DIR")],
    vendored: Annotated[
        bool, typer.Option("--vendored", help="Put what it needs of vertigym into the package.")
    ] = False,
    tasks: Annotated[
        int, typer.Option("-n", "--tasks", help="Harbor: at most so many tasks of each split.", min=1)
    ] = 100,
) -> None:
    """Write an environment as a package of another program, which plays it and takes our score."""
    from vertigym.interop.exporting import export_environment

    module = export_environment(id, to, out, vendored=vendored, tasks=tasks)
    print(f"{id} -> {out} ({module})")
    print(f"next:      {f'harbor run -p {out}' if to == 'harbor' else f'pip install -e {out}'}")


def env_serve(
    id: EnvId,  # noqa: A002
    host: Annotated[str, typer.Option(help="Where others may reach it, whoever they are.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 8000,
    sessions: Annotated[int, typer.Option(help="How many clients play at once.", min=1)] = 64,
    protocol: Annotated[
        Literal["openenv", "nemo-gym"], typer.Option(help="Whose clients are answered.")
    ] = "openenv",
) -> None:
    """Serve an environment to OpenEnv clients (a session a WebSocket), or as a resources server of NeMo Gym."""
    try:
        from vertigym.interop.nemo_gym_server import serve_nemo_gym
        from vertigym.interop.openenv_server import serve_environment
    except ImportError as error:
        raise MissingDependencyError(error.name or "websockets", "serve", "vertigym env serve") from None

    def ready(url: str) -> None:
        note(f"serving {id} on {url} (Ctrl-C ends it)")

    serve = serve_environment if protocol == "openenv" else serve_nemo_gym
    serve(id, host=host, port=port, sessions=sessions, on_ready=ready)


def env_mcp(
    id: EnvId,  # noqa: A002
    task: Annotated[str, typer.Argument(help="Id of the task to play.", metavar="TASK")],
    port: Annotated[
        int | None,
        typer.Option(help="Streamable HTTP here, at /mcp; 0: a free one; else stdio.", min=0, max=65535),
    ] = None,
) -> None:
    """Serve the tools of one task to an MCP client, which plays its episode through them."""
    try:
        from vertigym.interop.mcp_server import serve_tools
    except ImportError as error:
        raise MissingDependencyError(error.name or "mcp", "mcp", "vertigym env mcp") from None

    serve_tools(id, task, port=port, on_ready=lambda url: note(f"serving {id} at {url} (Ctrl-C ends it)"))
