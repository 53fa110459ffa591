"""Checks of attribute models' cards and answers, and columns in the data set's words.

A model has its own words in its own order, a data set others. `columns` says which of a model's
answers can be compared with the data set's labels, and how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map (n, 3, H, W) to ``(images - mean) / std`` of each channel."""
    shift, spread = (images.new_tensor(three).view(1, 3, 1, 1) for three in (mean, std))
    return (images - shift) / spread


def check_card(card: AttributeCard) -> None:
    """Check the card of a model.

    Raises
    ------
    InputError
        One line: no attribute, an attribute without a plain name, a word given twice, fewer than
        two words, an unknown crop, a size below 1, or a confusion matrix that does not fit its
        words.
    """
    if not card.vocabulary:
        raise InputError(f"attribute model {card.name}: its vocabulary is empty")
    for attribute, words in card.vocabulary.items():
        where = f"attribute model {card.name}, {attribute!r}"
        if not _NAME.fullmatch(attribute):
            raise InputError(f"{where}: give it a plain name of letters, digits and _")
        texts = isinstance(words, tuple | list) and all(isinstance(w, str) for w in words)
        if not texts or not all(word.strip() for word in words):
            raise InputError(f"{where}: its words have to be a list of texts, none of them empty")
        twice = next((word for word in words if list(words).count(word) > 1), None)
        if twice is not None:
            raise InputError(f"{where}: names the word {twice!r} twice")
        k = len(words)
        if k < 2:
            raise InputError(f"{where}: needs at least two words")
        if attribute in card.confusion:
            # k x k whole numbers, none negative.
            table = [list(row) for row in card.confusion[attribute]]
            counts = all(isinstance(c, int) and c >= 0 for row in table for c in row)
            if [len(row) for row in table] != [k] * k or not counts:
                raise InputError(f"{where}: its confusion matrix has to be {k} x {k} counts")
    for name, groups in card.groupings.items():
        # Counts of every group, which share out the words of one attribute.
        counted = [len(row) for row in card.confusion.get(name, ())] == [len(groups)] * len(groups)
        parts = sorted(word for words in groups.values() for word in words)
        if not counted or parts not in [sorted(words) for words in card.vocabulary.values()]:
            raise InputError(
                f"attribute model {card.name}: grouping {name!r} needs counts of its groups, and "
                "groups that share out the words of one attribute"
            )
    if card.crop not in CROPS:
        raise InputError(
            f"attribute model {card.name}: unknown crop {card.crop!r}{nearest(card.crop, CROPS)}"
        )
    if card.resolution < 1 or (card.feature_dim is not None and card.feature_dim < 1):
        raise InputError(f"attribute model {card.name}: resolution and feature_dim are at least 1")


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
    card, answer, n = model.card, model(images), len(images)
    if not isinstance(answer, Attributes):
        raise InputError(f"attribute model {card.name}: answers with {type(answer).__name__}")
    if set(answer.probabilities) != set(card.vocabulary):
        raise InputError(
            f"attribute model {card.name}: predicts {', '.join(answer.probabilities) or 'nothing'} "
            f"where its card says {', '.join(card.vocabulary)}"
        )
    for attribute, words in card.vocabulary.items():
        where = f"attribute model {card.name}, {attribute!r}"
        values, shape = answer.probabilities[attribute].detach().double(), (n, len(words))
        if tuple(values.shape) != shape:
            raise InputError(f"{where}: answers {tuple(values.shape)} where {shape} is due")
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"{where}: answers with numbers that are not finite")
        off = float((values.sum(1) - 1).abs().max()) if n else 0.0
        if bool((values < 0).any()) or off > SUM_TOLERANCE:
            raise InputError(
                f"{where}: its answers are no probabilities (negative, or sums {off:.2g} off 1)"
            )
    features = None if answer.features is None else tuple(answer.features.shape)
    expected = None if card.feature_dim is None else (n, card.feature_dim)
    if features != expected:
        raise InputError(
            f"attribute model {card.name}: features {features} where its card says {expected}"
        )
    if answer.features is not None and not bool(torch.isfinite(answer.features).all()):
        raise InputError(f"attribute model {card.name}: features that are not finite")
    return answer


@dataclass(frozen=True)
class Column:
    """One column of predictions: ``hr_<name>`` and ``sr_<name>`` of the samples."""

    name: str
    #: The model's own name for it.
    attribute: str
    #: In the order of the ``_p`` vectors: the data set's words where ``labelled``.
    words: tuple[str, ...]
    #: For each word the model's classes (their indices) that it stands for.
    members: tuple[tuple[int, ...], ...]
    #: Whether the data set has labels in these words.
    labelled: bool

    @property
    def derived(self) -> bool:
        """Whether classes of the model were put together."""
        return any(len(classes) > 1 for classes in self.members)

    def probabilities(self, answer: Attributes) -> Tensor:
        """Probabilities (n, k) of the words: the model's, reordered and summed."""
        values = answer.probabilities[self.attribute]
        # (n, classes of the model) -> (n, words)
        return torch.stack([values[:, list(classes)].sum(1) for classes in self.members], dim=1)

    def entries(self, side: str, vector: Sequence[float]) -> dict[str, Any]:
        """Entries of a row of the samples: the likeliest word, and the vector as ``_p``."""
        name = f"{side}_{self.name}"
        return {name: self.words[int(np.argmax(vector))], f"{name}_p": vector}

    def confusion(self, card: AttributeCard) -> NDArray[np.int64] | None:
        """Held-out counts of the card (k, k) in the order of the words, or None.

        Those of summed classes have to be on the card as a grouping of the same classes, under any
        name: the group of the largest summed probability is not always that of the likeliest
        class, so summed cells would be the confusion of another rule.
        """
        vocabulary = card.vocabulary.get(self.attribute, ())
        single = {self.attribute: {word: (word,) for word in vocabulary}}
        if len(vocabulary) != sum(map(len, self.members)):
            return None
        own = [frozenset(vocabulary[index] for index in classes) for classes in self.members]
        for name, groups in {**single, **card.groupings}.items():
            theirs = [frozenset(words) for words in groups.values()]
            if name in card.confusion and set(theirs) == set(own):
                # Rows and columns from the card's order of groups to this column's.
                order = [theirs.index(classes) for classes in own]
                return np.asarray(card.confusion[name], dtype=np.int64)[np.ix_(order, order)]
        return None


