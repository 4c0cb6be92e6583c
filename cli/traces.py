"""`vertigym traces`, and `vertigym serve`, which records them."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from vertigym.cli.console import Force, Json, counting, note, print_json, table

app = typer.Typer(help="Traces: logged calls as rows to build on.", no_args_is_help=True)


def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="A model or run folder, org/name on the hub, or openai:MODEL@URL.", metavar="MODEL"
        ),
    ],
    record: Annotated[
        Path, typer.Option("-o", "--record", help="Append every call and all feedback here.", metavar="FILE")
    ] = Path("traces.jsonl"),
    host: Annotated[str, typer.Option(help="Others than this machine need VERTIGYM_SERVE_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model. Default: its run's name.")] = "",
    rpm: Annotated[float, typer.Option(help="Requests a minute from one client; 0: no limit.", min=0)] = 600,
    max_tokens: Annotated[int, typer.Option(help="At most so many tokens a reply.", min=1)] = 512,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="A reverse proxy, whose X-Forwarded-For counts; may repeat.", metavar="ADDRESS"),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="Decodes a model: transformers, vllm, …; auto: vLLM where it is installed."),
    ] = "auto",
) -> None:
    """Answer on an OpenAI-compatible endpoint, record every call as a trace, take feedback (POST /feedback)."""
    from vertigym.serving.service import serve as run

    def ready(url: str) -> None:
        note(f"serving on {url}, recording to {record} (Ctrl-C ends it)")

    run(
        model,
        record,
        host=host,
        port=port,
        name=name,
        per_minute=rpm,
        max_tokens=max_tokens,
        proxies=proxy or (),
        engine=engine,
        on_ready=ready,
    )


@app.command("import")
def traces_import(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Logs, folders of them, or patterns: JSON, CSV, TSV, Parquet, also with .gz or .zst.",
            metavar="FILE...",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", metavar="DIR")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Settings; every import writes all of its own.", metavar="TOML"),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="Our field = your column: input=question.", metavar="FIELD=COLUMN"),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Held-out tasks no call may hold: a file, or an environment.", metavar="FILE|ID"),
    ] = None,
    names: Annotated[Path | None, typer.Option(help="Names to mask, one a line.", metavar="FILE")] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(help="Country whose phone numbers need no code: US, DE; may repeat.", metavar="CC"),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="New file for the values that were masked, outside of DIR.", metavar="FILE"),
    ] = None,
    split: Annotated[
        Literal["input", "customer", "session", "cluster", "time"] | None,
        typer.Option(help="What is held out as a whole."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key of the settings: duplicates.near=0.8.", metavar="KEY=VALUE"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Read logs of calls; drop duplicates and held-out tasks, mask personal data, find conflicts, split.

    Read are requests with their responses (OpenAI, Anthropic, Gemini, Bedrock; batches, streams),
    conversations and training data, exports of Langfuse, LangSmith and Phoenix, OpenTelemetry, what `vertigym
    serve` records, and by --map any table. What cannot be read, or can be read in two ways, is set aside with
    the reason.
    """
    from vertigym.core.config import parse, read_toml
    from vertigym.envs.registry import held_out
    from vertigym.traces.config import ImportConfig
    from vertigym.traces.importer import import_traces

    overrides = [f"columns.{pair}" for pair in columns or ()]
    overrides += [f"decontaminate.against={json.dumps(against)}"] if against else []
    overrides += [f"pii.names={json.dumps(str(names))}"] if names else []
    overrides += [f"pii.regions={json.dumps(region)}"] if region else []
    overrides += [f"pii.key={json.dumps(str(key))}"] if key else []
    overrides += [f"split.by={split}"] if split else []
    source = str(config) if config else "traces import"
    chosen = parse(
        ImportConfig, read_toml(config) if config else {}, overrides + (settings or []), source=source
    )
    with counting("reading") as advance:

        def on_progress(rows: int, done: int, total: int) -> None:
            advance(done, total, f"{rows:,} calls" + ("" if done < total else ", cleaning"))

        report = import_traces(files, out, chosen, on_progress, tasks_of=held_out, force=force)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    table(None, ("step", "rows in", "rows out", "what"), report.table())
    table("\nread", ("file", "as", "rows", "calls", "rejected"), report.file_rows())
    table("\nfor example", ("", ""), report.examples())
    splits = ", ".join(f"{part.rows:,} {name}" for name, part in report.splits.items())
    if report.topics:
        table("\nwhat users ask", ("topic", *report.splits), report.topic_rows())
    if report.labels:
        table("\nlabels", ("label", *report.splits), report.label_rows())
    print(f"\nof these calls, {report.said_line()}")
    print(f"\n{out}: {splits}")
    for text in report.notes:
        note(text)


@app.command("pairs")
def traces_pairs(
    folder: Annotated[Path, typer.Argument(help="What `traces import` wrote.", metavar="DIR")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", metavar="DIR")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write pairs of answers, one better than the other, which `algorithm = "dpo"` learns from: edits, accepted
    and refused answers to one input, and answers that were tried again."""
    from vertigym.traces.preferences import write_pairs

    found = write_pairs(folder, out, force=force)
    if as_json:
        print_json(
            {split: {**part.evidence, "contradicted": part.contradicted} for split, part in found.items()}
        )
        return
    kinds = ("edit", "verdict", "retry")
    rows = [
        (s, *(str(p.evidence.get(kind, 0)) for kind in kinds), str(p.contradicted)) for s, p in found.items()
    ]
    table(None, ("split", *kinds, "contradicted"), rows)
    print(f"{out}: " + ", ".join(f"{sum(part.evidence.values()):,} {split}" for split, part in found.items()))


@app.command("unmask")
def traces_unmask(
    file: Annotated[Path, typer.Argument(help="A file with placeholders.", metavar="FILE")],
    key: Annotated[Path, typer.Option(help="The key file of the import.", metavar="FILE")],
) -> None:
    """Print a file with the values of an import's key file in the place of their placeholders."""
    from vertigym.core.files import read_text
    from vertigym.traces.pii.key_file import unmasked

    print(unmasked(read_text(file), key), end="")
