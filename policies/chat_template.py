"""A chat template, and in which form it renders messages.

The one idea: templates differ, and show it only when they are rendered. So a small chat of known words is
rendered in each form until one holds every word, and the answer is kept for chats of that kind:

    content       a text, or a list of parts
    empty         the content beside tool calls: "", null, or no key
    arguments     of a tool call: an object, or its JSON
    calls         tool calls as the template writes them, or as text in the content
    results       a message of role `tool`, or of the user
    system        a message of its own, or the beginning of the first message of the user
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from transformers import PreTrainedTokenizerBase

from vertigym.core.chat_client import tool_call_text
from vertigym.core.errors import InputError

Chat = Sequence[Mapping[str, Any]]
SYSTEM, USER, REPLY, NEXT = "alphasystem", "betauser", "gammareply", "deltanext"
_NAME, _KEY, _VALUE, _RESULT = "epsilontool", "zetakey", "etavalue", "thetaresult"


@dataclass(frozen=True, slots=True)
class Form:
    """How messages are given to a template; the defaults are what most templates read."""

    content: str = "text"
    empty: str = "text"
    arguments: str = "object"
    results: str = "tool"
    system: str = "own"
    calls: str = "own"


_FORMS = [
    Form(*choice)
    for choice in product(
        ("text", "parts"),
        ("text", "null", "absent"),
        ("object", "json"),
        ("tool", "user"),
        ("own", "folded"),
        ("own", "text"),
    )
]
_FORMS.sort(key=lambda form: (form.calls == "text", form.results == "user", form.system == "folded"))


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a chat has that templates treat differently."""

    system: bool
    calls: bool
    results: bool

    @classmethod
    def of(cls, chat: Chat) -> "_Kind":
        roles = {message["role"] for message in chat}
        return cls("system" in roles, any(message.get("tool_calls") for message in chat), "tool" in roles)

    def probe(self) -> tuple[list[dict[str, Any]], list[str]]:
        """A chat of this kind, and the words that its rendering must hold."""
        chat: list[dict[str, Any]] = [{"role": "user", "content": USER}]
        words = [USER, REPLY]
        if self.system:
            chat.insert(0, {"role": "system", "content": SYSTEM})
            words.append(SYSTEM)
        if self.calls or self.results:
            call = {"name": _NAME, "arguments": {_KEY: _VALUE}}
            chat.append({"role": "assistant", "content": "", "tool_calls": [_call(call)]})
            chat.append({"role": "tool", "content": _RESULT, "tool_call_id": _ID, "name": _NAME})
            words += [_NAME, _KEY, _VALUE, _RESULT]
        return [*chat, {"role": "assistant", "content": REPLY}], words


_ID = "call00001"  # some templates want exactly nine characters


class ChatTemplate:
    """A tokenizer's chat template.

    Raises:
        InputError: the tokenizer has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template: add chat_template.jinja to the model folder")
        self._tokenizer = tokenizer
        self._forms: dict[_Kind, Form] = {}

    def render(self, chat: Chat, tools: Sequence[Mapping[str, Any]] = (), *, prompt: bool) -> str:
        """The rendered chat; with `prompt`, up to where the assistant writes.

        Raises:
            InputError: the template refuses the chat, or cannot render what is in it.
        """
        chat = [_plain(message) for message in chat]
        kind = _Kind.of(chat)
        if kind not in self._forms:
            self._forms[kind] = self._ask(kind)
        return self._render(_in_form(chat, self._forms[kind]), tools, prompt)

    def _ask(self, kind: _Kind) -> Form:
        probe, words = kind.probe()
        error = "its words are not in what it renders"
        for form in _FORMS:
            try:
                text = self._render(_in_form(probe, form), (), False)
            except InputError as refused:
                error = str(refused)
                continue
            if all(word in text for word in words):
                return form
        raise InputError(f"the chat template cannot render a chat of {_describe(kind)}: {error}")

    def _render(self, chat: Chat, tools: Sequence[Mapping[str, Any]], prompt: bool) -> str:
        given: Any = list(chat)
        try:
            text = self._tokenizer.apply_chat_template(
                given,
                tools=[dict(tool) for tool in tools] or None,
                add_generation_prompt=prompt,
                tokenize=False,
            )
        except Exception as error:  # a template is a program of somebody else's: it can raise anything
            raise InputError(
                f"the chat template refuses the chat: {' '.join(str(error).split())[:200]}"
            ) from None
        assert isinstance(text, str)
        return text


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with text as content and objects as arguments.

    Raises:
        InputError: a part that is no text, or a tool call that cannot be read.
    """
    content, role = message.get("content"), message.get("role")
    if not isinstance(role, str):
        raise InputError(f"a message has the role {role!r}: a text is needed, like 'user'")
    if isinstance(content, list | tuple):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
            raise InputError(f"a message of role {role!r} has a part that is no text: only text is read")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str | None):
        raise InputError(f"a message of role {role!r} has content of type {type(content).__name__}")
    plain = {**message, "content": content or ""}
    if "tool_calls" in plain:
        plain["tool_calls"] = [_call(call) for call in plain["tool_calls"] or ()]
        if not plain["tool_calls"]:
            del plain["tool_calls"]
    return plain


def _call(call: Any) -> dict[str, Any]:
    """A tool call in OpenAI's form, with an object as arguments."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    arguments = function.get("arguments") or {}
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        return {
            "id": call.get("id", _ID),
            "type": "function",
            "function": {"name": str(function["name"]), "arguments": dict(arguments)},
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"tool call {str(call)[:100]}: a name and arguments (an object, or its JSON) are needed"
        ) from None


def _in_form(chat: Chat, form: Form) -> list[dict[str, Any]]:
    """The chat as a template reads it that wants this form."""
    given = [_message_in_form(message, form) for message in chat]
    if form.system == "folded" and given and given[0]["role"] == "system":
        first, *rest = given
        if rest and rest[0]["role"] == "user":
            rest[0] = {**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}
        else:
            rest.insert(0, {**first, "role": "user"})
        given = rest
    if form.content == "parts":
        for message in given:
            if isinstance(message.get("content"), str):
                message["content"] = [{"type": "text", "text": message["content"]}]
    return given


def _message_in_form(message: Mapping[str, Any], form: Form) -> dict[str, Any]:
    given = dict(message)
    if given["role"] == "tool" and form.results == "user":
        return {"role": "user", "content": given["content"]}
    calls = given.get("tool_calls")
    if not calls:
        return given
    if form.calls == "text":
        del given["tool_calls"]
        functions = [call["function"] for call in calls]
        written = [tool_call_text(one["name"], _dumps(one["arguments"])) for one in functions]
        return {**given, "content": "\n".join([given["content"], *written] if given["content"] else written)}
    if form.arguments == "json":
        given["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _dumps(call["function"]["arguments"])}}
            for call in calls
        ]
    if not given["content"] and form.empty == "null":
        given["content"] = None
    elif not given["content"] and form.empty == "absent":
        del given["content"]
    return given


def _dumps(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _describe(kind: _Kind) -> str:
    parts = {"a system message": kind.system, "tool calls": kind.calls, "tool results": kind.results}
    return ", ".join(["user and assistant", *(name for name, there in parts.items() if there)])
