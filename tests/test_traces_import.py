"""`traces import`: a log whose faults are all known goes in; the report and the rows must agree with them."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vertigym import envs
from vertigym.cli import app
from vertigym.core.errors import DataError, InputError, MissingDependencyError
from vertigym.core.types import SPLITS
from vertigym.tests.trace_log import Found, Log, Planted, repeats_found
from vertigym.traces.import_report import TraceImportReport
from vertigym.traces.reading import log_files

from .trace_imports import ask, call, kept, places, run, write

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"


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


# -- splits


@pytest.mark.parametrize("by", ["input", "customer", "cluster", "time"])
def test_no_input_and_no_unit_is_on_two_sides(by: str, tmp_path: Path) -> None:
    rows = [
        call(
            f"c{i}",
            ask(i if i % 10 else i % 30),  # some are asked everywhere, and answered in several ways
            f"answer {i % 7}",
            customer=f"k{i % 23}",
            cluster=f"t{i % 40}",
            time=1000.0 + i,
        )
        for i in range(600)
    ]
    report = run(
        [write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"by": by}, duplicates={"near": 0}
    )
    parts = kept(tmp_path / "out")
    assert all(parts.values())
    for key in {"input": ["question"], "time": ["question"]}.get(by, ["question", by]):
        sides = [{getattr(trace, key) for trace in part} for part in parts.values()]
        assert len(set.union(*sides)) == sum(map(len, sides)), key
    if by == "time":
        first, last = ([f(t.time or 0 for t in part) for part in parts.values()] for f in (min, max))
        assert last[0] < first[1] <= last[1] < first[2]
    assert report.step("seen in an earlier split").rows_out == sum(map(len, parts.values()))


def test_near_equal_inputs_are_not_split_even_when_answered_differently(tmp_path: Path) -> None:
    texts = [ask(i) for i in range(200)]
    rows = [call(f"a{i}", text, "refund") for i, text in enumerate(texts)]
    rows += [call(f"b{i}", text + " please", "complaint") for i, text in enumerate(texts)]
    run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"eval": 0.3, "test": 0.3})
    where = {trace.id: split for split, part in kept(tmp_path / "out").items() for trace in part}
    assert len(where) == 400
    assert all(where[f"a{i}"] == where[f"b{i}"] for i in range(200))


def test_calls_without_a_time_are_train(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), time=float(i) if i % 2 else None) for i in range(100)]
    report = run(
        [write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"by": "time"}, duplicates={"near": 0}
    )
    assert {split: part.rows for split, part in report.splits.items()} == {"train": 90, "eval": 5, "test": 5}
    assert report.notes == ("50 calls have no time: they are train",)


def test_few_customers_are_still_held_out_as_a_whole(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), customer=f"k{i % 5}") for i in range(100)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"by": "customer"})
    assert [part.customers for part in report.splits.values()] == [3, 1, 1]
    assert "20 calls, 10 were wanted" in report.notes[0]


# -- duplicates, conflicts, balance


def test_a_template_does_not_make_inputs_alike(tmp_path: Path) -> None:
    head = "Sort the customer's message below into exactly one of the following classes, and say nothing else: "
    topics = ["lamp", "sofa", "radio", "kettle", "carpet", "mirror", "window", "heater", "pillow", "bucket"]
    rows = [
        call(f"c{i}", f"{head} {topics[i % 10]} {i * 104729 % 99991} {topics[i // 10]} broken")
        for i in range(100)
    ]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", split={"eval": 0, "test": 0})
    assert report.splits["train"].rows == 100


@pytest.mark.parametrize(
    ("second", "survive"),
    [
        ({"asked": "WHERE is my parcel!!"}, 1),  # only case and punctuation
        ({"answer": "billing"}, 2),  # another answer is a conflict, no duplicate
        ({"label": "billing"}, 2),
        ({"feedback": {"thumb": "up"}, "asked": "where is my parcel"}, 2),  # another verdict
        ({"asked": "Where is my parcel? 👍"}, 1),
        ({"asked": "Where is my money"}, 2),
    ],
)
def test_what_counts_as_a_near_duplicate(second: dict[str, Any], survive: int, tmp_path: Path) -> None:
    first = {"asked": "Where is my parcel?", "answer": "shipping"}
    rows = [call("a", **first), call("b", **{**first, **second})]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out")
    assert report.step("near-duplicates").rows_out == survive


def test_of_a_call_written_again_with_feedback_the_last_stays(tmp_path: Path) -> None:
    rows = [
        call("a", "hello there"),
        call("a", "hello there", feedback={"thumb": "up"}),
        call("b", "hello there"),
    ]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out")
    (trace,) = kept(tmp_path / "out")["train"][:1]
    assert report.step("superseded").rows_out == 1
    assert (trace.id, trace.feedback and trace.feedback.thumb) == ("a", "up")


@pytest.mark.parametrize(("do", "left"), [("keep", 7), ("drop", 3), ("majority", 4)])
def test_conflicts_are_listed_and_settled(do: str, left: int, tmp_path: Path) -> None:
    rows = [call(f"a{i}", "first question", "yes") for i in range(3)] + [call("a3", "first question", "no")]
    rows += [call("b0", "second question", "yes"), call("b1", "Second question", "no"), call("c", "third one")]
    rows += [call("d0", "fourth question", "x", outcome="o"), call("d1", "fourth question", "x")]
    report = run(
        [write(tmp_path / "a.jsonl", rows)],
        tmp_path / "out",
        conflicts={"do": do},
        split={"eval": 0, "test": 0},
    )
    listed = [json.loads(line) for line in (tmp_path / "out" / "conflicts.jsonl").read_text().splitlines()]
    assert [[(a["answer"], a["calls"]) for a in row["answers"]] for row in listed] == [
        [("yes", 3), ("no", 1)],
        [("yes", 1), ("no", 1)],
    ]
    assert report.conflicts == 2
    assert report.step("label conflicts").rows_out == left
    assert {t.id for t in kept(tmp_path / "out")["train"]} == {
        "keep": {"a0", "a3", "b0", "b1", "c", "d0", "d1"},
        "drop": {"c", "d0", "d1"},
        "majority": {"a0", "c", "d0", "d1"},
    }[do]


def test_balance_cuts_the_frequent_labels_of_train_only(tmp_path: Path) -> None:
    rows = [call(f"c{i}", ask(i), "rare" if i % 10 == 0 else "often") for i in range(300)]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", balance={"max_per_label": 40})
    assert report.labels["often"]["train"] == 40
    assert 15 < report.labels["rare"]["train"] <= 30
    assert report.splits["test"].rows == 30


# -- decontamination


def test_held_out_texts_are_found_in_disguise_and_nothing_else_is(tmp_path: Path) -> None:
    held = (
        "A farmer sells 1,200 eggs on market day and keeps seven; how many trays of thirty did she fill in all?"
    )
    near = "A farmer sells 1,200 eggs on market day and keeps a goat in the yard behind her mother's house."
    suite = write(tmp_path / "suite.jsonl", [{"question": held, "answer": "39"}, {"question": "Who is there"}])
    asked = [held, held.upper(), held.replace(" ", "\n"), f"Please solve: {held} Thanks", held.replace(",", "")]
    rows = [call(f"bad{i}", text) for i, text in enumerate([*asked, "who is there?"])]
    rows += [
        call(f"good{i}", text, "39") for i, text in enumerate([near, "who is there, then", "on market day"])
    ]
    rows += [{**call("bad6", "x"), "completion": held}]
    report = run([write(tmp_path / "a.jsonl", rows)], tmp_path / "out", decontaminate={"against": [str(suite)]})
    assert report.step("contaminated").rows_in - report.step("contaminated").rows_out == 7
    assert all(trace.id.startswith("good") for part in kept(tmp_path / "out").values() for trace in part)


def test_an_environments_held_out_tasks_are_found(tmp_path: Path) -> None:
    from vertigym import envs

    env = envs.make("vertigym/Returns-v0")
    tasks = [env.tasks.get(env.tasks.ids(split)[0]) for split in ("train", "eval", "test")]
    rows = [call(task.split, task.messages()[-1]["content"]) for task in tasks]
    report = run(
        [write(tmp_path / "a.jsonl", rows)],
        tmp_path / "out",
        decontaminate={"against": ["vertigym/Returns-v0"], "share": 0.95},
    )
    assert report.step("contaminated").rows_out == 1


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs the GSM8K files")
def test_gsm8k_in_traces_is_found(tmp_path: Path) -> None:
    questions = [json.loads(line)["question"] for line in (GSM8K / "test.jsonl").read_text().splitlines()]
    planted = Log(tmp_path, 4000, seed=4, benchmark=questions).planted
    run(
        planted.files,
        tmp_path / "out",
        decontaminate={"against": [str(GSM8K / "test.jsonl")]},
        duplicates={"near": 0},
    )
    dropped = map(json.loads, (tmp_path / "out" / "dropped.jsonl").read_text().splitlines())
    found = {row["id"] for row in dropped if row["step"] == "contaminated"}
    assert len(found & set(planted.benchmark)) >= 0.99 * len(planted.benchmark)
    assert len(found - set(planted.benchmark)) <= 0.001 * 4000


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
def test_fifty_thousand_calls_in_half_a_gigabyte(tmp_path: Path) -> None:
    """The import runs in a process of its own, whose peak memory is what the system says of it.
    `benchmarks/traces.py` imports more."""
    planted = Log(tmp_path, 50_000, seed=1).planted
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
    assert peak < 512
    check_counts(planted, tmp_path / "out", TraceImportReport.model_validate_json(done.stdout))


# -- the card, and the way to an environment


def anthropic_call(number: int, label: str) -> dict[str, Any]:
    content = [{"type": "text", "text": label}]
    return {
        "request": {
            "model": "large",
            "max_tokens": 9,
            "system": "Sort.",
            "metadata": {"user_id": f"u{number % 40}"},
            "messages": [{"role": "user", "content": ask(number)}],
        },
        "response": {
            "id": f"m{number}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": "end_turn",
        },
        "feedback": {"thumb": "up"},
    }


def otlp_call(number: int, label: str) -> dict[str, Any]:
    has = {
        "gen_ai.operation.name": "chat",
        "user.id": f"u{number % 40}",
        "gen_ai.input.messages": json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": ask(number)}]}]
        ),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": label}]}]
        ),
    }
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in has.items()]
    span = {"spanId": f"s{number}", "attributes": attributes}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


@pytest.mark.parametrize("form", [anthropic_call, otlp_call])
def test_a_log_of_another_vendor_becomes_an_environment(form: Any, tmp_path: Path) -> None:
    labels = ("shipping", "returns", "refunds")
    file = write(tmp_path / "log.jsonl", [form(i, labels[i % 3]) for i in range(300)])
    run([file], tmp_path / "traces", split={"by": "customer"})
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "env.toml").write_text(
        'id = "desk/Intent-v0"\nkind = "classify"\nlabel = "completion"\ntraces = "../traces"\n'
    )
    env = envs.make(str(tmp_path / "env"))
    names = {split: env.tasks.ids(split) for split in SPLITS}
    assert all(names.values())
    assert sum(map(len, names.values())) == 300
    first = env.tasks.get(names["test"][0])
    env.reset(seed=0, options={"task": first.id})
    *_, info = env.step(first.answer)
    assert info["score"].value == 1
