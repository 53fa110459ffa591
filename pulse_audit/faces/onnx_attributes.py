"""Attribute models in ONNX files, with a small file beside them that describes their outputs.

``FILE.onnx`` needs ``FILE.yaml`` (or ``.yml``, ``.json``) beside it, or the same content as JSON in
the model's own metadata under the key ``pulse_audit``::

    name: my-net
    resolution: 112
    crop: fairface-0.25
    mean: [0.485, 0.456, 0.406]        # (image - mean) / std of RGB in [0, 1]; default 0 and 1
    std: [0.229, 0.224, 0.225]
    channels: RGB                      # or BGR
    layout: NCHW                       # or NHWC
    attributes:
      gender: {output: logits, first: 0, words: [Male, Female]}
      age: {output: logits, first: 2, words: [young, old], activation: softmax}
    features: embedding                # an output (n, d), or left out

An attribute's ``activation`` is ``softmax`` (default) for logits and ``none`` for probabilities.
Outputs of a single column have two further forms::

      gender: {output: score, words: [Male, Female], activation: sigmoid}
      age: {output: years, words: [0-19, 20-39, 40 or more], edges: [20, 40]}

With ``sigmoid`` (of a logit) and ``probability`` (between 0 and 1) the column is about the *second*
of two words. With ``edges`` it is a number, times ``unit`` (default 1), such as an age in years: a
number belongs to the word after the last edge that it reaches, with probability 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)
from torch import Tensor

from pulse_audit.documents import parse_json, parse_yaml, read_file
from pulse_audit.faces.attributes import check_card, checked, normalised, resized
from pulse_audit.onnx_model import (
    check_installed,
    one_line,
    open_session,
    read_model,
    run_session,
    try_model,
)
from pulse_audit.seeding import sha256
from pulse_audit.types import AttributeCard, Attributes, Crop, InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_KEY = "pulse_audit"
SUFFIXES = (".yaml", ".yml", ".json")

Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=80)]


class OutputColumns(BaseModel):
    """The columns of an output that hold one attribute, and its words in that order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Word
    words: tuple[Word, ...]
    first: NonNegativeInt = 0
    activation: Literal["softmax", "none", "sigmoid", "probability"] = "softmax"
    edges: tuple[FiniteFloat, ...] = ()
    unit: FiniteFloat = 1.0

    @model_validator(mode="after")
    def _one_column_fits(self) -> Self:
        if self.edges:
            if "activation" in self.model_fields_set:
                raise ValueError(
                    "edges are for a number, which has no activation; give one of them"
                )
            if list(self.edges) != sorted(set(self.edges)):
                raise ValueError("edges have to rise")
            if len(self.words) != len(self.edges) + 1:
                raise ValueError(
                    f"{len(self.edges)} edges make {len(self.edges) + 1} groups: name each"
                )
        elif "unit" in self.model_fields_set:
            raise ValueError("unit is for numbers that edges put into groups; give edges")
        if self.activation in ("sigmoid", "probability") and len(self.words) != 2:
            raise ValueError(
                f"{self.activation} is of one column and two words, the second its own"
            )
        return self

    @property
    def indices(self) -> range:
        """Indices of the columns."""
        alone = self.edges or self.activation in ("sigmoid", "probability")
        return range(self.first, self.first + (1 if alone else len(self.words)))

    def probabilities(self, columns: Tensor) -> Tensor:
        """Turn the attribute's columns (n, c) into probabilities (n, words)."""
        if self.edges:
            # The group of each number; numbers that are not finite give no finite answer.
            numbers = columns[:, 0].double() * self.unit
            groups = torch.bucketize(numbers, numbers.new_tensor(self.edges), right=True)
            chosen = torch.nn.functional.one_hot(groups, len(self.words))
            return (chosen + 0 * numbers[:, None]).float()
        if self.activation in ("sigmoid", "probability"):
            second = columns.sigmoid() if self.activation == "sigmoid" else columns
            return torch.cat([1 - second, second], dim=1)
        return columns.softmax(1) if self.activation == "softmax" else columns


