"""One search step of StyleGAN 2: layouts and precisions, against one modulated weight an image."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config, StyleGAN2Layer, upfirdn2d

#: The 256 px network of the ADA repository's ``paper256``.
CHANNELS = (512, 512, 512, 512, 256, 128, 64)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = 16 if DEVICE == "cuda" else 2


class GroupedLayer(StyleGAN2Layer):
    """The layer as usually written: modulated weights (n, out, in, 3, 3), a grouped convolution."""

    def forward(
        self, x: Tensor, w: Tensor, taps: Tensor, noise: Tensor | None, gain: float = 1.0
    ) -> Tensor:
        weight = self.weight * self.affine(w)[:, None, :, None, None]
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = self._grouped(x, weight, taps)
        if noise is not None:
            x = x + noise * self.noise_strength
        return F.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2) * gain

    def _grouped(self, x: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
        n, out, into = weight.shape[:3]
        x = x.reshape(1, n * into, *x.shape[2:])
        if self.up:
            weight = weight.transpose(1, 2).reshape(n * into, out, 3, 3)
            x = F.conv_transpose2d(x, weight, stride=2, groups=n)
            x = x.reshape(n, out, *x.shape[2:])
            return upfirdn2d(x, taps, padding=(1, 1, 1, 1), gain=4.0)
        x = F.conv2d(x, weight.reshape(n * out, into, 3, 3), padding=1, groups=n)
        return x.reshape(n, out, *x.shape[2:])


def network(dtype: torch.dtype = torch.float32) -> StyleGAN2:
    config = StyleGAN2Config(CHANNELS, hidden=(512,))
    made = StyleGAN2.fresh(config, seed=0).requires_grad_(False)
    return made.to(device=DEVICE, dtype=dtype)


def planar(made: StyleGAN2) -> StyleGAN2:
    """Feature maps and weights channel by channel (NCHW) instead of pixel by pixel."""
    for parameter in made.parameters():
        parameter.data = parameter.data.contiguous()
    first: nn.Module = made.syn.blocks["b4"].conv1
    first.register_forward_pre_hook(lambda module, given: (given[0].contiguous(), *given[1:]))
    return made


def grouped() -> StyleGAN2:
    made = planar(network())
    for layer in made.syn.layers:
        layer.__class__ = GroupedLayer
    return made


def step(made: StyleGAN2) -> Callable[[], Tensor]:
    """Render and differentiate with respect to styles and five noise maps, as a search does."""
    source = torch.Generator().manual_seed(0)
    w = torch.randn(BATCH, made.num_ws, made.w_dim, generator=source).to(DEVICE)
    noise = [torch.randn(BATCH, 1, *s, generator=source).to(DEVICE) for s in made.noise_shapes]
    leaves = [tensor.requires_grad_() for tensor in (w, *noise[:5])]

    def run() -> Tensor:
        loss = made.synthesis(w, noise).square().mean()
        gradient = torch.autograd.grad(loss, leaves)[0]
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return gradient

    return run


def variants() -> dict[str, Callable[[], object]]:
    ours, rival = step(network()), step(grouped())
    torch.testing.assert_close(ours(), rival(), atol=2e-5, rtol=1e-2)
    what = f"256 px, batch {BATCH}, forward and backward, {DEVICE}"
    return {
        f"float32, {what}": ours,
        "float32, NCHW": step(planar(network())),
        "bfloat16": step(network(torch.bfloat16)),
        "float32, grouped convolution of modulated weights": rival,
    }
