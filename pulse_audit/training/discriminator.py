"""The discriminator of StyleGAN 2 (residual), with which the shipped generators were trained.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv:1912.04958),
section 4.1 and figure 7c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import FullyConnected
from pulse_audit.generators.stylegan2_layers import setup_filter, upfirdn2d

#: Images that share a minibatch standard deviation.
GROUP = 4


class EqualizedConv(nn.Module):
    """Convolution with equalised learning rate, after a low-pass filter where it halves the size.

    Parameters
    ----------
    n_in, n_out, size : int
        Features and side of the kernel, which is 1 or 3.
    bias : bool
        Whether a bias and a leaky ReLU of gain sqrt(2) follow.
    """

    def __init__(self, n_in: int, n_out: int, size: int, bias: bool = True):
        super().__init__()
        shape = (n_out, n_in, size, size)
        self.weight = nn.Parameter(torch.empty(shape, memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.empty(n_out)) if bias else None
        self.size, self.weight_gain = size, 1 / math.sqrt(n_in * size * size)

    def forward(self, x: Tensor, gain: float = 1.0, stride: int = 1) -> Tensor:
        """Map (n, n_in, h, h) to (n, n_out, h / stride, h / stride); ``gain`` is on the result."""
        # A positive gain commutes with the leaky ReLU, so the small tensors carry it.
        gain = gain if self.bias is None else gain * math.sqrt(2)
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        if self.bias is None:
            return F.conv2d(x, weight, stride=stride)
        padding = 0 if stride == 2 else self.size // 2
        x = F.conv2d(x, weight, (self.bias * gain).to(x.dtype), stride=stride, padding=padding)
        return F.leaky_relu(x, 0.2, inplace=True)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a shortcut, halving the size: (n, c, h, h) to (n, c', h / 2, h / 2)."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv0 = EqualizedConv(n_in, n_in, 3)
        self.conv1 = EqualizedConv(n_in, n_out, 3)
        self.skip = EqualizedConv(n_in, n_out, 1, bias=False)

    def forward(self, x: Tensor, taps: Tensor) -> Tensor:
        """Both paths are scaled by sqrt(1/2), which keeps their variance."""
        # The low-pass filter before the second convolution lets it skip every second pixel.
        shortcut = self.skip(halved(x, taps), math.sqrt(0.5))
        x = upfirdn2d(self.conv0(x), taps, padding=(2, 2, 2, 2))
        out: Tensor = self.conv1(x, math.sqrt(0.5), stride=2) + shortcut
        return out


class Discriminator(nn.Module):
    """From images to one logit each; positive says real.

    Parameters
    ----------
    channels : sequence of int
        Feature maps at 4, 8, 16, ... px, as for the generator.
    seed : int
        Of the initial weights: standard normal, biases zero.
    grows : bool
        Whether it can be trained at half its resolution first (Karras et al. 2018,
        arXiv:1710.10196, section 2). ``fade`` is then the share of the first block: 0 takes images
        of half the size and leaves the block out; between 0 and 1 the block's features are blended
        with those of the averaged image; 1 is the whole network alone.
    """

    taps: Tensor
    fade: float = 1.0

    def __init__(self, channels: Sequence[int], seed: int, grows: bool = False):
        super().__init__()
        self.dtype = torch.float32
        self.colours = EqualizedConv(3, channels[-1], 1)
        pairs = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.blocks = nn.ModuleList(DiscriminatorBlock(*pair) for pair in pairs)
        self.conv = EqualizedConv(channels[0] + 1, channels[0], 3)
        self.hidden = FullyConnected(channels[0] * 16, channels[0])
        self.out = FullyConnected(channels[0], 1)
        # Registered last, so that the other weights are those of a network that does not grow.
        if grows:
            self.half_colours = EqualizedConv(3, channels[-2], 1)
        self.register_buffer("taps", setup_filter())
        # Equalised learning rate: weights are standard normal, and scaled where they are used.
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.normal_(generator=source)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, R, R) in [-1, 1], half as large where ``fade`` is 0, to logits (n,).

        Logits are float32. Groups of four neighbours share a statistic, so n has to be a multiple
        of four.
        """
        # From colours to features, halving the size down to 4 px: (n, channels[0], 4, 4).
        x = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if self.fade == 0:
            x = self.half_colours(x)
        else:
            features = self.blocks[0](self.colours(x), self.taps)
            if self.fade < 1:
                features = torch.lerp(self.half_colours(averaged(x)), features, self.fade)
            x = features
        for block in self.blocks[1:]:
            x = block(x, self.taps)
        # From features to one logit, in float32.
        x = self.conv(with_group_deviation(x)).float()
        x = F.leaky_relu(self.hidden(x.flatten(1)), 0.2) * math.sqrt(2)
        logits: Tensor = self.out(x)[:, 0]
        return logits


def averaged(images: Tensor) -> Tensor:
    """Shrink (n, 3, R, R) to half the size by the means of 2 x 2 pixels."""
    return F.avg_pool2d(images, 2)


def halved(x: Tensor, taps: Tensor) -> Tensor:
    """Low-pass filter (n, c, h, h) and keep every second pixel: (n, c, h / 2, h / 2)."""
    # Filtering with stride 2 would be the same, but its gradient is ten times slower on CPUs.
    return upfirdn2d(x, taps, padding=(1, 1, 1, 1))[:, :, ::2, ::2]


def with_group_deviation(x: Tensor) -> Tensor:
    """Append one feature map: how much each group of four neighbours differs.

    Minibatch standard deviation (Karras et al. 2018, arXiv:1710.10196, section 3), over groups of
    neighbours so that real and generated images may share a batch.
    """
    n, _, height, width = x.shape
    # The deviation of each feature and place over the group, averaged: one number for a group.
    groups = x.float().reshape(n // GROUP, GROUP, -1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    deviation = (centred.square().mean(dim=1) + 1e-8).sqrt().mean(dim=1)
    plane = deviation.repeat_interleave(GROUP).to(x.dtype)[:, None, None, None]
    return torch.cat([x, plane.expand(n, 1, height, width)], dim=1)