class OnnxDescription(BaseModel):
    """Content of the file beside a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Word | None = None
    resolution: PositiveInt = Field(le=4096)
    crop: Crop
    attributes: dict[Word, OutputColumns] = Field(min_length=1)
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    channels: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    input: Word | None = None
    features: Word | None = None
    training_data: Word | None = None
    licence: Word | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    confusion: dict[Word, tuple[tuple[NonNegativeInt, ...], ...]] = {}
    groupings: dict[Word, dict[Word, tuple[Word, ...]]] = {}
    notes: tuple[Word, ...] = ()


class OnnxAttributes:
    """An ONNX file as an attribute model. Guidance cannot use it: it gives no gradients.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes
        The model.
    description : OnnxDescription

    Raises
    ------
    InputError
        If the description does not fit the model.
    """

    differentiable = False

    def __init__(self, path: Path, data: bytes, description: OnnxDescription) -> None:
        self._path, self._data, self._description = path, data, description
        # First in another process: onnxruntime does whatever the model says.
        side = description.resolution
        channels_first = description.layout == "NCHW"
        try_model(path, data, (1, 3, side, side) if channels_first else (1, side, side, 3))
        self._session = open_session(path, data, torch.get_num_threads())
        self._input, self._batch = _image_input(path, self._session, description)

        # The outputs that are read, each once.
        predictions = [part.output for part in description.attributes.values()]
        outputs = [*predictions, *([description.features] if description.features else [])]
        self._outputs = list(dict.fromkeys(outputs))
        present = [node.name for node in self._session.get_outputs()]
        for output in self._outputs:
            if output not in present:
                raise InputError(f"{path}: has no output {output!r} (it has: {', '.join(present)})")
            if output == description.features and output in predictions:
                raise InputError(f"{path}: {output!r} cannot be features and predictions")

        card = AttributeCard(
            name=description.name or path.stem,
            vocabulary={name: part.words for name, part in description.attributes.items()},
            resolution=description.resolution,
            crop=description.crop,
            training_data=description.training_data,
            licence=description.licence,
            sha256=sha256(data),
            confusion=description.confusion,
            groupings=description.groupings,
            notes=(*description.notes, "an ONNX model: no gradients, so guidance cannot use it"),
        )
        try:
            check_card(card)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

        # Try the model on grey images. Every column of an output has to belong to one word, or the
        # order of the words cannot be right.
        grey = torch.linspace(0.2, 0.8, 3).view(3, 1, 1, 1).expand(3, 3, side, side)
        answers = self._run(grey)
        for output in dict.fromkeys(predictions):
            parts = [p for p in description.attributes.values() if p.output == output]
            named = sorted(index for part in parts for index in part.indices)
            if list(answers[output].shape[1:]) != [len(named)] or named != list(range(len(named))):
                width = " x ".join(map(str, answers[output].shape[1:]))
                raise InputError(
                    f"{path}: output {output!r} has {width} columns, and the words given are for "
                    f"columns {', '.join(map(str, named))}: name a word for each, once"
                )
        features = answers[description.features].flatten(1) if description.features else None
        self.card = replace(card, feature_dim=None if features is None else features.shape[1])
        try:
            checked(self, grey)
        except InputError as error:
            given = {part.activation for part in description.attributes.values()}
            hint = "; are they logits (activation: softmax)?" if "none" in given else ""
            hint = hint or ("; is it a logit (activation: sigmoid)?" * ("probability" in given))
            raise InputError(f"{path}: {error}{hint}") from None

    def __call__(self, images: Tensor) -> Attributes:
        """Predict from (n, 3, R, R) in [0, 1].

        Raises
        ------
        InputError
            If gradients are asked for, or the model fails.
        """
        if torch.is_grad_enabled() and images.requires_grad:
            raise InputError(
                f"{self._path}: an ONNX model gives no gradients, so guidance cannot use it; take "
                "fairface-race7, the shipped model or a FILE.py:FACTORY in PyTorch"
            )
        outputs = self._run(images)
        probabilities = {}
        for name, part in self._description.attributes.items():
            values = part.probabilities(outputs[part.output][:, part.indices])
            probabilities[name] = values.to(images.device)
        if self._description.features is None:
            return Attributes(probabilities, None)
        features = outputs[self._description.features].flatten(1)
        return Attributes(probabilities, features.to(images.device))

    def to(self, device: torch.device | str) -> Self:
        """Run on a device: on a GPU where the installed onnxruntime can, else on the CPU."""
        device = torch.device(device)
        gpu = (device.index or 0) if device.type == "cuda" else None
        self._session = open_session(self._path, self._data, torch.get_num_threads(), gpu)
        return self

    def _run(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs by name for images (n, 3, R, R), float32 on the CPU."""
        # Bring the images into the model's own size, range, order of channels and layout.
        description = self._description
        inputs = resized(images.detach().float().cpu().clamp(0, 1), description.resolution)
        inputs = normalised(inputs, description.mean, description.std)
        inputs = inputs.flip(1) if description.channels == "BGR" else inputs
        inputs = inputs.permute(0, 2, 3, 1) if description.layout == "NHWC" else inputs

        # Run all at once, or in parts where the file has a batch size of its own.
        parts = []
        for part in torch.split(inputs, self._batch or max(1, len(inputs))):
            # A short last part is filled up with its first image, whose answers are cut off.
            filler = part[:1].expand((self._batch or len(part)) - len(part), *part.shape[1:])
            batch = torch.cat([part, filler]).contiguous().numpy()
            answers = run_session(self._path, self._session, self._outputs, {self._input: batch})
            parts.append([torch.from_numpy(answer)[: len(part)] for answer in answers])
        joined = [torch.cat(list(pieces)).float() for pieces in zip(*parts, strict=True)]
        # One number an image may come without an axis of columns: (n,) -> (n, 1).
        joined = [values[:, None] if values.ndim == 1 else values for values in joined]
        return dict(zip(self._outputs, joined, strict=True))


