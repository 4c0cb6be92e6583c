"""A batch that rows join and leave while it is decoded, and that keeps what it has read of each chat.

The one idea: since a row's logits depend on its tokens alone (`row_memory`), nothing here is a matter of
result. Which rows share a pass, when a prompt is read, and what is still known of it from an earlier turn or
from another chat changes the time only: whoever asks may ask whenever it is ready.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vertigym.core.errors import EngineError
from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.policies.decoder import Decoder
from vertigym.policies.engine import GenerationRequest, GenerationResult, TokenEngine
from vertigym.policies.grammars import GrammarMatcher
from vertigym.policies.row_memory import RowMemory
from vertigym.policies.sampling import sample_tokens, uniform_numbers
from vertigym.policies.watched_rows import WatchedRows

_PATIENCE = 4  # passes that a prompt waits for others, so that they are read together
_JOIN = 8  # of so many rows that are decoded, one that waits is enough to read it


@dataclass(frozen=True, slots=True)
class EndedRow:
    """What came of a request: of the weights `version`, after `elapsed_s`."""

    chat: int
    request: GenerationRequest
    result: GenerationResult
    version: int
    elapsed_s: float


@dataclass(eq=False, slots=True)
class _Row:
    """A completion that is being written."""

    chat: int
    request: GenerationRequest
    uniform: Sequence[float]
    began: float
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class RunningBatch:
    """Completions of many chats at once, each asked for when its prompt is known.

    Args:
        decoder: of the engine's weights. matcher: for a grammar.
        rows: the most chats that have an open prompt or are to be remembered.
    """

    free_running = True

    def __init__(
        self,
        engine: TokenEngine,
        decoder: Decoder,
        matcher: Callable[[str], GrammarMatcher],
        sampling: Sampling,
        rows: int,
    ) -> None:
        self._engine, self._sampling = engine, sampling
        self._memory = RowMemory(decoder, rows)
        self._chats: list[int | None] = [None] * self._memory.rows  # whose tokens a row holds
        self._live: dict[int, _Row] = {}  # by row
        self._used = np.zeros(self._memory.rows, dtype=np.int64)  # when a row was last read
        self._waiting: list[_Row] = []
        self._ended: list[EndedRow] = []
        self._watched = WatchedRows(engine.text_so_far, matcher, sampling)
        self._passes = self._waited = 0
        self._banned_ids = torch.tensor(engine.banned, dtype=torch.long, device=decoder.embed_VH.device)
        self._version = engine.version
        self._holds_weights = False  # they change only while no row is decoded

    @property
    def busy(self) -> bool:
        """Whether a completion is asked for that has not been collected."""
        return bool(self._live or self._waiting or self._ended)

    def add(self, chat: int, prompt: Prompt) -> None:
        """Ask for a completion; a chat has one open prompt at a time.

        Raises:
            InputError: the prompt cannot be rendered, or its grammar followed.
        """
        self.ask(chat, self._engine.request(prompt, self._sampling))

    def ask(self, chat: int, request: GenerationRequest) -> None:
        """The same, of a request whose temperature and top-p are the batch's.

        Raises:
            InputError: its grammar cannot be followed.
        """
        if request.max_tokens <= 0:
            self._ended.append(EndedRow(chat, request, GenerationResult(), self._engine.version, 0.0))
            return
        self._watched.watch(chat, request)
        uniform = uniform_numbers(request.seed, request.max_tokens).tolist()
        self._waiting.append(_Row(chat, request, uniform, time.perf_counter()))

    def leave(self, chat: int) -> None:
        """The chat will not go on: what is known of it may be forgotten first."""
        self._chats = [None if one == chat else one for one in self._chats]

    def collect(self) -> list[tuple[int, Completion]]:
        """Decode one token of each row; the chats whose completion has ended, and it.

        Raises:
            EngineError: the device is out of memory.
        """
        return [
            (one.chat, self._engine.completion(one.request, one.result, one.version, one.elapsed_s))
            for one in self.decode()
        ]

    @torch.inference_mode()
    def decode(self) -> "list[EndedRow]":
        """The same, as the engine's own results."""
        try:
            self._admit()
            if self._live:
                self._step()
        except torch.OutOfMemoryError as error:
            rows = self._memory.rows
            raise EngineError(f"out of memory with {rows} rows: lower rollout.batch ({error})") from None
        if not self._live:
            self._release()
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Let the weights change; what has not ended is given up."""
        self._live, self._waiting = {}, []
        self._release()

    def _release(self) -> None:
        if self._holds_weights:
            self._holds_weights = False
            self._engine.weights_lock.release()

    def _hold(self) -> bool:
        """Keep the weights as they are while rows are decoded; False while they are waited for."""
        if self._engine.wanted:
            if not self._live:
                self._release()
                time.sleep(0.001)
            return False
        if not self._holds_weights:
            self._holds_weights = self._engine.weights_lock.acquire()
            if self._version != self._engine.version:
                self._version = self._engine.version
                self._memory.clear()
        return True

    def _admit(self) -> None:
        """Read the prompts that wait, and sample the first token of each."""
        self._waited = self._waited + 1 if self._waiting else 0
        enough = len(self._waiting) * _JOIN >= len(self._live) or self._waited >= _PATIENCE
        room = self._memory.rows - len(self._live)
        if not (self._waiting and enough and room and self._hold()):
            return
        self._waited, taken = 0, self._waiting[:room]
        self._waiting = self._waiting[room:]
        first: dict[tuple[int, ...], int] = {}  # rows with the same prompt: it is read once
        alike: list[tuple[int, int]] = []
        starting: dict[int, _Row] = {}
        for one in taken:
            ids = tuple(one.request.prompt)
            row = self._place(one.chat, np.array(ids), starting, again=ids in first)
            starting[row] = one
            if ids in first:
                alike.append((row, first[ids]))
            else:
                first[ids] = row
        rest = [ids[self._memory.lengths[row] :] for ids, row in first.items()]
        logits_UV = self._memory.read(list(first.values()), rest)
        place = {row: i for i, row in enumerate(first.values())}
        for row, same in alike:
            self._memory.copy(same, row, int(self._memory.lengths[same]))
            place[row] = place[same]
        self._live |= starting
        self._sample(list(starting), logits_UV[[place[row] for row in starting]])

    def _place(self, chat: int, ids: np.ndarray, starting: dict[int, _Row], *, again: bool) -> int:
        """A row for the chat, which holds as many of the prompt's first tokens as any does."""
        memory = self._memory
        known = np.minimum(memory.known(ids), len(ids) - 1)  # the last token's logits are needed
        known[list(starting)] = 0  # not read yet
        source = int(known.argmax())
        free = [row for row in range(memory.rows) if row not in self._live and row not in starting]
        row = min(
            free, key=lambda row: (self._chats[row] != chat, self._chats[row] is not None, self._used[row])
        )
        if not again:
            if known[row] == known[source]:
                source = row
            memory.copy(source, row, int(known[source]))
        self._chats[row], self._used[row] = chat, self._passes
        return row

    def _step(self) -> None:
        """Decode a token of each row."""
        self._close_up()
        self._passes += 1
        width = self._memory.width
        count = -(-(max(self._live) + 1) // width) * width
        tokens, live = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
        for row, one in self._live.items():
            tokens[row], live[row] = one.tokens[-1], True
        logits_BV = self._memory.step(tokens, live)
        rows = list(self._live)
        self._sample(rows, logits_BV[rows])

    def _close_up(self) -> None:
        """Move rows so that few of those that go through a pass are not live."""
        while len(self._live) <= 0.75 * (top := max(self._live)):
            hole = next(row for row in range(top) if row not in self._live)
            self._memory.swap(hole, top)
            self._chats[hole], self._chats[top] = self._chats[top], self._chats[hole]
            self._used[[hole, top]] = self._used[[top, hole]]
            self._live[hole] = self._live.pop(top)

    def _sample(self, rows: Sequence[int], logits_BV: Tensor) -> None:
        """Draw the next token of each row, and take out those that end by it."""
        live = [self._live[row] for row in rows]
        if len(self._banned_ids):
            logits_BV = logits_BV.index_fill(1, self._banned_ids, -torch.inf)
        places = [(place, one.chat) for place, one in enumerate(live) if one.chat in self._watched.rows]
        logits_BV = self._watched.constrain(logits_BV, places)
        uniform_B = torch.tensor([one.uniform[len(one.tokens)] for one in live], device=logits_BV.device)
        token_B, logp_B = sample_tokens(logits_BV, uniform_B, self._sampling)
        ended = set(self._watched.note(logits_BV, token_B, places))
        drawn = zip(rows, live, token_B.tolist(), logp_B.tolist(), strict=True)
        for place, (row, one, token, logp) in enumerate(drawn):
            one.tokens.append(token)
            one.logprobs.append(logp)
            if place in ended or token in one.request.stop or len(one.tokens) == one.request.max_tokens:
                self._finish(row, one)

    def _finish(self, row: int, one: _Row) -> None:
        watched = self._watched
        result = GenerationResult(
            one.tokens, one.logprobs, watched.fault(one.chat), watched.alternatives(one.chat)
        )
        elapsed = time.perf_counter() - one.began
        self._ended.append(EndedRow(one.chat, one.request, result, self._version, elapsed))
        del self._live[row]
