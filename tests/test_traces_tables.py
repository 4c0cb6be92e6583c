"""Rows by columns from every kind of source, and what is refused with its place."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.errors import ConfigError, DataError, InputError
from vertigym.core.files import write_jsonl, write_text
from vertigym.envs.rows import read_rows
from vertigym.traces.table_rows import on_hub, read_table

duckdb = pytest.importorskip("duckdb")
ROWS = [{"problem": f"What is {i} + 1?", "solution": f"One more.\n#### {i + 1}", "level": i} for i in range(3)]


def write_csv(file: Path) -> None:
    lines = [",".join(json.dumps(str(value)).replace("\\n", "\n") for value in row.values()) for row in ROWS]
    file.write_text("problem,solution,level\n" + "\n".join(lines) + "\n")


def write_parquet(file: Path) -> None:
    write_jsonl(file.with_suffix(".rows.jsonl"), ROWS)
    duckdb.sql(f"COPY (FROM read_json('{file.with_suffix('.rows.jsonl')}')) TO '{file}' (FORMAT parquet)")


WRITERS: dict[str, Callable[[Path], None]] = {
    "jsonl": lambda file: write_jsonl(file, ROWS),
    "json": lambda file: write_text(file, json.dumps(ROWS)),
    "csv": write_csv,
    "parquet": write_parquet,
}


def saved(folder: Path) -> Path:
    """A data set as `datasets` saves it, in two splits."""
    datasets = pytest.importorskip("datasets")
    splits = {"train": ROWS[:2], "validation": ROWS[2:]}
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    ).save_to_disk(str(folder))
    return folder


def cells(found: Any) -> list[dict[str, Any]]:
    return [row.cells for row in found]


@pytest.mark.parametrize("suffix", WRITERS)
def test_tasks_are_the_same_whatever_the_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"rows.{suffix}"
    WRITERS[suffix](file)
    columns = {"question": "problem", "answer": "solution"}
    tasks = list(read_rows(file, "train", columns=columns, reference="####"))
    assert [(task.prompt, task.answer) for task in tasks] == [
        (f"What is {i} + 1?", str(i + 1)) for i in range(3)
    ]
    assert [str(task.info["level"]) for task in tasks] == ["0", "1", "2"]


def test_a_folder_s_columns_are_mapped_and_its_files_may_be_tables(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet")
    write_text(
        tmp_path / "env.toml",
        'id = "acme/Sums-v0"\nkind = "rows"\nreference = "####"\nfiles = { train = "train.parquet" }\n'
        'columns = { question = "problem", answer = "solution" }\nreward = { name = "numeric" }\n',
    )
    env = envs.make(str(tmp_path))
    assert [env.tasks.get(i).answer for i in env.tasks.ids("train")] == ["1", "2", "3"]


def test_an_empty_cell_of_a_table_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\nq,\n")
    with pytest.raises(DataError, match=r"rows.csv:2: no 'answer'"):
        list(read_rows(tmp_path / "rows.csv", "train"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.jsonl", '{"problem": 1}\n{"pro', "rows.jsonl:2: not JSON"),
        ("rows.jsonl", "[1]\n", "rows.jsonl:1: a row is an object with columns, got int"),
        ("rows.csv", "problem,solution\na,b,c\n", "rows.csv:2: 3 fields where the header has 2"),
        ("rows.parquet", "PAR1 nothing", "rows.parquet: not a Parquet file"),
        ("rows.csv", "problems,solution\na,b\n", "no column 'problem'; did you mean 'problems'?"),
        ("rows.txt", "words", "what is this?"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as error:
        list(read_table(tmp_path / name, columns={"question": "problem"}))
    assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for source in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError):
            list(read_table(source))


def test_a_row_without_our_columns_says_which_there_are_and_how_to_name_them(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"columns are problem, .*: \[columns\] question = 'problem'"):
        list(read_rows(tmp_path / "rows.jsonl", "train"))


def test_a_saved_folder_gives_its_splits(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    assert [row["split"] for row in cells(read_table(folder))] == ["train", "train", "eval"]
    assert cells(read_table(folder, split="eval")) == ROWS[2:]
    with pytest.raises(DataError, match="no split 'test'; known: train, validation"):
        list(read_table(folder, split="test"))


def hub_cache(home: Path) -> None:
    """What `datasets` leaves in its cache after a data set was fetched."""
    datasets = pytest.importorskip("datasets")
    from datasets.arrow_writer import ArrowWriter

    data = datasets.Dataset.from_list(ROWS)
    folder = home / "acme___sums" / "default" / "0.0.0" / "abc1234def"
    folder.mkdir(parents=True)
    with ArrowWriter(path=str(folder / "sums-train.arrow"), features=data.features) as writer:
        writer.write_table(data.data.table)
        writer.finalize()
    datasets.DatasetInfo(
        builder_name="sums",
        dataset_name="sums",
        config_name="default",
        version="0.0.0",
        features=data.features,
        splits={"train": {"name": "train", "num_bytes": 1, "num_examples": 3, "dataset_name": "sums"}},
    ).write_to_directory(str(folder))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    hub_cache(tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("hub")
@pytest.mark.filterwarnings("ignore")
def test_a_name_of_the_hub_is_read_from_the_cache() -> None:
    assert cells(read_table("hf://acme/sums")) == ROWS
    assert cells(read_table(Path("hf://acme/sums:train@abc1234"))) == ROWS  # a Path loses a slash
    assert (
        cells(read_table("hf://acme/sums", columns={"question": "problem"}))[0]["question"] == "What is 0 + 1?"
    )


@pytest.mark.usefixtures("hub")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf://acme/none", "hf://acme/none: neither the hub nor the cache (HF_HOME) gave it"),
        ("hf://acme/sums:test", "no split 'test'; known: train"),
        ("hf://acme/sums@0123456", "the cache holds revision abc1234def, not 0123456"),
        ("hf://acme/sums@v2", "the cache holds revision abc1234def, not v2"),
        ("hf://a b", "the form is hf://owner/name[/configuration][:split][@revision]"),
    ],
)
def test_names_that_lead_nowhere_are_refused(source: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        list(read_table(source))


def test_a_folder_that_nobody_trusts_fetches_nothing(tmp_path: Path) -> None:
    write_text(
        tmp_path / "env.toml",
        'id = "acme/Sums-v0"\nkind = "rows"\nfiles = { train = "hf://acme/sums" }\nreward = { name = "exact" }\n',
    )
    with pytest.raises(ConfigError, match="is fetched from a hub: trust the folder"):
        envs.make(str(tmp_path))
    assert on_hub("hf://acme/sums")
    assert not on_hub("hf.jsonl")