def load_onnx(path: Path) -> OnnxAttributes:
    """Load ``FILE.onnx`` and its description.

    Raises
    ------
    InputError
        In one line: the extra is not installed; a file is missing or damaged; the description does
        not fit the model.
    """
    check_installed(path)
    data, model = read_model(path)

    # Its description: the file beside it, or its own metadata; where both are there they agree.
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    inside = None
    if METADATA_KEY in metadata:
        inside = _described(path, metadata[METADATA_KEY].encode(), is_json=True)
    beside = [place for s in SUFFIXES if (place := path.with_suffix(s)).is_file()]
    if len(beside) > 1:
        raise InputError(
            f"{path}: {' and '.join(p.name for p in beside)} both describe it; keep one"
        )
    description = inside
    for place in beside:
        try:
            content = read_file(place)
        except FileNotFoundError:
            raise InputError(f"{place}: is gone") from None
        description = _described(place, content, is_json=place.suffix == ".json")
        if inside is not None and inside.attributes != description.attributes:
            raise InputError(
                f"{place}: its attributes are not those that {path.name} itself states"
            )
    if description is None:
        raise InputError(
            f"{path}: nothing says what its outputs mean; write {path.with_suffix('.yaml').name} "
            "beside it (resolution, crop, attributes; see CONTRIBUTING.md)"
        )
    if description.sha256 not in (None, sha256(data)):
        raise InputError(f"{path}: SHA-256 {sha256(data)}, not the one that its card gives")
    return OnnxAttributes(path, data, description)


def _described(where: Path, data: bytes, is_json: bool) -> OnnxDescription:
    """Read and check one description of a model."""
    content = parse_json(data, where) if is_json else parse_yaml(data, where)
    try:
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError("it holds no keys with values")
        return OnnxDescription(**content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: key {key!r}: {reason}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: cannot be understood: {one_line(error)}") from None


def _image_input(
    path: Path, session: InferenceSession, description: OnnxDescription
) -> tuple[str, int | None]:
    """Name of the image input, and the batch size that the file fixes, if it does."""
    inputs = {node.name: node for node in session.get_inputs()}
    name = description.input or next(iter(inputs), "")
    if [name] != list(inputs):
        raise InputError(f"{path}: takes {', '.join(inputs)}; it may take one image alone")
    side = description.resolution
    expected = [3, side, side] if description.layout == "NCHW" else [side, side, 3]
    batch, *shape = inputs[name].shape or [None]
    # A size that is no number is left open by the file.
    fits = len(shape) == 3 and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(shape, expected, strict=True)
    )
    if not fits or inputs[name].type != "tensor(float)":
        raise InputError(
            f"{path}: input {name!r} is {inputs[name].type} of {inputs[name].shape}, where n x "
            f"{' x '.join(map(str, expected))} floats are due"
        )
    return name, batch if isinstance(batch, int) else None
