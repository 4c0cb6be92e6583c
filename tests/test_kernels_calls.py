"""What a call refuses, how it is planned, and a vocabulary split over two ranks."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from vertigym.kernels import linear_logprob as module
from vertigym.kernels import plan
from vertigym.kernels.linear_logprob import Lora, Shard, linear_logprob
from vertigym.kernels.plan import CPU_COLUMNS, CUDA_COLUMNS, MIB, TilePlan, default_budget, make_plan

HIDDEN, WEIGHT, TARGET = torch.zeros(4, 3), torch.zeros(7, 3), torch.tensor([0, 6, -100, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_TH": torch.zeros(1, 4, 3)}, "hidden is torch.float32 (1, 4, 3); a floating-point matrix"),
        ({"weight_VH": torch.zeros(7, 3, dtype=torch.int64)}, "weight is torch.int64"),
        ({"weight_VH": torch.zeros(7, 4)}, "weight has shape (7, 4); (7, 3) goes"),
        ({"target_T": torch.zeros(5, dtype=torch.int64)}, "target has shape (5,); (4,) goes"),
        ({"target_T": torch.zeros(4, dtype=torch.int32)}, "target has dtype torch.int32; token ids are int64"),
        ({"target_T": torch.tensor([0, 7, 1, 2])}, "outside 0 … 6"),
        ({"target_T": torch.tensor([0, -1, 1, 2])}, "outside 0 … 6"),
        ({"target_T": torch.tensor([-101, 0, 1, 2])}, "outside 0 … 6"),
        ({"bias": torch.zeros(3)}, "bias has shape (3,); (7,) goes"),
        ({"lora": Lora(torch.zeros(2, 3), torch.zeros(3, 7))}, "lora.b has shape (3, 7); (7, 2) goes"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": torch.tensor([1.0, 1.0, 0.0, 1.0])}, "temperature must be above 0"),
        ({"temperature": torch.ones(3)}, "temperature has shape (3,)"),
        ({"softcap": 0.0}, "softcap is 0.0; it must be above 0"),
        ({"impl": "cuda"}, "impl is 'cuda'; known: auto, torch, triton, fused"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_misfits_are_refused_in_words(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        linear_logprob(**{"hidden_TH": HIDDEN, "weight_VH": WEIGHT, "target_T": TARGET, **change})
    assert message in str(error.value)


def test_triton_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_passes = pytest.importorskip("vertigym.kernels.triton_passes")
    monkeypatch.setattr(triton_passes, "INTERPRETED", False)
    with pytest.raises(ValueError, match="needs a GPU"):
        linear_logprob(HIDDEN, WEIGHT, TARGET, impl="triton")


def test_without_triton_everything_but_triton_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("triton", "vertigym.kernels.triton"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(module, "_triton_installed", lambda: False)
    logp, _ = linear_logprob(HIDDEN, WEIGHT, TARGET)
    torch.testing.assert_close(logp, torch.tensor([1.0, 1, 0, 1]) * -torch.tensor(7.0).log())
    with pytest.raises(ValueError, match=r"pip install 'vertigym\[triton\]'"):
        linear_logprob(HIDDEN, WEIGHT, TARGET, impl="triton")


def planned(rows: int, vocab: int, device: str = "cpu", **options: Any) -> TilePlan:
    usual = {"backward": True, "eager": False, "device": torch.device(device), "budget": 256 * MIB}
    return make_plan(rows, vocab, **{**usual, **options})


def test_a_small_vocabulary_is_one_tile_and_is_kept() -> None:
    tiles = planned(4096, 1000)
    assert (tiles.columns, tiles.kept, tiles.eager_rows) == (1000, 1, 0)


def test_kept_logits_stay_within_the_budget() -> None:
    tiles = planned(2048, 151_936)
    assert 0 < tiles.kept * tiles.columns * 2048 * 4 <= 256 * MIB
    assert planned(2048, 151_936, budget=0).kept == 0
    assert planned(2048, 151_936, backward=False).kept == 0
    assert planned(2048, 151_936, itemsize=8).kept == tiles.kept // 2


def test_the_default_budget_follows_the_weight() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert default_budget(1000, cpu) == 32 * MIB
    assert default_budget(300 * MIB, cpu) == 300 * MIB
    assert default_budget(300 * MIB, cuda) == 8192 * MIB


def test_gradients_are_taken_forward_only_where_that_saves_something() -> None:
    assert planned(4096, 1000, eager=True).eager_rows == 0  # everything fits: nothing would be computed twice
    eager = planned(2048, 151_936, eager=True)
    assert 0 < eager.eager_rows * 151_936 * 4 <= 256 * MIB
    assert planned(2048, 151_936, eager=True, budget=10 * MIB).eager_rows == 0  # groups too small


def test_a_gpu_gets_wide_tiles_and_whole_sums_over_rows() -> None:
    speed = planned(8192, 151_936, "cuda", budget=8192 * MIB)
    assert (speed.columns, speed.backward_rows, speed.kept) == (CUDA_COLUMNS, 8192, 18)
    memory = planned(8192, 151_936, "cuda", budget=0)
    assert (memory.kept, memory.eager_rows) == (0, 0)


def test_a_tile_may_be_wider_than_usual_but_not_a_sliver() -> None:
    assert planned(8, 2 * CPU_COLUMNS).columns == 2 * CPU_COLUMNS
    assert planned(8, 2 * CPU_COLUMNS + 1).columns == CPU_COLUMNS


SPLIT = 130  # uneven shards of 300 columns


def inputs() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {
        "hidden": (20, 8),
        "weight": (300, 8),
        "bias": (300,),
        "a": (3, 8),
        "b": (300, 3),
        "g": (20,),
        "h": (20,),
    }
    tensors = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    target = torch.randint(0, 300, (20,), generator=rng)
    target[3], target[4], target[5] = -100, SPLIT - 1, SPLIT
    return {**tensors, "target": target}


def results(columns: slice, shard: Shard | None, **options: Any) -> dict[str, Tensor]:
    """Outputs and gradients of a rank that holds `columns`."""
    t = inputs()
    for name in ("weight", "bias", "b"):
        t[name] = t[name][columns].clone()
    leaves = {name: t[name].requires_grad_() for name in ("hidden", "weight", "bias", "a", "b")}
    logp, entropy = linear_logprob(
        t["hidden"],
        t["weight"],
        t["target"],
        bias=t["bias"],
        lora=Lora(t["a"], t["b"], 0.5),
        temperature=0.8,
        softcap=4.0,
        shard=shard,
        **options,
    )
    assert entropy is not None
    ((logp * t["g"]).sum() + (entropy * t["h"]).sum()).backward()
    grads = {name: leaf.grad for name, leaf in leaves.items()}
    return {"logp": logp.detach(), "entropy": entropy.detach(), **grads}  # type: ignore[dict-item]


def foretell(logp: Tensor, entropy: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor]:
    t = inputs()
    return t["g"][tokens], t["h"][tokens]


MODES: dict[str, dict[str, Any]] = {
    "recompute": {"budget_bytes": 0},
    "kept": {},
    "eager": {"upstream": foretell, "budget_bytes": 4000},  # 7 rows of one shard, 5 of the other
}


def run_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    plan.LEAST_EAGER_ROWS = 2
    columns = slice(0, SPLIT) if rank == 0 else slice(SPLIT, 300)
    mine = {mode: results(columns, Shard(columns.start, 300), **options) for mode, options in MODES.items()}
    torch.save(mine, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_a_vocabulary_split_over_two_ranks_is_the_whole_one(tmp_path: Path) -> None:
    spawn(run_rank, (str(tmp_path),), nprocs=2)
    whole = results(slice(0, 300), None)
    low, high = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for mode in MODES:
        for name, same in whole.items():
            split_over_ranks = name in ("weight", "bias", "b")
            for rank, ours in enumerate((low[mode][name], high[mode][name])):
                part = same[:SPLIT] if rank == 0 else same[SPLIT:]
                expected = part if split_over_ranks else same
                torch.testing.assert_close(
                    ours, expected, atol=2e-6, rtol=2e-5, msg=f"{mode}, rank {rank}: {name}"
                )


@pytest.mark.parametrize("named", [{"rows": "all"}, {"grad_rows": "all"}, {"rows": "all", "grad_rows": "all"}])
def test_all_rows_by_name_are_all_rows(named: dict[str, str]) -> None:
    torch.manual_seed(0)
    found = []
    for more in ({}, named):
        hidden_TH = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        weight_VH = torch.randn(7, 4, generator=torch.Generator().manual_seed(2))
        logp_T, _ = linear_logprob(hidden_TH, weight_VH, torch.arange(5), **more)  # type: ignore[arg-type]
        logp_T.sum().backward()
        found.append((logp_T, hidden_TH.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_skipped_target_is_not_among_all_rows() -> None:
    with pytest.raises(ValueError, match='rows is "all", and a target is -100'):
        linear_logprob(torch.zeros(2, 4), torch.zeros(3, 4), torch.tensor([1, -100]), rows="all")
