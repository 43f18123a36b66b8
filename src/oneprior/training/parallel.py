"""One process or many: who we are, where we compute, and what must be the same everywhere.

accelerate tells the process its place (`accelerate launch`, torchrun, or nothing at all). Each process computes the
losses of a contiguous share of the global batch; `DistributedDataParallel` averages the gradients (Li et al. 2020,
arXiv:2006.15704), so that every process takes the same step as one process would with the whole batch. Where the launch
asks for FSDP, parameters, gradients, optimiser state and averages are cut over the processes (Rajbhandari et al. 2020,
arXiv:1910.02054; torch's `fully_shard`), and gathered to be written.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Team:
    """The processes that train together; alone, it costs nothing.

    Args:
        device: "cpu", "cuda", ...; None lets accelerate choose.

    Attributes:
        rank: our number, 0 to size - 1.
        size: number of processes.
        device: where this process computes.
        shards: whether parameters are cut over the processes (FSDP).
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        wanted = None if device is None else torch.device(device)
        state = PartialState(cpu=wanted is not None and wanted.type == "cpu") if _fits(wanted) else PartialState()
        self.rank, self.size = state.process_index, state.num_processes
        self.device = wanted if wanted is not None and self.size == 1 else torch.device(state.device or "cpu")
        self.shards = self.size > 1 and parse_flag_from_env("ACCELERATE_USE_FSDP")

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def spread(self, model: nn.Module, losses: nn.Module) -> nn.Module:
        """The losses module, made to average its gradients over the processes.

        Args:
            model: holds the parameters; it is on our device.
            losses: the module that is called, which holds the model.
        """
        if self.size == 1:
            return losses
        if self.shards:
            self._cut(model)
            return losses
        where = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            losses,
            device_ids=where,
            broadcast_buffers=False,
            find_unused_parameters=True,
        )

    def _cut(self, model: nn.Module) -> None:
        """FSDP, with the first process's weights; single numbers are not cut, and their gradients averaged here."""
        from torch.distributed.fsdp import fully_shard

        for tensor in (*model.parameters(), *model.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)
        single = {parameter for parameter in model.parameters() if parameter.dim() == 0}
        for parameter in single:
            parameter.register_post_accumulate_grad_hook(self._average_gradient)
        fully_shard(model, ignored_params=single)

    def _average_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad.div_(self.size)

    @contextmanager
    def alone(self, losses: nn.Module) -> Iterator[None]:
        """Backward passes inside keep their gradients to this process (all but the last part of a step)."""
        with losses.no_sync() if isinstance(losses, DistributedDataParallel) else nullcontext():
            yield

    @contextmanager
    def whole_model(self, model: nn.Module) -> Iterator[None]:
        """Inside, every parameter is whole, so that any method of the model can be called."""
        if not self.shards:
            yield
            return
        from torch.distributed.fsdp import FSDPModule

        assert isinstance(model, FSDPModule)
        model.unshard()
        try:
            yield
        finally:
            model.reshard()

    def agree(self, value: float) -> float:
        """The main process's value, on all."""
        if self.size == 1:
            return value
        message = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(message, src=0)
        return float(message.item())

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
            value = value / self.size
        return value

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be cut over processes; every process must ask."""
    return tensor.full_tensor() if is_cut(tensor) else tensor


def is_cut(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether the tensor is cut over processes; where nothing is, the second of importing DTensor is saved."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def cut_like(tensor: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, cut over processes the way the example is."""
    tensor = tensor.to(example.device)
    if is_cut(example):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, example.device_mesh, example.placements)
    return tensor


@contextmanager
def unbothered() -> Iterator[None]:
    """Without DDP's remark that every parameter was used after all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        yield


def _fits(wanted: torch.device | None) -> bool:
    """accelerate keeps one state a process; it cannot be asked for the CPU once it stands on another device."""
    from accelerate.state import PartialState

    known = PartialState._shared_state.get("device")
    return wanted is None or wanted.type != "cpu" or known is None or known.type == "cpu"
