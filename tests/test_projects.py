"""Projects of every kind of file: what is decided, what is written, what is refused."""

import csv
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from vertigym import envs
from vertigym.core.errors import ConfigError, InputError, OutputError
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS
from vertigym.evals.suite import load_suite, task_list
from vertigym.policies import tiny
from vertigym.projects.answer_kinds import kind_of
from vertigym.projects.project import Project, start
from vertigym.projects.questions import pairs
from vertigym.trainer.recipe import load_stages, plan_stages

from .test_envs_code_pytest import write_project

LENDER = Path(__file__).parents[1] / "examples" / "lender" / "loans.csv"
DESKS = ("shipping", "returns", "invoices")
ANSWERED = "question,answer\n" + "".join(f"q{i},a{i}\n" for i in range(40))
ITEMS = ("lamp", "sofa", "kettle", "tent", "desk", "bike", "oven", "drill", "boots", "jacket")


def questions(count: int) -> list[dict[str, Any]]:
    """Messages of a support desk, each with the desk it belongs to."""
    said = {
        "shipping": "where is my {}",
        "returns": "the {} does not fit",
        "invoices": "a bill for the {} please",
    }
    return [
        {"question": f"{said[desk].format(ITEMS[i % 10])}, order {1000 + i}", "answer": desk}
        for i in range(count)
        for desk in [DESKS[int(generator(i, "desk").integers(3))]]
    ]


def write_csv(file: Path, rows: Sequence[dict[str, Any]], separator: str = ",") -> Path:
    with file.open("w", newline="") as opened:
        table = csv.DictWriter(opened, list(rows[0]), delimiter=separator)
        table.writeheader()
        table.writerows(rows)
    return file


def chosen(project: Project) -> dict[str, str]:
    return {choice.what: choice.chosen for choice in project.choices}


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return start(LENDER, tmp_path_factory.mktemp("projects") / "loans", id="acme/Loan-v1")


def test_rules_become_a_project_that_a_dry_run_accepts(loans: Project) -> None:
    assert chosen(loans)["read as"] == "a decision model"
    assert chosen(loans)["tasks"] == "6000 train, 600 eval, 600 test"
    assert loans.check.passed()
    assert not loans.notes
    files = {path.name for path in loans.folder.iterdir()}
    assert files == {"environment", "eval.toml", "release.toml", "warm-start.jsonl", "recipe.toml", "README.md"}
    stages = load_stages(loans.folder / "recipe.toml")
    assert [(stage.name, stage.takes) for stage in stages] == [("warm-start", None), ("grpo", "champion")]
    assert [planned["gates"] for planned in plan_stages(stages)] == [[], []]
    assert stages[1].config.output / stages[1].config.name == loans.folder / "runs" / "loan"


def test_training_and_release_are_decided_on_different_tasks(loans: Project) -> None:
    training, release = (load_suite(loans.folder / f"{name}.toml") for name in ("eval", "release"))
    tasks = [{one.task.id for one in task_list(suite).tasks} for suite in (training, release)]
    assert [len(part) for part in tasks] == [600, 600]
    assert not tasks[0] & tasks[1]
    assert {suite.gate[0].rule for suite in (training, release)} == {"improves"}


def test_the_warm_start_is_the_references_of_the_training_tasks(loans: Project) -> None:
    rows = read_jsonl(loans.folder / "warm-start.jsonl")
    env = envs.make(str(loans.folder / "environment"))
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    assert [json.loads(row["messages"][-1]["content"]) for row in rows] == [task.answer for task in tasks]