def columns(
    vocabulary: Mapping[str, Sequence[str]],
    labels: Mapping[str, Sequence[str]],
    derived: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
    model_words: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
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
    model_words : mapping, optional
        Label column -> its words that a model has under other names: each with the model's words
        that it is made of, none where no model predicts it (``DatasetCard.model_words``).

    Returns
    -------
    columns : list of Column
        An attribute that the data set labels with the same words, upper and lower case alike, in
        any order (or with some of them, where it has no others): in the data set's words, under
        the data set's name; likewise one whose words ``model_words`` maps, with their
        probabilities summed; the groupings derived from these; and attributes that it does not
        label, in the model's words.
    unavailable : dict of str to str
        Attribute -> why it fills no column: the data set labels it in other words.
    """
    filled: list[Column] = []
    unavailable: dict[str, str] = {}
    for attribute, words in vocabulary.items():
        # The label column with just these words, or else one whose words are mapped to them.
        name = _label_column(attribute, words, labels)
        exact = {} if name is None else {name: _members(words, labels[name], {})}
        candidates = exact or {
            label: _members(words, labels.get(label, ()), of_word)
            for label, of_word in (model_words or {}).items()
        }
        fitting = {label: found for label, found in candidates.items() if found}
        name = attribute if attribute in fitting else next(iter(fitting), None)
        if name is not None and name not in [column.name for column in filled]:
            members = fitting[name]
            # In the data set's words and order; words of the model that it lacks come last.
            used = {index for classes in members.values() for index in classes}
            members |= {word: (i,) for i, word in enumerate(words) if i not in used}
            column = Column(name, attribute, tuple(members), tuple(members.values()), labelled=True)
            filled.append(column)
        elif attribute in labels:
            known = {word.casefold() for word in words}
            foreign = [word for word in labels[attribute] if word.casefold() not in known]
            unavailable[attribute] = (
                f"the attribute model has no word for {', '.join(foreign or labels[attribute])} "
                f"(its words: {', '.join(words)}) and datasets.yaml maps none (model_words)"
            )
        else:
            alone = tuple((i,) for i in range(len(words)))
            filled.append(Column(attribute, attribute, tuple(words), alone, labelled=False))

    # Groupings whose source is among the labelled columns: the classes of a group together.
    sources = {column.name: column for column in filled if column.labelled}
    for name, (source, group_of) in (derived or {}).items():
        # A model may predict the groups themselves; that column is there already.
        if name in sources or source not in sources or name not in labels:
            continue
        # A group with a word that no model predicts cannot be told from the others.
        lost = set(labels[source]) - set(sources[source].words)
        if mixed := sorted({group_of.get(word, word) for word in lost} - lost):
            unavailable[name] = f"{mixed[0]} has a word of {source} that the model does not predict"
            continue
        groups: dict[str, tuple[int, ...]]
        groups = {group: () for group in labels[name] if group not in lost}
        for word, indices in zip(sources[source].words, sources[source].members, strict=True):
            # A word without a group, with which no face is labelled here, stays as it is.
            group = group_of.get(word, word)
            groups[group] = groups.get(group, ()) + indices
        attribute, classes = sources[source].attribute, tuple(groups.values())
        filled.append(Column(name, attribute, tuple(groups), classes, labelled=True))
    return filled, unavailable


def _members(
    words: Sequence[str], labels: Sequence[str], of_word: Mapping[str, Sequence[str]]
) -> dict[str, tuple[int, ...]] | None:
    """Each label's classes of a model: of the same word, else of the words that it is mapped to.

    Labels mapped to no word are left out. None where another has no class, or a class is in two.
    """
    place = {word.casefold(): i for i, word in enumerate(words)}
    members: dict[str, tuple[int, ...]] = {}
    for label in labels:
        parts = [label] if label.casefold() in place else of_word.get(label)
        if parts is None or any(part.casefold() not in place for part in parts):
            return None
        if parts:
            members[label] = tuple(place[part.casefold()] for part in parts)
    used = [index for classes in members.values() for index in classes]
    return members if members and len(set(used)) == len(used) else None


def _label_column(
    attribute: str, words: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> str | None:
    """Name of the label column with these words: the attribute's own, or else the only one."""
    folded = {word.casefold() for word in words}
    own = {word.casefold() for word in labels.get(attribute, ())}
    if own and own <= folded and len(own) == len(labels[attribute]):
        return attribute
    others = [
        name for name, values in labels.items() if {word.casefold() for word in values} == folded
    ]
    return others[0] if len(others) == 1 else None
