"""`vertigym eval` and `vertigym compare`: suites, and the gates that pass or fail a model."""

import functools
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vertigym.cli.console import Force, Json, counting, note, print_json, show
from vertigym.cli.interop import Cluster, Score


def eval_(
    suite: Annotated[Path, typer.Argument(help="A suite's TOML file.", metavar="SUITE.toml")],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            help="A model folder, a run's folder (what was promoted), org/name[@REVISION] on the Hugging Face "
            "hub; vllm:MODEL, openai:MODEL@URL, scripted:expert.",
        ),
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
        typer.Option("-o", "--out", help="Folder for samples, report and decision.", metavar="DIR"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything sampled.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in the folder of -o.")] = False,
    rescore: Annotated[
        Path | None, typer.Option(help="Score this samples.jsonl again instead of sampling.", metavar="FILE")
    ] = None,
    inspect_log: Annotated[
        Path | None,
        typer.Option(help="Write the eval of -o as Inspect logs, one an environment.", metavar="DIR"),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.", metavar="FILE")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown summary.", metavar="FILE")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write report and decision as JSON; - for stdout.", metavar="FILE"),
    ] = None,
    force: Force = False,
) -> None:
    """Run a suite on a model, and let its gates pass (exit 0) or fail (exit 1) it."""
    from vertigym.core.errors import ConfigError
    from vertigym.core.files import claim, write_json
    from vertigym.evals.evidence import shortfalls
    from vertigym.evals.gate import decide
    from vertigym.evals.rehearsal import rehearse
    from vertigym.evals.runner import rescore as score_again
    from vertigym.evals.suite import load_suite, shortened, task_list
    from vertigym.interop.inspect_writer import write_inspect_logs
    from vertigym.policies.load import source_of

    if resume and not out:
        raise ConfigError("--resume needs -o DIR: the folder of the eval to go on with")
    if inspect_log and (rescore or not out):
        raise ConfigError("--inspect-log needs -o DIR and no --rescore: the log is made of the samples in DIR")
    if bool(model) == bool(rescore):
        raise ConfigError("give either -m MODEL to sample, or --rescore FILE")
    written = [junit, summary, None if str(json_file) == "-" else json_file]
    for file in written:
        claim(file, force=force)
    if out:
        claim(out / "samples.jsonl", force=force or resume or rescore is not None)
        for name in ("report.json", "decision.json"):
            claim(out / name, force=force or resume)
            written.append(out / name)
    for file in written:
        if file and [other.resolve() for other in written if other].count(file.resolve()) > 1:
            raise ConfigError(f"{file}: two results would be written there: name a file for each")
    loaded = shortened(load_suite(suite), tasks=tasks, samples=samples)
    run = functools.partial(run_suite_shown, loaded, seed=seed, concurrency=concurrency, rpm=rpm)
    if baseline is None and not no_gate and any(gate.paired for gate in loaded.gate):
        raise ConfigError(
            f"suite {loaded.name} compares with a champion: name one with -b, or only measure with --no-gate"
        )
    source, listed = source_of(model) if model else None, task_list(loaded)
    known = None if no_gate or baseline is None else saved_report(baseline)
    rehearse(loaded, listed, known, source.name if source else model)
    for line in shortfalls(loaded, listed) if not no_gate else ():
        note(line)
    champion = run(baseline) if baseline and not no_gate and not known else known
    report = score_again(loaded, rescore, out=out) if rescore else run(model, out=out, resume=resume)
    decision = decide(loaded, report, champion) if loaded.gate and not no_gate else None
    if out and inspect_log:
        write_inspect_logs(inspect_log, loaded, report, out / "samples.jsonl")
    if out and decision:
        write_json(out / "decision.json", decision.model_dump(mode="json"))
    elif out and not resume:  # what was decided on an earlier report is not said of this one
        (out / "decision.json").unlink(missing_ok=True)
    _write_eval(report, decision, junit=junit, summary=summary, json_file=json_file)
    if decision and not decision.passed:
        raise typer.Exit(1)


def compare(
    reports: Annotated[
        list[Path],
        typer.Argument(
            help="Reports, Inspect logs, samples of lm-eval, traces of verifiers; the first is the baseline."
        ),
    ],
    score: Score = "",
    cluster: Cluster = "",
    common: Annotated[
        bool, typer.Option("--common", help="Compare different suites on the tasks they share.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare results on the same tasks: intervals, tasks won and lost, and a verdict in words."""
    from vertigym.evals.compare import compare as compare_reports
    from vertigym.interop.formats import load_results
    from vertigym.interop.results import Reading
    from vertigym.reports.tables import comparison_tables

    loaded = [load_results(path, Reading(score, cluster)) for path in reports]
    for found in compare_reports(loaded, common=common):
        print_json(found.model_dump(mode="json")) if as_json else show(comparison_tables(found))


def saved_report(baseline: str) -> Any:
    """The report that `baseline` names; None where it names a model.

    Raises:
        DataError: neither, or no report.
    """
    from vertigym.evals.report import Report
    from vertigym.policies.load import source_of

    path = Path(baseline)
    if path.suffix == ".json" or (path / "report.json").is_file():
        return Report.load(path)
    source_of(baseline)
    return None


def run_suite_shown(
    suite: Any, model: str, *, seed: int, concurrency: int | None = None, rpm: float = 0, **kwargs: Any
) -> Any:
    """Run a suite behind a progress bar."""
    from vertigym.evals.runner import run_suite
    from vertigym.policies.load import load_policy, source_of

    if source := source_of(model):
        model = source.name
    policy = load_policy(model, concurrency=concurrency or 16, requests_per_minute=rpm)
    with counting(f"{suite.name}: {model}") as advance:
        return run_suite(
            suite, policy, seed=seed, model=model, batch=concurrency or 256, on_progress=advance, **kwargs
        )


def _write_eval(
    report: Any, decision: Any, *, junit: Path | None, summary: Path | None, json_file: Path | None
) -> None:
    from vertigym.core.files import write_text
    from vertigym.reports import ci
    from vertigym.reports.tables import decision_table, report_tables

    if decision and junit:
        write_text(junit, ci.junit([(decision, report)]))
    if decision and summary:
        write_text(summary, ci.summary(decision, report))
    whole = {
        "report": report.model_dump(mode="json"),
        "decision": decision.model_dump(mode="json") if decision else None,
    }
    if json_file and str(json_file) == "-":
        print_json(whole)
        return
    if json_file:
        write_text(json_file, json.dumps(whole, ensure_ascii=False) + "\n")
    show(report_tables(report))
    if decision:
        show(decision_table(decision))
