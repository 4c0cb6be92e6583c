"""Conversations and the forms of training data: every answer in a list of messages is a call.

    {"messages": [{"role": …, "content": …}]}     OpenAI's fine-tuning, TRL, LangChain, Anthropic with a system
    {"conversations": [{"from": …, "value": …}]}  ShareGPT
    {"text": "<|im_start|>user\\n…<|im_end|>"}    ChatML
    {"instruction": …, "input": …, "output": …}   Alpaca
    {"prompt": …, "completion": …}                TRL, text or messages; `label` true or false is a thumb
    {"prompt": …, "chosen": …, "rejected": …}     TRL's preferences: one call with a thumb up, one down

What is said of a conversation as a whole (a thumb, an outcome) is said of its last answer.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import attempt, from_call, went_in
from vertigym.traces.facts import AT_THE_END, facts
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import chat, decoded, is_chat
from vertigym.traces.parts import kind_of
from vertigym.traces.records import NotACall
from vertigym.traces.requests import offered_tools, system_text

_TURN = re.compile(r"<\|im_start\|>\s*(\w+)\s*?\n?(.*?)(?:<\|im_end\|>|\Z)\s*", re.DOTALL)
_FORMS = {"messages", "conversations", "system", "tools"}


def _conversation(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    messages = decoded(row["messages"] if "messages" in row else row["conversations"])
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"messages: a list of chat messages is needed, this is {kind_of(messages)}")
    told = system_text(row)
    turns = chat([{"role": "system", **told}, *messages] if told else messages)
    yield from _answers(turns, {k: v for k, v in row.items() if k not in _FORMS} | _tools(row), name, config)


def _answers(
    turns: Sequence[dict[str, Any]], around: Mapping[str, Any], name: str, config: ImportConfig
) -> Iterator[Found]:
    """Each answer with what came before it, or only the last; those that weigh nothing are context."""
    answers = [i for i, turn in enumerate(turns) if i and turn["role"] == "assistant"]
    if not answers:
        raise ValueError("no assistant message that answers something")
    learned = [i for i in answers if turns[i].get("weight") != 0]
    if not learned:
        yield NotACall("a conversation whose answers all have the weight 0")
        return
    session = facts(around)[0].get("session")
    ended = {**around, "id": str(around.get("id") or session or name)}
    if len(learned) > 1 and config.turns == "all":
        ended["session"] = session or ended["id"]  # the turns of one conversation belong together
    before = {key: value for key, value in ended.items() if key not in AT_THE_END}
    for i in learned if config.turns == "all" else learned[-1:]:
        part = ended if i == answers[-1] else before
        part = {**part, "id": f"{ended['id']}#{i}"} if len(answers) > 1 else part
        yield attempt(from_call, turns[:i], turns[i], part, [], name, config)


def _chatml(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    text = row["text"].strip()
    if _TURN.sub("", text).strip():
        raise ValueError("ChatML with text outside of <|im_start|> … <|im_end|>")
    turns = chat([{"role": role, "content": said} for role, said in _TURN.findall(text)])
    yield from _answers(turns, {k: v for k, v in row.items() if k != "text"}, name, config)


def _alpaca(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    if not isinstance(row.get("output"), str) or not row["output"]:
        raise ValueError(f"output is the answer's text, this is {kind_of(row.get('output'))}")
    told = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for asked, answered in row.get("history") or ():
        told += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    said = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    around = {k: v for k, v in row.items() if k not in ("instruction", "input", "output", "system", "history")}
    turns = chat([*told, {"role": "user", "content": said}])
    yield attempt(from_call, turns, {"content": row["output"]}, around, [], name, config)


def _prompt_completion(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    around = {k: v for k, v in row.items() if k not in ("prompt", "completion", "tools")} | _tools(row)
    if isinstance(row.get("label"), bool):
        around |= {"feedback": {"thumb": "up" if row["label"] else "down"}, "label": None}
    turns, answer = _whole(row["prompt"], row["completion"])
    yield attempt(from_call, turns, answer, around, [], name, config)


def _preference(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    """Where there is no prompt, it is what both sides begin with."""
    chosen, rejected = row["chosen"], row["rejected"]
    given = row.get("prompt", row.get("conversations"))
    if given is None:
        if not is_chat(chosen) or not is_chat(rejected):
            raise ValueError("preferences without a prompt are read from lists of messages only")
        shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
        given, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    drop = {"prompt", "conversations", "chosen", "rejected", "tools"}
    around = {k: v for k, v in row.items() if k not in drop} | _tools(row)
    around["id"] = str(row.get("id") or name)
    for side, thumb in ((chosen, "up"), (rejected, "down")):
        turns, answer = _whole(given, side)
        part = {**around, "feedback": {"thumb": thumb}}
        part |= {"id": f"{around['id']}#rejected"} if thumb == "down" else {}
        yield attempt(from_call, turns, answer, part, [], name, config)


def _whole(prompt: Any, completion: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Prompt and completion as messages; the last message is the answer."""
    said = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    said = list(chat([said] if isinstance(said, Mapping) else said))
    turns = [*went_in(prompt), *said]
    if turns[-1]["role"] != "assistant":
        raise ValueError("the completion does not end with an assistant message")
    return turns[:-1], turns[-1]


def _tools(row: Row) -> dict[str, Any]:
    tools = offered_tools({"tools": decoded(row.get("tools"))})
    return {"tools": tools} if tools else {}


def _is_conversation(row: Row) -> bool:
    others = {"completion", "choices", "request", "response", "chosen", "run_type", "observations"}
    return "messages" in row and not others & set(row)


FORMATS = (
    LogFormat(_is_conversation, _conversation, "conversations"),
    LogFormat(lambda row: "conversations" in row and "chosen" not in row, _conversation, "ShareGPT"),
    LogFormat(lambda row: "<|im_start|>" in str(row.get("text")), _chatml, "ChatML"),
    LogFormat(lambda row: isinstance(row.get("instruction"), str) and "output" in row, _alpaca, "Alpaca"),
    LogFormat(
        lambda row: "prompt" in row and "completion" in row and "messages" not in row,
        _prompt_completion,
        "TRL prompt and completion",
    ),
    LogFormat(lambda row: "chosen" in row and "rejected" in row, _preference, "TRL preferences"),
)
