"""Messages to token ids, by the model's own chat template; and which of them the model writes.

The one idea: everything is found by rendering. Between what the template renders up to a reply and what it
renders with it stands what the policy writes, its end of turn included; between that and the next prompt stands
what others add. Nothing that was sampled is encoded again.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import InputError
from vertigym.core.types import Completion, StopReason
from vertigym.policies.chat_template import NEXT, REPLY, SYSTEM, USER, Chat, ChatTemplate
from vertigym.policies.encoding import MARK, TextEncoder, mark

Tools = Sequence[Mapping[str, Any]]
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TAG = re.compile(r"</?\w+>")


@dataclass(slots=True)
class TrainingRow:
    """Token ids to learn from; `loss_mask` is 1 where the assistant wrote the token."""

    token_ids: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], trained: int) -> None:
        """Append ids."""
        self.token_ids += ids
        self.loss_mask += [trained] * len(ids)


class ChatRenderer:
    """A tokenizer and its chat template.

    Args:
        stop: tokens that end a turn, by the model's config; `stop` of the renderer has the template's, too.
        rows: how many tokens the model's embedding has.

    Raises:
        InputError: the tokenizer has no chat template, or nothing ends a turn.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, stop: Sequence[int] = (), rows: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._encoder = TextEncoder(tokenizer, rows=rows)
        closing, self._header_ends = self._closing()
        ends = [closing[-1]] if closing else []
        named = {*stop, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])}
        self.stop: frozenset[int] = frozenset(named | set(ids_of(tokenizer, ends)))
        if not self.stop:
            raise InputError(
                "nothing ends a turn: the template has no token for it, the tokenizer no eos_token"
            )
        self._stop_texts = [str(text) for text in tokenizer.convert_ids_to_tokens(sorted(self.stop))]
        self.end_of_turn = ids_of(tokenizer, closing) or [int(tokenizer.eos_token_id)]
        self._control, self._assistant_control = self._control_tokens(closing)

    # What is asked of it.

    def text(self, messages: Chat, tools: Tools = (), *, prompt: bool = True) -> str:
        """The rendered chat; with `prompt`, up to where the assistant is to write."""
        return self._render(messages, tools, prompt=prompt).replace(MARK, "")

    def ids(self, text: str) -> list[int]:
        """Token ids of a text as it stands, control tokens included."""
        return self._encoder.encode(text)

    def prompt(self, messages: Chat, tools: Tools = ()) -> list[int]:
        """The ids the model is to continue.

        Raises:
            InputError: the template refuses the chat.
        """
        return self._encoder.encode(self._render(messages, tools))

    def reply_length(self, token_ids: Sequence[int]) -> int:
        """How many of the sampled tokens are the reply; the others are its end of turn."""
        if not token_ids or token_ids[-1] not in self.stop:
            return len(token_ids)
        whole = list(token_ids[-len(self.end_of_turn) :]) == self.end_of_turn
        return len(token_ids) - (len(self.end_of_turn) if whole else 1)

    def extension(
        self, before: Chat, completion: Completion, messages: Chat, tools: Tools = ()
    ) -> list[int] | None:
        """The ids that follow a completion up to the next generation prompt, where `messages` are those before
        it, its own, and what was added.

        None where the template does not extend what was sampled (some drop earlier thinking, trim a reply or
        close it by another token): the caller starts a new segment. So it is where a stop string cut the text.
        """
        if completion.stop_text and self._says_more(completion):
            return None
        written = self._render(before, tools) + mark(completion.text, self._assistant_control)
        after = self._render(messages, tools)
        if not after.startswith(written):
            return None
        ids = self._encoder.encode_after(written, after[len(written) :])
        end = list(completion.token_ids[self.reply_length(completion.token_ids) :])
        if completion.stop_reason is StopReason.STOP and ids[: len(end)] != end:
            return None
        return ids[len(end) :]

    def _says_more(self, completion: Completion) -> bool:
        """Whether the tokens say more than the text."""
        length = self.reply_length(completion.token_ids)
        ids = list(completion.token_ids[:length])
        return bool(self.tokenizer.decode(ids, skip_special_tokens=False) != completion.text)

    def training_rows(self, messages: Chat, tools: Tools = ()) -> list[TrainingRow]:
        """A finished chat as rows to learn from: each turn of the assistant after its prompt. Turns share a
        row while the template extends it. The first message of a chat is never trained.

        Raises:
            InputError: the template refuses the chat or drops what a turn says, or there is no turn to train.
        """
        rows: list[TrainingRow] = []
        written = None  # the text of the last row, where it can be extended
        for place, message in enumerate(messages):
            if message.get("role") != "assistant" or place == 0:
                continue
            prompt = self._render(messages[:place], tools)
            if written is not None and prompt.startswith(written):
                rows[-1].add(self._encoder.encode_after(written, prompt[len(written) :]), 0)
            else:
                rows.append(TrainingRow())
                rows[-1].add(self._encoder.encode(prompt), 0)
            reply, ended = self._turn(messages, place, prompt, tools)
            rows[-1].add(self._encoder.encode_after(prompt, reply), 1)
            written = prompt + reply if ended else None
            if not ended:
                rows[-1].add([int(self.tokenizer.eos_token_id)], 1)
        if not rows:
            raise InputError("no message of the assistant answers another: there is nothing to train on")
        return rows

    # How it finds out.

    def _render(self, messages: Chat, tools: Tools = (), *, prompt: bool = True) -> str:
        """The rendered chat, control tokens in messages marked."""
        marked = [
            mark(message, self._assistant_control if message.get("role") == "assistant" else self._control)
            for message in messages
        ]
        return self._template.render(marked, mark(list(tools), self._control), prompt=prompt)

    def _turn(self, messages: Chat, place: int, prompt: str, tools: Tools) -> tuple[str, bool]:
        """`(text, ended)` of the turn at `place`: what the assistant writes after `prompt`, and whether it ends
        with a stop token."""
        finished = messages[: place + 1]
        reply = self._reply(prompt, self._render(finished, tools, prompt=False), messages[place])
        if end := _first_end(self._stop_texts, reply):
            return reply[:end], True
        if self._header_ends:
            following = messages[place + 1 : place + 2] or [{"role": "user", "content": NEXT}]
            after = self._render([*finished, *following], tools, prompt=False)
            header = self._encoder.find_added(after.removeprefix(prompt + reply))[:1]
            header = header if after.startswith(prompt + reply) else self._closing()[0]
            return reply + header[0], True
        if self.tokenizer.eos_token_id is None:
            raise InputError("the chat template does not end this turn, and the tokenizer has no eos_token")
        return reply.rstrip(), False

    def _reply(self, prompt: str, finished: str, message: Mapping[str, Any]) -> str:
        """What the template renders of a message after `prompt`.

        Raises:
            InputError: it drops some of what the message says.
        """
        shared = len(_common_prefix(prompt, finished))
        rest, more = finished[shared:], prompt[shared:]
        content = str(mark(_content(message), self._assistant_control))
        opened = self._opened(prompt, content)
        said = _says(rest, content, message)
        if opened and (more or content.strip() in rest) and _says(content, "", message):
            closing = finished.rpartition(_TAG.split(content)[-1].strip())[2]
            # The prompt has begun the thought that the content begins with.
            return str(content[opened:] + closing)
        # The prompt may say more than the finished turn: white space, or a thought where the reply has none.
        if said and (not more.strip() or rest.startswith(content.strip())):
            return rest
        already = f", whose prompt already says {more[:30]!r}" if more.strip() else ""
        says = _content(message)[:60]
        raise InputError(f"the chat template does not render all that the assistant says in {says!r}{already}")

    def _opened(self, prompt: str, content: str) -> int:
        """Where the content goes on, if it begins with the tag or token that the prompt ends with."""
        begun = content.lstrip()
        for token in (*_TAG.findall(begun)[:1], *self._encoder.find_added(begun)[:1]):
            if begun.startswith(token) and prompt.rstrip().endswith(token):
                rest = begun.removeprefix(token).lstrip()
                return len(content) - len(rest)
        return 0

    def _closing(self) -> tuple[list[str], bool]:
        """`(tokens, header)`: the added tokens from the end of a reply to the one that ends its turn. `header`:
        it is the first of the next message, since the template writes nothing after a reply."""
        chat = [{"role": "user", "content": USER}, {"role": "assistant", "content": REPLY}]
        last = self._template.render(chat, prompt=False).rpartition(REPLY)[2]
        then = self._template.render([*chat, {"role": "user", "content": NEXT}], prompt=False)
        then = then.rpartition(REPLY)[2].partition(NEXT)[0]
        for text in (_common_prefix(last, then), last):
            if found := self._encoder.find_added(text):
                return found, False
        if not last.strip() and (header := self._encoder.find_added(then)[:1]) and then.startswith(header[0]):
            return header, True
        return [], False

    def _control_tokens(self, closing: Sequence[str]) -> tuple[set[str], set[str]]:
        """The tokens that are text in a message: special ones, and those around messages. The assistant may use
        what the template writes inside its turn."""
        chat = [{"role": "user", "content": USER}, {"role": "user", "content": NEXT}]
        try:
            framing = self._template.render([{"role": "system", "content": SYSTEM}, chat[0]], prompt=False)
        except InputError:
            framing = self._template.render(chat[:1], prompt=False)
        control = {*self._encoder.special, *self._encoder.find_added(framing), *closing}
        inside = {token for token in self._inside() if token not in self._encoder.find_added(framing)}
        return control, control - (inside - set(closing))

    def _inside(self) -> list[str]:
        """The added tokens that the template writes inside the assistant's turn."""
        user = {"role": "user", "content": USER}
        call = {"type": "function", "function": {"name": "f", "arguments": {"x": "y"}}}
        turns: tuple[dict[str, Any], ...] = (
            {"content": REPLY},
            {"content": REPLY, "reasoning_content": NEXT},
            {"content": "", "tool_calls": [call]},
        )
        found: list[str] = []
        for turn in turns:
            try:
                opened = self._template.render([user], prompt=False)
                text = self._template.render([user, {"role": "assistant", **turn}], prompt=False)
            except InputError:
                continue
            found += self._encoder.find_added(text.removeprefix(opened))
        return found


def ids_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """The ids of tokens of the vocabulary."""
    return cast("list[int]", tokenizer.convert_tokens_to_ids(list(tokens)))


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _says(text: str, content: str, message: Mapping[str, Any]) -> bool:
    """Whether a rendered turn holds the content (but for the tags in it), the reasoning and the calls."""
    parts = [part.strip() for part in _TAG.split(content)]
    parts += [str(message.get(key) or "").strip() for key in _REASONING]
    parts += [str(call.get("function", call).get("name", "")) for call in message.get("tool_calls") or ()]
    return all(part in text for part in parts)


def _common_prefix(one: str, other: str) -> str:
    return os.path.commonprefix([one, other])  # noqa: RUF071 (character by character is what is meant)


def _first_end(tokens: Sequence[str], text: str) -> int:
    """The end of the first of some tokens in a text; 0: there is none."""
    return min((at + len(token) for token in tokens if (at := text.find(token)) >= 0), default=0)
