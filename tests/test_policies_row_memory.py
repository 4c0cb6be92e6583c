"""Long rows: the same bits in however many parts they are read, and beside whatever else."""

from typing import Any

import numpy as np
import pytest
import torch

from vertigym.policies.decoder import Decoder
from vertigym.policies.row_memory import RowMemory, rows_are_alike

from .programs import engine_of_few_words

SIZES: dict[str, dict[str, Any]] = {
    "heads of 16": {"hidden": 32, "layers": 2, "ffn": 48},
    "shared keys": {"hidden": 64, "layers": 2, "heads": 4, "ffn": 192},
}


@pytest.fixture(scope="module", params=SIZES)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    made = engine_of_few_words(tmp_path_factory.mktemp("m"), **SIZES[request.param])._decoder
    assert made
    if not rows_are_alike(made):
        pytest.skip("rows of this model are not alike on this machine")
    return made


def text(length: int, seed: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(3, 250, length).tolist()
    return ids


@torch.inference_mode()
@pytest.mark.parametrize("length", [190, 300, 600, 900])
def test_a_long_row_is_the_same_however_it_is_read(decoder: Decoder, length: int) -> None:
    """The lengths leave every remainder of the columns that a sum has: 192 of them were added up otherwise."""
    ids = text(length, 1)
    whole = RowMemory(decoder, 1).read([0], [ids])[0]
    for first in (1, 7, 64, 130, length // 2, length - 5):
        parts = RowMemory(decoder, 1)
        parts.read([0], [ids[:first]])
        assert torch.equal(parts.read([0], [ids[first:]])[0], whole), first
    for other in (50, length + 200):
        beside = RowMemory(decoder, 2)
        assert torch.equal(beside.read([0, 1], [ids, text(other, 2)])[0], whole), other
        stepped = RowMemory(decoder, 2)
        stepped.read([1], [text(other, 3)])
        stepped.read([0], [ids[:-1]])
        tokens, live = np.zeros(stepped.rows, np.int64), np.arange(stepped.rows) < 2
        tokens[:2] = ids[-1], 5
        assert torch.equal(stepped.step(tokens, live)[0], whole), other
