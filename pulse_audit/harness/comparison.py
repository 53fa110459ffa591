"""What all arms are compared on: one resolution, and what photos and generators both show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.faces.crops import frame_in_ffhq
from pulse_audit.frames import WHOLE, Frame, common_square
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.store.manifest import FrameEntry, Prepared
from pulse_audit.types import InputError, Upsampler
from pulse_audit.upsamplers.diffusion import DiffusionUpsampler

UNKNOWN = "as-is"


def find_comparison(spec: AuditSpec, arms: Mapping[str, Upsampler], card: DatasetCard) -> Prepared:
    """Resolution and crop at which outputs are compared, and how other crops are cut to it.

    The resolution is the smallest generator's by default. The crop is what the photos and all
    generators show: that of the photos where they do not fill a generator's crop, that of the
    generators where these show less.

    Raises
    ------
    InputError
        If neither the specification, an arm nor the data set has a resolution.
    """
    # Arms with a size of their own are generators; interpolation takes any size.
    sized = [arm for arm in arms.values() if arm.resolution is not None]
    smallest = min(sized, key=lambda arm: arm.resolution or 0, default=None)
    native = smallest.resolution if smallest is not None else card.resolution
    resolution = spec.resolution or native
    if resolution is None:
        raise InputError(
            f"data set {card.name!r} has no native size and no arm has one: add --resolution"
        )

    # A generator of no known crop takes the photos as they are.
    crops = {crop_of(arm) for arm in sized} - {UNKNOWN}
    foreign = {crop_of(arm) for arm in sized if not hasattr(arm, "framed")} - {UNKNOWN}
    frames: dict[str, Frame] = {}
    if spec.crop is not None:
        crop = spec.crop
    elif card.crop == UNKNOWN or not crops or foreign - {card.crop}:
        # Nothing to derive a common field from, or an arm whose outputs cannot be cut.
        native_crop = crop_of(smallest)
        crop = card.crop if native_crop == UNKNOWN else native_crop
    else:
        crop, frames = common_field(card.crop, crops)
    # Generators that show more than the crop of the run are cut to it.
    if crop != UNKNOWN:
        inner = frame_in_ffhq(crop)
        for other in sorted(crops - foreign - {crop, *frames}):
            if frame_in_ffhq(other).contains(inner):
                frames[other] = inner.seen_from(frame_in_ffhq(other))

    # Photos that are in the crop already, or in no known one, are not aligned.
    aligned = crop not in (UNKNOWN, card.crop)
    prepared = Prepared(resolution=resolution, crop=crop, aligned=aligned)
    if frames:
        prepared.frames = {name: FrameEntry(**f.as_dict()) for name, f in frames.items()}
    # A photo that does not fill the crop it is aligned to is cut, unless the crop was asked for.
    if aligned and spec.crop is None and not foreign:
        prepared.per_photo = True
    return prepared


def common_field(photos: str, generators: set[str]) -> tuple[str, dict[str, Frame]]:
    """Return the crop that photos and generators have in common, and the part of each other one.

    Where none of their crops lies within all others, it is the largest square within all of them,
    and the part of the photos' own crop is given, too.
    """
    seen = {crop: frame_in_ffhq(crop) for crop in (photos, *sorted(generators))}
    for crop, frame in seen.items():
        if all(other.contains(frame) for other in seen.values()):
            return crop, {}
    square = common_square(list(seen.values()))
    assert square is not None  # every crop shows the face
    return photos, {crop: square.seen_from(frame) for crop, frame in seen.items()}


def frame_arms(arms: Mapping[str, Upsampler], prepared: Prepared) -> dict[str, Upsampler]:
    """Cut the generators of other crops to the common field of view; other arms as they are."""
    framed = {}
    for name, arm in arms.items():
        part = prepared.frames.get(crop_of(arm))
        if part is not None and hasattr(arm, "framed"):
            arm = arm.framed(part.frame, prepared.resolution, prepared.crop)
        framed[name] = arm
    return framed


def photo_notes(spec: AuditSpec, prepared: Prepared, card: DatasetCard) -> list[str]:
    """Say where photos are cut to the common field of view, or do not fill the run's crop."""
    if part := prepared.frames.get(prepared.crop):
        return [
            f"photos of crop {card.crop} show what the generators do not: they are cut to "
            f"{part.frame}, and the outputs likewise"
        ]
    if not prepared.aligned:
        return []
    if prepared.per_photo:
        return [
            f"photos that do not fill crop {prepared.crop} are cut to the part of it that they "
            "show, and so are the outputs for them"
        ]
    known = card.crop != UNKNOWN
    if known and frame_in_ffhq(card.crop).contains(frame_in_ffhq(prepared.crop)):
        return []
    photos = f"photos of crop {card.crop} do not fill" if known else "photos that do not fill"
    mirrored = "they are mirrored beyond their edges, and the search matches what is mirrored"
    remedy = "; without --crop outputs are cut to what the photos show" if spec.crop else ""
    return [f"{photos} crop {prepared.crop}: {mirrored}{remedy}"]


def arm_notes(arm: Upsampler, prepared: Prepared) -> list[str]:
    """Say where an arm's own size or crop is not that of the comparison."""
    crop, notes = crop_of(arm), []
    # A generator, or a diffusion model, that is seen through a frame.
    part: Any = getattr(arm, "generator", None)
    if isinstance(arm, DiffusionUpsampler) and arm.frame != WHOLE:
        part = arm
    if isinstance(part, FramedGenerator | DiffusionUpsampler):
        whole = part.whole.card
        notes.append(
            f"outputs of crop {whole.crop} ({whole.resolution} px) are cut to what the run's "
            f"photos show, {part.frame}, and resampled to {prepared.resolution} px, before "
            "they are downscaled and measured"
        )
    if arm.resolution not in (None, prepared.resolution):
        notes.append(f"native size {arm.resolution} px, resampled to {prepared.resolution} px")
    if crop not in (UNKNOWN, prepared.crop):
        notes.append(f"made for crop {crop}, compared at crop {prepared.crop}")
    return notes


def crop_of(arm: Any) -> str:
    """Return the crop of the faces that an arm was made for."""
    return str(getattr(arm, "crop", UNKNOWN))
