"""A super-resolution network in an ONNX file: ``onnx:FILE``.

It maps images (n, 3, h, w) of RGB in [0, 1] to (n, 3, s h, s w), where s is the run's scale. Sizes
may be fixed in the file or left open, the batch too. ``FILE.yaml`` beside the file, if it is there,
says what is otherwise::

    input_range: [-1, 1]
    output_range: [-1, 1]
    channels: BGR
    crop: ffhq                  # of the faces that it was trained on
    training_data: FFHQ
    licence: MIT
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FiniteFloat,
    StringConstraints,
)
from torch import Tensor

from pulse_audit.documents import checked, read_yaml
from pulse_audit.onnx_model import (
    check_installed,
    open_session,
    random_operators,
    read_model,
    run_session,
    try_model,
)
from pulse_audit.seeding import sha256
from pulse_audit.types import Crop, Degradation, InputError, Request, Upsampled
from pulse_audit.upsamplers.outputs import judged

#: Of the first run on one input: seconds of processor time and bytes, more than small networks
#: that predict attributes need.
SECONDS, MEMORY = 60, 2**32
#: Largest side of an image, in pixels; that of a run's resolution.
MAX_SIDE = 4096

Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=80)]


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] >= values[1]:
        raise ValueError("the first number has to be the smaller")
    return values


Range = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]


class OnnxUpsamplerDescription(BaseModel):
    """Content of the file beside a model: ranges of its values, order of channels, and its card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_range: Range = (0.0, 1.0)
    output_range: Range = (0.0, 1.0)
    channels: Literal["RGB", "BGR"] = "RGB"
    crop: Crop = "as-is"
    training_data: Word | None = None
    licence: Word | None = None


