"""`vertigym env`: environments, from a decision file to a checked one."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vertigym.cli.console import EnvId, Force, Json, counting, note, print_json, table

if TYPE_CHECKING:
    from vertigym.decisions.formats import ReadOptions

Trust = Annotated[
    bool, typer.Option("--trust", help="Run a model's JavaScript in this process, not in a sandbox.")
]
Decision = Annotated[
    list[str] | None,
    typer.Option(
        help="A decision of a DMN file to ask for (again for more). Default: those no other one requires.",
        metavar="NAME",
    ),
]
Sheet = Annotated[str, typer.Option(help="Which sheet of a workbook, where it has several.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="Declare a spreadsheet's column (again for more): condition, outcome, annotation; number, text, "
        "boolean, date; 1,5 or 1.5; d/m/y or m/d/y. Or a TOML file with a table [columns].",
        metavar="HEADER=WORDS|FILE.toml",
    ),
]


def reading(
    sheet: str, columns: Sequence[str] | None, decisions: Sequence[str] | None, *, trust: bool
) -> "ReadOptions":
    """How these options say that a file of rules is read."""
    from vertigym.decisions.formats import ReadOptions
    from vertigym.decisions.model import in_process
    from vertigym.decisions.spreadsheets.declared import parse_columns
    from vertigym.envs.decision.scripts import sandboxed

    declared = parse_columns(columns or [])
    return ReadOptions(sheet, declared, tuple(decisions or ()), in_process if trust else sandboxed)


app = typer.Typer(
    help="Environments: list, show, new, import, export, serve, rows, strengthen, diff, check.",
    no_args_is_help=True,
)


@app.command("list")
def env_list(as_json: Json = False) -> None:
    """List every known environment: built in, installed, or a folder under ./environments or $VERTIGYM_PATH."""
    from vertigym.envs import registry

    specs = [registry.spec(name) for name in registry.ids()]
    if as_json:
        print_json([{"id": s.id, "source": s.source, "description": s.description} for s in specs])
    else:
        table(None, ("id", "source", "description"), [(s.id, s.source, s.description) for s in specs])
    for name, why in registry.broken().items():
        note(f"the package {name} could not be loaded: {why}")


@app.command("show")
def env_show(
    id: EnvId,  # noqa: A002
    task: Annotated[str | None, typer.Option(help="Which task. Default: the first.", metavar="TASK")] = None,
    split: Annotated[
        Literal["train", "eval", "test"] | None, typer.Option(help="The first task of this split.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show an environment: its tasks by split, and one task with its reference answer."""
    from vertigym import envs
    from vertigym.core.types import SPLITS

    spec, env = envs.spec(id), envs.make(id)
    ids = {name: env.tasks.ids(name) for name in SPLITS}
    counts = {name: len(found) for name, found in ids.items()}
    first = task or next((ids[name][0] for name in ([split] if split else SPLITS) if ids[name]), None)
    if first is None:
        print_json({"id": spec.id, "tasks": counts}) if as_json else print(f"{spec.id}: no tasks")
        return
    _, info = env.reset(seed=0, options={"task": first})
    if as_json:
        task = info["task"].model_dump(mode="json")
        print_json(
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
    for text in env.notes:
        print(f"note:  {text}")
    for message in info["messages"]:
        print(f"\n[{message['role']}]\n{message['content']}")
    print(f"\n[reference answer of {first}]")
    print("\n".join(env.reference(info["task"]) or ["nobody knows one"]))


@app.command("import")
def env_import(
    file: Annotated[
        Path,
        typer.Argument(
            help="A decision model: JDM JSON, DMN 1.1-1.6, or a table in csv or xlsx; the format is guessed. "
            "With --package: a folder (or file) of pytest tests.",
            metavar="FILE",
        ),
    ],
    id: Annotated[str, typer.Option("--id", help="The new environment's id, namespace/Name-v0.")],  # noqa: A002
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to write. Default: environments/NAME.", metavar="DIR"),
    ] = None,
    package: Annotated[
        Path | None,
        typer.Option(
            help="What the tests in FILE test: the package's folder, the one it lies in, or a .py file. Each "
            "function that they judge becomes a task; FILE itself stays hidden.",
            metavar="SRC",
        ),
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
    sheet: Sheet = "",
    column: Column = None,
    decision: Decision = None,
    trust: Trust = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make an environment out of a decision model, whose engine then has the right answers; or, with --package,
    out of a project's own tests."""
    from vertigym.core.errors import ConfigError, DataError
    from vertigym.envs.agent.importer import import_agent
    from vertigym.envs.decision.importer import import_decision
    from vertigym.evals.evidence import env_shortfalls

    folder = out or Path("environments") / id.rpartition("/")[2].rpartition("-v")[0].lower()
    if package is not None:
        _import_tests(file, id, folder, package, force=force, as_json=as_json)
        return
    if file.is_dir():
        raise DataError(f"{file}: is a folder; for one of pytest tests name what they test: --package SRC")
    shared: dict[str, Any] = {"rules": rules, "seed": seed, "now": now, "force": force}
    shared |= {"how": reading(sheet, column, decision, trust=trust)}
    if mode == "agent":
        report = import_agent(file, id, folder, settings=settings or [], **shared)
    elif settings:
        raise ConfigError("--set is for --mode agent; edit the folder's env.toml instead")
    else:
        report = import_decision(file, id, folder, **shared)
    if as_json:
        print_json(dataclasses.asdict(report) | {"coverage": report.coverage})
        return
    covered = report.rules - len(report.not_hit)
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    print(f"{report.id} -> {report.folder}")
    print(f"tasks:     {counts}; {report.patterns} patterns of rules")
    print(f"given:     {_typed(report.given, report.given)}")
    print(f"asked for: {_typed(report.outputs, report.asked)}")
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
    for warning in (*report.warnings, *env_shortfalls(str(folder))):
        note(warning)
    print(f"next:      vertigym env show {report.id if out is None else report.folder}")


def _import_tests(
    file: Path,
    id: str,  # noqa: A002
    folder: Path,
    package: Path,
    *,
    force: bool,
    as_json: bool,
) -> None:
    from vertigym.envs.code.pytest_import import import_lines, import_tests

    with counting("trying functions") as advance:
        report = import_tests(file, id, folder, package=package, force=force, on_done=advance)
    if as_json:
        print_json(dataclasses.asdict(report) | {"reasons": report.reasons})
        return
    for line in import_lines(report):
        print(line)
    print(f"next:      vertigym env check {folder}")


def _typed(names: Iterable[str], types: Mapping[str, str]) -> str:
    """Fields with their types."""
    return ", ".join(f"{name} ({types[name]})" if name in types else name for name in names)


@app.command("rows")
def env_rows(
    id: EnvId,  # noqa: A002
    out: Annotated[Path, typer.Option("-o", "--out", help="JSONL file to write.", metavar="FILE")],
    policy: Annotated[
        str,
        typer.Option(
            help="Whose answers: expert (the references), a decision model's file (it decides the cases), or "
            "old-rules (the older version in the environment's folder, or a derived one).",
            metavar="expert|old-rules|FILE",
        ),
    ] = "expert",
    split: Annotated[Literal["train", "eval", "test"], typer.Option(help="Which tasks.")] = "train",
    tasks: Annotated[int | None, typer.Option("-n", "--tasks", min=1, help="At most this many.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn or derived.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an environment's tasks with answers as chat rows, which `algorithm = "sft"` imitates."""
    from vertigym import envs
    from vertigym.core.files import claim, write_jsonl
    from vertigym.envs.chat_rows import chat_rows

    claim(out, force=force)
    with counting("playing") as advance:
        found = chat_rows(envs.make(id), policy, split=split, most=tasks, seed=seed, on_done=advance)
    write_jsonl(out, found.rows)
    if found.left_out:
        note(f"{found.left_out} tasks were left out: {found.reason}")
    if as_json:
        print_json({"rows": len(found.rows), "mean": found.mean, "left_out": found.left_out, "file": str(out)})
        return
    earned = "could not be scored" if found.mean is None else f"earn {found.mean:.3f} on average"
    print(f"{out}: {len(found.rows)} chats by {policy}, which {earned}")


@app.command("strengthen")
def env_strengthen(
    id: EnvId,  # noqa: A002
    out: Annotated[Path, typer.Option("-o", "--out", help="JSONL file of tasks to write.", metavar="FILE")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a code environment's tasks with tests added that tell faults of the references apart."""
    from vertigym import envs
    from vertigym.core.errors import InputError
    from vertigym.core.files import claim, write_jsonl
    from vertigym.core.types import SPLITS
    from vertigym.envs.code.env import CodeEnv
    from vertigym.envs.code.stronger import strengthened

    claim(out, force=force)
    env = envs.make(id)
    if not isinstance(env, CodeEnv):
        raise InputError(f"{id}: no code environment; only tests of code tasks can be added")
    tasks = [env.tasks.get(name) for split in SPLITS for name in env.tasks.ids(split)]
    better = {}
    with counting("looking for inputs") as advance:
        for done, task in enumerate(tasks, 1):
            if mended := strengthened(task, env.verifier):
                better[task.id] = mended
            advance(done, len(tasks))
    write_jsonl(out, (better.get(task.id, task).model_dump(mode="json") for task in tasks))
    if as_json:
        print_json({"tasks": len(tasks), "strengthened": list(better), "file": str(out)})
        return
    print(f"{out}: {len(tasks)} tasks, {len(better)} of them with tests added")
    if better:
        note("read what was added: an input may lie outside of what its task promises")


@app.command("diff")
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
    sheet: Sheet = "",
    column: Column = None,
    decision: Decision = None,
    trust: Trust = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say which cases change their answer between two versions of the rules, and which rules did it."""
    from vertigym.core.manifest import claim_folder
    from vertigym.envs.decision.config import FOLDER
    from vertigym.envs.decision.diff import change_lines, compare_files

    if out:
        claim_folder(out, FOLDER, force=force)
    how = reading(sheet, column, decision, trust=trust)
    comparison = compare_files(old, new, seed=seed, now=now, how=how)
    found = comparison.difference()
    counts = comparison.write(out, id, force=force) if out else {}
    if as_json:
        print_json(dataclasses.asdict(found) | {"share": found.share, "tasks": counts})
        return
    for line in change_lines(found):
        print(line)
    if out:
        tasks = ", ".join(f"{n['changed']} + {n['same']} {split}" for split, n in counts.items())
        print(f"{id} -> {out}")
        print(f"tasks:     {tasks} (changed + same)")
        print(f"suites:    {out / 'change.toml'}, {out / 'changed.toml'}")


@app.command("new")
def env_new(
    name: Annotated[str, typer.Argument(help="namespace/Name-v0, or a plain name.", metavar="NAME")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to put the package's folder.")] = Path(),
) -> None:
    """Write an installable package with one environment, its data and a test, to build on."""
    from vertigym.envs.scaffold import environment_id, new_environment

    folder = new_environment(name, out)
    print(f"{environment_id(name)} -> {folder}")
    print(f"next:      pip install -e {folder} && vertigym env check {environment_id(name)}")


@app.command("check")
def env_check(
    ids: Annotated[list[str], typer.Argument(help="Environments: ids, folders or modules.", metavar="ID...")],
    tasks: Annotated[int, typer.Option("-n", "--tasks", help="How many tasks to sample.", min=1)] = 100,
    floor: Annotated[float, typer.Option(help="What answers without content may earn on average.")] = 0.05,
    guess_floor: Annotated[float, typer.Option(help="What the best constant guess may earn.")] = 0.6,
    sample: Annotated[
        int | None, typer.Option(help="Run the references of so many code tasks only, not of all.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    as_json: Json = False,
) -> None:
    """Test environments the way an attacker and a statistician would; exit code 1 when one is at fault."""
    from vertigym.envs.check import check

    settings = {"tasks": tasks, "floor": floor, "guess_floor": guess_floor, "sample": sample, "seed": seed}
    reports = [check(name, **settings) for name in ids]  # type: ignore[arg-type]
    if as_json:
        answers = [report.to_json(strict=strict) for report in reports]
        print_json(answers[0] if len(answers) == 1 else answers)
    else:
        for report in reports:
            table(report.env, ("test", "verdict", "measured"), report.rows())
            for finding in report.findings:
                where = f" [task {finding.task}]" if finding.task else ""
                action = f" on {finding.action!r}" if finding.action else ""
                print(f"\n{finding.level}: {finding.message}{where}{action}\n  do: {finding.advice}")
    if not all(report.passed(strict=strict) for report in reports):
        raise typer.Exit(1)
