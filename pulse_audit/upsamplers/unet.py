"""Diffusion models from folders in the layout of `diffusers`: read, checked, and never executed.

A folder holds ``unet/config.json`` with ``unet/diffusion_pytorch_model.safetensors`` and
``scheduler/scheduler_config.json``, or all of them at its top, as older ones do. The network is an
unconditional ``UNet2DModel`` on pixels, built from the package `diffusers`; what its settings may
be is closed. ``MODEL.yaml`` beside the folder, if it is there, says what the layout cannot::

    crop: ffhq                  # of the faces that it was trained on
    training_data: CelebA-HQ
    licence: Apache-2.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pulse_audit.documents import MAX_DOCUMENT, checked, read_json, read_yaml
from pulse_audit.files import file_sha256
from pulse_audit.seeding import hexdigest
from pulse_audit.types import Crop, GeneratorCard, InputError
from pulse_audit.upsamplers.diffusion import DiffusionModel, Prediction, Schedule

WEIGHTS = "diffusion_pytorch_model.safetensors"
#: Most parameters of a network.
MAX_PARAMETERS = 2**31
#: Attention layers as `diffusers` called their parts before its version 0.15, and as it does now.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
FLOATS = ("F16", "BF16", "F32")

Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=80)]
Count = Annotated[int, Field(ge=1, le=4096)]
Blocks = Annotated[tuple[Count, ...], Field(min_length=1, max_length=12)]


class ModelNotes(BaseModel):
    """Content of the file beside a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: Crop = "as-is"
    training_data: Word | None = None
    licence: Word | None = None


class UNetConfig(BaseModel):
    """Settings of a ``UNet2DModel`` that is read here, with the defaults of `diffusers`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_size: Annotated[int, Field(ge=8, le=4096)]
    in_channels: Literal[3] = 3
    out_channels: Literal[3, 6] = 3
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: Count | None = None
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    flip_sin_to_cos: bool = True
    down_block_types: Annotated[
        tuple[Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"], ...],
        Field(max_length=12),
    ] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    up_block_types: Annotated[
        tuple[Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"], ...],
        Field(max_length=12),
    ] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: Blocks = (224, 448, 672, 896)
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 2
    mid_block_scale_factor: Annotated[FiniteFloat, Field(gt=0, le=100)] = 1.0
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    attention_head_dim: Count | None = 8
    norm_num_groups: Count = 32
    attn_norm_num_groups: Count | None = None
    norm_eps: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    # Of conditional networks.
    class_embed_type: None = None
    num_class_embeds: None = None
    num_train_timesteps: Count | None = None

    @model_validator(mode="after")
    def _of_one_depth(self) -> UNetConfig:
        depth = len(self.block_out_channels)
        if not len(self.down_block_types) == len(self.up_block_types) == depth:
            raise ValueError("down_block_types, up_block_types and block_out_channels differ")
        if any(channels % self.norm_num_groups for channels in self.block_out_channels):
            raise ValueError("norm_num_groups does not divide every one of block_out_channels")
        if self.sample_size % 2 ** (depth - 1):
            raise ValueError(f"sample_size cannot be halved {depth - 1} times")
        return self


class SchedulerConfig(BaseModel):
    """Settings of a DDPM or DDIM scheduler: what a network was trained on.

    Those of the schedulers' own ways of sampling are read and not used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_train_timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    beta_start: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: (
        Annotated[
            tuple[Annotated[FiniteFloat, Field(gt=0, lt=1)], ...],
            Field(min_length=2, max_length=100_000),
        ]
        | None
    ) = None
    variance_type: Literal[
        "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned_range"
    ] = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: Annotated[FiniteFloat, Field(gt=0, le=100)] = 1.0
    prediction_type: Prediction = "epsilon"
    # Each would change x0 or the levels.
    thresholding: Literal[False] = False
    rescale_betas_zero_snr: Literal[False] = False
    dynamic_thresholding_ratio: FiniteFloat = 0.995
    sample_max_value: FiniteFloat = 1.0
    # Of the schedulers' own choice of levels.
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    skip_prk_steps: bool = True
    tensor_format: Word = "pt"
    timestep_values: None = None

    def schedule(self) -> Schedule:
        """Return the noise levels that these settings describe."""
        return Schedule(
            signal_left(self), self.prediction_type,
            "learned_range" if self.variance_type == "learned_range"
            else "fixed_large" if self.variance_type.startswith("fixed_large") else "fixed_small",
            self.clip_sample_range if self.clip_sample else None,
        )  # fmt: skip