def test_the_readme_says_what_is_next_and_what_was_decided(loans: Project) -> None:
    text = (loans.folder / "README.md").read_text()
    assert "    vertigym train recipe.toml\n" in text
    start_of_training = "runs/loan/stages/warm-start/checkpoints/step-000000"
    assert f"vertigym eval release.toml -m runs/loan -b {start_of_training} -o release\n" in text
    assert "| rules | hidden | the model is to know them" in text
    assert "## To look at" not in text
    assert [command.replace(f"{loans.folder}/", "") for command, _ in loans.next] == [
        line.strip() for line in text.splitlines() if line.startswith("    vertigym")
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv"])
def test_questions_with_labels_are_classified_whatever_the_file(tmp_path: Path, form: str) -> None:
    rows, file = questions(200), tmp_path / f"desk tickets.{form}"
    if form == "jsonl":
        write_jsonl(file, rows)
    else:
        write_csv(file, rows, "," if form == "csv" else "\t")
    found = start(file, tmp_path / "desk")
    assert found.id == "local/Desk-tickets-v0"
    assert chosen(found)["read as"] == "questions and answers"
    assert chosen(found)["answers"] == "labels"
    assert chosen(found)["tasks"] == "120 train, 40 eval, 40 test"
    assert 'name = "desk-tickets"' in (found.folder / "recipe.toml").read_text()
    assert found.check.passed()
    assert load_suite(found.folder / "eval.toml").gate[0].metric == "right"


def test_a_question_twice_is_one_and_with_two_answers_none(tmp_path: Path) -> None:
    rows = questions(100)
    doubled = [
        *rows,
        rows[0],
        rows[1] | {"answer": "other"},
        {"question": "", "answer": "x"},
        {"question": "q"},
    ]
    write_jsonl(tmp_path / "desk.jsonl", doubled)
    found = start(tmp_path / "desk.jsonl", tmp_path / "desk")
    env = envs.make(str(found.folder / "environment"))
    texts = [env.tasks.get(i).messages()[-1]["content"] for split in SPLITS for i in env.tasks.ids(split)]
    assert sorted(texts) == sorted(row["question"] for index, row in enumerate(rows) if index != 1)
    assert {
        "1 rows left out: the same question again",
        "2 rows left out: the same question with another answer",
        "1 rows left out: no question",
        "1 rows left out: no answer",
    } <= set(found.notes)


def test_ids_that_repeat_are_made_unique(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "desk.jsonl", [row | {"id": "customer 7"} for row in questions(60)])
    env = envs.make(str(start(tmp_path / "desk.jsonl", tmp_path / "desk").folder / "environment"))
    ids = [i for split in SPLITS for i in env.tasks.ids(split)]
    assert len(set(ids)) == 60
    assert {"customer 7", "customer 7, row 2"} <= set(ids)


def test_splits_of_their_own_are_kept(tmp_path: Path) -> None:
    rows = [
        row | {"split": "test" if i < 30 else "eval" if i < 50 else "train"}
        for i, row in enumerate(questions(120))
    ]
    found = start(write_csv(tmp_path / "desk.csv", rows), tmp_path / "desk")
    assert chosen(found)["tasks"] == "70 train, 20 eval, 30 test"
    env = envs.make(str(found.folder / "environment"))
    held = {env.tasks.get(i).messages()[-1]["content"] for i in env.tasks.ids("test")}
    assert held == {row["question"] for row in rows[:30]}


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (["yes", "no"] * 20, "label"),
        (["1", "2", "3", "4"] * 10, "label"),
        ([str(i * 7) for i in range(40)], "number"),
        (["1,200", "-3.5", "8"], "number"),
        ([f'{{"amount": {i}}}' for i in range(40)], "record"),
        (['{"decision": "a"}', '{"decision": "b"}'] * 20, "record"),
        ([f"answer {i}" for i in range(40)], "text"),
        (["yes"] * 40, "text"),
        ([f"the same long sentence of many words number {i % 2}" for i in range(40)], "text"),
    ],
)
def test_the_kind_of_answers_is_known_by_the_answers(answers: list[str], name: str) -> None:
    assert kind_of(answers).name == name


@pytest.mark.parametrize(
    ("answer", "kind", "right", "wrong"),
    [
        (lambda i: i * 7, "rows", "7", "8"),
        (lambda i: f"Answer {i}.", "rows", "answer 1", "answer 2"),
        (lambda i: {"fee": i, "desk": "auto"}, "extract", '{"fee": 1, "desk": "auto"}', "{}"),
    ],
)
def test_each_kind_of_answers_is_scored(tmp_path: Path, answer: Any, kind: str, right: str, wrong: str) -> None:
    rows = [{"id": f"q{i}", "prompt": f"what of {ITEMS[i % 10]} {i}", "answer": answer(i)} for i in range(60)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    found = start(tmp_path / "data.jsonl", tmp_path / "out")
    assert tomllib.loads((found.folder / "environment/env.toml").read_text())["kind"] == kind
    env = envs.make(str(found.folder / "environment"))
    for text, score in ((right, 1.0), (wrong, 0.0)):
        env.reset(options={"task": "q1"})
        assert env.step(text)[1] == score


def log(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"c{i}", "messages": [{"role": "user", "content": row["question"]}], "completion": "shipping"}
        | {"customer": f"k{i % 60}"}
        | {key: value(row) for key, value in changes.items()}
        for i, row in enumerate(questions(count))
    ]


