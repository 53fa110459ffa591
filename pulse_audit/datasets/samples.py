"""The data set ``samples:GENERATOR``: faces drawn from a generator's own prior.

The generator can make every one of them, so what a search on it loses is the search's doing. They
are drawn before a run is planned (`pulse_audit.harness.samples`) into a folder of the cache, and
read from there as any other data set: ``<index>.png``, ``labels.csv`` with the attribute model's
predictions, and ``samples.json``, written last, which says how they were drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulse_audit.datasets.readers import FaceIndex, index, scan
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.documents import read_json
from pulse_audit.names import plain_dataset
from pulse_audit.types import InputError

RECORD, LABELS = "samples.json", "labels.csv"
#: Largest record that is read, in bytes.
MAX_RECORD = 2**26

Count = Annotated[int, Field(ge=0)]


class DrawnGroup(BaseModel):
    """One group of the balanced grouping: how many samples were of it, and how many were kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: list[str]
    drawn: Count
    kept: Count


class SampleRecord(BaseModel):
    """How samples were drawn.

    Attributes
    ----------
    generator, sha256 : str
        Name and SHA-256 of the weights; further parts of its card follow.
    distribution : str
        ``mapping`` or ``gaussian``, see `pulse_audit.generators.searchable.drawn_from`.
    truncation : float
        In (0, 1]; 1 is the whole prior.
    attributes : str
        The model whose likeliest words are the labels.
    columns : list of str
        Label columns over whose groups the samples were balanced.
    per_group, most : int
        Faces wanted in each group, and samples after which the drawing ends in any case.
    drawn : int
        Samples in all.
    seeds : dict of str to int
        File of every sample that was kept, and the seed it was drawn from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    generator: str
    sha256: str | None
    resolution: Annotated[int, Field(ge=1)]
    crop: str
    licence: str | None
    training_data: str | None
    distribution: str
    truncation: Annotated[float, Field(gt=0, le=1)]
    seed: int
    attributes: str
    attributes_sha256: str | None
    vocabulary: dict[str, list[str]]
    derived: dict[str, dict[str, Any]]
    columns: list[str]
    per_group: Annotated[int, Field(ge=1)]
    most: Count
    drawn: Count
    groups: list[DrawnGroup]
    seeds: dict[str, int]

    def entry(self) -> dict[str, Any]:
        """Return the entry of the manifest; the words are in the data set's."""
        return self.model_dump(mode="json", exclude={"vocabulary", "derived"})

    def notes(self) -> list[str]:
        """Say how the faces were drawn, how often each group came, and which groups are short."""
        truncation = (
            "untruncated"
            if self.truncation == 1
            else f"truncated to {self.truncation:g}, which narrows the groups"
        )
        origin = "its own prior"
        if self.distribution != "mapping":
            origin = "the search's Gaussian, one latent vector for all layers"
        rates = ", ".join(
            f"{' x '.join(of.group) or 'all'} {100 * of.drawn / max(self.drawn, 1):.1f} %"
            for of in self.groups
        )
        notes = [
            f"the faces are samples of {self.generator} from {origin}, {truncation}: of "
            f"{self.drawn:,} drawn, {len(self.seeds):,} were kept to balance the groups; share of "
            f"each in the samples, as {self.attributes} reads them (its acceptance rate): {rates}"
        ]
        short = [of for of in self.groups if of.kept < self.per_group]
        if short:
            counts = ", ".join(f"{' x '.join(of.group) or 'all'} {of.kept}" for of in short)
            notes.append(
                f"groups that are too rare in the samples have fewer than {self.per_group} faces "
                f"(drawing ends after {self.most:,} samples): {counts}"
            )
        return notes


def read_samples(folder: Path, name: str) -> FaceIndex | None:
    """Read samples that were drawn into a folder; None where they are not all there.

    Raises
    ------
    InputError
        If the folder holds something else.
    """
    path = folder / RECORD
    try:
        content = read_json(path, MAX_RECORD)
    except FileNotFoundError:
        return None
    try:
        record = SampleRecord.model_validate(content)
        card = _card(record, name)
    except ValidationError:
        raise InputError(f"{path}: is damaged; remove {folder} to draw the samples again") from None
    scanned = scan(card, folder, "all")
    fatal = next((problem for problem in scanned.problems if problem.fatal), None)
    if fatal is not None or {face.id for face in scanned.faces} != set(record.seeds):
        reason = fatal.line() if fatal else f"{LABELS} and {RECORD} name different faces"
        raise InputError(f"{folder}: {reason}; remove the folder to draw the samples again")
    return index(card, folder, "all", scanned, tuple(record.notes()), record)


def _card(record: SampleRecord, name: str) -> DatasetCard:
    """Return the card of drawn samples as of any data set."""
    content = {
        "name": plain_dataset(name),
        "title": f"Samples of {record.generator}",
        "layout": "folder",
        "vocabulary": record.vocabulary,
        "derived": record.derived,
        "labels_from": "model",
        "labels_note": (
            f"The labels are the most probable class of {record.attributes} on the samples, not "
            "people's."
        ),
        "group_by": record.columns,
        "crop": record.crop,
        "resolution": record.resolution,
        "licence": record.licence or "unknown, the generator's",
        "terms": (
            "Those of the generator. The faces are generated; none is a person's. They show what a "
            "search does to faces that the generator can make, not how it treats people in photos."
        ),
        "may_publish_images": True,
        "citation": f"Sampled by pulse-audit from {record.generator}, {record.sha256 or 'unknown'}",
        "obtain": "the same command draws them again",
    }
    return DatasetCard.model_validate(content)
