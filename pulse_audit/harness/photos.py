"""From photos to inputs: decode, align, resize, degrade; and the images that a run keeps.

Work units, ``--sources``, planted arms and single photos all take this path.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from pulse_audit import __version__, store
from pulse_audit.datasets.images import UnreadableImage, load
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import resize
from pulse_audit.faces.align import FaceAligner, centre_square, cut
from pulse_audit.faces.crops import Square, visible_frame
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.models import shipped
from pulse_audit.names import POSTERIORS
from pulse_audit.seeding import fingerprint
from pulse_audit.store.manifest import Manifest, Prepared, WorkUnit
from pulse_audit.types import Draw, Face, InputError, Request

#: Faces per group whose images are kept by ``--keep-images sample``.
SAMPLE_FACES = 2
#: What outputs of a generator say of themselves, and the arms that have one.
SYNTHETIC = "synthetic face made by pulse-audit, not a photo, not evidence of anyone's identity"
GENERATED = ("pulse", *POSTERIORS)
#: Memory for the prepared faces that planted arms return, in bytes.
PLANTED_CACHE = 2**27
#: Ends the name of the list of training photos beside a shipped model.
TRAINING_PHOTOS = "-images.txt.gz"


@dataclass(frozen=True)
class PreparedFace:
    """An original (3, R, R) in [0, 1], and whether a face was found in it to align.

    ``aligned`` is None where the photo was not to be aligned, so that no detector ran. ``frame`` is
    the part of the run's crop that the original shows, ``square`` its place in the photo if the
    photo was aligned.
    """

    image: Tensor
    aligned: bool | None
    frame: Frame = WHOLE
    square: Square | None = None


class FacePreparer:
    """Photos to originals: aligned to a crop, or a frame of their centre square, and resized.

    An aligned photo that does not fill the crop is cut to the largest part of it that it shows.

    Parameters
    ----------
    resolution : int
        Side R of the originals, in pixels.
    crop : str
    align : bool
        Whether photos have to be aligned; False where they are in the crop already.
    device : torch.device
        Of the face detector.
    frame : Frame
        The part that is shown of photos that are not aligned.
    mirror : bool
        Whether aligned photos are mirrored beyond their edges instead.
    """

    def __init__(
        self,
        resolution: int,
        crop: str,
        align: bool,
        device: torch.device,
        frame: Frame = WHOLE,
        mirror: bool = False,
    ) -> None:
        self._resolution, self._crop, self._frame = resolution, crop, frame
        self._mirror = mirror
        self._aligner = FaceAligner(device) if align else None

    @classmethod
    def of(cls, prepared: Prepared, device: torch.device) -> FacePreparer:
        """Prepare faces as the manifest says."""
        frame, mirror = shared_frame(prepared), not prepared.per_photo
        return cls(prepared.resolution, prepared.crop, prepared.aligned, device, frame, mirror)

    def prepare(self, photo: NDArray[np.float32]) -> PreparedFace:
        """Prepare a decoded photo (H, W, 3) in [0, 1].

        A photo without a detectable face is used unaligned: dropping it would drop the groups on
        which the detector fails.
        """
        if self._aligner is None:
            image = centre_square(photo, self._resolution, self._frame)
            return PreparedFace(image, None, self._frame)
        square = self._aligner.square(photo, self._crop)
        if square is None:
            return PreparedFace(centre_square(photo, self._resolution), False)
        return self._cut(photo, square)

    def prepare_every(self, photo: NDArray[np.float32]) -> list[PreparedFace]:
        """Prepare every face of a decoded photo, from left to right; the photo where not to align.

        Without a detectable face the list is empty.
        """
        if self._aligner is None:
            return [self.prepare(photo)]
        return [self._cut(photo, square) for square in self._aligner.squares(photo, self._crop)]

    def _cut(self, photo: NDArray[np.float32], square: Square) -> PreparedFace:
        """Cut the part of a crop that the photo shows."""
        frame = WHOLE
        if not self._mirror:
            # The centre of a detected face lies in the photo, so that the photo has a part of it.
            frame = visible_frame(square, *photo.shape[:2]) or WHOLE
        shown = square.part(frame)
        return PreparedFace(cut(photo, shown, self._resolution), True, frame, shown)

    def prepare_by_id(self, faces: Sequence[Face]) -> Callable[[str], Tensor | None]:
        """Return a function from a face's id to its original; None for an unreadable photo."""
        sources = {face.id: face.source for face in faces}

        # An original takes 3 x 4 bytes per pixel.
        @lru_cache(maxsize=max(16, PLANTED_CACHE // (12 * self._resolution**2)))
        def prepare(face_id: str) -> Tensor | None:
            try:
                return self.prepare(load(sources[face_id])).image
            except UnreadableImage:
                return None

        return prepare


@dataclass(frozen=True)
class UnitInputs:
    """The n draws of a work unit with their seeds, originals (n, 3, R, R) and inputs.

    ``lr`` is (n, 3, R / scale, R / scale); both image batches are on the run's device.
    """

    draws: list[Draw]
    seeds: list[int]
    hr: Tensor
    lr: Tensor
    degradation: DegradationModel
    requests: list[Request]


class ImageStore(Protocol):
    """Where images are kept, by path relative to the run: a run, or a worker's memory."""

    def has_image(self, relative: str) -> bool:
        """Whether an image is there."""

    def write_image(self, relative: str, png: bytes) -> None:
        """Keep an image."""


class FacePipeline:
    """The photos of a run: originals, degraded inputs, outputs, and what is kept of them.

    The run receives the images that are kept, None where nothing is; ``faces`` are those of the
    manifest by id.
    """

    def __init__(
        self, run: ImageStore | None, manifest: Manifest, faces: Mapping[str, Face]
    ) -> None:
        self._run, self._spec, self._faces = run, manifest.spec, faces
        prepared = manifest.prepared
        self.resolution, self.crop = prepared.resolution, prepared.crop
        #: The part of the crop that all photos show, and whether each has one of its own.
        self.frame, self.frames_of_photos = shared_frame(prepared), prepared.per_photo
        self.device = torch.device(manifest.execution.device)
        self._kept = faces_to_keep(manifest)
        preparer = FacePreparer.of(prepared, self.device)

        # A unit holds several draws of a face, and the next arm takes the same faces again.
        @lru_cache(maxsize=2 * manifest.execution.batch)
        def original(face_id: str) -> PreparedFace:
            return preparer.prepare(load(faces[face_id].source))

        self.original = original

    def unit_inputs(self, unit: WorkUnit) -> UnitInputs:
        """Degrade the originals of a work unit, each draw with its own seed."""
        draws = [Draw(face_id, unit.condition, unit.scale, index) for face_id, index in unit.draws]
        seeds = [draw.seed(self._spec.seed) for draw in draws]
        # HR (n, 3, R, R) -> LR (n, 3, R / scale, R / scale)
        originals = [self.original(draw.face_id) for draw in draws]
        hr = torch.stack([original.image for original in originals]).to(self.device)
        degradation = DegradationModel(unit.condition, unit.scale, self._spec.kernel)
        lr = degradation(hr, [fingerprint(seed, "degradation") for seed in seeds])
        requests = [
            Request(
                small,
                draw.face_id,
                self._faces[draw.face_id].labels,
                seed,
                # The arms see the frame that all photos share already.
                original.frame if self.frames_of_photos and original.frame != WHOLE else None,
                draw.index,
                replace(draw, index=0).seed(self._spec.seed),
            )
            for small, draw, seed, original in zip(lr, draws, seeds, originals, strict=True)
        ]
        return UnitInputs(draws, seeds, hr, lr, degradation, requests)

    def frame_columns(self, face_id: str) -> dict[str, float]:
        """Columns of the samples with the frame of a photo, where photos have frames."""
        frame = self.original(face_id).frame
        values = (frame.left, frame.top, frame.side)
        return dict(zip(store.FRAME_COLUMNS, values, strict=True)) if self.frames_of_photos else {}

    def resample(self, images: Tensor) -> Tensor:
        """Bring outputs (n, 3, r, r) to the run's resolution (n, 3, R, R); differentiable."""
        if images.shape[-1] == self.resolution:
            return images
        return resize(images, self.resolution, "bicubic").clamp(0, 1)

    def keep(self, arm: str, draw: Draw, output: Tensor, lr: Tensor | None = None) -> str | None:
        """Store the output of a draw where the run keeps the images of its face.

        Parameters
        ----------
        arm : str
        draw : Draw
        output : Tensor, (3, R, R)
        lr : Tensor, (3, r, r), optional
            Its input, which is kept too, with the original.

        Returns
        -------
        str or None
            Path of the output, relative to the run; None where it is not kept.
        """
        if self._run is None or draw.face_id not in self._kept:
            return None
        key = (draw.face_id, draw.condition, draw.scale, draw.index)
        path = store.output_path(arm, *key)
        # Other arms may answer with photos of persons.
        generated = arm.partition(":")[0] in GENERATED
        marks = synthetic_marks(arm, draw.seed(self._spec.seed)) if generated else None
        self._run.write_image(path, encode_png(output, marks))
        if lr is not None:
            # Draws share their original and arms their inputs: a file that exists is the same.
            original = self.original(draw.face_id).image
            inputs = {store.original_path(draw.face_id): original, store.lr_path(*key): lr}
            for relative, image in inputs.items():
                if not self._run.has_image(relative):
                    self._run.write_image(relative, encode_png(image))
        return path


def shared_frame(prepared: Prepared) -> Frame:
    """Return the part of the run's crop that is compared of every face."""
    part = prepared.frames.get(prepared.crop)
    return WHOLE if part is None else part.frame


def faces_to_keep(manifest: Manifest) -> frozenset[str]:
    """Ids of the faces whose images are kept: all, none, or the first few of each group."""
    keep, faces = manifest.spec.keep_images, manifest.faces
    if keep == "all":
        return frozenset(face.id for face in faces)
    if keep != "sample":
        return frozenset()
    # Groups of the first grouping: the one that the draw of faces is balanced over.
    columns = [column for grouping in manifest.spec.groupings[:1] for column in grouping]
    groups: dict[tuple[str | None, ...], list[str]] = {}
    for face in faces:
        groups.setdefault(tuple(face.labels.get(c) for c in columns), []).append(face.id)
    return frozenset(face_id for ids in groups.values() for face_id in ids[:SAMPLE_FACES])


def to_numpy(image: Tensor) -> NDArray[Any]:
    """(3, H, W) tensor to (H, W, 3) array of float32."""
    pixels: NDArray[Any] = image.detach().permute(1, 2, 0).float().cpu().numpy()
    return pixels


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) tensor in [0, 1] to (H, W, 3) array of uint8."""
    pixels: NDArray[np.uint8] = (to_numpy(image).clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def encode_png(image: Tensor | Image.Image, texts: Mapping[str, str] | None = None) -> bytes:
    """Encode (3, H, W) in [0, 1], or a picture, as an 8-bit PNG with text chunks."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_bytes(image))
    notes = PngImagePlugin.PngInfo()
    for key, text in (texts or {}).items():
        notes.add_text(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=notes)
    return buffer.getvalue()


def synthetic_marks(generator: str, seed: int) -> dict[str, str]:
    """Text chunks that say of a picture that it shows nobody; ``generator`` or its arm by name."""
    return {
        "Software": f"pulse-audit {__version__}",
        "Description": SYNTHETIC,
        "Generator": generator,
        "Seed": str(seed),
    }


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos a model was trained on: SHA-256 of their bytes, and their names in FairFace.

    Both count: training may have used smaller copies of photos that a run has in full.
    """

    digests: frozenset[str]
    names: frozenset[str] = frozenset()


def read_training_photos(path: Path) -> TrainingPhotos:
    """Read a list of training photos: per line a SHA-256 and, after spaces, a file name.

    `InputError` if it is damaged.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: unreadable list of training photos ({error})") from None
    # SHA-256 and name, which may be missing.
    pairs = [line.partition(" ")[::2] for line in lines]
    for digest, _ in pairs:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise InputError(f"{path}: {digest[:20]!r} is no SHA-256; the list is damaged")
    names = frozenset(name.strip() for _, name in pairs)
    return TrainingPhotos(frozenset(digest for digest, _ in pairs), names - {""})


def training_photo_notes(models: Collection[str], manifest: Manifest) -> list[str]:
    """Say how many of a run's photos the models were trained on, for those that state them.

    Names are compared where the data set of the run is FairFace.
    """
    notes, faces = [], manifest.faces
    for model in models:
        path = shipped.ASSETS / f"{model}{TRAINING_PHOTOS}"
        if not path.is_file():
            continue
        photos = read_training_photos(path)
        names = photos.names if manifest.dataset.name.startswith("fairface") else frozenset()
        known = sum(face.sha256 in photos.digests or face.id in names for face in faces)
        if known:
            notes.append(
                f"{model} was trained on {known} of the {len(faces)} photos of this run: its "
                "results on those say little about new faces"
            )
    return notes
