"""Tasks from rows of SWE-bench and what follows its form: a repository at a commit, an issue, hidden tests.

Each instance has a container image of its own with the repository and what it needs, named here and pulled by
nobody: rows are read, split and listed, and their tests (`rewards.code_tests.ImageTests`) are refused for
running, which leaves a sample not scored. Jimenez et al. 2024, arXiv:2310.06770.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vertigym.core.types import Split, Task
from vertigym.envs.code.formats import rows_of, split_of, task_of

_ASK = "Write a patch for the repository {repo} at commit {commit} as one diff block.\n\n{problem}"


def swe_bench(path: Path, split: Callable[[str], Split] = split_of) -> list[Task]:
    """Tasks of a SWE-bench file (JSONL): `instance_id`, `repo`, `base_commit`, `problem_statement`, `patch`,
    `test_patch`, and `FAIL_TO_PASS` and `PASS_TO_PASS` as lists or as JSON text. The image is `image_name` or
    `docker_image`, else the one that the benchmark publishes for the instance. A repository is one cluster, in
    one split.

    Raises:
        DataError: missing, or a row lacks a key.
    """
    return [task_of(_task, row, path, number, split) for number, row in enumerate(rows_of(path), 1)]


def _task(row: dict[str, Any], split: Callable[[str], Split]) -> Task:
    name, repository, commit = row["instance_id"], row["repo"], row["base_commit"]
    published = f"swebench/sweb.eval.x86_64.{name.lower().replace('__', '_1776_')}:latest"
    return Task(
        id=name,
        prompt=_ASK.format(repo=repository, commit=commit, problem=row["problem_statement"]),
        answer=f"```diff\n{row['patch']}\n```",
        info={
            "entry": "",
            "before": "",
            "tests": {
                "kind": "image",
                "image": row.get("image_name") or row.get("docker_image") or published,
                "repository": repository,
                "commit": commit,
                "test_patch": row["test_patch"],
                "fail_to_pass": _names(row["FAIL_TO_PASS"]),
                "pass_to_pass": _names(row["PASS_TO_PASS"]),
            },
        },
        split=split(repository),
        cluster=repository,
    )


def _names(column: Any) -> list[str]:
    found = json.loads(column) if isinstance(column, str) else column
    if not isinstance(found, list):
        raise ValueError("FAIL_TO_PASS and PASS_TO_PASS are lists of tests' names")
    return [str(one) for one in found]