def signal_left(config: SchedulerConfig) -> Tensor:
    """Return the product of (1 - beta) up to each level, (T,), float64."""
    count, ends = config.num_train_timesteps, (config.beta_start, config.beta_end)
    if config.trained_betas is not None:
        betas = torch.tensor(config.trained_betas, dtype=torch.float64)
    elif config.beta_schedule == "linear":
        betas = torch.linspace(*ends, count, dtype=torch.float64)
    elif config.beta_schedule == "scaled_linear":
        low, high = (math.sqrt(end) for end in ends)
        betas = torch.linspace(low, high, count, dtype=torch.float64).square()
    else:
        # A squared cosine of the share of the way (Nichol and Dhariwal 2021, equation 17).
        way = torch.arange(count + 1, dtype=torch.float64) / count
        cosine = ((way + 0.008) / 1.008 * (math.pi / 2)).cos().square()
        betas = (1 - cosine[1:] / cosine[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0)


@dataclass(frozen=True)
class ModelFiles:
    """The files of a folder."""

    config: Path
    weights: Path
    scheduler: Path
    notes: Path

    @property
    def sha256(self) -> str:
        """SHA-256 over all of them."""
        files = (self.config, self.weights, self.scheduler, self.notes)
        return hexdigest(*(file_sha256(path) for path in files if path.is_file()))


def find_files(folder: Path) -> ModelFiles:
    """Find the files of a model; nothing is loaded.

    Raises
    ------
    InputError
        If there is no such folder, or one of its files is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    absolute = folder.absolute()
    files = ModelFiles(
        unet / "config.json",
        unet / WEIGHTS,
        scheduler / "scheduler_config.json",
        absolute.with_name(f"{absolute.name}.yaml"),
    )
    for path in (files.config, files.weights, files.scheduler):
        if not path.is_file():
            pickles = path == files.weights and list(unet.glob("*.bin"))
            hint = "; its .bin files are pickles, which are not read" if pickles else ""
            raise InputError(f"{path}: is missing, of a diffusers folder{hint}")
    return files


def read_model(folder: Path, device: torch.device, dtype: torch.dtype) -> DiffusionModel:
    """Read a diffusion model from a folder, whose name is the model's.

    Parameters
    ----------
    folder : Path
    device : torch.device
    dtype : torch.dtype
        Of the network's arithmetic.

    Raises
    ------
    InputError
        In one line: a file is missing, damaged or not of the network, a setting is unknown, or
        `diffusers` is not installed.
    """
    files = find_files(folder)
    _check_pipeline(folder / "model_index.json")
    config = checked(UNetConfig, _settings(files.config, ("UNet2DModel",)), files.config)
    schedulers = ("DDPMScheduler", "DDIMScheduler")
    scheduling = checked(SchedulerConfig, _settings(files.scheduler, schedulers), files.scheduler)
    notes = read_notes(files.notes)
    learned = scheduling.variance_type == "learned_range"
    if (config.out_channels == 6) != learned:
        raise InputError(
            f"{files.config}: out_channels is {config.out_channels}, and the scheduler's "
            f"variance_type {scheduling.variance_type!r}: 6 go with learned_range, 3 with others"
        )

    # Shapes before memory: the network has none until its weights are known to be its own.
    network = empty_network(config, files.config)
    expected = network.state_dict()
    parameters = sum(tensor.numel() for tensor in expected.values())
    if parameters > MAX_PARAMETERS:
        raise InputError(f"{files.config}: a network of {parameters:,} parameters")
    network.load_state_dict(read_weights(files.weights, expected), assign=True)
    # Of torch: the method of `diffusers` warns of parts that its other models keep in float32.
    network = nn.Module.to(network.requires_grad_(False).eval(), device, dtype)

    def answer(noisy: Tensor, level: Tensor) -> Tensor:
        found: Tensor = network(noisy.to(dtype), level, return_dict=False)[0]
        return found.to(noisy.dtype)

    side = config.sample_size
    card = GeneratorCard(
        folder.absolute().name, "diffusers UNet2DModel", side, notes.crop, 1, 3 * side**2,
        "gaussian", parameters, notes.training_data, notes.licence, files.sha256,
    )  # fmt: skip
    return DiffusionModel(answer, scheduling.schedule(), card)


def empty_network(config: UNetConfig, where: Path) -> nn.Module:
    """Build a network without memory for its weights; `InputError` without `diffusers`."""
    if find_spec("diffusers") is None:
        raise InputError(f"{where}: needs diffusers: install pulse-audit[diffusers]")
    from diffusers import UNet2DModel

    try:
        with torch.device("meta"):
            network: nn.Module = UNet2DModel(**config.model_dump())
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: diffusers cannot build it: {reason}") from None
    return network


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a network, float32, whose names and shapes are ``expected``.

    Raises
    ------
    InputError
        If the file is damaged, lacks one, has another, or has one of another shape or type.
    """
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118, no mapping
                # Attention layers of older files have other names.
                name = ".".join(RENAMED.get(part, part) for part in key.split("."))
                view = file.get_slice(key)
                shape, dtype = tuple(view.get_shape()), view.get_dtype()
                if name not in expected or name in state:
                    raise InputError(f"{path}: {key!r} is of no part of the network")
                if shape != tuple(expected[name].shape) or dtype not in FLOATS:
                    raise InputError(
                        f"{path}: {key!r} is {dtype} {shape}, where the network has floats "
                        f"{tuple(expected[name].shape)}"
                    )
                state[name] = file.get_tensor(key).float()
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged safetensors: {reason}") from None
    if missing := sorted(set(expected) - set(state)):
        raise InputError(f"{path}: lacks {missing[0]!r} and {len(missing) - 1} more of the network")
    return state


def read_notes(path: Path) -> ModelNotes:
    """Read the file beside a folder; without one, nothing is known. `InputError` as `checked`."""
    try:
        return checked(ModelNotes, read_yaml(path), path)
    except FileNotFoundError:
        return ModelNotes()


def _settings(path: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """Read the settings of one of some classes, without what is said of the file itself."""
    content = read_json(path, MAX_DOCUMENT)
    name = content.get("_class_name") if isinstance(content, dict) else None
    if name not in classes:
        known = " and ".join(classes)
        raise InputError(f"{path}: is of {str(name)[:60]!r}; {known} can be read")
    return {key: value for key, value in content.items() if not key.startswith("_")}


def _check_pipeline(path: Path) -> None:
    """Refuse pipelines that are no unconditional network on pixels."""
    if not path.is_file():
        return
    content = read_json(path, MAX_DOCUMENT)
    parts = {key for key in content if not key.startswith("_")} if isinstance(content, dict) else {}
    if extra := sorted(set(parts) - {"unet", "scheduler"}):
        raise InputError(
            f"{path}: has {', '.join(extra)[:100]}; only unconditional models of pixels can be read"
        )
