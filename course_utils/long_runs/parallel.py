"""One training on several GPUs, or CPU processes: ``torchrun --nproc-per-node 2 -m course_utils.training ...``.

Every process holds both networks and draws the same batches from the same random state, and works on its share of each.
DistributedDataParallel averages the gradients, so all processes take the same step. Power iteration sees nothing but W,
which is equal everywhere: the vectors u and v, equal at the start, stay equal without being sent.
"""

from __future__ import annotations

import os
import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from ..training import Run, Updates


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes (torch's own SyncBatchNorm needs a GPU, this one does not)."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, h, w) -> the same shape; running averages as in torch, with the unbiased variance."""
        if not self.training:
            return super().forward(x)
        x, count = x.to(self.running_mean.dtype), x.numel() // x.shape[1] * dist.get_world_size()
        mean = all_reduce(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        var = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight / (var + self.eps).sqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


class Processes:
    """The two updates as one of several processes makes them; with a single process, which is the rule, nothing changes.

    Each network is wrapped in DistributedDataParallel for the update that changes it. In the other network's update the
    plain ones are used, which wait for nobody.
    """

    def __init__(self, run: Run, updates: Updates) -> None:
        self.rank, self.count, self.inner = rank(), world_size(), updates
        self.generator, self.discriminator = run.generator, run.discriminator
        if self.count > 1:
            for network in (run.generator, run.discriminator):
                for module in network.modules():
                    if type(module) is nn.BatchNorm2d:
                        module.__class__ = SyncedBatchNorm  # the same parameters and buffers, another forward
            # u and v must not be overwritten between D(real) and D(fake): buffers are left alone, they agree anyway
            self.generator, self.discriminator = (
                DistributedDataParallel(network, broadcast_buffers=False)
                for network in (run.generator, run.discriminator)
            )

    @property
    def updates(self) -> Updates:
        """What `train(..., updates=...)` takes."""
        return (
            Updates(self.update_discriminator, self.update_generator, self.inner.name) if self.count > 1 else self.inner
        )

    def update_discriminator(self, config, generator, discriminator, optimizer, real, z, rng) -> list[Tensor]:
        """D's update on this process's share of the batch; returns the means over all processes."""
        real, z = self.share(real, z)
        found = self.inner.discriminator(config, generator, self.discriminator, optimizer, real, z, rng)
        return [self.mean(value) for value in found]

    def update_generator(self, config, generator, discriminator, optimizer, z) -> Tensor:
        """G's update on this process's share of the noise; returns the mean loss over all processes."""
        (z,) = self.share(z)
        return self.mean(self.inner.generator(config, self.generator, discriminator, optimizer, z))

    def share(self, *batches: Tensor) -> list[Tensor]:
        """This process's part of each batch: every image of exactly one process; the whole batch for a single one."""
        if uneven := [len(batch) for batch in batches if len(batch) % self.count]:
            raise ValueError(f"the batch of {uneven[0]} must be a multiple of the {self.count} processes")
        return [batch[self.rank :: self.count] for batch in batches]

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a value over all processes."""
        value = value.clone()
        dist.all_reduce(value)
        return value / self.count


def rank() -> int:
    """Number of this process, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in at least one of the processes, so that all of them stop together."""
    if world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes)
    return bool(votes)


def join(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns the device of this one, such as "cuda:1".

    Raises ValueError if there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and world_size() == 1:  # joining again changes nothing
        if device == "cuda" and int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise ValueError(f"each process needs a GPU of its own, and torch sees {torch.cuda.device_count()} here")
        # torch 2.14 would like both to be called by names that torch 2.11 does not know
        warnings.filterwarnings("ignore", ".*(broadcast_buffers|functional.all_reduce)", FutureWarning)
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def leave() -> None:
    """Part from the other processes, if there are any."""
    if world_size() > 1:
        dist.destroy_process_group()
