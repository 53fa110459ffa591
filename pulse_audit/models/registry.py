"""The weights known by name: ``weights.yaml``, shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

from pulse_audit.names import nearest
from pulse_audit.types import Crop, InputError

FILE = Path(__file__).with_name("weights.yaml")

Word = Annotated[str, StringConstraints(strict=True, min_length=1)]
Https = Annotated[str, StringConstraints(strict=True, pattern=r"^https://[^\s]+$")]
Kind = Literal["generator", "metric backbone", "attribute model", "data file"]


class Strict(BaseModel):
    """Base of the models here: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Licence(Strict):
    """Terms of one file.

    ``accept`` says whether they have to be accepted before the first download; ``confirmed``
    whether the publisher was found to state them for this very file.
    """

    name: Word
    url: Https | None = None
    accept: bool
    confirmed: bool
    note: Word


class WeightCard(Strict):
    """What is known of one file of weights.

    Attributes
    ----------
    family : str or None
        The network's architecture.
    resolution, crop : int or None, str or None
        Side in pixels and crop of the faces it makes or takes.
    url : str or None
        A direct link; None where a browser is needed, and then ``obtain`` says why.
    page : str
        Where people find it.
    size : int or None
        Bytes, None when unknown.
    sha256 : str or None
        Digest in hex; what it is worth is ``sha256_status``: ``confirmed`` (a download with
        another one is refused), ``claimed`` by ``sha256_source`` (a download is compared, and the
        outcome shown), or ``unknown`` (recorded at the first download).
    sha256_prefix : str or None
        Leading digits that the publisher wrote into the file's name; always checked.
    gaussian_fit : str or None
        The entry of PULSE's fit for a synthesis network that comes without its mapping network;
        it is fetched along.
    without : str
        What a user misses where it is not fetched.
    """

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: Word
    kind: Kind
    family: Word | None = None
    resolution: PositiveInt | None = None
    crop: Crop | None = None
    url: Https | None = None
    page: Https
    file_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    size: PositiveInt | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    sha256_prefix: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,}$")
    sha256_status: Literal["confirmed", "claimed", "unknown"]
    sha256_source: Word | None = None
    licence: Licence
    trained_on: Word
    obtain: Word | None = None
    gaussian_fit: Word | None = None
    without: Word = "this generator cannot be named"
    notes: str = ""

    @model_validator(mode="after")
    def _hash_fits_status(self) -> Self:
        known = self.sha256_status != "unknown"
        if (self.sha256 is not None) != known or (self.sha256_source is not None) != known:
            raise ValueError("sha256 and sha256_source belong to a confirmed or claimed status")
        if not (self.sha256 or "").startswith(self.sha256_prefix or ""):
            raise ValueError("sha256 does not begin with sha256_prefix")
        return self

    @model_validator(mode="after")
    def _obtainable(self) -> Self:
        if (self.url is None) == (self.obtain is None):
            raise ValueError("give a url, or say in obtain how to come by the file by hand")
        return self

    @model_validator(mode="after")
    def _generators_have_a_size(self) -> Self:
        if self.kind == "generator" and None in (self.family, self.resolution, self.crop):
            raise ValueError("a generator has family, resolution and crop")
        return self


@cache
def cards() -> Mapping[str, WeightCard]:
    """Return the cards by name, in the order of the file."""
    # The C loader is ten times faster; both build plain values only.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load(FILE.read_text(encoding="utf-8"), Loader=loader)
    return MappingProxyType({name: WeightCard(name=name, **entries[name]) for name in entries})


def get(name: str) -> WeightCard:
    """Return the card of ``name``.

    Raises
    ------
    InputError
        If there is none; the message names the nearest.
    """
    if name not in cards():
        raise InputError(f"unknown weights {name!r}{nearest(name, list(cards()))}")
    return cards()[name]
