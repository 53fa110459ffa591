"""The data sets known by name: ``datasets.yaml``, and the user's own file merged over it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from pulse_audit.documents import read_yaml
from pulse_audit.names import nearest
from pulse_audit.types import Crop, InputError

# Shipped in the package (wheel) or beside it (checkout).
FILE_NAME = "datasets.yaml"
ASSETS = Path(__file__).resolve().parents[1] / "assets"

# strict: YAML reads 3 and yes as a number and a truth value; labels have to be put in quotes.
Word = Annotated[str, StringConstraints(strict=True, min_length=1)]
# Names without a slash, so that no entry leads out of the data folder.
PlainName = Annotated[str, StringConstraints(strict=True, pattern=r"^\w[\w .-]*$")]
Column = Annotated[str, StringConstraints(strict=True, min_length=1)]
# The keys of `layouts.LAYOUTS`.
LayoutName = Literal[
    "bundled", "celeba", "fairface", "ffhq-aging", "ffhq-features", "fhibe", "folder", "lfw",
    "parquet", "race-folders", "utkface",
]  # fmt: skip
Split = Annotated[str, StringConstraints(pattern="^(train|val|test)$")]
SplitOrAll = Annotated[str, StringConstraints(pattern="^(train|val|test|all)$")]

# File names of these layouts hold the ids 0 to size - 1.
_CLASS_IDS_NEEDED = {"utkface": {"race": 5, "gender": 2}}


class CardPart(BaseModel):
    """Base of a card and its parts: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Expected(CardPart):
    """How many faces a complete copy of one split holds.

    ``groups`` maps a label column to the count of each of its words. Counts that this project has
    not checked on a complete copy are ``confirmed: false``: a difference is then a warning.
    """

    count: PositiveInt
    groups: dict[Column, dict[Word, int]] = {}
    confirmed: bool = True


class Checksum(CardPart):
    """The published checksum of one file; ``sha256`` may be a leading part of the digest."""

    name: PlainName
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{16,64}$")
    confirmed: bool
    source: Word

    @model_validator(mode="after")
    def _one_digest(self) -> Self:
        if (self.md5 is None) == (self.sha256 is None):
            raise ValueError("give one of md5 and sha256")
        return self


class DerivedGrouping(CardPart):
    """A coarser grouping of a label column.

    For groups that an attribute model confuses too often for their shares to be corrected. Labels
    are mapped, and the probabilities of the words summed.
    """

    model_config = ConfigDict(populate_by_name=True)

    #: The label column (``from`` in the file).
    source: Column = Field(alias="from")
    #: Group -> the words it is made of; words that are in none stay as they are.
    groups: dict[Word, tuple[Word, ...]] = Field(min_length=1)
    #: Words whose faces have no group: they are not drawn where a sample is balanced over this.
    no_group: tuple[Word, ...] = ()

    def group_of(self, words: Sequence[str]) -> dict[str, str]:
        """Map each word of the column that has a group to it, in the order of the words."""
        grouped = {word: group for group, members in self.groups.items() for word in members}
        return {word: grouped.get(word, word) for word in words if word not in self.no_group}

    def check(self, name: str, words: Sequence[str]) -> None:
        """Raise ValueError unless the groups share out the column's words and two or more remain.

        Parameters
        ----------
        name : str
            How messages name the grouping.
        words : sequence of str
            The words of the column.
        """
        # Every word belongs to the column, and to one group at most.
        grouped = [word for members in self.groups.values() for word in members]
        grouped += self.no_group
        for word in grouped:
            if word not in words:
                raise ValueError(f"derived {name!r} names {word!r}{nearest(word, words)}")
            if grouped.count(word) > 1:
                raise ValueError(f"derived {name!r} names {word!r} twice")
        # A group may have the name of a word only if the word is in it.
        for group, members in self.groups.items():
            if not members:
                raise ValueError(f"derived {name!r}: group {group!r} is made of no word")
            if group in words and group not in members:
                raise ValueError(
                    f"derived {name!r}: {group!r} is a word outside the group of that name"
                )
        if len(set(self.group_of(words).values())) < 2:
            raise ValueError(f"derived {name!r} leaves one group alone")


