"""Inspect plays an exported environment with a model that says what was recorded, in a process of its own:
`python inspect_player.py MODULE TASK LIMIT REPLIES.json LOGS [native]`; a module that has a slash is the name
of an installed task.

A reply is found by the first user message and the number of replies before. With `native`, what a model wrote
as a tool call in text is a native call.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import inspect_ai
from inspect_ai.model import ChatMessageAssistant, ModelAPI, ModelOutput, modelapi
from inspect_ai.tool import ToolCall

from vertigym.envs.tool_calls import tool_call

MODULE, TASK, LIMIT, REPLIES, LOGS = sys.argv[1:6]
SAID = {tuple(key): text for *key, text in json.loads(Path(REPLIES).read_text())}


@modelapi(name="recorded")
class Recorded(ModelAPI):  # type: ignore[misc]  # Inspect may not be installed
    async def generate(self, input: Any, *_: Any, **__: Any) -> ModelOutput:  # noqa: A002
        asked = next(message.text for message in input if message.role == "user")
        text = SAID[asked, sum(message.role == "assistant" for message in input)]
        if "native" not in sys.argv or "<tool_call>" not in text:
            return ModelOutput.from_content(self.model_name, text)
        name, arguments = tool_call(text)
        call = ToolCall(id=f"call{len(input)}", function=name, arguments=arguments)
        return ModelOutput.from_message(ChatMessageAssistant(content="", tool_calls=[call]))

    async def count_tokens(self, *_: Any, **__: Any) -> int:
        return 1


asked = {"limit": int(LIMIT)}
task = MODULE if "/" in MODULE else getattr(import_module(MODULE), TASK)(**asked)
more = {"task_args": asked} if task == MODULE else {}
(log,) = inspect_ai.eval(task, model="recorded/m", log_dir=LOGS, display="none", **more)
assert log.status == "success", log.error
