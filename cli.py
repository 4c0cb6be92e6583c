"""The command line.

Exit codes, everywhere: 0 passed; 1 the work ran and the verdict is *no*; 2 it could not run (one line on
stderr says what came, what is allowed, what to do). Results go to stdout, as a table or with `--json` as one
JSON value; progress and notes go to stderr. Heavy imports happen inside the commands, so `--help` stays quick.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vertigym import __version__
from vertigym.core.errors import VertigymError

app = typer.Typer(
    name="vertigym",
    help="Turn the rules, tests and traces of a business domain into RL environments, train a small model on "
    "them, and let evals decide which checkpoint ships.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
env_app = typer.Typer(help="Environments: list, show, new, import, diff, check.", no_args_is_help=True)
app.add_typer(env_app, name="env")
sandbox_app = typer.Typer(help="Sandboxes: what this machine can isolate.", no_args_is_help=True)
app.add_typer(sandbox_app, name="sandbox")

traces_app = typer.Typer(help="Traces: logged calls as rows to build on.", no_args_is_help=True)
app.add_typer(traces_app, name="traces")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
EnvId = Annotated[
    str, typer.Argument(help="An environment's id (namespace/Name-v0) or its folder.", metavar="ID")
]


def main() -> None:
    """Run the command line; errors made by users or machines are one line and exit code 2."""
    # Before torch is imported: threads that spin while they wait stop each other where a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except VertigymError as error:
        print(f"vertigym: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of an interrupt
            print("vertigym: interrupted; what was finished is kept: go on with --resume", file=sys.stderr)
        raise


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@env_app.command("list")
def env_list(as_json: Json = False) -> None:
    """List every known environment: built in, installed, or a folder under ./environments or $VERTIGYM_PATH."""
    from vertigym.envs import registry

    specs = [registry.spec(name) for name in registry.ids()]
    if as_json:
        _print_json([{"id": s.id, "source": s.source, "description": s.description} for s in specs])
    else:
        _table(None, ("id", "source", "description"), [(s.id, s.source, s.description) for s in specs])
    for name, why in registry.broken().items():
        _note(f"the package {name} could not be loaded: {why}")


@env_app.command("show")
def env_show(id: EnvId, as_json: Json = False) -> None:  # noqa: A002
    """Show an environment: its tasks by split, and one task with its reference answer."""
    from vertigym import envs
    from vertigym.core.types import SPLITS

    spec, env = envs.spec(id), envs.make(id)
    counts = {split: len(env.tasks.ids(split)) for split in SPLITS}
    first = next((env.tasks.ids(split)[0] for split in SPLITS if counts[split]), None)
    if first is None:
        _print_json({"id": spec.id, "tasks": counts}) if as_json else print(f"{spec.id}: no tasks")
        return
    _, info = env.reset(seed=0, options={"task": first})
    if as_json:
        task = info["task"].model_dump(mode="json")
        _print_json(
            {
                "id": spec.id,
                "source": spec.source,
                "description": spec.description,
                "tasks": counts,
                "max_turns": env.max_turns,
                "notes": list(env.notes),
                "example": {"task": task, "messages": info["messages"]},
            }
        )
        return
    print(f"{spec.id}  ({spec.source})\n{spec.description}".rstrip())
    print("tasks: " + ", ".join(f"{count} {split}" for split, count in counts.items()), end="")
    print(f"; at most {env.max_turns} turn{'s' if env.max_turns > 1 else ''}")
    for note in env.notes:
        print(f"note:  {note}")
    for message in info["messages"]:
        print(f"\n[{message['role']}]\n{message['content']}")
    print(f"\n[reference answer of {first}]")
    print("\n".join(env.reference(info["task"]) or ["nobody knows one"]))


@env_app.command("import")
def env_import(
    file: Annotated[
        Path,
        typer.Argument(
            help="A decision model: JDM JSON, DMN 1.3-1.5, or a table in csv or xlsx; the format is guessed.",
            metavar="FILE",
        ),
    ],
    id: Annotated[str, typer.Option("--id", help="The new environment's id, namespace/Name-v0.")],  # noqa: A002
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to write. Default: environments/NAME.", metavar="DIR"),
    ] = None,
    rules: Annotated[
        Literal["shown", "hidden"], typer.Option(help="Put the rules into the prompt, or keep them back.")
    ] = "shown",
    seed: Annotated[int, typer.Option(help="Seed of the sampled cases.")] = 0,
    now: Annotated[
        str | None,
        typer.Option(help="Fix the clock of a model that reads it, for example 2026-01-31T12:00:00Z."),
    ] = None,
    mode: Annotated[
        Literal["decision", "agent"],
        typer.Option(
            help="decision: one case in, one decision out. agent: the case lies in a database behind tools, "
            "the customer can be asked, the final state is judged."
        ),
    ] = "decision",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="agent: a key of env.toml, for example database.cases=100.", metavar="KEY=VALUE"
        ),
    ] = None,
    sheet: Annotated[str, typer.Option(help="Which sheet of a workbook, where it has several.")] = "",
    as_json: Json = False,
) -> None:
    """Make an environment out of a decision model; the rule engine's answers are the ground truth."""
    from vertigym.core.errors import ConfigError
    from vertigym.envs.business.agent_import import import_agent
    from vertigym.envs.business.importer import import_decision

    folder = out or Path("environments") / id.rpartition("/")[2].rpartition("-v")[0].lower()
    if mode == "agent" and sheet:
        raise ConfigError("--sheet is for --mode decision; save the sheet as csv first")
    if mode == "agent":
        report = import_agent(file, id, folder, rules=rules, seed=seed, now=now, settings=settings or [])
    elif settings:
        raise ConfigError("--set is for --mode agent; edit the folder's env.toml instead")
    else:
        report = import_decision(file, id, folder, rules=rules, seed=seed, now=now, sheet=sheet)
    if as_json:
        _print_json(dataclasses.asdict(report) | {"coverage": report.coverage})
        return
    covered = report.rules - len(report.not_hit)
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    print(f"{report.id} -> {report.folder}")
    print(f"tasks:     {counts}; {report.patterns} patterns of rules")
    print(f"asked for: {', '.join(report.outputs)}")
    print(f"rules:     {covered} of {report.rules} hit" if report.rules else "rules:     none in the model")
    for finding in report.findings:
        print(f"  {finding.kind}  {finding.rule}: {finding.text}: {finding.reason}")
    for rule, text in report.not_proven:
        print(f"  not hit, not proven unreachable  {rule}: {text}")
    if report.adjacent:
        shown = f"{report.adjacent_shown} of {report.adjacent}"
        print(f"pairs:     {shown} neighbouring outcomes shown by a minimal pair")
    if report.interacting:
        print(f"           {report.interacting_hit} of {report.interacting} pairs of rules hit together")
    for warning in report.warnings:
        _note(warning)
    print(f"next:      vertigym env show {report.id if out is None else report.folder}")


