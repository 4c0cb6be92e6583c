"""Public chat templates, from the trl package: rows to learn from, beside what the template itself renders."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from vertigym.core.errors import InputError
from vertigym.core.types import Completion, StopReason
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer, TrainingRow, ids_of

_trl = find_spec("trl")
FOLDER = Path(_trl.origin).parent / "chat_templates" if _trl and _trl.origin else Path("absent")
TEMPLATES = {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.jinja"))}
pytestmark = pytest.mark.skipif(not TEMPLATES, reason="trl is not installed")

# What the models' own generation configs name beside the end of a plain turn.
STOPS = ("<|call|>", "<|tool_response>", "<|observation|>")
TOKEN = re.compile(r"<[|\uff5c]?[\w▁]+[|\uff5c]?>|\[/?[A-Z_]{4,}\]|</?[\w|]+>")
Chat = list[dict[str, Any]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CALL: dict[str, Any] = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "look_up", "arguments": {"case": "R7"}},
}
SINGLE = [user("hello there"), assistant("fine answer")]
SYSTEM = [{"role": "system", "content": "be brief"}, *SINGLE]
SEVERAL = [*SINGLE, user("and more"), assistant("second reply"), user("the last"), assistant("third one")]
TOOLS = [
    user("hello there"),
    assistant("", tool_calls=[CALL]),
    {"role": "tool", "content": "case is open", "tool_call_id": "call12345", "name": "look_up"},
    assistant("it is open"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m") / "tiny"
    tiny.build(
        ["fine answer"] * 2, folder, size=tiny.TinySize(hidden=16, layers=1, heads=2, key_heads=2, ffn=16)
    )
    return folder


def tokenizer_for(base: Path, template: str) -> Any:
    """A tokenizer that has the control tokens of a template."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = sorted({*TOKEN.findall(template), "<|eos|>", "<|bos|>"})
    special = [token for token in found if "|" in token or "\uff5c" in token or "turn" in token]
    tokenizer.add_tokens([AddedToken(t, special=t in special, normalized=False) for t in found])
    tokenizer.chat_template, tokenizer.eos_token, tokenizer.bos_token = template, "<|eos|>", "<|bos|>"
    return tokenizer


def renderer_for(base: Path, name: str) -> ChatRenderer:
    tokenizer = tokenizer_for(base, TEMPLATES[name])
    vocabulary = tokenizer.get_vocab()
    return ChatRenderer(tokenizer, stop=[vocabulary[token] for token in STOPS if token in vocabulary])


def direct(tokenizer: Any, chat: Sequence[dict[str, Any]], prompt: bool) -> str | None:
    """What the template renders of a chat, in the first of three forms that says it all; None: none does."""
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} if m["content"] else m for m in chat]
    function = {**CALL["function"], "arguments": '{"case": "R7"}'}
    null = [
        {**m, "content": None, "tool_calls": [{**CALL, "function": function}]} if "tool_calls" in m else m
        for m in chat
    ]
    said = [str(m["content"]) for m in chat] + ["look_up"] * any("tool_calls" in m for m in chat)
    for form in (chat, parts, null):
        try:
            text = str(tokenizer.apply_chat_template(form, tokenize=False, add_generation_prompt=prompt))
        except Exception:
            continue
        if all(words in text for words in said):
            return text
    return None


def turns(renderer: ChatRenderer, rows: Sequence[TrainingRow]) -> list[tuple[str, str]]:
    """`(all the text before, the trained text)` of each trained run of tokens."""
    found: list[tuple[str, str]] = []
    for row in rows:
        start = 0
        while 1 in row.loss_mask[start:]:
            begin = row.loss_mask.index(1, start)
            end = row.loss_mask.index(0, begin) if 0 in row.loss_mask[begin:] else len(row.loss_mask)
            decode = renderer.tokenizer.decode
            found.append((str(decode(row.token_ids[:begin])), str(decode(row.token_ids[begin:end]))))
            start = end
    return found


