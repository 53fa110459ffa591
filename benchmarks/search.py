"""A PULSE step: what the search adds to the network's own forward and backward pass."""

from collections.abc import Callable

import torch

import pulse_audit as pa
from pulse_audit.degrade.resample import downscale
from pulse_audit.search.config import SearchConfig

SCALE, BATCH, STEPS = 4, 8, 20


def decoder(width: int = 64) -> torch.nn.Module:
    """A DCGAN-like decoder of 100 latents to 64 px."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = [torch.nn.Unflatten(1, (100, 1, 1))]
    channels = [100, 8 * width, 4 * width, 2 * width, width]
    for number, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
        step = (1, 0) if number == 0 else (2, 1)
        layers += [torch.nn.ConvTranspose2d(before, after, 4, *step), torch.nn.LeakyReLU(0.2)]
    return torch.nn.Sequential(
        *layers, torch.nn.ConvTranspose2d(width, 3, 4, 2, 1), torch.nn.Tanh()
    )


def variants() -> dict[str, Callable[[], object]]:
    generator = pa.as_generator(decoder(), name="decoder", latent_dim=100)
    target = generator.synthesize(torch.randn(BATCH, 1, 100), []).detach()
    lr = downscale(target, SCALE)
    config = SearchConfig(steps=STEPS)

    def network_alone() -> None:
        latents = torch.randn(BATCH, 1, 100, requires_grad=True)
        for _ in range(STEPS):
            generator.synthesize(latents, []).square().sum().backward()

    def searched(batch: int) -> Callable[[], object]:
        search = pa.Pulse(generator, scale=SCALE, search=config, batch_size=batch)
        return lambda: [search.upsample(image, seeds=[0]) for image in lr.split(batch)]

    return {
        f"the network alone, {STEPS} passes forward and backward, batch {BATCH}": network_alone,
        f"PULSE, {STEPS} steps, batch {BATCH}": searched(BATCH),
        f"PULSE, {STEPS} steps, one image at a time": searched(1),
    }
