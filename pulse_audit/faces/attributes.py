"""What all attribute models share: checks of what they say, and the data set's words for it.

A model has its own words in its own order, a data set others. `columns` says what of a model's
answer can be held against the data set's labels, and how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypeIs

from pulse_audit.names import nearest
from pulse_audit.types import CROPS, AttributeCard, AttributeModel, Attributes, InputError

#: Probabilities of an image sum to 1 within this (float32 softmax: about 1e-7; half precision in a
#: foreign model: 1e-3).
SUM_TOLERANCE = 2e-3

#: Names that become columns of the samples.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ .-]{0,79}")


def is_attribute_model(candidate: object) -> TypeIs[AttributeModel]:
    """Whether an object offers what `AttributeModel` asks for."""
    card = getattr(candidate, "card", None)
    return isinstance(card, AttributeCard) and callable(candidate) and hasattr(candidate, "to")


def is_differentiable(model: AttributeModel) -> bool:
    """Whether guidance can use a model; one that cannot says ``differentiable = False``."""
    return bool(getattr(model, "differentiable", True))


def resized(images: Tensor, size: int) -> Tensor:
    """Resize (n, 3, H, W) to (n, 3, size, size): bilinear, antialiased, differentiable."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def check_card(card: AttributeCard) -> None:
    """Check what a model says of itself.

    Raises
    ------
    InputError
        One line: no attribute, a name that is none, a word given twice, fewer than two words, an
        unknown crop, a size below 1, or a confusion matrix that does not fit its words.
    """
    if not card.vocabulary:
        raise InputError(f"attribute model {card.name}: its vocabulary is empty")
    for attribute, words in card.vocabulary.items():
        where = f"attribute model {card.name}, {attribute!r}"
        if not _NAME.fullmatch(attribute):
            raise InputError(f"{where}: give it a plain name of letters, digits and _")
        check_words(where, words)
        if attribute in card.confusion:
            check_confusion(where, card.confusion[attribute], len(words))
    if card.crop not in CROPS:
        raise InputError(
            f"attribute model {card.name}: unknown crop {card.crop!r}{nearest(card.crop, CROPS)}"
        )
    if card.resolution < 1 or (card.feature_dim is not None and card.feature_dim < 1):
        raise InputError(f"attribute model {card.name}: resolution and feature_dim are at least 1")


