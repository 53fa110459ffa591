"""Published weights by name (``weights.yaml``), and which of them have been fetched.

Below the cache folder, ``weights/`` holds every fetched file under its own name and beside it
``<file>.seen.json`` with the SHA-256 of the first download, which later downloads must match.
``licences.json`` lists the licences accepted on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

from pulse_audit.documents import read_json, read_yaml
from pulse_audit.files import atomic_write, cache_folder, file_sha256
from pulse_audit.names import nearest
from pulse_audit.types import Crop, InputError

FILE = Path(__file__).with_name("weights.yaml")
LICENCES = "licences.json"

#: Types of the entries of weights.yaml.
Word = Annotated[str, StringConstraints(strict=True, min_length=1)]
Https = Annotated[str, StringConstraints(strict=True, pattern=r"^https://[^\s]+$")]
Sha256 = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Kind = Literal["generator", "metric backbone", "attribute model", "data file"]


class Licence(BaseModel):
    """Terms of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Word
    url: Https | None = None
    #: Whether it has to be accepted before the first download.
    accept: bool
    #: Whether the publisher states it for this very file.
    confirmed: bool
    note: Word

    @property
    def key(self) -> str:
        """Key of the licence in ``licences.json``."""
        return f"{self.name} {self.url}"


class Member(BaseModel):
    """One data file inside a package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Path inside the package's wheel, and where it is installed.
    path: str = Field(pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$")
    size: PositiveInt
    sha256: Sha256


class Package(BaseModel):
    """A registry package whose data files are the weights; its code is never run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.!+]*$")
    #: SHA-256 of its wheel.
    sha256: Sha256
    members: tuple[Member, ...] = Field(min_length=1)


class WeightCard(BaseModel):
    """What is known of one file of weights; an entry of ``weights.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: Word
    kind: Kind
    #: The network's architecture.
    family: Word | None = None
    #: Side in pixels and crop of the faces it makes or takes.
    resolution: PositiveInt | None = None
    crop: Crop | None = None
    #: A direct link; None where a browser is needed, and then ``obtain`` says why.
    url: Https | None = None
    #: A package in whose wheel the files lie; the file kept is a plain zip archive of them.
    package: Package | None = None
    #: The publisher's page.
    page: Https
    file_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    #: Bytes, None when unknown.
    size: PositiveInt | None = None
    #: In hex. ``confirmed``: a download with another one is refused. ``claimed`` by
    #: ``sha256_source``: a download is compared, and the outcome shown. ``unknown``: recorded at
    #: the first download.
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    sha256_status: Literal["confirmed", "claimed", "unknown"]
    sha256_source: Word | None = None
    #: Leading digits that the publisher wrote into the file's name; always checked.
    sha256_prefix: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,}$")
    licence: Licence
    trained_on: Word
    obtain: Word | None = None
    #: Name of PULSE's fit, for a synthesis network without its mapping network; fetched along.
    gaussian_fit: Word | None = None
    #: What cannot be done until it is fetched.
    without: Word = "this generator cannot be named"
    notes: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = self.sha256_status != "unknown"
        if (self.sha256 is not None) != known or (self.sha256_source is not None) != known:
            raise ValueError("sha256 and sha256_source belong to a confirmed or claimed status")
        if not (self.sha256 or "").startswith(self.sha256_prefix or ""):
            raise ValueError("sha256 does not begin with sha256_prefix")
        if sum(source is not None for source in (self.url, self.obtain, self.package)) != 1:
            raise ValueError("give a url, a package, or say in obtain how to get it by hand")
        if self.kind == "generator" and None in (self.family, self.resolution, self.crop):
            raise ValueError("a generator has family, resolution and crop")
        return self


@dataclass(frozen=True)
class FirstDownload:
    """Address, SHA-256, size and time of a file when it was first downloaded."""

    url: str
    sha256: str
    size: int
    mtime_ns: int
    date: str


@cache
def cards() -> Mapping[str, WeightCard]:
    """Return the cards by name, in the order of the file."""
    entries = read_yaml(FILE)
    return MappingProxyType({name: WeightCard(name=name, **entries[name]) for name in entries})


def get(name: str) -> WeightCard:
    """Return the card of ``name``; `InputError` with the nearest names if there is none."""
    if name not in cards():
        raise InputError(f"unknown weights {name!r}{nearest(name, list(cards()))}")
    return cards()[name]


def names_of(kind: Kind) -> list[str]:
    """Return the names of the published weights of one kind."""
    return [card.name for card in cards().values() if card.kind == kind]


def weights_folder() -> Path:
    """Return where fetched weights are kept."""
    return cache_folder() / "weights"


def path_of(card: WeightCard) -> Path:
    """Return where the file of a card is kept, once it is fetched."""
    return weights_folder() / card.file_name


def record_path(card: WeightCard) -> Path:
    """Return where the SHA-256 of the first download is recorded."""
    return weights_folder() / f"{card.file_name}.seen.json"


def first_download(card: WeightCard) -> FirstDownload | None:
    """Return the record of the first download; None if there is none, or it is unreadable."""
    try:
        return FirstDownload(**_read_json(record_path(card)))
    except TypeError:
        return None


def record(card: WeightCard, digest: str, url: str) -> None:
    """Record the SHA-256 of a card's file; the date of a first download is kept."""
    stat, earlier = path_of(card).stat(), first_download(card)
    date = earlier.date if earlier else datetime.now(UTC).date().isoformat()
    entry = FirstDownload(url, digest, stat.st_size, stat.st_mtime_ns, date)
    _write_json(record_path(card), asdict(entry))


