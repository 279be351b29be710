"""Train in several processes: each takes a share of every batch, gradients are summed.

Started by `torchrun --nproc-per-node N -m anomalens train ...`, which sets the variables read here. All losses are
means over images, so shares weighed by their number of images add up to the batch's own loss: N processes give the
result of one with the same batch, but for the order of summation.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, for as long as the block lasts; do nothing in a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    # Gloo adds up tensors of the CPU and of GPUs alike, and what is learned here is small.
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU where several processes share a machine's."""
    if device.type == "cuda" and count() > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def wait() -> None:
    """Wait until all processes have come to this call."""
    if dist.is_initialized():
        dist.barrier()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up every parameter's gradient over the processes; a process without one adds zero."""
    if not dist.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def sum_by_name(values: dict[str, float]) -> dict[str, float]:
    """Add up numbers by name over the processes; a process may lack some of the names, or all."""
    if not dist.is_initialized():
        return values
    shares: list[dict[str, float]] = [{} for _ in range(count())]
    dist.all_gather_object(shares, values)
    names = dict.fromkeys(name for share in shares for name in share)
    return {name: sum(share.get(name, 0.0) for share in shares) for name in names}
