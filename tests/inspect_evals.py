"""Evals that Inspect runs itself, offline, in a process of its own: `python inspect_evals.py FOLDER`.

Models are named after a number: the model 7 says what it was told to say, but for multiples of 7. One log a
model and form (`FOLDER/eval/7/….eval`), two epochs, standard errors by `book`.
"""

import sys
from pathlib import Path
from typing import Any

import inspect_ai
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentText, ModelAPI, ModelOutput, modelapi
from inspect_ai.scorer import match, stderr


@modelapi(name="counting")
class Counting(ModelAPI):  # type: ignore[misc]  # Inspect may not be installed
    async def generate(self, input: Any, *_: Any, **__: Any) -> ModelOutput:  # noqa: A002
        asked = int(input[-1].text.split()[-1])
        return ModelOutput.from_content(self.model_name, str(asked if asked % int(self.model_name) else -1))

    async def count_tokens(self, *_: Any, **__: Any) -> int:
        return 1


def asked(number: int) -> Any:
    """Text, a message, or messages with parts."""
    text = f"say {number}"
    parts = ChatMessageUser(content=[ContentText(text="please"), ContentText(text=text)])
    return [text, [ChatMessageUser(content=text)], [ChatMessageSystem(content="be brief"), parts]][number % 3]


def main(folder: Path) -> None:
    samples = [Sample(id=i, input=asked(i), target=str(i), metadata={"book": f"b{i // 3}"}) for i in range(60)]
    task = inspect_ai.Task(dataset=samples, scorer=match(), metrics=[stderr(cluster="book")], name="saying")
    for form in ("eval", "json"):
        for model in ("2", "7"):
            place = str(folder / form / model)
            (log,) = inspect_ai.eval(
                task, model=f"counting/{model}", log_dir=place, log_format=form, display="none", epochs=2
            )
            assert log.status == "success", log.error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
