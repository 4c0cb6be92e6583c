"""What rows that come and go keep of their tokens between forward passes, and how they are read.

The one idea: the logits of a row are a function of its tokens alone, to the bit. So it does not matter with
whom a row shares a pass, in how many parts its tokens are read, or what was kept of them from before. For that
every row begins at column 0, no matmul has so few rows that another kernel takes it, and no sum over columns
is longer than a matmul does in one part (a longer one is added up part by part, and what follows a row's end
adds zeros). Whether that is so on a machine is measured (`rows_are_alike`).

Shapes: as in `decoder`; R rows of memory, of which B take part in a pass.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vertigym.policies.decoder import Decoder

_FEWEST = 8  # rows of a matmul a thread: up to 3, another kernel may take it, which adds up in another order
_QUERIES = 4  # the same, where a thread has a matmul for itself
_PART = 64  # columns of one sum, always as many: a matmul of 192 adds up otherwise than one of 256
_CHUNK = 128  # tokens of a row read at once: bounds attention scores
_TOKENS = 2048  # of all rows read at once
_MASKED = -1e9


class RowMemory:
    """Keys and values of R rows, and the tokens that they are of.

    Args:
        rows: how many; rounded up to a multiple of `width`.
    """

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self._decoder, self._device = decoder, decoder.embed_VH.device
        self.width = _FEWEST * torch.get_num_threads()
        self.rows = _up(rows, self.width)
        self.tokens = np.zeros((self.rows, 0), dtype=np.int64)
        self.lengths = np.zeros(self.rows, dtype=np.int64)
        cache = decoder.new_cache(self.rows, 0)
        self._keys, self._values = cache.keys, cache.values

    def known(self, ids: np.ndarray) -> np.ndarray:
        """How many of its first tokens each row shares with `ids`, [R]."""
        columns = min(len(ids), self.tokens.shape[1])
        differ = self.tokens[:, :columns] != ids[:columns]
        first = np.where(differ.any(1), differ.argmax(1), columns) if columns else np.zeros(self.rows, np.int64)
        return np.minimum(first, self.lengths)

    def copy(self, source: int, row: int, length: int) -> None:
        """Let a row begin with the first tokens of another."""
        if source != row:
            for held in (*self._keys, *self._values):
                held[row, :, :length] = held[source, :, :length]
            self.tokens[row, :length] = self.tokens[source, :length]
        self.lengths[row] = length

    def swap(self, one: int, other: int) -> None:
        """Let two rows change places."""
        length = int(max(self.lengths[one], self.lengths[other]))
        for held in (*self._keys, *self._values):
            held[[one, other], :, :length] = held[[other, one], :, :length]
        for known in (self.tokens, self.lengths):
            known[[one, other]] = known[[other, one]]

    def read(self, rows: Sequence[int], ids: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to some rows, one or more to each; the logits `[len(rows), V]` after the last."""
        found: dict[int, Tensor] = {}
        places, done = list(range(len(rows))), [0] * len(rows)
        while places:
            places.sort(key=lambda i: len(ids[i]) - done[i])
            size = min(_up(len(ids[places[0]]) - done[places[0]], _FEWEST), _CHUNK)
            batch = places[: max(1, _TOKENS // size)]
            chunks = [ids[i][done[i] : done[i] + _CHUNK] for i in batch]
            logits = self._append([rows[i] for i in batch], chunks)
            for i, chunk, row_V in zip(batch, chunks, logits, strict=True):
                done[i] += len(chunk)
                found[i] = row_V
            places = [i for i in places if done[i] < len(ids[i])]
        return torch.stack([found[i] for i in range(len(rows))])

    def step(self, tokens: np.ndarray, live: np.ndarray) -> Tensor:
        """Append a token to the live ones among the first B rows, `[B]` both; logits `[B, V]`."""
        B = len(tokens)
        starts = self.lengths[:B]
        end = int(starts[live].max()) + 1
        self._make_room(int(starts.max()) + 1)
        hidden_BH = self._forward(np.arange(B), tokens[:, None], starts, end, None)
        self.tokens[np.arange(B), starts] = tokens
        self.lengths[:B] += live
        return self._decoder.logits(hidden_BH)

    def clear(self) -> None:
        """Forget all tokens: the weights have changed."""
        self.lengths[:] = 0

    def _append(self, rows: Sequence[int], chunks: Sequence[Sequence[int]]) -> Tensor:
        """One pass over a chunk of each row; logits `[B, V]`."""
        sizes = np.array([len(chunk) for chunk in chunks])
        S = _up(max(int(sizes.max()), -(-self.width // len(rows))), _FEWEST)
        ids = np.zeros((len(rows), S), dtype=np.int64)
        for place, chunk in enumerate(chunks):
            ids[place, : len(chunk)] = chunk
        starts = self.lengths[rows]
        self._make_room(int(starts.max()) + S)
        hidden_BH = self._forward(np.array(rows), ids, starts, int((starts + sizes).max()), sizes - 1)
        for place, (row, chunk) in enumerate(zip(rows, chunks, strict=True)):
            self.tokens[row, starts[place] : starts[place] + len(chunk)] = chunk
            self.lengths[row] += len(chunk)
        padded = F.pad(hidden_BH, (0, 0, 0, _up(len(rows), self.width) - len(rows)))
        return self._decoder.logits(padded)[: len(rows)]

    def _forward(
        self, rows: np.ndarray, ids: np.ndarray, starts: np.ndarray, end: int, last: np.ndarray | None
    ) -> Tensor:
        B, S = ids.shape
        to = self._device
        columns_BS = torch.from_numpy(starts[:, None] + np.arange(S)).to(to)
        seen_BST = torch.arange(_up(end, _PART), device=to) <= columns_BS[:, :, None]
        bias_BST = torch.where(seen_BST, 0.0, _MASKED).to(self._decoder.dtype)
        held = slice(0, B) if S == 1 else torch.from_numpy(rows).to(to)
        place = _RowsOfPass(self._keys, self._values, torch.from_numpy(rows).to(to), columns_BS, held)
        last_B = None if last is None else torch.from_numpy(last).to(to)
        return self._decoder.forward(torch.from_numpy(ids).to(to), columns_BS, bias_BST, place, last_B)

    def _make_room(self, columns: int) -> None:
        if (columns := _up(columns, _PART)) <= (now := self.tokens.shape[1]):
            return
        self.tokens = np.pad(self.tokens, ((0, 0), (0, columns - now)))
        for all_layers in (self._keys, self._values):  # zeros, as what is masked is multiplied by 0
            all_layers[:] = [F.pad(held, (0, 0, 0, columns - held.shape[2])) for held in all_layers]


@dataclass(slots=True)
class _RowsOfPass:
    """The memory as one pass sees it; `held` picks its rows."""

    keys: list[Tensor]
    values: list[Tensor]
    rows_B: Tensor
    columns_BS: Tensor
    held: Tensor | slice

    def attend(self, layer: int, q_BNSD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, bias_BST: Tensor) -> Tensor:
        keys, values, T = self.keys[layer], self.values[layer], bias_BST.shape[2]
        keys[self.rows_B[:, None], :, self.columns_BS] = k_BKSD.transpose(1, 2)
        values[self.rows_B[:, None], :, self.columns_BS] = v_BKSD.transpose(1, 2)
        return _attend(q_BNSD, keys[self.held, :, :T], values[self.held, :, :T], bias_BST)


def _attend(q_BNSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, bias_BST: Tensor) -> Tensor:
    """Attention output `[B, S, N * D]`, of a query the same whatever others there are."""
    B, N, S, D = q_BNSD.shape
    K, T = k_BKTD.shape[1:3]
    G, M = N // K, N // K * S  # M: rows of a matmul
    q_BKMD = F.pad(q_BNSD.reshape(B, K, M, D) * D**-0.5, (0, 0, 0, max(_QUERIES - M, 0)))
    scores_BKMT = torch.matmul(q_BKMD, k_BKTD.transpose(2, 3))
    if S == 1:
        scores_BKMT = scores_BKMT + bias_BST[:, None]
    else:
        scores_BKMT = (scores_BKMT.view(B, K, G, S, T) + bias_BST[:, None, None]).view(B, K, M, T)
    weights_BKMT = torch.softmax(scores_BKMT, -1, dtype=torch.float32).to(v_BKTD.dtype)
    mixed_BKMD = torch.matmul(weights_BKMT[..., :_PART], v_BKTD[:, :, :_PART])
    for start in range(_PART, T, _PART):
        part = slice(start, start + _PART)
        mixed_BKMD = mixed_BKMD + torch.matmul(weights_BKMT[..., part], v_BKTD[:, :, part])
    return mixed_BKMD[:, :, :M].reshape(B, N, S, D).transpose(1, 2).reshape(B, S, N * D)


def rows_are_alike(decoder: Decoder) -> bool:
    """Whether a row's logits depend on its tokens alone on this machine, to the bit: some rows are read alone
    and whole, then in parts and steps in company, through the first layer and the head (other layers have the
    same shapes)."""
    shallow = copy.copy(decoder)
    shallow.layers = decoder.layers[:1]
    V, four = decoder.embed_VH.shape[0], range(4)
    texts = [
        [(7 * i * i + 31 * size) % V for i in range(size)] for size in (22, 102, _PART + 2, 2 * _PART + 67)
    ]
    alone = torch.stack([RowMemory(shallow, 1).read([0], [text])[0] for text in texts])
    for rows in (1, 40, 200):
        memory = RowMemory(shallow, rows)
        company = range(4, min(memory.rows, 24))
        whole = [*texts, *(texts[row % 4][1:] for row in company)]
        memory.read([*four, *company], [text[: len(text) // 2] for text in whole])
        memory.read(four, [text[len(text) // 2 : -2] for text in texts])
        for last in (-2, -1):
            tokens = np.array([text[last] for text in texts] + [0] * (memory.rows - 4))
            stepped = memory.step(tokens, np.arange(memory.rows) < 4)[:4]
        if not torch.equal(stepped, alone):
            return False
    return True


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
