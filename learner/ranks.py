"""Several processes that train one model, as `torchrun` starts them; and the one process that does it alone.

The one idea: every rank runs the same program on the same data and comes to the same decisions. What costs time
is shared: each rank samples a part of a step's episodes and takes a part of its micro-batches, and the results
are put together before anything is decided. So a normaliser, a baseline or a draw of tasks is the same
however many ranks there are. The weights and the optimizer lie in shards over the ranks (FSDP2: Zhao et al.
2023); only the leader, rank 0, writes files, talks to people, evaluates and gates.

Tensors of the model travel over NCCL on GPUs, over gloo on CPUs; all else over gloo.
"""

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vertigym.core.errors import ConfigError, VertigymError
from vertigym.core.launched import launched, local_rank
from vertigym.learner.rank_failure import fail_together

T = TypeVar("T")

# How long a rank waits for one that is busy alone, the leader with an eval for example.
# A dead rank is noticed at once, by its closed connections.
COLLECTIVE_TIMEOUT = timedelta(hours=6)


class Ranks:
    """This process among those that train one model; alone by default. All ranks call a collective method, in
    the same order.

    Args:
        device: where the model is.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        self.rank, self.size = rank, size
        if size == 1:
            return
        self._mesh = dist.device_mesh.init_device_mesh(device, (size,))
        # Two groups: sampling may go on in a thread beside training, and their messages must not mix.
        self._training, self._sampling = (
            dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) for _ in range(2)
        )

    @property
    def leader(self) -> bool:
        """Whether this rank writes files and messages, and runs evals."""
        return self.rank == 0

    def part_of(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part: neighbours, and as many as any other's but for one."""
        start, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return items[start:end]

    def gather(self, mine: list[T]) -> list[T]:
        """The items of all ranks, in the order of ranks. Collective."""
        if self.size == 1:
            return mine
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, mine, group=self._sampling)
        return [item for part in parts for item in part]

    def on_leader(self, work: Callable[[], T]) -> T:
        """The result of `work`, which the leader alone does. Collective.

        Raises:
            VertigymError: the leader's `work` did.
        """
        if self.size == 1:
            return work()
        found: list[Any] = [None, None]
        if self.leader:
            try:
                found[0] = work()
            except VertigymError as error:
                found[1] = str(error)
                dist.broadcast_object_list(found, 0, group=self._training)
                raise
        dist.broadcast_object_list(found, 0, group=self._training)
        if found[1] is not None:
            raise VertigymError(found[1])
        result: T = found[0]
        return result

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """The sum over ranks of a tensor on the CPU. Collective."""
        if self.size > 1 and len(numbers):
            dist.all_reduce(numbers, group=self._training)
        return numbers

    def barrier(self) -> None:
        """Wait until every rank is here. Collective."""
        if self.size > 1:
            dist.barrier(group=self._training)

    def keep_on_leader(self, tensor: Tensor) -> Tensor:
        """A tensor that the leader will write: the leader moves it to the CPU, the others drop it."""
        if self.size == 1:
            return tensor
        return tensor.cpu() if self.leader else tensor.new_empty(0)

    # The model.

    def shard(self, model: Any) -> None:
        """Shard the parameters of a model (or of a head on its trunk) over the ranks. Gradients are then summed
        over the ranks, not averaged."""
        if self.size == 1:
            return
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        blocks = set(getattr(model.base_model, "_no_split_modules", None) or ())
        for module in [m for m in model.modules() if type(m).__name__ in blocks]:
            fully_shard(module, mesh=self._mesh)
        fully_shard(model, mesh=self._mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo has no other
        model.run_forward = types.MethodType(_call, model)
        register_fsdp_forward_method(model, "run_forward")

    def run_forward(self, model: Any, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`work(*args, **kwargs)`, which may use the model's trunk and its head's weight: both are whole for as
        long as that takes. Collective."""
        return work(*args, **kwargs) if self.size == 1 else model.run_forward(work, *args, **kwargs)

    def reshard(self, model: Any) -> None:
        """Drop parameters that a pass without a backward pass has left whole: they would not follow the
        optimizer."""
        if self.size > 1:
            model.reshard()


def _call(_: nn.Module, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return work(*args, **kwargs)


SINGLE_RANK = Ranks()
_current = SINGLE_RANK


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """The ranks that this process was started among, joined for as long as the context lasts; a single rank
    where it was started by itself. Nested, it gives what the outer context joined.

    Raises:
        ConfigError: there are fewer GPUs than ranks on this machine. RunError: as `fail_together`.
    """
    global _current
    size = launched()
    if size == 1 or _current.size > 1:
        yield _current
        return
    try:
        with fail_together():
            _current = _join(size)
            yield _current
        dist.destroy_process_group()
    finally:
        _current = SINGLE_RANK


def _join(size: int) -> Ranks:
    gpu, local = torch.cuda.is_available(), local_rank()
    if gpu:
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"torchrun started rank {local} (counted from 0) on a machine with {torch.cuda.device_count()} "
                "GPUs: --nproc-per-node can be at most their number"
            )
        torch.cuda.set_device(local)
    device = "cuda" if gpu else "cpu"
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    return Ranks(dist.get_rank(), size, device)
