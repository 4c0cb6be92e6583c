"""Text to token ids, one way everywhere: a control token in a message is text, text is encoded in context.

The one idea: a control token that somebody has written is marked before the chat template is rendered, by a
character that is in no text, and the mark leaves the ids again. So what the tokenizer still reads as a control
token is the template's own.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import InputError

MARK = "\ufdd0"  # a noncharacter: Unicode reserves it for use inside programs
_ANCHORS = ("\n", "a")
_TAIL = 64  # characters


class TextEncoder:
    """A tokenizer's way from text to ids.

    Args:
        rows: how many tokens the model's embedding has; None: as many as the tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, rows: int | None = None) -> None:
        self.tokenizer = tokenizer
        self._rows = rows
        self.added = [
            token
            for token in tokenizer.added_tokens_decoder.values()
            if token.content.strip()  # runs of white space are added tokens, too, in some tokenizers
        ]
        self.special = {token.content for token in self.added if token.special}

    def find_added(self, text: str) -> list[str]:
        """The added tokens in a text, in order."""
        pattern = _any_of([token.content for token in self.added])
        return pattern.findall(text) if pattern else []

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; the template has already put special tokens in.

        Raises:
            InputError: a token has no row in the model's embedding.
        """
        ids = self._encode(text) if MARK in text else self.tokenizer.encode(text, add_special_tokens=False)
        if self._rows is not None and ids and max(ids) >= self._rows:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise InputError(
                f"token {token!r} ({max(ids)}) has no row in the model's embedding of {self._rows} rows: it is "
                "another model's tokenizer"
            )
        return ids

    def encode_after(self, before: str, text: str) -> list[int]:
        """Token ids of `text` where it follows `before`, whose ids stay as they are.

        Raises:
            InputError: the tokenizer cannot go on there.
        """
        ids, tail = self.encode(text), self.encode(before[-_TAIL:])
        if self._decode([*tail, *ids]) == self._decode(tail) + text.replace(MARK, ""):
            return ids
        # Some tokenizers put a space before a text: encode it behind what stands there, or behind some text.
        for head in (before, *_ANCHORS):
            head_ids, both = self.encode(head), self.encode(head + text)
            if both[: len(head_ids)] == head_ids:
                return both[len(head_ids) :]
        raise InputError(f"the tokenizer cannot continue {before[-20:]!r} with {text[:20]!r}")

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _encode(self, text: str) -> list[int]:
        """As `encode`, without the marks."""
        if not self.tokenizer.is_fast:
            return [
                i for part in text.split(MARK) for i in self.tokenizer.encode(part, add_special_tokens=False)
            ]
        found: Any = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = [text[start:end] for start, end in found["offset_mapping"]]
        if any(MARK in span and span != MARK for span in spans):
            raise InputError(f"the tokenizer joins U+{ord(MARK):X} with other characters: it cannot be marked")
        return [i for i, span in zip(found["input_ids"], spans, strict=True) if span != MARK]


def mark(value: Any, control: Collection[str]) -> Any:
    """`value` (a text, or what holds texts) with every control token marked.

    Raises:
        InputError: the mark itself is in a text.
    """
    pattern = _any_of(control)
    return _mark(value, pattern)


def _mark(value: Any, pattern: "re.Pattern[str] | None") -> Any:
    if isinstance(value, str):
        if MARK in value:
            raise InputError(f"a message holds the noncharacter U+{ord(MARK):X}: remove it")
        return pattern.sub(lambda found: found[0][0] + MARK + found[0][1:], value) if pattern else value
    if isinstance(value, Mapping):
        return {key: _mark(item, pattern) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(item, pattern) for item in value]
    return value


def _any_of(tokens: Collection[str]) -> "re.Pattern[str] | None":
    """Matches any of some tokens, the longest first."""
    if not tokens:
        return None
    return re.compile("|".join(map(re.escape, sorted(tokens, key=lambda token: (-len(token), token)))))
