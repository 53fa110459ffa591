"""The common field of view of photos and generators, in plans and in runs."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from pulse_audit import store
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.faces.align import frame_in_ffhq
from pulse_audit.frames import WHOLE
from pulse_audit.harness.comparison import common_field, find_comparison, photo_notes
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import AuditSpec, make_spec
from pulse_audit.models.generators import load_generator
from pulse_audit.types import InputError, Upsampler

FAIRFACE = frame_in_ffhq("fairface-0.25")


class Arm(SimpleNamespace):
    """A generator's arm, of what the comparison looks at."""

    def framed(self, *_: object) -> "Arm":
        return self


def compare(photos: str, *crops: str, crop: str | None = None, cut: bool = True):
    kind = Arm if cut else SimpleNamespace
    arms = {f"a{i}": kind(resolution=64, crop=name) for i, name in enumerate(crops)}
    card = cast(DatasetCard, SimpleNamespace(name="d", crop=photos, resolution=48))
    spec = AuditSpec(dataset="d", crop=crop)
    found = find_comparison(spec, cast(dict[str, Upsampler], arms), card)
    return found, photo_notes(spec, found, card)


def test_photos_that_do_not_fill_the_generator_s_crop_decide() -> None:
    found, notes = compare("fairface-0.25", "ffhq")
    assert (found.crop, found.aligned, list(found.frames)) == ("fairface-0.25", False, ["ffhq"])
    assert found.frames["ffhq"].frame == FAIRFACE and notes == []
    # About rows 255-1007 and columns 160-912 of 1024, as seen by eye.
    pixels = [1024 * v for v in (FAIRFACE.top, FAIRFACE.left, FAIRFACE.side)]
    np.testing.assert_allclose(pixels, [255, 160, 752], atol=50)


@pytest.mark.parametrize(
    ("photos", "crops"),
    [
        ("fairface-0.25", ("fairface-0.25",)),  # the shipped twins
        ("fairface-0.25", ("as-is",)),
        ("as-is", ("as-is",)),
        ("ffhq", ("ffhq",)),
        ("fairface-0.25", ()),
    ],
)
def test_a_generator_of_the_photos_crop_changes_nothing(
    photos: str, crops: tuple[str, ...]
) -> None:
    found, notes = compare(photos, *crops)
    assert found.as_dict() == {"resolution": 64 if crops else 48, "crop": photos, "aligned": False}
    assert notes == []


@pytest.mark.parametrize(
    ("photos", "crop"), [("fairface-1.25", "ffhq"), ("celeba", "ffhq"), ("ffhq", "celeba-108")]
)
def test_photos_that_show_more_are_aligned(photos: str, crop: str) -> None:
    found, notes = compare(photos, crop)
    assert found.as_dict() == {"resolution": 64, "crop": crop, "aligned": True} and notes == []


def test_a_smaller_generator_and_a_larger_one_share_the_smaller_crop() -> None:
    found, _ = compare("fairface-1.25", "ffhq", "celeba")
    assert found.crop == "ffhq" and found.aligned and list(found.frames) == ["celeba"]
    assert found.frames["celeba"].frame == WHOLE.seen_from(frame_in_ffhq("celeba"))


def test_crops_of_which_none_lies_within_all_share_their_largest_square() -> None:
    found, (note,) = compare("fairface-0.25", "celeba-108", "ffhq")
    assert (found.crop, found.aligned) == ("fairface-0.25", False)
    assert sorted(found.frames) == ["celeba-108", "fairface-0.25", "ffhq"]
    # The same square of a face, whichever picture it is cut from.
    for crop, part in found.frames.items():
        assert WHOLE.contains(part.frame)
        back = part.frame.seen_from(WHOLE.seen_from(frame_in_ffhq(crop)))
        wanted = found.frames["ffhq"].frame
        assert (back.left, back.top, back.side) == pytest.approx(
            (wanted.left, wanted.top, wanted.side)
        )
    assert note.startswith("photos of crop fairface-0.25 show what the generators do not")


def test_every_pair_of_crops_has_a_field_in_common() -> None:
    crops = ("ffhq", "fairface-0.25", "fairface-1.25", "celeba", "celeba-108")
    for photos in crops:
        for generator in crops:
            crop, frames = common_field(photos, {generator})
            assert crop in (photos, generator)
            assert all(part.side > 0.5 for part in frames.values())


