"""StyleGAN 2 and ADA: networks of the architectures skip, orig and resnet.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv:1912.04958) and
"Training Generative Adversarial Networks with Limited Data" (arXiv:2006.06676).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import partial
from typing import Self

import torch
from torch import Tensor

from pulse_audit.generators.mapping import MappingNetwork
from pulse_audit.generators.network import (
    MappedNetwork,
    Noise,
    mapping_widths,
    needed,
    noise_maps,
)
from pulse_audit.generators.stylegan2_layers import (
    StyleGAN2Config,
    SynthesisBlock,
    SynthesisBlocks,
    setup_filter,
    upsample2d,
)
from pulse_audit.types import InputError


class StyleGAN2(MappedNetwork):
    """StyleGAN 2: ``mapping`` takes z to w, ``synthesis`` takes w to images.

    A new instance holds uninitialised weights: use :meth:`from_state` or :meth:`fresh`.
    """

    family = "stylegan2"
    syn: SynthesisBlocks
    map: MappingNetwork

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.config = config
        self.z_dim, self.w_dim, self.c_dim = config.z_dim, config.w_dim, config.c_dim
        # Blocks b4, b8, b16, ... up to the resolution.
        indices = range(len(config.channels))
        blocks = {f"b{4 * 2**i}": SynthesisBlock(i, config) for i in indices}
        self.syn = SynthesisBlocks(blocks, torch.empty((config.filter_size,) * 2))
        self._describe()
        sizes = (config.z_dim, config.c_dim, config.w_dim, self.num_ws)
        self.map = MappingNetwork(
            *sizes, config.hidden, config.embed_dim, config.lr_multiplier, config.joint_norm
        )

    def _describe(self) -> None:
        """Set what follows from the blocks: resolution, number of styles, noise shapes."""
        self.resolution = 4 * 2 ** (len(self.syn) - 1)
        self.num_ws = len(self.syn.layers) + 1
        # Layers at 4, 8, 8, 16, 16, ... px, each with a noise map.
        sizes = [4 * 2 ** ((i + 1) // 2) for i in range(len(self.syn.layers))]
        self.noise_shapes = tuple((s, s) for s in sizes) if self.config.noise else ()

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        *,
        lr_multiplier: float = 0.01,
        conv_clamp: float | None = None,
        joint_norm: bool = False,
    ) -> Self:
        """Build the frozen network of a ``G_ema`` state dict in stylegan2-ada-pytorch's layout.

        Shapes are read from the tensors; the other arguments are what they do not tell, with the
        defaults of the ADA repository. InputError if tensors are missing, unknown or do not fit
        together.
        """
        # Every layer of the repository stores its own copy of the one resampling filter. That of
        # conv1 and of the first block is never used, and there it is the default.
        filters = {key: v for key, v in state.items() if key.endswith(".resample_filter")}
        used = [v for k, v in filters.items() if not re.search(r"\.(conv1|b4)\.resample", k)]
        taps = next(iter(used), setup_filter())
        if any(not torch.equal(v, taps) for v in used):
            raise InputError("checkpoint: the layers use different resampling filters")
        state = {key: v for key, v in state.items() if key not in filters}
        state["synthesis.resample_filter"] = taps
        config = infer_config(state, lr_multiplier, conv_clamp, joint_norm)
        return cls.filled(partial(cls, config), state)

    @classmethod
    def fresh(cls, config: StyleGAN2Config, seed: int) -> Self:
        """Return an untrained network as the paper initialises it; its weights are not frozen."""
        network, generator = cls(config), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            # Standard normal weights, zero biases, and styles that start at one.
            for name, tensor in network.weights().items():
                if name.endswith(("weight", "const", "noise_const")):
                    tensor.normal_(generator=generator)
                elif name.endswith(("bias", "noise_strength", "w_avg")):
                    tensor.fill_(1.0 if name.endswith("affine.bias") else 0.0)
                if re.fullmatch(r"mapping\.fc\d+\.weight", name):
                    tensor.div_(config.lr_multiplier)
            network.syn.resample_filter.copy_(setup_filter())
        return network

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to images (n, 3, R, R), about [-1, 1].

        ``noise`` is as for `noise_maps`, "const" being the maps stored with the weights. Images are
        float32 (float64 in that precision). InputError if styles or noise do not fit.
        """
        w = self.checked_styles(w)
        layers = self.syn.layers
        if self.noise_shapes:
            stored = [layer.noise_const for layer in layers]
            maps = iter(noise_maps(noise, self.noise_shapes, w, stored))
        else:
            maps = iter([None] * len(layers))
        # The learned constant (1, c, 4, 4) is the same for every image.
        x = self.syn.blocks["b4"].const.to(self.dtype).expand(len(w), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        image, start = w.new_zeros(()), 0
        for block in self.syn.blocks.values():
            x = block(x, w[:, start:], self.syn.resample_filter, maps)
            start += len(block.layers)
            # The image so far is doubled, and the colours of this block are added.
            if image.ndim:
                image = upsample2d(image, self.syn.resample_filter)
            if block.colours:
                image = image + block.torgb(x, w[:, start])
        return image.contiguous()

    def at_resolution(self, resolution: int) -> Self:
        """Return the network cut off at a resolution, sharing these weights.

        Its image is the sum of the colours up to there, as the skip architecture defines it at
        every size; it takes the first ``num_ws`` (its own, smaller number) of the styles and the
        first of the noise maps.

        Raises
        ------
        InputError
            If the network has no colours at that resolution.
        """
        blocks = self.syn.blocks
        if f"b{resolution}" not in blocks or not blocks[f"b{resolution}"].colours:
            raise InputError(
                f"at_resolution: this {self.config.architecture} network of {self.resolution} px "
                f"has no image of {resolution} px"
            )
        network = copy.copy(self)
        # The blocks up to there are shared, not copied.
        shared = {name: block for name, block in blocks.items() if int(name[1:]) <= resolution}
        network._modules = {
            **self._modules,
            "syn": SynthesisBlocks(shared, self.syn.resample_filter),
        }
        network._describe()
        # A mapping network of its own, because it gives fewer styles; the weights are shared.
        network.map = copy.copy(self.map)
        network.map.num_ws = network.num_ws
        return network


def infer_config(
    state: Mapping[str, Tensor],
    lr_multiplier: float,
    conv_clamp: float | None,
    joint_norm: bool,
) -> StyleGAN2Config:
    """Read the shape of the network from a state dict in stylegan2-ada-pytorch's layout."""
    blocks = {int(m[1]) for key in state if (m := re.match(r"synthesis\.b(\d+)\.", key))}
    sizes = sorted(blocks)
    if not sizes or len(sizes) > 12 or sizes != [4 * 2**i for i in range(len(sizes))]:
        raise InputError(f"checkpoint: StyleGAN 2 blocks of sizes {sizes}, expected 4, 8, 16, ...")
    # Only the resnet architecture has shortcuts, only skip has colours at every size.
    if f"synthesis.b{sizes[-1]}.skip.weight" in state:
        architecture = "resnet"
    else:
        architecture = "skip" if "synthesis.b4.torgb.weight" in state else "orig"
    # An unconditional network has no embedding: c_dim and embed_dim 0.
    embed = state.get("mapping.embed.weight", torch.empty(0, 0))
    widths = mapping_widths(state)
    return StyleGAN2Config(
        channels=tuple(needed(state, f"synthesis.b{s}.conv1.weight").shape[0] for s in sizes),
        z_dim=widths[0] - embed.shape[0],
        w_dim=widths[-1],
        c_dim=embed.shape[1],
        hidden=widths[1:-1],
        embed_dim=embed.shape[0],
        architecture=architecture,
        img_channels=needed(state, f"synthesis.b{sizes[-1]}.torgb.weight").shape[0],
        lr_multiplier=lr_multiplier,
        joint_norm=joint_norm,
        conv_clamp=conv_clamp,
        noise="synthesis.b4.conv1.noise_strength" in state,
        filter_size=needed(state, "synthesis.resample_filter").shape[-1],
    )