@env_app.command("diff")
def env_diff(
    old: Annotated[Path, typer.Argument(help="The rules as they were: a file or an environment's folder.")],
    new: Annotated[Path, typer.Argument(help="The rules as they are.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Write an environment of the change, with suites.", metavar="DIR"),
    ] = None,
    id: Annotated[str, typer.Option("--id", help="Its id, namespace/Name-v0.")] = "local/Change-v0",  # noqa: A002
    seed: Annotated[int, typer.Option(help="Seed of the sampled cases.")] = 0,
    now: Annotated[str | None, typer.Option(help="Fix the clock of models that read it.")] = None,
    as_json: Json = False,
) -> None:
    """Say which cases change their answer between two versions of the rules, and which rules did it."""
    from vertigym.envs.business.diff import change_lines, compare_files

    comparison = compare_files(old, new, seed=seed, now=now)
    found = comparison.difference()
    counts = comparison.write(out, id) if out else {}
    if as_json:
        _print_json(dataclasses.asdict(found) | {"share": found.share, "tasks": counts})
        return
    for line in change_lines(found):
        print(line)
    if out:
        tasks = ", ".join(f"{n['changed']} + {n['same']} {split}" for split, n in counts.items())
        print(f"{id} -> {out}")
        print(f"tasks:     {tasks} (changed + same)")
        print(f"suites:    {out / 'change.toml'}, {out / 'changed.toml'}")


