"""`traces import`: a log whose faults are all known goes in; the report and the rows must agree with them."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vertigym.cli import app
from vertigym.core.errors import DataError, InputError, MissingDependencyError
from vertigym.tests.trace_log import Found, Log, Planted, repeats_found
from vertigym.traces.import_report import TraceImportReport
from vertigym.traces.reading import log_files

from .trace_imports import ask, call, kept, places, run, write


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, Path, TraceImportReport]:
    folder = tmp_path_factory.mktemp("log")
    planted = Log(folder, 4000, seed=3).planted
    (folder / "names.txt").write_text("\n".join(planted.names))
    settings = {"pii": {"names": str(folder / "names.txt")}, "split": {"by": "customer"}}
    return planted, folder / "out", run(planted.files, folder / "out", **settings)


def test_the_reports_counts_equal_what_was_planted(imported: tuple[Planted, Path, TraceImportReport]) -> None:
    planted, out, report = imported
    check_counts(planted, out, report)


def check_counts(planted: Planted, out: Path, report: TraceImportReport) -> None:
    """Every fault is found where it was planted, none is missed, and nothing else is taken for one."""
    dropped, rows = places(out / "dropped.jsonl"), set(planted.content)
    assert places(out / "rejected.jsonl")[""] == set(planted.broken)
    assert sum(report.rejected.values()) == len(planted.broken) > 0
    assert report.step("read").rows_out == planted.calls == len(rows)
    exact = repeats_found(planted.content, dropped["exact duplicates"], rows)
    assert exact.wrong == exact.missed == 0 < exact.right
    nearly = repeats_found(planted.family, dropped["near-duplicates"], rows - dropped["exact duplicates"])
    assert nearly.wrong == nearly.missed == 0 < nearly.right
    assert report.conflicts == planted.conflicts > 0
    personal = personal_data_found(planted, out)
    print(f"{exact=}\n{nearly=}\n{personal=}")
    assert personal.precision == 1
    assert personal.recall == 1


def personal_data_found(planted: Planted, out: Path) -> Found:
    """In each row that stayed: what was planted is gone, what only looks like it stands, no more is masked."""
    right = wrong = missed = 0
    for trace in (trace for rows in kept(out).values() for trace in rows):
        text = re.sub(" +", " ", trace.question).upper()
        values = [value for _, value in planted.personal.get(trace.id, [])]
        here = sum(value.upper() in text for value in values)
        placeholders = len(re.findall(r"\[[A-Z]+_\d+\]", text + trace.completion))
        right, missed = right + len(values) - here, missed + here
        wrong += max(0, placeholders - (len(values) - here))
        wrong += sum(decoy.upper() not in text for decoy in planted.decoys.get(trace.id, []))
    return Found(right, wrong, missed)


def test_rows_in_and_out_add_up_and_no_row_is_lost(imported: tuple[Planted, Path, TraceImportReport]) -> None:
    planted, out, report = imported
    for before, after in zip(report.steps, report.steps[1:], strict=False):
        assert before.rows_out == after.rows_in
    rows = [trace for part in kept(out).values() for trace in part]
    assert len(rows) == report.steps[-1].rows_out == sum(part.rows for part in report.splits.values())
    assert len(rows) + sum(map(len, places(out / "dropped.jsonl").values())) == planted.calls
    assert len({trace.id for trace in rows}) == len(rows)
    assert sum(trace.meta.get("copies", 1) - 1 for trace in rows) <= planted.calls - len(rows)


def test_a_value_has_one_placeholder_and_no_two_share_one(
    imported: tuple[Planted, Path, TraceImportReport],
) -> None:
    planted, out, report = imported
    seen: dict[str, set[str]] = defaultdict(set)
    for trace in (trace for rows in kept(out).values() for trace in rows):
        for kind, value in planted.personal.get(trace.id, []):
            found = re.findall(rf"\[{kind.upper()}_\d+\]", trace.question)
            assert len(found) == 1
            seen[kind + re.sub(r"[ \-+]|^00", "", value.upper())].add(found[0])
    assert all(len(placeholders) == 1 for placeholders in seen.values())
    assert len({next(iter(p)) for p in seen.values()}) == len(seen)
    assert sum(kind.values for kind in report.masked.values()) >= len(seen)


def test_feedback_is_joined_to_its_call(imported: tuple[Planted, Path, TraceImportReport]) -> None:
    planted, out, report = imported
    rows = [trace for part in kept(out).values() for trace in part]
    assert report.step("feedback joined").said.startswith(f"{planted.feedback} ")
    assert planted.feedback * 0.9 < sum(trace.feedback is not None for trace in rows) <= planted.feedback


def test_the_same_log_gives_the_same_bytes(
    imported: tuple[Planted, Path, TraceImportReport], tmp_path: Path
) -> None:
    planted, out, _ = imported
    run(
        planted.files,
        tmp_path / "again",
        pii={"names": str(out.parent / "names.txt")},
        split={"by": "customer"},
    )
    for file in out.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_folder_with_an_import_in_it_is_refused(
    imported: tuple[Planted, Path, TraceImportReport],
) -> None:
    """Else its held-out rows would be among those to train on."""
    for folder in (imported[1], imported[1].parent):
        with pytest.raises(DataError, match="an import, with held-out rows; name the logs themselves"):
            log_files([folder])
    assert log_files([imported[1] / "train.jsonl"])


def test_an_imports_own_rows_and_settings_can_be_imported_again(
    imported: tuple[Planted, Path, TraceImportReport], tmp_path: Path
) -> None:
    _, out, report = imported
    files = [str(out / f"{split}.jsonl") for split in ("train", "eval", "test")]
    settings = ["-o", str(tmp_path / "b"), "--config", str(out / "traces.toml"), "--json"]
    again = CliRunner().invoke(app, ["traces", "import", *files, *settings])
    assert again.exit_code == 0, again.output
    second = TraceImportReport.model_validate_json(again.stdout)
    assert second.steps[0].rows_in == report.steps[-1].rows_out
    assert second.step("exact duplicates").rows_out == second.step("read").rows_out
    assert second.rejected == {}


# -- the edges


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    good = write(tmp_path / "a.jsonl", [call("a", "hello")])
    with pytest.raises(InputError, match="is no import of traces"):
        run([good], tmp_path / "used")
    assert (tmp_path / "used" / "thesis.txt").read_text() == "mine"
    with pytest.raises(DataError, match="no such file"):
        run([tmp_path / "none.jsonl"], tmp_path / "out")
    with pytest.raises(DataError, match="no call in what was given: no format is known with the keys a"):
        run([write(tmp_path / "b.jsonl", [{"a": 1}])], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.jsonl",
        "b.jsonl",
        "used",
    ]  # nothing left behind
    said = CliRunner().invoke(
        app, ["traces", "import", str(good), "-o", str(tmp_path / "o"), "--set", "split.by=x"]
    )
    assert "split.by" in str(said.exception)


def test_ids_are_unique_in_what_is_written(tmp_path: Path) -> None:
    rows = [call("x", ask(1)), call("x", ask(2)), call("x", ask(1))]
    run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"eval": 0, "test": 0})
    assert [(t.id, t.meta) for t in kept(tmp_path / "out")["train"]] == [("x", {"copies": 2}), ("x~2", {})]


@pytest.mark.parametrize("package", ["duckdb", "rensa"])
def test_a_missing_package_is_named_before_anything_is_read(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = write(tmp_path / "a.jsonl", [call("a", "hello")])
    with pytest.raises(MissingDependencyError, match=rf"'{package}': pip install 'vertigym\[traces\]'"):
        run([file], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_rejected_lines_are_masked_too(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [call("a", "hello"), {"mail": "anna@example.com"}])
    run([file], tmp_path / "out")
    assert "anna" not in (tmp_path / "out" / "rejected.jsonl").read_text()


@pytest.mark.slow
def test_twenty_thousand_calls_in_four_hundred_mebibytes(tmp_path: Path) -> None:
    """The import runs in a process of its own, whose peak memory is what the system says of it.
    `benchmarks/traces.py` imports more."""
    planted = Log(tmp_path, 20_000, seed=1).planted
    (tmp_path / "names.txt").write_text("\n".join(planted.names))
    program = (
        "import re, sys; from vertigym.cli import app; app(standalone_mode=False);"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read());"  # maxrss counts the parent's, too
        "print(int(peak[1]) >> 10, file=sys.stderr)"
    )
    arguments = [
        "traces",
        "import",
        *map(str, planted.files),
        "-o",
        str(tmp_path / "out"),
        "--split",
        "customer",
    ]
    arguments += ["--names", str(tmp_path / "names.txt"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    peak = int(done.stderr.split()[-1])
    print(f"peak memory {peak} MiB")
    assert peak < 400
    check_counts(planted, tmp_path / "out", TraceImportReport.model_validate_json(done.stdout))