class DatasetCard(CardPart):
    """What is known about one data set."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: Word
    layout: LayoutName
    #: Label column -> its words, in the order of reports. An empty vocabulary is open: it is taken
    #: from the data. With layout ``folder``, columns not named here are open too.
    vocabulary: dict[Column, tuple[Word, ...]]
    #: Coarser groupings, by name: label columns made from others.
    derived: dict[PlainName, DerivedGrouping] = {}
    #: Label column -> those of its words that attribute models have under other names or as several
    #: words, whose probabilities are then summed; no word where no model can predict a group.
    model_words: dict[Column, dict[Word, tuple[Word, ...]]] = {}
    #: Columns that some copies lack.
    optional: tuple[Column, ...] = ()
    #: Where the data hold class ids in place of words: the words in the order of the ids.
    class_ids: dict[Column, tuple[Word, ...]] = {}
    #: Who gave the labels; ``labels_note`` says how.
    labels_from: Literal["people", "model", "none"]
    labels_note: str = ""
    #: The grouping used when none is asked for; empty means one group.
    group_by: tuple[Column, ...]
    #: ``train``, ``val``, ``test`` -> the data set's own word for it. Empty: no splits.
    splits: dict[Split, PlainName] = {}
    #: Where the archive unpacks to, looked for below the root before the root itself.
    folder: str | None = Field(default=None, pattern=r"^\w[\w .-]*(/\w[\w .-]*)*$")
    #: Folder of the package's assets that holds the faces; None where they have to be obtained.
    shipped: PlainName | None = None
    crop: Crop
    #: Size in pixels at which faces are compared where no arm has a size of its own.
    resolution: PositiveInt | None = None
    licence: Word
    terms: Word
    #: Whether the terms let photos appear in a published report.
    may_publish_images: bool
    #: Whether people may withdraw their consent, so that no copy of a photo may leave the run.
    revocable: bool = False
    citation: Word
    url: str | None = None
    obtain: Word
    #: Per split; ``all`` for a data set without splits.
    expected: dict[SplitOrAll, Expected] = {}
    files: tuple[Checksum, ...] = ()

    @field_validator("vocabulary")
    @classmethod
    def _distinct_words(cls, vocabulary: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for column, words in vocabulary.items():
            if len(set(words)) != len(words):
                raise ValueError(f"{column!r} names a word twice")
        return vocabulary

    @model_validator(mode="after")
    def _columns_known(self) -> Self:
        # With layout "folder" the columns are those of the user's CSV, not known here.
        if not self.open_vocabulary:
            for key in ("optional", "group_by", "class_ids"):
                for column in getattr(self, key):
                    known = key == "group_by" and column in self.derived
                    if column not in self.vocabulary and not known:
                        raise ValueError(f"{key} names {column!r}, which is no label column")
        # The class ids of a column are its words in another order.
        for column, words in self.class_ids.items():
            if set(words) != set(self.vocabulary.get(column, ())):
                raise ValueError(f"class_ids of {column!r} are not its vocabulary, reordered")
        return self

    @model_validator(mode="after")
    def _derived_fit(self) -> Self:
        for name, derived in self.derived.items():
            # The samples' own columns of skin tone have these names.
            if name in self.vocabulary or name in ("skin_tone", "monk"):
                raise ValueError(f"derived {name!r} has the name of another grouping")
            words = self.vocabulary.get(derived.source, ())
            if not words:
                raise ValueError(
                    f"derived {name!r} is from {derived.source!r}, which has no words in vocabulary"
                )
            derived.check(name, words)
        return self

    @model_validator(mode="after")
    def _model_words_fit(self) -> Self:
        for column, of_word in self.model_words.items():
            # Words of a column of the user's own CSV, or of an open one, are not known here.
            words = self.vocabulary.get(column, ())
            if column not in self.vocabulary and not self.open_vocabulary:
                raise ValueError(f"model_words names {column!r}, which is no label column")
            for word in of_word if words else ():
                if word not in words:
                    raise ValueError(
                        f"model_words of {column!r} names {word!r}{nearest(word, words)}"
                    )
            mapped = [part for parts in of_word.values() for part in parts]
            twice = next((part for part in mapped if mapped.count(part) > 1), None)
            if twice is not None:
                raise ValueError(f"model_words of {column!r} names {twice!r} twice")
        return self

    @model_validator(mode="after")
    def _layout_has_what_it_needs(self) -> Self:
        for column, size in _CLASS_IDS_NEEDED.get(self.layout, {}).items():
            if len(self.class_ids.get(column, ())) != size:
                raise ValueError(f"layout {self.layout} needs {size} class_ids for {column!r}")
        # FFHQ's photos are numbered, and its splits are ranges of numbers.
        ranges = self.splits.values() if self.layout.startswith("ffhq") else ()
        if not all(re.fullmatch(r"[0-9]{1,9}-[0-9]{1,9}", own) for own in ranges):
            raise ValueError("splits of FFHQ are ranges of photo numbers, such as 00000-59999")
        return self

    @model_validator(mode="after")
    def _expected_fits(self) -> Self:
        for split, expected in self.expected.items():
            if split != "all" and split not in self.splits:
                raise ValueError(f"expected names the split {split!r}, which splits does not")
            for column, counts in expected.groups.items():
                if not set(counts) <= set(self.vocabulary.get(column, ())):
                    raise ValueError(f"expected counts of {column!r} use words it does not have")
        return self

    @property
    def open_vocabulary(self) -> bool:
        """Whether the data may carry label columns that the card does not name."""
        return self.layout == "folder"

    @property
    def shipped_root(self) -> Path | None:
        """The folder of faces that come with the package, None where they do not."""
        return ASSETS / self.shipped if self.shipped else None

    def own_splits(self, split: str) -> list[str]:
        """Return the data set's own words for a split; for ``all``, those of every split."""
        return list(self.splits.values()) if split == "all" else [self.splits[split]]

    def expected_for(self, split: str) -> Expected | None:
        """Return the counts of a complete copy of ``split``; ``all`` is summed where it can be."""
        # A count of the whole is given, or is the sum of the counts of all splits.
        if split != "all" or "all" in self.expected or not self.splits:
            return self.expected.get(split)
        parts = [self.expected[s] for s in self.splits if s in self.expected]
        if len(parts) < len(self.splits):
            return None
        # Only columns whose counts are known in every split can be summed.
        columns = set.intersection(*(set(part.groups) for part in parts))
        groups = {
            column: {
                word: sum(part.groups[column].get(word, 0) for part in parts) for word in words
            }
            for column, words in parts[0].groups.items()
            if column in columns
        }
        return Expected(
            count=sum(part.count for part in parts),
            groups=groups,
            confirmed=all(part.confirmed for part in parts),
        )


