"""What one training run is: the values of a configuration file, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import InputError

FOLDER = Path(__file__).parent / "configs"

Model = TypeVar("Model", bound=BaseModel)


class GanConfig(BaseModel):
    """One training run of a generator and its discriminator.

    Attributes
    ----------
    name : str
        Of the model that comes out.
    resolution : int
        Side of the images; follows from ``channels`` and is checked against them.
    composition : dict of str to int
        Training faces for each race.
    held_out_per_cell : int
        Faces set aside for each race and gender before anything is chosen.
    seed : int
        Of everything: the choice of faces, the initial weights, every draw.
    channels : list of int
        Feature maps at 4, 8, 16, ... px, in both networks.
    latent_dim : int
        Length of z and w.
    mapping_layers : int
        Layers of the mapping network, all ``latent_dim`` wide.
    batch : int
        Images a step; a multiple of four.
    budget_kimg : float
        Thousands of real images after which training is complete.
    learning_rate : float
        Of Adam (beta1 0, beta2 0.99), in both networks.
    r1_gamma, r1_interval : float, int
        Weight of the gradient penalty, and every how many steps it is taken.
    ema_kimg, ema_rampup : float
        Half-life of the averaged weights in thousands of images, and its share of the images seen
        so far at most.
    style_mixing : float
        Share of the images whose later layers take another z.
    ada_target, ada_kimg, ada_ceiling : float
        See `pulse_audit.training.augment.AdaptiveStrength`.
    precision : {"bfloat16", "float32"}
        Of the activations; weights, losses and augmentations are float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    resolution: int
    composition: dict[str, int]
    held_out_per_cell: int = Field(gt=0)
    seed: int
    channels: tuple[int, ...] = Field(min_length=2)
    latent_dim: int = Field(gt=0)
    mapping_layers: int = Field(gt=0)
    batch: int = Field(gt=0, multiple_of=4)
    budget_kimg: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    r1_gamma: float = Field(ge=0)
    r1_interval: int = Field(gt=0)
    ema_kimg: float = Field(gt=0)
    ema_rampup: float = Field(gt=0)
    style_mixing: float = Field(ge=0, le=1)
    ada_target: float = Field(ge=0, le=1)
    ada_kimg: float = Field(gt=0)
    ada_ceiling: float = Field(ge=0, lt=1)
    precision: Literal["bfloat16", "float32"]

    def generator_config(self) -> StyleGAN2Config:
        """Shape of the generator."""
        return StyleGAN2Config(
            channels=self.channels,
            z_dim=self.latent_dim,
            w_dim=self.latent_dim,
            hidden=(self.latent_dim,) * (self.mapping_layers - 1),
        )


def read_config(name: str | Path) -> GanConfig:
    """Read a configuration: the name of a shipped one, or the path of a YAML file.

    Raises
    ------
    InputError
        If there is no such file or it is not valid.
    """
    config = read_model(GanConfig, name, FOLDER)
    if config.resolution != config.generator_config().resolution:
        raise InputError(f"{name}: {len(config.channels)} channels do not give {config.resolution}")
    return config


def read_model(model: type[Model], name: str | Path, folder: Path) -> Model:
    """Read a YAML file, by its path or by the name of one in a folder, as a model.

    Raises
    ------
    InputError
        If there is no such file or it is not valid.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"{path}: no such configuration; shipped ones are {known}")
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a valid configuration ({reason})") from error
