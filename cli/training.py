"""`vertigym train`, and what is asked of a run afterwards: `report`, `rebase`."""

import contextlib
import functools
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vertigym.cli.console import Force, Json, note, print_json, show, table
from vertigym.cli.evals import run_suite_shown, saved_report


def train(
    config: Annotated[
        Path, typer.Argument(help="A run's TOML file, or a recipe of several stages.", metavar="CONFIG.toml")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings on top: seed=1 optimizer.lr=1e-4; of one stage: stage.grpo.steps=20.",
            metavar="[KEY=VALUE]...",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Open everything, run some steps, keep nothing, say what it would take."
        ),
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="With --dry-run: compute for such a GPU, run nothing: h100, h100x8, …", metavar="NAME"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model in an environment; evals along the way decide which checkpoint is promoted. Exit 1: none.

    On several GPUs: torchrun --nproc-per-node 8 -m vertigym train CONFIG.toml
    """
    from vertigym.core.errors import ConfigError
    from vertigym.learner.ranks import join_ranks

    if gpu and not dry_run:
        raise ConfigError(
            f"--gpu {gpu} is a GPU to plan for, and a run takes those that are here: add --dry-run"
        )
    _stop_politely()
    with join_ranks() as ranks:
        if dry_run:
            measure = ranks.size == 1 and not gpu
            ranks.on_leader(
                lambda: _plan(config, overrides or [], resume=resume, measure=measure, gpu=gpu, as_json=as_json)
            )
            return
        outcome = _train(config, overrides or [], resume=resume, show=ranks.leader)
    promoted = str(outcome.promoted) if outcome.promoted else None
    if not ranks.leader:
        return
    if as_json:
        print_json({"run": str(outcome.run.folder), "last": str(outcome.last), "promoted": promoted})
    else:
        print(f"last checkpoint: {outcome.last}")
        if outcome.gated:
            print(f"promoted: {promoted or 'none; the champion stays'}")
        else:
            print("no suites, so nothing was judged or promoted: name some in [eval]")
    if outcome.gated and not promoted:
        raise typer.Exit(1)


def rebase(
    suite: Annotated[Path, typer.Argument(help="A suite's TOML file.", metavar="SUITE.toml")],
    new_base: Annotated[
        str, typer.Option(help="The base model that came out: a folder, a run, org/name, or its report.")
    ],
    tuned: Annotated[str, typer.Option(help="The model tuned on the old base: the same.")],
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
    from vertigym.evals.suite import load_suite
    from vertigym.reports.tables import comparison_tables

    if retrain and config is None:
        raise ConfigError("--train needs --config CONFIG.toml: the run to repeat on the new base")
    loaded = load_suite(suite)
    run = functools.partial(run_suite_shown, loaded, seed=seed)
    known = [saved_report(model) for model in (new_base, tuned)]  # both, before one is played
    base, old = (report or run(model) for report, model in zip(known, (new_base, tuned), strict=True))
    retrained = None
    if retrain and config:
        _stop_politely()
        outcome = _train(config, [f"model={new_base}", f"name=rebase-{Path(new_base).name.partition('@')[0]}"])
        retrained = run(str(outcome.promoted or outcome.last))
    found = compare_bases(base, old, retrained, margin=margin)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print(found.advice)
        for comparison in found.comparisons:
            show(comparison_tables(comparison))
    if found.ship is None:
        raise typer.Exit(1)


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, an eval's folder, or a report.", metavar="RUN")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write one self-contained HTML page.", metavar="FILE")
    ] = None,
    baseline: Annotated[Path | None, typer.Option("-b", help="A report to compare an eval with.")] = None,
    live: Annotated[bool, typer.Option("--serve", help="Serve the page of a run; it follows the run.")] = False,
    port: Annotated[int, typer.Option(help="Port of --serve, on 127.0.0.1.", min=0, max=65535)] = 8000,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what a run came to: its checkpoints, the verdicts, and what ships."""
    from vertigym.trainer.run_files import is_run

    if out:
        from vertigym.core.files import claim, write_text
        from vertigym.reports.run_page import page_of

        claim(out, force=force)
        write_text(out, page_of(run, baseline))
        note(f"wrote {out}")
    elif live:
        from vertigym.cli.studio import serve_studio
        from vertigym.trainer.run_files import RunFiles

        serve_studio(RunFiles.open(run).folder, run=run.resolve().name, port=port)
    elif is_run(run):
        from vertigym.reports.run_summary import render, summarize

        found = summarize(run)
        print_json(found.model_dump(mode="json")) if as_json else show(render(found))
    else:
        from vertigym.evals.report import Report
        from vertigym.reports.tables import report_tables

        loaded = Report.load(run)
        print_json(loaded.model_dump(mode="json")) if as_json else show(report_tables(loaded))


def _stop_politely() -> None:
    """SIGTERM is to end a training as Ctrl-C does; among several ranks, as `trainer.ending` does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _plan(
    config: Path, overrides: Sequence[str], *, resume: bool, measure: bool, gpu: str | None, as_json: bool
) -> None:
    """Say what would run, and what it would take."""
    from vertigym.trainer.devices import find_device
    from vertigym.trainer.measured_steps import measured_steps
    from vertigym.trainer.recipe import load_stages, plan_stages
    from vertigym.trainer.resource_plan import plan_rows

    device = find_device(gpu) if gpu else None
    stages = load_stages(config, overrides, "cuda" if device else "")
    planned = plan_stages(stages, resume=resume, device=device)
    for stage, found in zip(stages, planned, strict=True):
        if measure and stage.config.steps:
            note(f"measuring some steps of {stage.name}")
            found |= measured_steps(stage.config)
    if as_json:
        print_json(planned[0] if len(planned) == 1 else planned)
        return
    for number, one in enumerate(planned):
        computed = one.pop("computed")
        table("\nthen" if number else "would run", ("", ""), [(key, str(value)) for key, value in one.items()])
        if isinstance(computed, str):
            note(computed)
        else:
            title = f"\nmemory and time, {computed['for']}"
            table(title, ("", "computed", "measured"), plan_rows(computed, one))


def _train(config: Path, overrides: Sequence[str], *, resume: bool = False, show: bool = True) -> Any:
    """Train, to be shown behind a progress bar."""
    from vertigym.trainer.recipe import Stage, load_stages, train_stages

    stages = load_stages(config, overrides)
    from vertigym.reports.progress import watched
    from vertigym.trainer import loop

    def watch(stage: Stage) -> contextlib.AbstractContextManager[loop.Progress]:
        return watched(stage.config.steps, stage.name if len(stages) > 1 else "")

    return train_stages(stages, resume=resume, **({"watch": watch} if show else {}))