@dataclass(frozen=True)
class Registry:
    """The data sets by name."""

    cards: Mapping[str, DatasetCard]

    def get(self, name: str) -> DatasetCard:
        """Return the card of ``name``; the InputError about an unknown name offers the nearest."""
        if name not in self.cards:
            known = [*self.names(), "samples:GENERATOR"]
            raise InputError(f"unknown data set {name!r}{nearest(name, known)}")
        return self.cards[name]

    def __iter__(self) -> Iterator[DatasetCard]:
        """Iterate over the cards in the order of the file."""
        return iter(self.cards.values())

    def names(self) -> list[str]:
        """Return the names in the order of the file."""
        return list(self.cards)


def builtin_file() -> Path:
    """Return the shipped ``datasets.yaml``: in the package (wheel), else beside it (checkout)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / FILE_NAME
    return inside if inside.is_file() else package.parent / FILE_NAME


def load_registry(extra: Path | None = None) -> Registry:
    """Read the shipped data sets and merge the user's own over them.

    An entry of the user's file whose name is known replaces just the keys it gives; any other
    entry is a data set of its own.

    Parameters
    ----------
    extra : Path, optional
        The user's ``datasets.yaml``.

    Raises
    ------
    InputError
        One line naming the file, the entry and the key, where a file does not fit.
    """
    path = builtin_file()
    entries = _read(path)
    # Messages name the file that an entry was last changed by.
    origin: dict[str, Path] = dict.fromkeys(entries, path)
    if extra is not None:
        for name, entry in _read(extra).items():
            entries[name] = {**entries.get(name, {}), **entry}
            origin[name] = extra
    # Check every entry, and list all that is wrong at once.
    cards = {}
    problems = []
    for name, entry in entries.items():
        where = f"{origin[name]}: entry {name!r}"
        if "name" in entry:
            problems.append(f"{where}, key 'name': the entry's own key is its name")
            continue
        try:
            cards[name] = DatasetCard(name=name, **entry)
        except ValidationError as error:
            # Inputs are left out of the message: an alias bomb in YAML would be written out there.
            for problem in error.errors(include_input=False, include_url=False):
                loc = [str(part) for part in problem["loc"]]
                key = f"key {'.'.join(loc)!r}: " if loc else ""
                reason = problem["msg"].removeprefix("Value error, ")
                if problem["type"] == "string_type":
                    reason += " (put it in quotes)"
                elif problem["type"] == "extra_forbidden":
                    keys = list(DatasetCard.model_fields)[1:]
                    reason = "is no key" + (nearest(loc[0], keys) if len(loc) == 1 else "")
                problems.append(f"{where}, {key}{reason}")
    if problems:
        rest = f"; and {len(problems) - 20:,} more" if len(problems) > 20 else ""
        raise InputError("; ".join(problems[:20]) + rest)
    return Registry(cards)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        data = read_yaml(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: cannot be read (No such file or directory); check the path"
        ) from None
    # The shape: names, each with keys below it.
    if not isinstance(data, dict) or not data:
        raise InputError(f"{path}: holds no data sets; write 'name:' and its keys below it")
    for name, entry in data.items():
        if not isinstance(name, str) or not isinstance(entry, dict):
            raise InputError(f"{path}: entry {name!r} is not a name with keys below it")
        if any(not isinstance(key, str) for key in entry):
            raise InputError(f"{path}: entry {name!r} has a key that is not a word")
    return data