def test_a_crop_that_is_asked_for_is_taken_and_larger_generators_are_cut() -> None:
    found, (note,) = compare("fairface-0.25", "ffhq", crop="ffhq")
    assert found.as_dict() == {"resolution": 64, "crop": "ffhq", "aligned": True}
    assert "mirrored beyond their edges" in note and "without --crop" in note
    found, notes = compare("fairface-0.25", "ffhq", crop="fairface-0.25")
    assert found.frames["ffhq"].frame == FAIRFACE and notes == []
    found, _ = compare("fairface-0.25", "ffhq", crop="as-is")
    assert found.as_dict() == {"resolution": 64, "crop": "as-is", "aligned": False}


def test_photos_meet_an_arm_that_cannot_be_cut_in_its_crop() -> None:
    found, (note,) = compare("fairface-0.25", "ffhq", cut=False)
    assert found.as_dict() == {"resolution": 64, "crop": "ffhq", "aligned": True}
    assert "mirrored" in note and "--crop" not in note


@pytest.fixture
def ffhq_generator(tiny_generator: str) -> str:
    """The small generator, made for FFHQ's crop."""
    path = Path(tiny_generator.rsplit(":", 1)[0])
    path.write_text(path.read_text().replace('name="tiny"', 'name="tiny", crop="ffhq"'))
    return tiny_generator


def values(root: Path, generator: str, **changes: object) -> dict[str, object]:
    return {
        "dataset": "fairface", "data_root": root, "generators": [generator], "scales": [4],
        "per_group": 1, "limit": 2, "draws": 2, "threads": 1, "device": "cpu",
        "metrics": ["psnr"], "attributes": "none", "keep_images": "all",
    } | changes  # fmt: skip


def test_a_run_cuts_the_generator_and_leaves_the_photos(
    fairface_root: Path,
    ffhq_generator: str,
    tmp_path: Path,
    read_pixels: Callable[[Path], np.ndarray],
) -> None:
    run = run_audit(
        make_spec(values(fairface_root, ffhq_generator, kernel="area")), tmp_path / "out"
    )
    manifest = run.manifest
    frame = {"left": FAIRFACE.left, "top": FAIRFACE.top, "side": FAIRFACE.side}
    assert manifest.prepared.as_dict() == {
        "resolution": 32, "crop": "fairface-0.25", "aligned": False, "frames": {"ffhq": frame}
    }  # fmt: skip
    arm = manifest.arms["pulse:tiny"].as_dict()
    assert arm["generator"]["frame"] == frame and arm["generator"]["crop"] == "fairface-0.25"
    assert arm["notes"][0].startswith("outputs of crop ffhq (32 px) are cut to")

    # The original is the photo itself, and the error is that of the stored output.
    for row in run.samples().itertuples():
        photo = read_pixels(fairface_root / row.face_id)
        original = read_pixels(run.path / store.original_path(row.face_id))
        means = photo.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3))
        assert np.abs(original.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3)) - means).max() < 12
        lr = store.lr_path(row.face_id, row.condition, row.scale, row.draw)
        output, lr = (read_pixels(run.path / name) / 255 for name in (row.image, lr))
        error = ((output.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)) - lr) ** 2).mean()
        assert error == pytest.approx(row.downscale_error, rel=0.01, abs=2e-5)
    page = (run.path / "report" / "index.html").read_text()
    assert "Common field of view" in page and "69 % of the side" in page

    # Resumed with the same frame; another one is refused.
    again = plan_audit(make_spec(values(fairface_root, ffhq_generator, kernel="area")), manifest)
    assert again.manifest.prepared == manifest.prepared


def test_a_run_of_another_frame_is_not_resumed(
    fairface_root: Path, ffhq_generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(values(fairface_root, ffhq_generator, keep_images="none"))
    run_audit(spec, tmp_path / "out")
    moved = frame_in_ffhq("celeba-108")
    monkeypatch.setattr(
        "pulse_audit.harness.comparison.frame_in_ffhq",
        lambda crop: WHOLE if crop == "ffhq" else moved,
    )
    with pytest.raises(InputError, match=r"frame of the comparison changed .* \(frames\)"):
        run_audit(spec, tmp_path / "out")


def test_the_search_matches_pixels_within_the_frame(
    fairface_root: Path, ffhq_generator: str
) -> None:
    """The output of an arm is the part of a picture that its generator can draw."""
    plan = plan_audit(make_spec(values(fairface_root, ffhq_generator)))
    arm, whole = plan.arms["pulse:tiny"].generator, load_generator(ffhq_generator)
    latents = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    expected = cut_to_frame(whole.synthesize(latents, []), FAIRFACE, 32)
    torch.testing.assert_close(arm.synthesize(latents, []), expected)
    assert DegradationModel("clean", 4).downscale(expected).shape == (1, 3, 8, 8)