@env_app.command("new")
def env_new(
    name: Annotated[str, typer.Argument(help="namespace/Name-v0, or a plain name.", metavar="NAME")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to put the package's folder.")] = Path(),
) -> None:
    """Write an installable package with one environment, its data and a test, to build on."""
    from vertigym.envs.scaffold import environment_id, new_environment

    folder = new_environment(name, out)
    print(f"{environment_id(name)} -> {folder}")
    print(f"next:      pip install -e {folder} && vertigym env check {environment_id(name)}")


@env_app.command("check")
def env_check(
    ids: Annotated[list[str], typer.Argument(help="Environments: ids, folders or modules.", metavar="ID...")],
    tasks: Annotated[int, typer.Option("-n", "--tasks", help="How many tasks to sample.", min=1)] = 100,
    floor: Annotated[float, typer.Option(help="What answers without content may earn on average.")] = 0.05,
    guess_floor: Annotated[float, typer.Option(help="What the best constant guess may earn.")] = 0.6,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    as_json: Json = False,
) -> None:
    """Test environments the way an attacker and a statistician would; exit code 1 when one is at fault."""
    from vertigym.envs.check import check

    reports = [check(id, tasks=tasks, floor=floor, guess_floor=guess_floor, seed=seed) for id in ids]  # noqa: A001
    if as_json:
        answers = [report.to_json(strict=strict) for report in reports]
        _print_json(answers[0] if len(answers) == 1 else answers)
    else:
        for report in reports:
            _table(report.env, ("test", "verdict", "measured"), report.rows())
            for finding in report.findings:
                where = f" [task {finding.task}]" if finding.task else ""
                action = f" on {finding.action!r}" if finding.action else ""
                print(f"\n{finding.level}: {finding.message}{where}{action}\n  do: {finding.advice}")
    if not all(report.passed(strict=strict) for report in reports):
        raise typer.Exit(1)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A run's TOML file.", metavar="CONFIG.toml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings on top: rl.steps=20 seed=1.", metavar="[KEY=VALUE]...")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Open everything, write nothing, say what would run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model in an environment; evals along the way decide which checkpoint is promoted.

    On several GPUs: torchrun --nproc-per-node 8 -m vertigym train CONFIG.toml
    """
    from vertigym.trainer.ranks import joined

    with joined() as ranks:
        if dry_run:
            _plan(config, overrides or [], as_json=as_json, show=ranks.leader)
            return
        outcome = _train(config, overrides or [], resume=resume, show=ranks.leader)
    promoted = str(outcome.promoted) if outcome.promoted else None
    if not ranks.leader:
        return
    if as_json:
        _print_json({"run": str(outcome.run.folder), "last": str(outcome.last), "promoted": promoted})
    else:
        print(f"last checkpoint: {outcome.last}")
        print(f"promoted: {promoted or 'none; the champion stays'}")


@app.command("eval")
def eval_(
    suite: Annotated[Path, typer.Argument(help="A suite's TOML file.", metavar="SUITE.toml")],
    model: Annotated[
        str,
        typer.Option("-m", "--model", help="A model folder, vllm:FOLDER, openai:MODEL@URL or scripted:expert."),
    ] = "",
    baseline: Annotated[
        str | None,
        typer.Option(
            "-b", "--baseline", help="The champion: a report of the same suite, or a model to run now."
        ),
    ] = None,
    tasks: Annotated[int | None, typer.Option("-n", "--tasks", min=1, help="At most this many tasks.")] = None,
    samples: Annotated[int | None, typer.Option("-r", "--samples", min=1, help="Samples a task.")] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("-c", "--concurrency", min=1, help="Episodes (requests to an endpoint) at once."),
    ] = None,
    rpm: Annotated[float, typer.Option(min=0, help="Requests a minute to an endpoint; 0: no limit.")] = 0,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Only measure, for a baseline's report.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for samples.jsonl and report.json.", metavar="DIR"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything sampled.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in the folder of -o.")] = False,
    rescore: Annotated[
        Path | None, typer.Option(help="Score this samples.jsonl again instead of sampling.", metavar="FILE")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.", metavar="FILE")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown summary.", metavar="FILE")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write report and decision as JSON; - for stdout.", metavar="FILE"),
    ] = None,
) -> None:
    """Run a suite on a model, and let its gates pass (exit 0) or fail (exit 1) it."""
    from vertigym.core.errors import ConfigError
    from vertigym.evals.gate import decide
    from vertigym.evals.runner import rescore as score_again
    from vertigym.evals.suite import load_suite, shortened

    if resume and not out:
        raise ConfigError("--resume needs -o DIR: the folder of the eval to go on with")
    if bool(model) == bool(rescore):
        raise ConfigError("give either -m MODEL to sample, or --rescore FILE")
    loaded = shortened(load_suite(suite), tasks=tasks, samples=samples)
    run = functools.partial(_run_suite, loaded, seed=seed, concurrency=concurrency, rpm=rpm)
    champion = None if no_gate else _champion_report(run, baseline)
    if champion is None and not no_gate and any(gate.paired for gate in loaded.gate):
        raise ConfigError(
            f"suite {loaded.name} compares with a champion: name one with -b, or only measure with --no-gate"
        )
    report = score_again(loaded, rescore, out=out) if rescore else run(model, out=out, resume=resume)
    decision = decide(loaded, report, champion) if loaded.gate and not no_gate else None
    _write_eval(report, decision, junit=junit, summary=summary, json_file=json_file)
    if decision and not decision.passed:
        raise typer.Exit(1)


@app.command()
def compare(
    reports: Annotated[
        list[Path], typer.Argument(help="Reports (files or folders); the first is the baseline.")
    ],
    common: Annotated[
        bool, typer.Option("--common", help="Compare different suites on the tasks they share.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare reports on the same tasks: intervals, tasks won and lost, and a verdict in words."""
    from vertigym.evals.compare import compare as compare_reports
    from vertigym.evals.render import comparison_tables
    from vertigym.evals.report import Report

    for found in compare_reports([Report.load(path) for path in reports], common=common):
        _print_json(found.model_dump(mode="json")) if as_json else _show(comparison_tables(found))


@app.command()
def rebase(
    suite: Annotated[Path, typer.Argument(help="A suite's TOML file.", metavar="SUITE.toml")],
    new_base: Annotated[str, typer.Option(help="The base model that came out: a folder, or its report.")],
    tuned: Annotated[str, typer.Option(help="The model tuned on the old base: a folder, or its report.")],
    config: Annotated[
        Path | None, typer.Option(help="The tuned model's training config; with --train it is run anew.")
    ] = None,
    retrain: Annotated[bool, typer.Option("--train", help="Train the new base with --config as well.")] = False,
    margin: Annotated[float, typer.Option(min=0, help="How much worse still counts as good.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Seed of everything sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Does the tuned model still beat the new base, and would retraining beat both? Exit 1: cannot tell."""
    from vertigym.core.errors import ConfigError
    from vertigym.evals.rebase import rebase as compare_bases
    from vertigym.evals.render import comparison_tables
    from vertigym.evals.suite import load_suite

    if retrain and config is None:
        raise ConfigError("--train needs --config CONFIG.toml: the run to repeat on the new base")
    loaded = load_suite(suite)
    run = functools.partial(_run_suite, loaded, seed=seed)
    base, old = (_champion_report(run, model) for model in (new_base, tuned))
    retrained = None
    if retrain and config:
        outcome = _train(config, [f"model={new_base}", f"name=rebase-{Path(new_base).name}"])
        retrained = run(str(outcome.promoted or outcome.last))
    found = compare_bases(base, old, retrained, margin=margin)
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        print(found.advice)
        for comparison in found.comparisons:
            _show(comparison_tables(comparison))
    if found.ship is None:
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, an eval's folder, or a report.", metavar="RUN")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write one self-contained HTML page.", metavar="FILE")
    ] = None,
    baseline: Annotated[Path | None, typer.Option("-b", help="A report to compare an eval with.")] = None,
    live: Annotated[bool, typer.Option("--serve", help="Serve the page of a run; it follows the run.")] = False,
    port: Annotated[int, typer.Option(help="Port of --serve, on 127.0.0.1.", min=0, max=65535)] = 8000,
    as_json: Json = False,
) -> None:
    """Show what a run came to: its checkpoints, the verdicts, and what ships."""
    if out:
        from vertigym.core.files import write_text
        from vertigym.evals.run_page import page_of

        write_text(out, page_of(run, baseline))
        _note(f"wrote {out}")
    elif live:
        from vertigym.evals.run_page import serve

        server = serve(run, port)
        _note(f"http://127.0.0.1:{server.server_address[1]} (Ctrl-C ends it)")
        server.serve_forever()
    elif (run / "config.toml").is_file():
        from vertigym.trainer.summary import render, summarize

        found = summarize(run)
        _print_json(found.model_dump(mode="json")) if as_json else _show(render(found))
    else:
        from vertigym.evals.render import report_tables
        from vertigym.evals.report import Report

        loaded = Report.load(run)
        _print_json(loaded.model_dump(mode="json")) if as_json else _show(report_tables(loaded))


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model folder, or openai:MODEL@URL.", metavar="CHECKPOINT")],
    record: Annotated[
        Path, typer.Option("-o", "--record", help="Append every call and all feedback here.", metavar="FILE")
    ] = Path("traces.jsonl"),
    host: Annotated[str, typer.Option(help="Others than this machine need VERTIGYM_SERVE_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model. Default: its run's name.")] = "",
    rpm: Annotated[float, typer.Option(help="Requests a minute from one client; 0: no limit.", min=0)] = 600,
    max_tokens: Annotated[int, typer.Option(help="At most so many tokens a reply.", min=1)] = 512,
    engine: Annotated[
        Literal["auto", "transformers", "vllm"],
        typer.Option(help="What decodes a model folder; auto: vLLM where it is installed."),
    ] = "auto",
) -> None:
    """Answer on an OpenAI-compatible endpoint, record every call as a trace, take feedback (POST /feedback)."""
    from vertigym.serving.run import serve as run

    def ready(url: str) -> None:
        _note(f"serving on {url}, recording to {record} (Ctrl-C ends it)")

    run(
        model,
        record,
        host=host,
        port=port,
        name=name,
        per_minute=rpm,
        max_tokens=max_tokens,
        engine=engine,
        on_ready=ready,
    )


@traces_app.command("import")
def traces_import(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Logs, or folders of them: .jsonl, .json, .csv, .tsv, .parquet, also with .gz.",
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
    split: Annotated[
        Literal["input", "customer", "cluster", "time"] | None,
        typer.Option(help="What is held out as a whole."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key of the settings: duplicates.near=0.8.", metavar="KEY=VALUE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read logs of calls; drop duplicates and held-out tasks, mask personal data, find conflicts, split.

    Read are chat-completions requests with their responses, conversations, OpenTelemetry GenAI spans, what
    `vertigym serve` records, and by --map any table. What cannot be read is set aside with the reason.
    """
    from vertigym.core.config import parse, read_toml
    from vertigym.envs.traces.config import ImportConfig
    from vertigym.envs.traces.importer import import_traces

    overrides = [f"columns.{pair}" for pair in columns or ()]
    overrides += [f"decontaminate.against={json.dumps(against)}"] if against else []
    overrides += [f"pii.names={json.dumps(str(names))}"] if names else []
    overrides += [f"split.by={split}"] if split else []
    source = str(config) if config else "traces import"
    chosen = parse(
        ImportConfig, read_toml(config) if config else {}, overrides + (settings or []), source=source
    )
    with _bytes_read("reading") as on_progress:
        report = import_traces(files, out, chosen, on_progress)
    if as_json:
        _print_json(report.model_dump(mode="json"))
        return
    _table(None, ("step", "rows in", "rows out", "what"), report.table())
    _table("\nfor example", ("", ""), report.examples())
    splits = ", ".join(f"{part.rows:,} {name}" for name, part in report.splits.items())
    if report.labels:
        _table("\nlabels", ("label", *report.splits), report.label_rows())
    print(f"\n{out}: {splits}")
    for note in report.notes:
        _note(note)


@sandbox_app.command("doctor")
def sandbox_doctor(as_json: Json = False) -> None:
    """Say which levels of isolation this machine has, and why not the others. Exit 1 where there is none."""
    from vertigym.sandboxes.levels import levels

    found = levels()
    if as_json:
        _print_json([dataclasses.asdict(level) for level in found])
    else:
        rows = [
            (
                str(level.name),
                "yes" if level.available else "no",
                level.gives,
                level.missing or level.note,
                level.fix,
            )
            for level in found
        ]
        _table(None, ("level", "here", "gives", "missing", "what to do"), rows)
    if not any(level.available for level in found if str(level.name) != "unsafe-subprocess"):
        raise typer.Exit(1)


def _plan(config: Path, overrides: Sequence[str], *, as_json: bool, show: bool) -> None:
    """Say what would run."""
    from vertigym.core.config import load
    from vertigym.trainer.config import RunConfig
    from vertigym.trainer.starting import plan

    planned = plan(load(RunConfig, config, overrides))
    if show and as_json:
        _print_json(planned)
    elif show:
        _table("would run", ("", ""), [(key, str(value)) for key, value in planned.items()])


def _train(config: Path, overrides: Sequence[str], *, resume: bool = False, show: bool = True) -> Any:
    """Train, to be shown behind a progress bar."""
    from vertigym.core.config import load
    from vertigym.trainer.config import RunConfig

    settings = load(RunConfig, config, overrides)
    from vertigym.trainer import loop
    from vertigym.trainer.console import watched

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, as by Ctrl-C
    with watched(settings.steps) if show else contextlib.nullcontext(loop.Progress()) as progress:
        return loop.train(settings, resume=resume, progress=progress)


def _champion_report(run: Any, baseline: str | None) -> Any:
    """The baseline's report: read where `baseline` is one, made by `run` where it is a model."""
    from vertigym.evals.report import Report

    if baseline is None:
        return None
    path = Path(baseline)
    if path.suffix == ".json" or (path / "report.json").is_file():
        return Report.load(path)
    return run(baseline)


def _run_suite(
    suite: Any, model: str, *, seed: int, concurrency: int | None = None, rpm: float = 0, **kwargs: Any
) -> Any:
    """Run a suite behind a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from vertigym.evals.runner import run_suite
    from vertigym.policies.load import load_policy

    policy = load_policy(model, concurrency=concurrency or 16, requests_per_minute=rpm)
    bar = Progress(console=Console(stderr=True))
    row = bar.add_task(f"{suite.name}: {model}", total=None)

    def on_progress(done: int, total: int) -> None:
        bar.start()  # not before: an error in opening the suite is to stand alone
        bar.update(row, completed=done, total=total)

    try:
        return run_suite(
            suite, policy, seed=seed, model=model, batch=concurrency or 256, on_progress=on_progress, **kwargs
        )
    finally:
        if bar.live.is_started:
            bar.stop()


@contextlib.contextmanager
def _bytes_read(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar over bytes, with the rows so far."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(what, total=None)
        yield lambda rows, done, total: bar.update(
            row,
            completed=done,
            total=total,
            description=f"{rows:,} calls" + ("" if done < total else ", cleaning"),
        )


def _write_eval(
    report: Any, decision: Any, *, junit: Path | None, summary: Path | None, json_file: Path | None
) -> None:
    from vertigym.core.files import write_text
    from vertigym.evals import ci
    from vertigym.evals.render import decision_table, report_tables

    if decision and junit:
        write_text(junit, ci.junit([(decision, report)]))
    if decision and summary:
        write_text(summary, ci.summary(decision, report))
    whole = {
        "report": report.model_dump(mode="json"),
        "decision": decision.model_dump(mode="json") if decision else None,
    }
    if json_file and str(json_file) == "-":
        _print_json(whole)
        return
    if json_file:
        write_text(json_file, json.dumps(whole, ensure_ascii=False) + "\n")
    _show(report_tables(report))
    if decision:
        _show(decision_table(decision))


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def _note(text: str) -> None:
    print(f"vertigym: {text}", file=sys.stderr)


def _show(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=any(columns), box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: square brackets are not markup
    _show(table)