def check(renderer: ChatRenderer, chat: Chat) -> None:
    """Every turn of the assistant is trained once, after what the template renders before it, to its end."""
    tokenizer = renderer.tokenizer
    places = [place for place, message in enumerate(chat) if message["role"] == "assistant"]
    found = turns(renderer, renderer.training_rows(chat))
    assert len(found) == len(places)
    stops = [str(tokenizer.convert_ids_to_tokens(i)) for i in renderer.stop]
    for place, (before, trained) in zip(places, found, strict=True):
        assert str(chat[place]["content"]) in trained
        assert trained.endswith(tuple(stops)), "the whole end of the turn"
        assert sum(trained.count(stop) for stop in stops) == 1
        prompt, finished = direct(tokenizer, chat[:place], True), direct(tokenizer, chat[: place + 1], False)
        if prompt is None or finished is None:
            continue  # in a form of ours only
        assert before == prompt, "as the policy will be asked"
        after = trained.removesuffix(next(stop for stop in stops if trained.endswith(stop)))
        assert after in finished
        if finished.startswith(prompt):
            assert finished.startswith(prompt + after)


CLOSED_THOUGHT = ("qwen3_5_nothink",)  # the prompt ends the thought before the reply begins
PLAIN = [name for name in TEMPLATES if not name.endswith("_training")]


def test_there_are_enough_of_them() -> None:
    assert len(TEMPLATES) >= 50


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("chat", [SINGLE, SYSTEM, SEVERAL, TOOLS], ids=["single", "system", "several", "tools"])
def test_rows_are_what_the_template_renders(base: Path, name: str, chat: Chat) -> None:
    check(renderer_for(base, name), chat)


@pytest.mark.parametrize("name", PLAIN)
def test_tool_calls_are_trained(base: Path, name: str) -> None:
    renderer = renderer_for(base, name)
    called = turns(renderer, renderer.training_rows(TOOLS))[0][1]
    assert "look_up" in called
    assert "case" in called
    assert "R7" in called


@pytest.mark.parametrize("name", PLAIN)
def test_special_tokens_in_a_message_are_text(base: Path, name: str) -> None:
    renderer = renderer_for(base, name)
    special = sorted(
        token.content for token in renderer.tokenizer.added_tokens_decoder.values() if token.special
    )
    text = f"a{''.join(special)}b"
    plain, attack = (renderer.prompt([user(said)]) for said in ("ab", text))
    ids = set(ids_of(renderer.tokenizer, special))
    assert [i for i in attack if i in ids] == [i for i in plain if i in ids]
    assert text in str(renderer.tokenizer.decode(attack))


@pytest.mark.parametrize("name", PLAIN)
def test_reasoning_in_the_content_is_trained_once_or_refused(base: Path, name: str) -> None:
    renderer = renderer_for(base, name)
    chat = [user("hello there"), assistant("<think>\nhm hm\n</think>\n\nfine answer")]
    if name in CLOSED_THOUGHT:
        with pytest.raises(InputError, match=r"does not render all .* whose prompt already says"):
            renderer.training_rows(chat)
        return
    ((before, trained),) = turns(renderer, renderer.training_rows(chat))
    whole = before.rpartition("hello there")[2] + trained
    assert whole.count("hm hm") == whole.count("fine answer") == 1
    assert whole.count("<think>") <= 1
    assert whole.count("</think>") <= 1


@pytest.mark.parametrize("name", PLAIN)
def test_a_later_prompt_extends_what_was_sampled_only_where_the_template_does(base: Path, name: str) -> None:
    renderer = renderer_for(base, name)
    row = renderer.training_rows(SINGLE)[0]
    sampled = row.token_ids[row.loss_mask.index(1) :]
    text = str(renderer.tokenizer.decode(sampled[: renderer.reply_length(sampled)]))
    completion = Completion(text, StopReason.STOP, token_ids=sampled, logprobs=[0.0] * len(sampled))
    chat = [user("hello there"), assistant(text), user("and more")]
    added = renderer.extension(chat[:1], completion, chat)
    if added is not None:
        assert row.token_ids + added == renderer.prompt(chat)
    elif text == "fine answer":
        assert renderer.prompt(chat)[: len(row.token_ids)] != row.token_ids
