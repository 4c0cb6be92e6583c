"""Messages to token ids, by the model's own chat template, applied once and by us.

The one idea: a later turn never re-tokenises what was sampled. The template is rendered with a stand-in for
the reply; what follows the stand-in is the text the environment's messages add, and only that is tokenised.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import InputError
from vertigym.core.types import Message

# A reply no template rewrites: one plain word that appears nowhere else.
_STAND_IN = "vertigymstandinreply"


class ChatRenderer:
    """A tokenizer and its chat template.

    Raises:
        InputError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template: add chat_template.jinja to the model folder")
        self.tokenizer = tokenizer

    def text(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, prompt: bool = True
    ) -> str:
        """The rendered chat; with `prompt`, up to where the assistant is to write."""
        chat: Any = list(messages)  # transformers types it narrower than it is
        rendered = self.tokenizer.apply_chat_template(
            chat,
            tools=[dict(tool) for tool in tools] or None,
            add_generation_prompt=prompt,
            tokenize=False,
        )
        assert isinstance(rendered, str)
        return rendered

    def ids(self, text: str) -> list[int]:
        """Token ids of rendered text; the template has already put special tokens in."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """The ids the model is to continue."""
        return self.ids(self.text(messages, tools))

    def extension(
        self,
        before: Sequence[Message],
        reply: str,
        added: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[int] | None:
        """The ids from the end of `reply` up to the next generation prompt, the end-of-turn token first.

        None where the template does not extend what came before (some drop earlier thinking, or re-order):
        the caller starts a new segment.
        """
        opening = self.text(before, tools)
        answered: Message = {"role": "assistant", "content": _STAND_IN}
        whole = self.text([*before, answered, *added], tools)
        head, found, tail = whole.partition(_STAND_IN)
        if not found or head != opening:
            return None
        return self.ids(tail)

    def training_row(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[list[int], list[int]]:
        """`(token_ids, loss_mask)` of a finished chat; the mask is 1 on the assistant's tokens and on the
        end-of-turn token after each.

        Raises:
            InputError: the template cannot extend this chat turn by turn.
        """
        ids: list[int] = []
        mask: list[int] = []
        start = 0
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            opening = self.prompt(messages[:place], tools) if not ids else []
            _extend(ids, mask, opening, 0)
            _extend(ids, mask, self.ids(message["content"]), 1)
            start = place + 1
            following = _until_assistant(messages, start)
            tail = self.extension(messages[:place], message["content"], following, tools)
            if tail is None:
                raise InputError("the chat template does not extend a chat turn by turn: train on single turns")
            _extend(ids, mask, tail[:1], 1)
            if start < len(messages):
                _extend(ids, mask, tail[1:], 0)
        return ids, mask


def _extend(ids: list[int], mask: list[int], new: Sequence[int], trained: int) -> None:
    ids += new
    mask += [trained] * len(new)


def _until_assistant(messages: Sequence[Message], start: int) -> Sequence[Message]:
    end = next((i for i in range(start, len(messages)) if messages[i]["role"] == "assistant"), len(messages))
    return messages[start:end]