class OnnxUpsampler:
    """An ONNX network as an arm; every draw of a face is the same unless it draws numbers itself.

    Parameters
    ----------
    name : str
        Of the arm.
    path : Path
    device : torch.device
        A GPU is used where the installed onnxruntime can.

    Raises
    ------
    InputError
        In one line: the extra is not installed; the file or the one beside it is missing, damaged
        or hostile; the network takes or gives something else than one batch of images.
    """

    promises_feasibility = False

    def __init__(self, name: str, path: Path, device: torch.device) -> None:
        check_installed(path)
        self.name, self._path = name, path
        self._data, model = read_model(path)
        self.description = read_description(path.with_suffix(".yaml"))
        self.crop = self.description.crop
        self._random = random_operators(model)
        self._gpu = (device.index or 0) if device.type == "cuda" else None
        # What the file says of its shapes is read without opening it in onnxruntime.
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [node for node in model.graph.input if node.name not in weights]
        outputs = list(model.graph.output)
        if len(inputs) != 1 or len(outputs) != 1:
            raise InputError(
                f"{path}: takes {len(inputs)} and gives {len(outputs)} arrays; an arm takes one "
                "batch of images and gives one"
            )
        self._input, self._batch, self._side = _images(path, inputs[0])
        _, _, self.resolution = _images(path, outputs[0])
        self._session: Any = None

    def check_scale(self, scale: int, lr_size: int) -> None:
        """Try the network on one grey input of a run, first in a process with limits.

        Parameters
        ----------
        scale, lr_size : int
            Of the run: the downscaling factor, and the side of its inputs in pixels.

        Raises
        ------
        InputError
            If it does not take such inputs, enlarges by another factor, fails, or exceeds the
            limits on time and memory.
        """
        if self._side not in (None, lr_size):
            raise InputError(
                f"{self._path}: takes inputs of {self._side} px, and those of the run are "
                f"{lr_size} px; choose --resolution and --scale that make {self._side}"
            )
        shape = (self._batch or 1, 3, lr_size, lr_size)
        try_model(self._path, self._data, shape, SECONDS, MEMORY)
        if self._session is None:
            threads = torch.get_num_threads()
            self._session = open_session(self._path, self._data, threads, self._gpu)
        given = tuple(self._run(torch.full((1, *shape[1:]), 0.5)).shape[1:])
        due = (3, lr_size * scale, lr_size * scale)
        if given == due:
            return
        factor = given[1] / lr_size if len(given) == 3 else 0
        if factor >= 1 and factor % 1 == 0 and given == (3, given[1], given[1]):
            raise InputError(
                f"{self._path}: enlarges {factor:g} times, and the run's scale is {scale}: "
                f"choose --scale {factor:g}"
            )
        raise InputError(
            f"{self._path}: gives n x {' x '.join(map(str, given))}, where n x "
            f"{' x '.join(map(str, due))} are due"
        )

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Enlarge every request by the network's own factor."""
        started = time.perf_counter()
        images = self._run(torch.stack([request.lr for request in requests]))
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            judged(image, request, degradation, seconds)
            for image, request in zip(images, requests, strict=True)
        ]

    @property
    def caveats(self) -> tuple[str, ...]:
        """Say where draws are random beyond the run's seeds."""
        if not self._random:
            return ()
        operators = " and ".join(self._random)
        return (f"draws numbers of its own ({operators}), which the run's seeds do not decide",)

    def describe(self) -> dict[str, Any]:
        """Return the file's SHA-256, its shapes and what was said of it."""
        return {
            "kind": "onnx",
            "sha256": sha256(self._data),
            "batch": self._batch,
            "input_side": self._side,
            "description": self.description.model_dump(mode="json"),
        }

    def _run(self, lr: Tensor) -> Tensor:
        """Return the outputs (n, 3, H, W), within [0, 1], for inputs (n, 3, h, w) in [0, 1]."""
        said = self.description
        low, high = said.input_range
        inputs = lr.detach().float().cpu() * (high - low) + low
        inputs = inputs.flip(1) if said.channels == "BGR" else inputs
        # All at once, or in parts where the file has a batch size of its own; a short last part is
        # filled up with its first image, whose outputs are cut off.
        outputs = []
        for part in torch.split(inputs, self._batch or len(inputs)):
            filler = part[:1].expand((self._batch or len(part)) - len(part), *part.shape[1:])
            batch = torch.cat([part, filler]).contiguous().numpy()
            answer = run_session(self._path, self._session, [], {self._input: batch})[0]
            outputs.append(torch.from_numpy(answer)[: len(part)].float())
        images = torch.cat(outputs)
        if images.ndim != 4 or images.shape[0] != len(lr) or images.shape[1] != 3:
            raise InputError(
                f"{self._path}: gives {' x '.join(map(str, images.shape))} for {len(lr)} inputs, "
                f"where {len(lr)} x 3 x H x W are due"
            )
        images = images.flip(1) if said.channels == "BGR" else images
        low, high = said.output_range
        return ((images - low) / (high - low)).clamp(0, 1)


def read_description(path: Path) -> OnnxUpsamplerDescription:
    """Read the file beside a model; without one, everything is as usual.

    Raises
    ------
    InputError
        If it cannot be read or understood.
    """
    try:
        return checked(OnnxUpsamplerDescription, read_yaml(path), path)
    except FileNotFoundError:
        return OnnxUpsamplerDescription()


def _images(path: Path, node: Any) -> tuple[str, int | None, int | None]:
    """Return name, batch size and side of a batch of images; None where the file leaves it open."""
    tensor = node.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
    # A size of 0 or less is no size, and one beyond that of any run no image's.
    sizes = [size if size and size > 0 else None for size in sizes]
    if any(size > MAX_SIDE for size in sizes if size):
        raise InputError(f"{path}: {node.name!r} has a size above {MAX_SIDE:,}")
    shown = " x ".join("?" if size is None else str(size) for size in sizes) or "no known shape"
    # An output may come without a shape; the first run shows it.
    open_shape = not tensor.HasField("shape")
    fits = open_shape or (
        len(sizes) == 4 and sizes[1] in (None, 3) and (sizes[2] == sizes[3] or None in sizes[2:])
    )
    if tensor.elem_type != 1 or not fits:  # 1 is 32-bit floats
        kind = "32-bit floats" if tensor.elem_type == 1 else f"type {tensor.elem_type}"
        raise InputError(
            f"{path}: {node.name!r} is {shown} of {kind}, where n x 3 x h x h 32-bit floats are due"
        )
    if open_shape:
        return node.name, None, None
    return node.name, sizes[0], sizes[2] or sizes[3]
