"""The common field of view of photos and generators, in plans and in runs."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pulse_audit import store
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.faces.align import FaceAligner, cut
from pulse_audit.faces.crops import FAIRFACE_025, SQUARES, frame_in_ffhq
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.harness.comparison import common_field, find_comparison, photo_notes
from pulse_audit.harness.guidance import Guided, guided_search
from pulse_audit.harness.photos import FacePreparer
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.single import upsample_photos
from pulse_audit.harness.source_models import resolve_sources
from pulse_audit.harness.sources import SourcesConfig, run_sources
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
    assert found.as_dict() == {
        "resolution": 64, "crop": crop, "aligned": True, "per_photo": True
    }  # fmt: skip
    assert [note.split(" are cut")[0] for note in notes] == [f"photos that do not fill crop {crop}"]


def test_photos_of_no_known_crop_are_aligned_each_with_its_own_frame() -> None:
    found, (note,) = compare("as-is", "ffhq")
    assert found.as_dict() == {
        "resolution": 64, "crop": "ffhq", "aligned": True, "per_photo": True
    }  # fmt: skip
    assert "are cut to the part of it that they show" in note
    found, (note,) = compare("as-is", "ffhq", crop="ffhq")
    assert not found.per_photo and "mirrored beyond their edges" in note


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


@pytest.fixture
def landmarks_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landmarks for painted faces, which no detector finds: about FairFace's, by the pixels."""

    def landmarks(self: FaceAligner, photo: np.ndarray, smallest: float = 0.0) -> np.ndarray:
        side = photo.shape[0]
        return side * (0.5 + (0.6 + 0.5 * photo.mean()) * (FAIRFACE_025 - 0.5))

    monkeypatch.setattr(FaceAligner, "landmarks", landmarks)


def test_photos_of_no_known_crop_keep_to_what_each_shows(
    fairface_root: Path,
    ffhq_generator: str,
    tmp_path: Path,
    read_pixels: Callable[[Path], np.ndarray],
    landmarks_everywhere: None,
) -> None:
    own = tmp_path / "datasets.yaml"
    own.write_text("fairface: {crop: as-is}\n")
    spec = make_spec(values(fairface_root, ffhq_generator, datasets_file=own, limit=3))
    run = run_audit(spec, tmp_path / "out")
    assert run.manifest.prepared.as_dict() == {
        "resolution": 32, "crop": "ffhq", "aligned": True, "per_photo": True
    }  # fmt: skip
    rows = run.samples()
    sides = rows.groupby("face_id").hr_frame_side
    assert rows.hr_aligned.all() and (sides.nunique() == 1).all()
    assert rows.hr_frame_side.nunique() == 3
    assert rows.hr_frame_side.between(0.5, 0.9).all()

    # The original is the photo over the frame, none of it mirrored.
    for row in rows[rows.draw == 0].itertuples():
        photo = read_pixels(fairface_root / row.face_id).astype(np.float32) / 255
        square = SQUARES["ffhq"](FaceAligner().landmarks(photo))
        frame = Frame(row.hr_frame_left, row.hr_frame_top, row.hr_frame_side)
        corners = square.part(frame).to_photo(np.array([[0.0, 0.0], [1.0, 1.0]]))
        assert (corners > -1e-6).all() and (corners < 48 + 1e-6).all()
        original = read_pixels(run.path / store.original_path(row.face_id)) / 255
        expected = cut(photo, square.part(frame), 32).permute(1, 2, 0).numpy()
        assert np.abs(original - expected).max() < 0.01
    page = (run.path / "report" / "index.html").read_text()
    assert "Common field of view" in page and "the largest part" in page


def test_a_photo_cut_to_its_frame_is_not_mirrored() -> None:
    """A real face close to the edges of its photo."""
    photo = astronaut()[60:180, 175:275]
    preparers = [
        FacePreparer(64, "ffhq", True, torch.device("cpu"), mirror=mirror)
        for mirror in (False, True)
    ]
    shown, mirrored = (preparer.prepare(photo) for preparer in preparers)
    assert shown.aligned and mirrored.aligned and mirrored.frame == WHOLE
    assert 0.4 < shown.frame.side < 0.9 and WHOLE.contains(shown.frame)
    # The same place of the face, where both show it.
    part = cut_to_frame(mirrored.image[None], shown.frame, 64)[0]
    assert float((part - shown.image).abs().mean()) < 0.03


def test_a_single_photo_is_upsampled_within_its_frame(
    ffhq_generator: str,
    tmp_path: Path,
    read_pixels: Callable[[Path], np.ndarray],
) -> None:
    near, far = tmp_path / "near.png", tmp_path / "far.png"
    Image.fromarray(astronaut()[60:180, 175:275]).save(near)
    Image.fromarray(astronaut()).save(far)
    rows = upsample_photos(
        [near, far], generator=ffhq_generator, scale=4, draws=2, seed=0, search="official",
        align=None, is_lr=False, device="cpu", out=tmp_path / "out", progress=lambda *_: None,
    )  # fmt: skip
    frames = [row["frame"] for row in rows]
    assert frames[0] == frames[1] is not None and frames[2] is frames[3] is None
    assert 0.4 < frames[0]["side"] < 0.9
    # The downscaled output is the input, and both show the same part of the face.
    for row in rows:
        stem = Path(row["photo"]).stem
        output, lr = (
            torch.from_numpy(read_pixels(path) / 255.0).permute(2, 0, 1)[None]
            for path in (Path(row["image"]), tmp_path / "out" / f"{stem}_lr.png")
        )
        error = (DegradationModel("clean", 4).downscale(output) - lr).square().mean()
        assert float(error) == pytest.approx(row["downscale_error"], rel=0.02, abs=2e-5)


def test_guided_searches_keep_to_the_frame_of_each_photo(
    fairface_root: Path,
    ffhq_generator: str,
    tmp_path: Path,
    attribute_code: str,
    landmarks_everywhere: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, model = tmp_path / "datasets.yaml", tmp_path / "model.py"
    own.write_text("fairface: {crop: as-is}\n")
    model.write_text(attribute_code)
    changes = {"limit": None, "per_group": 3, "draws": 1, "attributes": f"{model}:Model"}
    given = values(fairface_root, ffhq_generator, datasets_file=own, keep_images="none", **changes)
    run = run_audit(make_spec(given), tmp_path / "out")
    searched: list[Frame] = []

    def search(generator: FramedGenerator, lr: torch.Tensor, *rest: object) -> list[Guided]:
        searched.extend([generator.frame] * len(lr))
        return guided_search(generator, lr, *rest)

    monkeypatch.setattr("pulse_audit.harness.sources.guided_search", search)
    plan = plan_audit(make_spec(given), run.manifest)
    few = SourcesConfig(prior_samples=1, uninformative_draws=1, greys=(0.5,))
    run_sources(run, plan, resolve_sources(plan), lambda *_: None, few)
    guided = run.source_tables()["guided"]
    rows = run.samples().set_index("face_id").loc[guided.face_id]
    expected = [
        Frame(*row) for row in rows[["hr_frame_left", "hr_frame_top", "hr_frame_side"]].to_numpy()
    ]
    assert len(set(expected)) > 1 and Counter(searched) == Counter(expected)
    # A placebo repeats the draw's own search: it is feasible where the draw was.
    placebo = guided.search == "placebo"
    assert (guided.feasible[placebo].to_numpy() == rows.feasible[placebo.to_numpy()]).all()
