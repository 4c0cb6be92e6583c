"""Grammars that a completion must match, by llguidance: at each step, the tokens that may follow.

The one idea: what must be written is one grammar, whatever asked for it: an object of a JSON schema, a tool
call that must be made, or calls whose arguments must be right wherever the model makes one.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import InputError, MissingDependencyError

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_WHITESPACE = r"[ \n\t]{0,20}"  # between two tokens of JSON: some models would write nothing else for ever
# llguidance would see a call only where the text before it is lexed lazily.
_ANYWHERE = """
start: called* TEXT
called: opened tool BREAK "%(close)s"
opened[lazy]: TEXT "%(open)s"
TEXT: /(.|\\n)*/
"""
_AT_ONCE = """
start: call%(more)s
call: "%(open)s" BREAK tool BREAK "%(close)s"
"""


def can_constrain() -> bool:
    """Whether llguidance is installed."""
    return find_spec("llguidance") is not None


def object_grammar(schema: Mapping[str, Any]) -> str:
    """Matches JSON of a schema."""
    return f"start: %json {_json(schema)}"


def calls_grammar(functions: Sequence[Mapping[str, Any]], *, required: bool, parallel: bool) -> str:
    """Matches text with calls of some functions (`name`, `parameters`, `strict`).

    `required`: nothing but calls. `parallel`: any number of them.
    """
    form = _AT_ONCE if required else _ANYWHERE
    rules = form % {"open": OPEN, "close": CLOSE, "more": " (BREAK call)*" if parallel else ""}
    return f"{rules}BREAK: /\\n?/\ntool: %json {_json({'anyOf': [_call(one) for one in functions]})}\n"


def _json(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": _WHITESPACE}})


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def check_grammar(grammar: str) -> None:
    """
    Raises:
        InputError: it cannot be matched: llguidance's reason.
    """
    guidance = _guidance()
    if fault := guidance.LLMatcher.validate_grammar(guidance.LLMatcher.grammar_from_lark(grammar)):
        raise InputError(" ".join(str(fault).split())[:300])


class GrammarTokens:
    """A tokenizer as llguidance knows it; `stop` are the tokens that end a turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, stop: Sequence[int]) -> None:
        try:
            self._tokens = _guidance().hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(stop))
        except ValueError as error:
            raise InputError(f"this model's tokenizer cannot be held to a grammar: {error}") from None

    def matcher(self, grammar: str) -> "GrammarMatcher":
        """For one completion.

        Raises:
            InputError: as in `check_grammar`.
        """
        check_grammar(grammar)
        guidance = _guidance()
        return GrammarMatcher(guidance.LLMatcher(self._tokens, guidance.LLMatcher.grammar_from_lark(grammar)))


class GrammarMatcher:
    """Where one completion is in its grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def fault(self) -> str:
        """Why it cannot go on; empty where it can."""
        return " ".join(str(self._matcher.get_error() or "").split())

    def refused(self) -> Tensor:
        """Which tokens must not come next: `[V]`."""
        return torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) == 0

    def take(self, token: int) -> None:
        """The next token."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)


@cache
def _guidance() -> Any:
    try:
        import llguidance
        import llguidance.hf
    except ImportError:
        raise MissingDependencyError("llguidance", "constrained", "constrained decoding") from None
    return llguidance
