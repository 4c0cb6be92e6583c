"""Inspect runs rows in GSM8K's form, offline: `python inspect_gsm8k.py ROWS.jsonl SAID.json LOGS`.

As its own GSM8K does it, the target is what stands after ####, and `match(numeric=True)` looks at the end of
the answer. `SAID.json` has what each model says to each question; a log a model.
"""

import json
import sys
from pathlib import Path
from typing import Any

import inspect_ai
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.model import ModelAPI, ModelOutput, modelapi
from inspect_ai.scorer import match

ROWS, SAID, LOGS = sys.argv[1:]
said = json.loads(Path(SAID).read_text())


@modelapi(name="told")
class Told(ModelAPI):  # type: ignore[misc]  # Inspect may not be installed
    async def generate(self, input: Any, *_: Any, **__: Any) -> ModelOutput:  # noqa: A002
        return ModelOutput.from_content(self.model_name, said[self.model_name][input[-1].text])

    async def count_tokens(self, *_: Any, **__: Any) -> int:
        return 1


def sample(row: dict[str, Any]) -> Sample:
    return Sample(id=row["id"], input=row["question"], target=row["answer"].rpartition("####")[2].strip())


task = inspect_ai.Task(dataset=json_dataset(ROWS, sample), scorer=match(numeric=True), name="gsm8k")
for model in said:
    (log,) = inspect_ai.eval(task, model=f"told/{model}", log_dir=f"{LOGS}/{model}", display="none")
    assert log.status == "success", log.error