def test_a_log_with_labels_is_cleaned_and_classified(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "calls.jsonl", log(300, label=lambda row: row["answer"]))
    found = start(tmp_path / "calls.jsonl", tmp_path / "desk")
    assert chosen(found)["read as"] == "a log"
    assert chosen(found)["answers"] == "labels"
    assert (found.folder / "traces" / "report.json").is_file()
    env = envs.make(str(found.folder / "environment"))
    assert {env.tasks.get(i).cluster[0] for i in env.tasks.ids("eval")} == {"k"}


def test_a_log_with_thumbs_is_judged_by_what_people_accepted(tmp_path: Path) -> None:
    def said(row: dict[str, Any]) -> dict[str, str]:
        return {"thumb": "down" if "lamp" in row["question"] else "up"}

    calls = log(300, completion=lambda row: row["answer"], feedback=said)
    write_jsonl(tmp_path / "calls.jsonl", calls)
    found = start(tmp_path / "calls.jsonl", tmp_path / "desk")
    assert "people accepted" in next(choice.why for choice in found.choices)
    assert tomllib.loads((found.folder / "environment/env.toml").read_text())["kind"] == "outcome"
    assert any("no reply to their input was accepted" in note for note in found.notes)


def test_a_workbook_of_sentences_may_be_questions_or_rules(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active
    for row in (("frage", "antwort"), ("wo ist mein paket", "versand"), ("ich will geld zurück", "kasse")):
        book.active.append(row)
    book.save(tmp_path / "fragen.xlsx")
    with pytest.raises(ConfigError, match=r"save it as \.csv and add --column 'question=frage'"):
        start(tmp_path / "fragen.xlsx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_accepted_answer_is_right_beside_edited_ones(tmp_path: Path) -> None:
    def said(row: dict[str, Any]) -> dict[str, str]:
        return {"thumb": "up"} if row["answer"] == "shipping" else {"thumb": "down", "edit": row["answer"]}

    write_jsonl(tmp_path / "calls.jsonl", log(300, feedback=said))
    found = start(tmp_path / "calls.jsonl", tmp_path / "desk")
    env = envs.make(str(found.folder / "environment"))
    answers = {env.tasks.get(name).answer for name in env.tasks.ids("train")}
    assert answers == {row["answer"] for row in questions(300)}


def test_a_log_that_leaves_a_split_without_tasks_says_why(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "calls.jsonl", log(300, feedback=lambda row: {"thumb": "down"}))
    with pytest.raises(InputError, match=r"desk/environment: .*no reply to their input was accepted"):
        start(tmp_path / "calls.jsonl", tmp_path / "desk")
    assert not (tmp_path / "desk").exists()


def test_a_tiny_model_gets_a_context_for_long_questions(tmp_path: Path) -> None:
    rows = [row | {"question": f"{row['question']} " + "and so on " * 400} for row in questions(60)]
    write_jsonl(tmp_path / "long.jsonl", rows)
    found = start(tmp_path / "long.jsonl", tmp_path / "long")
    warm, _ = load_stages(found.folder / "recipe.toml")
    assert warm.config.tiny.context >= 2048
    assert warm.config.sft
    assert warm.config.sft.batch == 8
    assert not any("leave less than" in note for note in found.notes)


def test_a_pretrained_model_gets_the_rates_of_its_size(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "desk.jsonl", questions(60))
    tiny.build([row["question"] for row in questions(60)], tmp_path / "model")
    found = start(tmp_path / "desk.jsonl", tmp_path / "desk", model=str(tmp_path / "model"))
    warm, rl = load_stages(found.folder / "recipe.toml")
    assert (warm.config.model, warm.config.dtype) == (str(tmp_path / "model"), "bfloat16")
    assert (warm.config.optimizer.lr, rl.config.optimizer.lr) == (2e-4, 1e-5)
    assert f"-b {tmp_path / 'model'}" in found.next[1][0]


@pytest.mark.parametrize(
    ("name", "text", "options", "said"),
    [
        ("none.csv", None, {}, "no such file"),
        ("folder", "", {}, "is a folder without pytest tests"),
        ("desk.csv", "question;answer\na;b\n", {}, "its columns are separated by ';': separate them by ','"),
        ("desk.jsonl", '{"question": "a", "answer": "b"}\n', {}, "the release need some each"),
        ("desk.jsonl", '{"text": "a"}\n', {}, "nothing in them is a call|no call|nothing in it"),
        ("desk.csv", "text,label\na,b\n", {}, "desk.csv"),
        ("rules.json", "[1, 2", {}, "rules.json"),
        ("rules.pdf", "%PDF", {}, "not a known format"),
        ("desk.jsonl", "", {"id": "Loan"}, "the form is namespace/Name-v0"),
        ("desk.csv", ANSWERED, {"model": "nowhere"}, "no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_project_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, text: str | None, options: dict[str, Any], said: str
) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        start(tmp_path / name, tmp_path / "new" / "out", **options)
    assert {path.name for path in tmp_path.iterdir()} <= {name}


def test_what_lies_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="out exists: name a new folder"):
        start(LENDER, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def gsm8k(count: int) -> list[dict[str, Any]]:
    """Questions as GSM8K writes them: a worked solution, then the number after ####."""
    numbers = [(i, i % 7 + 2) for i in range(3, count + 3)]
    return [
        {"question": f"A crate holds {a} pens. How many do {b} hold?",
         "answer": f"{a} * {b} = <<{a}*{b}={a * b}>>{a * b:,}\n#### {a * b:,}"}
        for a, b in numbers
    ]  # fmt: skip


def score(project: Project, reply: str) -> float | None:
    env = envs.make(str(project.folder / "environment"))
    task = env.tasks.get(env.tasks.ids("train")[0])
    env.reset(options={"task": task})
    *_, info = env.step(reply.format(task.answer))
    value: float | None = info["score"].value
    return value


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_gsm8k_works_with_no_edits(tmp_path: Path, form: str) -> None:
    file, rows = tmp_path / f"gsm8k.{form}", gsm8k(60)
    write_jsonl(tmp_path / "gsm8k.jsonl", rows)
    if form == "csv":
        write_csv(file, rows)
    elif form == "parquet":
        duckdb = pytest.importorskip("duckdb")
        duckdb.sql(f"COPY (FROM read_json('{tmp_path / 'gsm8k.jsonl'}')) TO '{file}' (FORMAT parquet)")
    made = start(file, tmp_path / "made")
    told = {choice.what: choice for choice in made.choices}
    assert told["answers"].chosen == "numbers"
    assert told["answers"].why == "what stands after ####: every answer is a number; compared as mathematics"
    assert made.check.passed()
    assert score(made, "First this,\nthen that.\n#### {}") == 1
    assert score(made, "#### {}1") == 0


def test_other_names_of_columns_are_said_once(tmp_path: Path) -> None:
    rows = [{"problem": row["question"], "solution": row["answer"]} for row in gsm8k(30)]
    write_jsonl(tmp_path / "sums.jsonl", rows)
    columns = {"question": "problem", "answer": "solution"}
    assert chosen(start(tmp_path / "sums.jsonl", tmp_path / "sums", columns=columns))["answers"] == "numbers"
    with pytest.raises(InputError, match=r"no column 'problems'; did you mean 'problem'\?"):
        start(tmp_path / "sums.jsonl", tmp_path / "no", columns={"question": "problems"})


def test_a_column_may_have_only_some_splits(tmp_path: Path) -> None:
    rows = [row | {"split": "test" if i < 20 else "train"} for i, row in enumerate(questions(120))]
    found = start(write_csv(tmp_path / "desk.csv", rows), tmp_path / "desk")
    assert chosen(found)["tasks"] == "80 train, 20 eval, 20 test"


def test_columns_are_pairs_of_names() -> None:
    assert pairs(["question=problem", "answer = solution"]) == {"question": "problem", "answer": "solution"}
    for wrong in ("question", "question=", "questions=problem"):
        with pytest.raises(
            InputError, match="the form is OURS=THEIRS, and ours are question, answer, id, split"
        ):
            pairs([wrong])


@pytest.mark.slow
def test_a_project_of_tests_becomes_a_project(tmp_path: Path) -> None:
    made = start(write_project(tmp_path / "shop"), tmp_path / "made")
    assert made.id == "local/Shop-v0"
    assert chosen(made)["read as"] == "pytest tests"
    # One of its tests is weak, and the check says so.
    failures = [finding.message for finding in made.check.findings if finding.level == "failure"]
    assert failures == ["with a number off by one, 1 of 4 references still earn 1"]
    assert "1 functions give no task: no test enters it" in made.notes