def check_words(where: str, words: Sequence[str]) -> None:
    """Raise InputError unless these are two or more different words."""
    if isinstance(words, str) or not all(isinstance(w, str) and w.strip() for w in words):
        raise InputError(f"{where}: its words have to be a list of texts, none of them empty")
    twice = next((word for word in words if list(words).count(word) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: names the word {twice!r} twice")
    if len(words) < 2:
        raise InputError(f"{where}: needs at least two words")


def check_confusion(where: str, counts: Sequence[Sequence[int]], size: int) -> None:
    """Raise InputError unless these are ``size`` x ``size`` counts of faces."""
    table = [list(row) for row in counts]
    whole = all(isinstance(c, int) and c >= 0 for row in table for c in row)
    if [len(row) for row in table] != [size] * size or not whole:
        raise InputError(f"{where}: its confusion matrix has to be {size} x {size} counts")


def checked(model: AttributeModel, images: Tensor) -> Attributes:
    """Ask a model and check its answer.

    Parameters
    ----------
    model : AttributeModel
    images : Tensor, (n, 3, R, R)
        In [0, 1].

    Raises
    ------
    InputError
        One line: an attribute missing, another shape than the card says, numbers that are not
        finite, or rows that are no probabilities.
    """
    card, answer = model.card, model(images)
    if not isinstance(answer, Attributes):
        raise InputError(f"attribute model {card.name}: answers with {type(answer).__name__}")
    if set(answer.probabilities) != set(card.vocabulary):
        raise InputError(
            f"attribute model {card.name}: predicts {', '.join(answer.probabilities) or 'nothing'} "
            f"where its card says {', '.join(card.vocabulary)}"
        )
    for attribute, words in card.vocabulary.items():
        where = f"attribute model {card.name}, {attribute!r}"
        check_probabilities(where, answer.probabilities[attribute], (len(images), len(words)))
    _check_features(card, answer.features, len(images))
    return answer


def check_probabilities(where: str, found: Tensor, shape: tuple[int, int]) -> None:
    """Raise InputError unless these are probabilities of this shape, rows summing to 1."""
    if tuple(found.shape) != shape:
        raise InputError(f"{where}: answers {tuple(found.shape)} where {shape} is due")
    values = found.detach().double()
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{where}: answers with numbers that are not finite")
    off = (values.sum(1) - 1).abs().max() if len(values) else 0.0
    if bool((values < 0).any()) or float(off) > SUM_TOLERANCE:
        raise InputError(
            f"{where}: its answers are no probabilities (negative, or sums {float(off):.2g} off 1)"
        )


def _check_features(card: AttributeCard, features: Tensor | None, n: int) -> None:
    found = None if features is None else tuple(features.shape)
    due = None if card.feature_dim is None else (n, card.feature_dim)
    if found != due:
        raise InputError(f"attribute model {card.name}: features {found} where its card says {due}")
    if features is not None and not bool(torch.isfinite(features).all()):
        raise InputError(f"attribute model {card.name}: features that are not finite")


@dataclass(frozen=True)
class Column:
    """One column of predictions: ``hr_<name>`` and ``sr_<name>`` of the samples.

    Attributes
    ----------
    name : str
    attribute : str
        The model's own name for it.
    words : tuple of str
        In the order of the ``_p`` vectors: the data set's where ``labelled``.
    members : tuple of tuple of int
        For each word the model's classes (their indices) that it stands for.
    labelled : bool
        Whether the data set has labels in these words.
    """

    name: str
    attribute: str
    words: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    labelled: bool

    @property
    def derived(self) -> bool:
        """Whether classes of the model were put together."""
        return any(len(classes) > 1 for classes in self.members)

    def probabilities(self, answer: Attributes) -> Tensor:
        """Probabilities (n, k) of the words: the model's, reordered and summed."""
        given = answer.probabilities[self.attribute]
        return torch.stack([given[:, list(classes)].sum(1) for classes in self.members], dim=1)

    def entries(self, side: str, vector: Sequence[float]) -> dict[str, Any]:
        """Entries of a row of the samples: the likeliest word, and the vector as ``_p``."""
        name = f"{side}_{self.name}"
        return {name: self.words[int(np.argmax(vector))], f"{name}_p": vector}

    def confusion(self, card: AttributeCard) -> NDArray[np.int64] | None:
        """Held-out counts of the card (k, k) in the order of the words, or None.

        Of a derived column they have to be on the card under its own name: the largest of summed
        probabilities is not the group of the largest probability, so that summed cells would be
        the confusion of another rule.
        """
        if self.derived:
            own = card.confusion.get(self.name)
            return None if own is None or len(own) != len(self.words) else np.asarray(own)
        counts = card.confusion.get(self.attribute)
        if counts is None:
            return None
        order = [classes[0] for classes in self.members]
        return np.asarray(counts, dtype=np.int64)[np.ix_(order, order)]


def columns(
    vocabulary: Mapping[str, Sequence[str]],
    labels: Mapping[str, Sequence[str]],
    derived: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
) -> tuple[list[Column], dict[str, str]]:
    """Say which columns a model's answers fill for a data set.

    Parameters
    ----------
    vocabulary : mapping of str to sequence of str
        The model's words.
    labels : mapping of str to sequence of str
        The data set's, derived groupings included (``FaceIndex.vocabulary``).
    derived : mapping, optional
        Grouping -> (the label column it is made from, word of that column -> group).

    Returns
    -------
    columns : list of Column
        An attribute that the data set labels with the same words, upper and lower case alike, in
        any order (or with some of them, where it has no others): in the data set's words, under
        the data set's name; the groupings derived from it; and attributes that it does not label,
        in the model's words.
    unavailable : dict of str to str
        Attribute -> why it fills no column: the data set labels it in other words.
    """
    found: list[Column] = []
    unavailable: dict[str, str] = {}
    for attribute, words in vocabulary.items():
        name = _label_of(attribute, words, labels)
        if name is not None and name not in [column.name for column in found]:
            found.append(_labelled(name, attribute, words, labels[name]))
        elif attribute in labels:
            unavailable[attribute] = (
                f"the data set's words are {', '.join(labels[attribute])}, "
                f"the model's {', '.join(words)}"
            )
        else:
            alone = tuple((i,) for i in range(len(words)))
            found.append(Column(attribute, attribute, tuple(words), alone, labelled=False))
    found += _derived(found, labels, derived or {})
    return found, unavailable


def _label_of(
    attribute: str, words: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> str | None:
    """Label column with these words: of the same name, or else the only one."""
    known = {word.casefold() for word in words}
    own = {word.casefold() for word in labels.get(attribute, ())}
    if own and own <= known and len(own) == len(labels[attribute]):
        return attribute
    others = [
        name for name, given in labels.items() if {word.casefold() for word in given} == known
    ]
    return others[0] if len(others) == 1 else None


def _labelled(name: str, attribute: str, words: Sequence[str], given: Sequence[str]) -> Column:
    """Column in the data set's words; those of the model that it does not have come last."""
    place = {word.casefold(): i for i, word in enumerate(words)}
    order = [place[word.casefold()] for word in given]
    rest = [i for i in range(len(words)) if i not in order]
    named = (*given, *(words[i] for i in rest))
    return Column(name, attribute, named, tuple((i,) for i in order + rest), labelled=True)


def _derived(
    found: Iterable[Column],
    labels: Mapping[str, Sequence[str]],
    derived: Mapping[str, tuple[str, Mapping[str, str]]],
) -> list[Column]:
    """Columns of the groupings whose source is among the labelled columns found."""
    sources = {column.name: column for column in found if column.labelled}
    made = []
    for name, (source, group_of) in derived.items():
        # A model may predict the groups themselves; that column is there already.
        if name in sources or source not in sources or name not in labels:
            continue
        made.append(_grouped(name, sources[source], labels[name], group_of))
    return made


def _grouped(
    name: str, column: Column, groups: Sequence[str], group_of: Mapping[str, str]
) -> Column:
    """Put the words of a column together; words without a group (no face has them) stay."""
    members: dict[str, tuple[int, ...]] = dict.fromkeys(groups, ())
    for word, classes in zip(column.words, column.members, strict=True):
        group = group_of.get(word, word)
        members[group] = members.get(group, ()) + classes
    return Column(name, column.attribute, tuple(members), tuple(members.values()), labelled=True)


def confusion_counts(
    labels: Sequence[str], predictions: Sequence[str | None], words: Sequence[str]
) -> NDArray[np.int64]:
    """Count faces by label and prediction.

    Parameters
    ----------
    labels, predictions : sequence of str
        One of each a face; faces without a prediction (None) are left out.
    words : sequence of str
        The k groups, in the order of rows and columns.

    Returns
    -------
    array, (k, k)
        Row the label, column the prediction.

    Raises
    ------
    InputError
        If a label or prediction is none of the words.
    """
    place = {word: i for i, word in enumerate(words)}
    counts = np.zeros((len(words), len(words)), dtype=np.int64)
    for label, prediction in zip(labels, predictions, strict=True):
        if prediction is None:
            continue
        for word in (label, prediction):
            if word not in place:
                raise InputError(f"{word!r} is none of the words{nearest(word, list(words))}")
        counts[place[label], place[prediction]] += 1
    return counts
