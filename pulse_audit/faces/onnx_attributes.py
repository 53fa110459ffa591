"""Attribute models in ONNX files: what their outputs mean is said by a small file beside them.

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
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
import yaml
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
)
from torch import Tensor

from pulse_audit.faces.attributes import check_card, check_probabilities, resized
from pulse_audit.seeding import sha256
from pulse_audit.types import AttributeCard, Attributes, Crop, InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_KEY = "pulse_audit"
SUFFIXES = (".yaml", ".yml", ".json")
MAX_CARD = 2**20

Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=80)]


class Strict(BaseModel):
    """Base of the models here: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reading(Strict):
    """Where one attribute is in the outputs, and its words in that order."""

    output: Word
    words: tuple[Word, ...]
    first: NonNegativeInt = 0
    activation: Literal["softmax", "none"] = "softmax"

    @property
    def last(self) -> int:
        """Index behind the last of its columns."""
        return self.first + len(self.words)


class OnnxCard(Strict):
    """What the file beside a model says."""

    name: Word | None = None
    resolution: PositiveInt = Field(le=4096)
    crop: Crop
    attributes: dict[Word, Reading] = Field(min_length=1)
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
    notes: tuple[Word, ...] = ()


class OnnxAttributes:
    """An ONNX file as an attribute model. Guidance cannot use it: it gives no gradients.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes
        The model.
    said : OnnxCard
        What is said of it.
    """

    differentiable = False

    def __init__(self, path: Path, data: bytes, said: OnnxCard) -> None:
        self._path, self._data, self._said = path, data, said
        self._session = _session(path, data, torch.device("cpu"))
        self._input, self._batch = _input(path, self._session, said)
        self._outputs = _outputs(path, self._session, said)
        self.card = AttributeCard(
            name=said.name or path.stem,
            vocabulary={name: reading.words for name, reading in said.attributes.items()},
            resolution=said.resolution,
            crop=said.crop,
            training_data=said.training_data,
            licence=said.licence,
            sha256=sha256(data),
            confusion=said.confusion,
            notes=(*said.notes, "an ONNX model: no gradients, so guidance cannot use it"),
        )
        try:
            check_card(self.card)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        self.card = self._tried()

    def __call__(self, images: Tensor) -> Attributes:
        """Predict from (n, 3, R, R) in [0, 1].

        Raises
        ------
        InputError
            If gradients are asked for, or the model fails or answers nonsense.
        """
        if torch.is_grad_enabled() and images.requires_grad:
            raise InputError(
                f"{self._path}: an ONNX model gives no gradients, so guidance cannot use it; take "
                "fairface-race7, the shipped model or a FILE.py:FACTORY in PyTorch"
            )
        found = self._run(self._prepared(images))
        probabilities = {
            name: self._read(name, reading, found[reading.output])
            for name, reading in self._said.attributes.items()
        }
        features = found[self._said.features].flatten(1) if self._said.features else None
        return Attributes(
            {name: value.to(images.device) for name, value in probabilities.items()},
            None if features is None else features.to(images.device),
        )

    def to(self, device: torch.device | str) -> Self:
        """Run on a device: on a GPU where the installed onnxruntime can, else on the CPU."""
        self._session = _session(self._path, self._data, torch.device(device))
        return self

    def _prepared(self, images: Tensor) -> Tensor:
        inputs = resized(images.detach().float().cpu().clamp(0, 1), self._said.resolution)
        mean, std = (
            inputs.new_tensor(x).view(1, 3, 1, 1) for x in (self._said.mean, self._said.std)
        )
        inputs = (inputs - mean) / std
        inputs = inputs.flip(1) if self._said.channels == "BGR" else inputs
        return inputs.permute(0, 2, 3, 1) if self._said.layout == "NHWC" else inputs

    def _run(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Run a batch: whole, or in parts where the file has a batch size of its own."""
        parts = []
        for part in torch.split(inputs, self._batch or max(1, len(inputs))):
            # A short last part is filled up with its first image, whose answers are cut off.
            filler = part[:1].expand((self._batch or len(part)) - len(part), *part.shape[1:])
            fed = torch.cat([part, filler]).contiguous().numpy()
            try:
                answers = self._session.run(self._outputs, {self._input: fed})
            except Exception as error:  # onnxruntime's own exceptions share no base class
                raise InputError(f"{self._path}: {_line(error)}") from None
            parts.append([torch.from_numpy(answer)[: len(part)] for answer in answers])
        joined = [torch.cat(list(pieces)).float() for pieces in zip(*parts, strict=True)]
        return dict(zip(self._outputs, joined, strict=True))

    def _read(self, name: str, reading: Reading, output: Tensor) -> Tensor:
        where = f"{self._path}, {name!r}"
        if output.dim() != 2 or output.shape[1] < reading.last:
            raise InputError(
                f"{where}: output {reading.output!r} is {tuple(output.shape)}, with no columns "
                f"{reading.first} to {reading.last - 1} for {len(reading.words)} words"
            )
        values = output[:, reading.first : reading.last]
        found = values.softmax(1) if reading.activation == "softmax" else values
        hint = "" if reading.activation == "softmax" else "; are they logits (activation: softmax)?"
        try:
            check_probabilities(where, found, (len(output), len(reading.words)))
        except InputError as error:
            raise InputError(f"{error}{hint}") from None
        return found

    def _tried(self) -> AttributeCard:
        """Try the model on grey images; return the card with the width of its features."""
        side = self._said.resolution
        answer = self(torch.linspace(0.2, 0.8, 3).view(3, 1, 1, 1).expand(3, 3, side, side))
        _check_columns(self._path, self._said, self._widths())
        width = None if answer.features is None else answer.features.shape[1]
        return replace(self.card, feature_dim=width)

    def _widths(self) -> dict[str, int]:
        side = self._said.resolution
        found = self._run(self._prepared(torch.full((1, 3, side, side), 0.5)))
        return {name: output.flatten(1).shape[1] for name, output in found.items()}


def load_onnx(path: Path) -> OnnxAttributes:
    """Load ``FILE.onnx`` and what is said of it.

    Raises
    ------
    InputError
        In one line: the extra is not installed; a file is missing or damaged; what is said does
        not fit the model.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    _need_extra(path)
    metadata = _checked_model(path, data)
    said = _card(path, metadata)
    if said.sha256 not in (None, sha256(data)):
        raise InputError(f"{path}: SHA-256 {sha256(data)}, not the one that its card gives")
    return OnnxAttributes(path, data, said)


def _need_extra(path: Path) -> None:
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        raise InputError(f"{path}: needs onnx and onnxruntime: install pulse-audit[onnx]")


def _checked_model(path: Path, data: bytes) -> dict[str, str]:
    """Check that a model is whole and keeps all its weights in itself; return its metadata."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own exceptions share no base class with Python's
        raise InputError(f"{path}: is no ONNX model ({_line(error)})") from None
    if any(onnx.external_data_helper.uses_external_data(t) for t in _tensors(model.graph)):
        raise InputError(
            f"{path}: keeps weights in other files, which its SHA-256 would not cover; save it as "
            "one file"
        )
    return {entry.key: entry.value for entry in model.metadata_props}


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield the stored tensors of a graph and of the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            if inner.node:
                yield from _tensors(inner)


def _card(path: Path, metadata: Mapping[str, str]) -> OnnxCard:
    """Read what is said of a model: in the file beside it, or else in its metadata."""
    beside = [place for s in SUFFIXES if (place := path.with_suffix(s)).is_file()]
    if len(beside) > 1:
        raise InputError(
            f"{path}: {' and '.join(p.name for p in beside)} both describe it; keep one"
        )
    if not beside and METADATA_KEY not in metadata:
        raise InputError(
            f"{path}: nothing says what its outputs mean; write {path.with_suffix('.yaml').name} "
            "beside it (resolution, crop, attributes; see CONTRIBUTING.md)"
        )
    if not beside:
        return _read_card(path, lambda: metadata[METADATA_KEY], is_json=True)
    place = beside[0]
    said = _read_card(place, lambda: place.read_text(encoding="utf-8"), place.suffix == ".json")
    if METADATA_KEY in metadata:
        inside = _read_card(path, lambda: metadata[METADATA_KEY], is_json=True)
        if inside.attributes != said.attributes:
            raise InputError(
                f"{place}: its attributes are not those that {path.name} itself states"
            )
    return said


def _read_card(where: Path, read: Callable[[], str], is_json: bool) -> OnnxCard:
    """Read and check one description of a model."""
    try:
        return OnnxCard(**_parsed(read(), is_json))
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error)}") from None
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{where}: cannot be understood: {_line(error)}") from None


def _parsed(text: str, is_json: bool) -> dict[str, Any]:
    if len(text) > MAX_CARD:
        raise ValueError("it is longer than a megabyte")
    content = json.loads(text) if is_json else yaml.safe_load(text)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError("it holds no keys with values")
    return content


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"key {place!r}: {first['msg'].removeprefix('Value error, ')}"


def _session(path: Path, data: bytes, device: torch.device) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"{path}: onnxruntime refuses it: {_line(error)}") from None


def _input(path: Path, session: InferenceSession, said: OnnxCard) -> tuple[str, int | None]:
    """Name of the image input, and the batch size that the file fixes, if it does."""
    given = {node.name: node for node in session.get_inputs()}
    name = said.input or next(iter(given), "")
    if [name] != list(given):
        raise InputError(f"{path}: takes {', '.join(given)}; it may take one image alone")
    side = said.resolution
    wanted = [3, side, side] if said.layout == "NCHW" else [side, side, 3]
    shape = list(given[name].shape)
    fits = len(shape) == 4 and all(
        not isinstance(s, int) or s == w for s, w in zip(shape[1:], wanted, strict=True)
    )
    if not fits or given[name].type != "tensor(float)":
        raise InputError(
            f"{path}: input {name!r} is {given[name].type} of {shape}, where n x "
            f"{' x '.join(map(str, wanted))} floats are due"
        )
    return name, shape[0] if isinstance(shape[0], int) else None


def _outputs(path: Path, session: InferenceSession, said: OnnxCard) -> list[str]:
    """Names of the outputs that are read."""
    known = [node.name for node in session.get_outputs()]
    asked = [reading.output for reading in said.attributes.values()]
    wanted = list(dict.fromkeys([*asked, *([said.features] if said.features else [])]))
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise InputError(f"{path}: has no output {unknown!r} (it has: {', '.join(known)})")
    return wanted


def _check_columns(path: Path, said: OnnxCard, widths: Mapping[str, int]) -> None:
    """Every column of an output belongs to one word: else the order given cannot be right."""
    for output in {reading.output for reading in said.attributes.values()}:
        if output == said.features:
            raise InputError(f"{path}: {output!r} cannot be features and predictions")
        readings = [r for r in said.attributes.values() if r.output == output]
        taken = sorted(i for r in readings for i in range(r.first, r.last))
        if taken != list(range(widths[output])):
            raise InputError(
                f"{path}: output {output!r} has {widths[output]} columns, and the words given are "
                f"for columns {', '.join(map(str, taken))}: name a word for each, once"
            )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
