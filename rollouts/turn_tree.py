"""The tokens of an episode as a tree of turns, and its segments: the ways from a root to a leaf.

The one idea: a prompt continues the turn whose chat it goes on with, by the ids that were fed and sampled
there. A chat that nobody has had yet is a root; two that go on with one turn are branches. A sampled token is
trained once, in the first segment that it lies in. Roots and branches are in the order of their keys, not of
their coming, where they have keys: an environment whose calls run side by side gives each a key of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vertigym.core.types import Completion, Message, Segment


class Renderer(Protocol):
    """How an engine turns messages into token ids."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """The ids the model is to continue."""
        ...

    def extension(
        self,
        before: Sequence[Message],
        completion: Completion,
        messages: Sequence[Message],
        tools: Sequence[Any] = (),
    ) -> list[int] | None:
        """The ids that follow a completion up to the next generation prompt, where `messages` are those before
        it, its own, and what was added; None where the template does not extend what was sampled."""
        ...


@dataclass(eq=False, slots=True)
class _TreeTurn:
    """A prompt and its completion; `context` is what was added to the turn before, or the whole prompt."""

    before: "_TreeTurn | None"
    messages: Sequence[Message]
    tools: Sequence[Any]
    key: str
    context: Sequence[int]
    completion: Completion | None = None
    after: "list[_TreeTurn]" = field(default_factory=list)

    def path(self) -> "list[_TreeTurn]":
        """The turns from the root to this one."""
        found, turn = [self], self.before
        while turn:
            found.append(turn)
            turn = turn.before
        return found[::-1]


class TurnTree:
    """The turns of one episode; without a renderer there are no tokens."""

    def __init__(self, renderer: Renderer | None) -> None:
        self._renderer = renderer
        self._turns: list[_TreeTurn] = []

    def ask(self, messages: Sequence[Message], tools: Sequence[Any], key: str = "") -> tuple[int, ...] | None:
        """The ids of the next prompt.

        Raises:
            InputError: the template refuses the chat.
        """
        if not self._renderer:
            return None
        before, context = self._find(messages, tools) or (None, self._renderer.prompt(messages, tools))
        turn = _TreeTurn(before, messages, tools, key, context)
        if before:
            before.after.append(turn)
        self._turns.append(turn)
        return tuple(token for one in turn.path() for token in (*one.context, *_sampled(one)))

    def add(self, completion: Completion) -> None:
        """What was sampled after the last prompt."""
        if self._turns:
            self._turns[-1].completion = completion

    def segments(self) -> Iterator[Segment]:
        """Those with a token to train."""
        trained: set[int] = set()
        waiting = _in_order(turn for turn in self._turns if not turn.before)
        while waiting:
            turn = waiting.pop()
            waiting += _in_order(turn.after)
            if not turn.after and (found := _segment(turn.path(), trained)):
                yield found

    def _find(
        self, messages: Sequence[Message], tools: Sequence[Any]
    ) -> tuple[_TreeTurn, Sequence[int]] | None:
        """The turn that a chat goes on with, and the ids that come after it."""
        assert self._renderer
        fit = [turn for turn in self._turns if turn.completion and _goes_on(turn, messages, tools)]
        longest = max((len(turn.messages) for turn in fit), default=0)
        for turn in sorted(
            fit, key=lambda turn: len(turn.after)
        ):  # one that nothing follows yet, if there is one
            if len(turn.messages) == longest:
                assert turn.completion
                ids = self._renderer.extension(turn.messages, turn.completion, messages, tools)
                if ids is not None:
                    return turn, ids
        return None


def _goes_on(turn: _TreeTurn, messages: Sequence[Message], tools: Sequence[Any]) -> bool:
    count = len(turn.messages)
    return len(messages) > count and turn.tools == tools and list(messages[:count]) == list(turn.messages)


def _sampled(turn: _TreeTurn) -> Sequence[int]:
    return turn.completion.token_ids if turn.completion else ()


def _in_order(turns: Any) -> list[_TreeTurn]:
    """As a stack: the first is the last."""
    return sorted(turns, key=lambda turn: turn.key)[::-1]


def _segment(path: Sequence[_TreeTurn], trained: set[int]) -> Segment | None:
    ids, mask, logprobs = list[int](), list[int](), list[float]()
    for turn in path:
        for tokens, logps, new in (
            (turn.context, (), False),
            (_sampled(turn), turn.completion.logprobs if turn.completion else (), id(turn) not in trained),
        ):
            ids += tokens
            mask += [int(new)] * len(tokens)
            logprobs += logps if new else [0.0] * len(tokens)
        trained.add(id(turn))
    return Segment(tuple(ids), tuple(mask), tuple(logprobs)) if any(mask) else None
