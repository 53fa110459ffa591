"""People's ratings of a run: the key of a rating kit, and the answers that came back.

A kit is given to raters; its key says what every item showed and stays in the run. What was read
back is kept in one file with the key, checked against the run whenever it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulse_audit.seeding import sha256
from pulse_audit.store.manifest import Manifest
from pulse_audit.types import InputError

#: Folder of kits and keys in a run, and the file of the answers.
FOLDER, NAME = "rating", "ratings.json"
#: Largest key, and largest file of answers, in bytes.
MAX_KEY, MAX_BYTES = 2**24, 2**27
#: Answers to "which is closer to the original?", and one that names no group.
SIDES, CANNOT_TELL = ("left", "right"), "cannot tell"

#: Arm, condition, scale, face, draw.
Draw: TypeAlias = tuple[str, str, int, str, int]

#: ``mos``: quality from 1 to 5; ``group``: the apparent group; ``choice``: one of two outputs.
Task: TypeAlias = Literal["mos", "group", "choice"]
#: In the order in which a rater meets them: the original is shown last.
TASKS: tuple[Task, ...] = ("mos", "group", "choice")


class RatingItem(BaseModel):
    """What an item of a kit shows: a face under a condition and scale, and one draw of some arms.

    ``arms``: one; two from left to right where the task is ``choice``; none where the original
    itself is rated, unknown to the rater.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern="^i[0-9a-f]{8}$")]
    task: Task
    face: str
    condition: str
    scale: int
    draw: int
    arms: list[str]


class RatingKey(BaseModel):
    """The key of a kit.

    ``run`` is the fingerprint of the run, ``attribute`` and ``words`` those of the task ``group``
    (None and empty without it).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kit: Annotated[str, Field(pattern="^k[0-9a-f]{8}$")]
    run: str
    seed: int
    raters: list[str]
    attribute: str | None
    words: list[str]
    items: list[RatingItem]

    def answers(self, task: Task) -> list[str]:
        """Answers that can be given in a task, in their order."""
        return {
            "mos": list("12345"),
            "choice": list(SIDES),
            "group": [*self.words, CANNOT_TELL],
        }[task]


class Answer(BaseModel):
    """One answer of one rater to one item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rater: str
    item: str
    answer: str


class Ratings(BaseModel):
    """Answers to a kit with its key; ``files`` maps each CSV to its SHA-256.

    ``sha256`` is that of key and answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: RatingKey
    files: dict[str, str]
    answers: list[Answer]
    sha256: str

    @classmethod
    def make(cls, key: RatingKey, files: Mapping[str, str], answers: Sequence[Answer]) -> Ratings:
        """Put the answers in the order of raters and items, and add the SHA-256."""
        rater = {name: place for place, name in enumerate(key.raters)}
        item = {each.id: place for place, each in enumerate(key.items)}
        ordered = sorted(answers, key=lambda a: (rater[a.rater], item[a.item]))
        return cls(key=key, files=dict(files), answers=ordered, sha256=_digest(key, ordered))

    def within(self, manifest: Manifest) -> Ratings:
        """Drop the items of which the run has no draw, and their answers."""
        planned = _planned(manifest)
        kept = [item for item in self.key.items if set(_draws(item)) <= planned]
        ids = {item.id for item in kept}
        key = self.key.model_copy(update={"items": kept})
        return Ratings.make(key, self.files, [a for a in self.answers if a.item in ids])


def check_key(content: Any, where: Path, manifest: Manifest) -> RatingKey:
    """Check a key: whole, and of draws that the run planned.

    Raises
    ------
    InputError
        If it is damaged, or does not belong to the run.
    """
    try:
        key = RatingKey.model_validate(content)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{where}: is damaged ({place}); write the kit again") from None
    planned = _planned(manifest)
    words = manifest.dataset.vocabulary.get(key.attribute or "", [])
    wanted = {"mos": (0, 1), "group": (1,), "choice": (2,)}
    whole = (
        key.run == manifest.fingerprint
        and len({item.id for item in key.items}) == len(key.items)
        and len(set(key.raters)) == len(key.raters)
        and key.words == words
        and all(
            len(item.arms) in wanted[item.task]
            and len(set(item.arms)) == len(item.arms)
            and set(_draws(item)) <= planned
            for item in key.items
        )
    )
    if not whole:
        raise InputError(f"{where}: is no key of this run; write the kit again")
    return key


def check_ratings(content: Any, where: Path, manifest: Manifest) -> Ratings:
    """Check what a run keeps: whole, and answers to items of a key of this run.

    Raises
    ------
    InputError
        If it is damaged, or does not belong to the run.
    """
    again = "give --ratings again, or delete the file"
    try:
        stored = Ratings.model_validate(content)
    except ValidationError:
        raise InputError(f"{where}: is damaged; {again}") from None
    if _digest(stored.key, stored.answers) != stored.sha256:
        raise InputError(f"{where}: does not match its checksum; {again}")
    key = check_key(stored.key.model_dump(), where, manifest)
    allowed = {item.id: key.answers(item.task) for item in key.items}
    given = [(answer.rater, answer.item) for answer in stored.answers]
    fits = all(
        a.rater in key.raters and a.answer in allowed.get(a.item, ()) for a in stored.answers
    )
    if not fits or len(set(given)) != len(given):
        raise InputError(f"{where}: an answer does not fit the key; {again}")
    return stored


def _draws(item: RatingItem) -> list[Draw]:
    """Draws that an item shows; the original belongs to no arm."""
    setting = item.condition, item.scale, item.face, item.draw
    return [(arm, *setting) for arm in item.arms or [""]]


def _planned(manifest: Manifest) -> set[Draw]:
    """Draws of a run, and the originals of their faces under each setting."""
    return {
        (arm, unit.condition, unit.scale, face, draw)
        for unit in manifest.units
        for face, draw in unit.draws
        for arm in (unit.arm, "")
    }


def _digest(key: RatingKey, answers: Sequence[Answer]) -> str:
    """SHA-256 of a key and answers to it."""
    content = [key.model_dump(), [answer.model_dump() for answer in answers]]
    return sha256(json.dumps(content, sort_keys=True).encode())
