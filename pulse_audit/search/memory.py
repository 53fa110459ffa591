"""How much memory a search takes, and how the process keeps what it has."""

from __future__ import annotations

import contextlib
import ctypes

import torch
from torch import Tensor

from pulse_audit.types import Generator

#: Memory for what the images of a batch save for their gradient; a constant, because batches
#: enter results by rounding. A process takes two to three times as much at its peak, and at least
#: what one image takes.
BUDGET = 2**30
#: Times that at the peak of a search, weights and workspaces of a GPU included.
PEAK = 3
#: Most draws of a single photo that are searched at once.
LARGEST_BATCH = 8

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep the memory that is freed, where it is glibc; return whether it is.

    By default it returns large blocks to the kernel and asks for them again at every step, which
    clears each page: at 1024 px most of the time of a search goes there.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Both return 1 where the setting is taken.
        return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
    return False


def saved_bytes(generator: Generator, device: torch.device) -> int:
    """Count the bytes that one image keeps from its rendering for its gradient.

    The image is rendered once; every storage counts once, weights that are needed included.
    """
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        # The graph holds the tensor, so that no other one takes its address.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    card = generator.card
    latents = torch.zeros(1, card.n_latents, card.latent_dim, device=device, requires_grad=True)
    noise = [torch.zeros(1, 1, *shape, device=device) for shape in generator.noise_shapes]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        image = generator.synthesize(latents, noise)
    return sum(storages.values()) + image.untyped_storage().nbytes()


def images_at_once(generator: Generator, device: torch.device) -> int | None:
    """Count the images that a CPU searches at once, at least 1; None on a GPU: a whole work unit.

    A constant of the generator, and not of the machine: batches enter results by rounding.
    """
    if device.type != "cpu":
        return None
    return max(1, BUDGET // saved_bytes(generator, device))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a GPU; None on a CPU, which is not asked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def images_within(generator: Generator, device: torch.device, free: int) -> int:
    """Count the images whose search so many free bytes hold, at least 1."""
    try:
        return max(1, free // (PEAK * saved_bytes(generator, device)))
    except torch.OutOfMemoryError:
        return 1