def file_state(card: WeightCard) -> str:
    """Return whether a card's file is ``fetched``, ``missing``, ``changed`` or ``not checked``."""
    path, recorded = path_of(card), first_download(card)
    try:
        if not path.is_file():
            return "missing"
        if recorded is None:
            return "not checked"
        # A SHA-256 that was confirmed after the download overrules the recorded one.
        if card.sha256_status == "confirmed" and recorded.sha256 != card.sha256:
            return "changed"
        # The file is hashed again only where its size or time differs from the record.
        stat = path.stat()
        if (stat.st_size, stat.st_mtime_ns) == (recorded.size, recorded.mtime_ns):
            return "fetched"
        if stat.st_size != recorded.size or file_sha256(path) != recorded.sha256:
            return "changed"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    # The file was copied or touched: record its new time, so that it is not hashed every time.
    # A read-only cache stays as it is.
    with contextlib.suppress(OSError):
        _write_json(record_path(card), asdict(replace(recorded, mtime_ns=stat.st_mtime_ns)))
    return "fetched"


def fetched_file(card: WeightCard) -> Path | None:
    """Return a card's fetched file; None where it is missing or not what was fetched."""
    return path_of(card) if file_state(card) == "fetched" else None


def fetched(card: WeightCard) -> tuple[Path, str]:
    """Return a card's fetched file and its SHA-256, or raise `InputError` with what to do."""
    state, recorded = file_state(card), first_download(card)
    if state != "fetched" or recorded is None:
        problem = "not fetched" if state == "missing" else f"its file is {state}"
        raise InputError(f"{card.name} is known but {problem}: pulse-audit fetch {card.name}")
    return path_of(card), recorded.sha256


def hash_state(card: WeightCard) -> str:
    """Return how far the SHA-256 of a card's file can be trusted.

    ``confirmed``, ``claimed`` or ``unknown`` before the first download; after it ``confirmed``,
    ``as claimed``, ``NOT as claimed``, or ``recorded on`` its date.
    """
    recorded = first_download(card)
    if card.sha256_status == "confirmed" or recorded is None:
        return card.sha256_status
    if card.sha256 is None:
        return f"recorded on {recorded.date}"
    return "as claimed" if recorded.sha256 == card.sha256 else "NOT as claimed"


def is_accepted(licence: Licence) -> bool:
    """Whether a licence needs no acceptance, or has been accepted on this machine."""
    return not licence.accept or licence.key in _read_json(cache_folder() / LICENCES)


def record_acceptance(licence: Licence) -> None:
    """Record that a licence was accepted, and on which day."""
    path = cache_folder() / LICENCES
    today = datetime.now(UTC).date().isoformat()
    _write_json(path, {**_read_json(path), licence.key: today})


@contextlib.contextmanager
def locked_for_writing(card: WeightCard) -> Iterator[None]:
    """Lock a card's file; waits while another process fetches it."""
    with contextlib.ExitStack() as stack:
        try:
            weights_folder().mkdir(parents=True, exist_ok=True)
            # The lock file stays: removing it would let two processes lock different files.
            path = weights_folder() / f".{card.file_name}.lock"
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        except OSError as error:
            raise unwritable(error) from None
        yield


def unwritable(error: OSError) -> InputError:
    """Return the one-line error for a cache that cannot be written."""
    return InputError(
        f"{weights_folder()}: cannot be written ({error.strerror or error}); set PULSE_AUDIT_HOME "
        "to a folder with space that can"
    )


def _read_json(path: Path) -> dict[str, Any]:
    # A record that is missing or damaged counts as empty.
    try:
        content = read_json(path)
    except (OSError, InputError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())
