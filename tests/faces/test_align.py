import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, warp

from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.faces.align import EDGE, SMALL_FACE, FaceAligner, centre_square, cut, paste
from pulse_audit.faces.crops import (
    CELEBA,
    CROPS,
    FAIRFACE_025,
    FAIRFACE_125,
    SQUARES,
    Square,
    frame_in_ffhq,
)
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.types import InputError

SAMPLE = Path(__file__).resolve().parents[2] / ".." / "shared" / "fairface-sample"
TEMPLATES = {"fairface-0.25": FAIRFACE_025, "fairface-1.25": FAIRFACE_125, "celeba": CELEBA}


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner()


@pytest.fixture(scope="module")
def portrait():
    """A public-domain photo; the face is about 100 of its 512 px wide."""
    return astronaut().astype(np.float32) / 255


def as_photo(image):
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def fairface(n):
    """The first ``n`` photos of the sample, a share of every race."""
    if not SAMPLE.is_dir():
        pytest.skip("the FairFace sample is not beside the checkout")
    with (SAMPLE / "fairface_label_val.csv").open() as table:
        files = sorted(csv.DictReader(table), key=lambda row: row["file"])
    opened = (Image.open(SAMPLE / row["file"]).convert("RGB") for row in files[:n])
    return [np.asarray(photo) for photo in opened]


def fitted_landmarks(seed, crop):
    """Landmarks that lie exactly on a crop's template, under a random similarity."""
    random = np.random.default_rng(seed)
    moved = SimilarityTransform(
        scale=random.uniform(50, 500),
        rotation=random.uniform(-1, 1),
        translation=random.uniform(-100, 900, 2),
    )
    return moved, moved(TEMPLATES[crop])


def test_landmarks_come_in_order(aligner, portrait):
    left, right, nose, mouth_left, mouth_right = aligner.landmarks(portrait)
    assert left[0] < nose[0] < right[0]
    assert mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


def test_finding_is_deterministic(aligner, portrait):
    assert np.array_equal(aligner.landmarks(portrait), FaceAligner().landmarks(portrait))


def test_bytes_and_floats_are_the_same_photo(aligner, portrait):
    np.testing.assert_allclose(
        aligner.landmarks(astronaut()), aligner.landmarks(portrait), atol=1e-3
    )
    found = aligner.align(astronaut(), "ffhq", 32)
    torch.testing.assert_close(found, aligner.align(portrait, "ffhq", 32), atol=1e-4, rtol=0)


def test_the_largest_of_two_faces_is_taken(aligner, portrait):
    small = np.asarray(Image.fromarray(astronaut()).resize((300, 300)), np.float32) / 255
    both = np.full((512, 812, 3), 0.4, np.float32)
    both[:300, :300], both[:, 300:] = small, portrait
    moved = aligner.landmarks(portrait) + [300, 0]
    np.testing.assert_allclose(aligner.landmarks(both), moved, atol=4)


def test_a_face_that_touches_the_border_is_found_where_it_is(aligner, portrait):
    whole = aligner.landmarks(portrait)
    cropped = aligner.landmarks(portrait[60:180, 175:275])
    np.testing.assert_allclose(cropped + [175, 60], whole, atol=4)


@pytest.mark.parametrize("size", [32, 64, 1024])
def test_landmarks_do_not_move_with_the_size_of_the_photo(aligner, portrait, size):
    face = aligner.align(portrait, "ffhq", 256)
    expected = aligner.landmarks(as_photo(face)) / 256
    found = aligner.landmarks(as_photo(centre_square(as_photo(face), size))) / size
    np.testing.assert_allclose(found, expected, atol=max(0.02, 1 / size))


def test_a_small_face_in_a_large_photo_is_found_for_cropping(aligner):
    photo = np.full((1200, 1200, 3), 90, np.uint8)
    photo[700:956, 100:356] = astronaut()[::2, ::2]
    assert aligner.landmarks(photo) is None
    found = aligner.landmarks(photo, SMALL_FACE)
    np.testing.assert_allclose(found, aligner.landmarks(astronaut()) / 2 + [100, 700], atol=3)
    assert aligner.align(photo, "ffhq", 32).shape == (3, 32, 32)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (64, 64)])
def test_a_picture_without_a_face_has_no_landmarks(aligner, shape):
    noise = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    for picture in (np.zeros_like(noise), noise):
        assert aligner.landmarks(picture) is None


def test_no_face_means_no_crop(aligner):
    assert aligner.align(np.full((80, 80, 3), 0.5, np.float32), "celeba", 32) is None


@pytest.mark.parametrize("crop", CROPS)
def test_a_crop_is_an_image(aligner, portrait, crop):
    found = aligner.align(portrait, crop, 48)
    assert found.shape == (3, 48, 48)
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) < float(found.max()) <= 1


@pytest.mark.parametrize("crop", list(TEMPLATES))
def test_landmarks_of_a_crop_lie_near_its_template(aligner, portrait, crop):
    face = as_photo(aligner.align(portrait, crop, 256))
    np.testing.assert_allclose(aligner.landmarks(face) / 256, TEMPLATES[crop], atol=0.06)


def test_an_ffhq_crop_of_an_ffhq_crop_is_the_whole(aligner, portrait):
    face = as_photo(aligner.align(portrait, "ffhq", 256))
    square = SQUARES["ffhq"](aligner.landmarks(face))
    np.testing.assert_allclose(square.centre, [128, 128], atol=5)
    assert square.side == pytest.approx(256, rel=0.04)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("scale", "rotation"), [(0.6, 0.0), (1.0, -0.2), (1.5, 0.25)])
def test_a_turned_scaled_and_moved_photo_gives_the_same_crop(
    aligner, portrait, crop, scale, rotation
):
    to_origin = SimilarityTransform(translation=(-224, -115))
    moved = to_origin + SimilarityTransform(scale=scale, rotation=rotation, translation=(340, 330))
    turned = warp(portrait, moved.inverse, output_shape=(700, 700), cval=0.5)
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    found, expected = (
        SQUARES[crop](aligner.landmarks(photo, SMALL_FACE)) for photo in (turned, portrait)
    )
    off = moved.inverse(found.to_photo(corners)) - expected.to_photo(corners)
    assert np.abs(off).max() / expected.side < 0.05


@pytest.mark.parametrize("crop", list(TEMPLATES))
@pytest.mark.parametrize("seed", range(3))
def test_template_squares_equal_the_similarity_that_made_the_landmarks(crop, seed):
    moved, landmarks = fitted_landmarks(seed, crop)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    np.testing.assert_allclose(SQUARES[crop](landmarks).to_photo(corners), moved(corners))


def test_template_squares_are_least_squares_fits():
    random = np.random.default_rng(0)
    landmarks = 200 * FAIRFACE_025 + random.normal(0, 12, (5, 2))
    square = SQUARES["fairface-0.25"](landmarks)

    def misfit(candidate):
        return ((candidate.to_photo(FAIRFACE_025) - landmarks) ** 2).sum()

    best = misfit(square)
    for change in random.normal(0, 0.5, (50, 2, 2)):
        assert misfit(Square(square.centre + change[0], square.right + change[1])) > best


def test_ffhq_square_in_closed_form():
    # Upright face: eyes 40 apart at y = 100, mouth 50 below them.
    eyes_and_mouth = np.array([[80.0, 100], [120, 100], [100, 125], [90, 150], [110, 150]])
    square = SQUARES["ffhq"](eyes_and_mouth)
    # max(2.0 * 40, 1.8 * 50) = 90 either way from a centre 0.1 * 50 below the eyes.
    np.testing.assert_allclose(square.centre, [100, 105])
    np.testing.assert_allclose(square.right, [90, 0], atol=1e-9)


def test_fairface_crops_give_each_other_by_dlibs_padding():
    # dlib: chip position = (padding + mean shape) / (2 padding + 1).
    shape = FAIRFACE_025 * 1.5 - 0.25
    np.testing.assert_allclose(FAIRFACE_125, (1.25 + shape) / 3.5)


def test_cutting_the_photos_own_frame_returns_it(portrait):
    photo = portrait[:64, 100:164]
    whole = Square(np.array([32.0, 32.0]), np.array([32.0, 0.0]))
    np.testing.assert_allclose(as_photo(cut(photo, whole, 64)), photo, atol=1e-6)


def test_cutting_antialiases():
    # Stripes of one pixel: averaged to grey where a bare sampling would return black or white.
    stripes = np.zeros((128, 128, 3), np.float32)
    stripes[:, ::2] = 1
    whole = Square(np.array([64.0, 64.0]), np.array([64.0, 0.0]))
    assert float((cut(stripes, whole, 32) - 0.5).abs().max()) < 0.01


def test_beyond_its_edge_a_photo_is_mirrored(portrait):
    photo = portrait[100:164, 200:264]
    beyond = Square(np.array([0.0, 32.0]), np.array([32.0, 0.0]))
    found = as_photo(cut(photo, beyond, 64))
    np.testing.assert_allclose(found[:, :32], found[:, :31:-1], atol=1e-6)
    np.testing.assert_allclose(found[:, 32:], photo[:, :32], atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60)])
def test_the_centre_square_is_in_the_centre(height, width):
    photo = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    top, left = (height - 60) // 2, (width - 60) // 2
    found = as_photo(centre_square(photo, 60))
    np.testing.assert_array_equal(found, photo[top : top + 60, left : left + 60])


def test_an_unknown_crop_is_refused_with_the_nearest(aligner, portrait):
    with pytest.raises(InputError, match="crop 'fhq' is unknown; did you mean ffhq"):
        aligner.align(portrait, "fhq", 32)


def test_finding_a_face_warns_of_nothing(portrait):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FaceAligner("cpu").landmarks(portrait) is not None


def test_faces_are_found_in_real_tight_crops(aligner):
    photos = fairface(30)
    found = [aligner.landmarks(photo) for photo in photos]
    present = np.array([points / 224 for points in found if points is not None])
    assert len(present) >= 28
    np.testing.assert_allclose(np.median(present, axis=0), FAIRFACE_025, atol=0.03)


def test_real_photos_align_to_their_templates(aligner):
    for crop, template in TEMPLATES.items():
        faces = [aligner.align(photo, crop, 128) for photo in fairface(8)]
        found = [aligner.landmarks(as_photo(face)) for face in faces if face is not None]
        again = np.array([points / 128 for points in found if points is not None])
        assert len(again) >= 7
        np.testing.assert_allclose(np.median(again, axis=0), template, atol=0.03)


def test_real_photos_give_ffhq_crops_whose_ffhq_crop_is_the_whole(aligner):
    faces = [aligner.align(photo, "ffhq", 128) for photo in fairface(5)]
    found = [aligner.landmarks(as_photo(face)) for face in faces if face is not None]
    squares = [SQUARES["ffhq"](points) for points in found if points is not None]
    assert len(squares) >= 4
    sides, centres = [s.side / 128 for s in squares], [s.centre / 128 for s in squares]
    assert np.median(sides) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(np.median(centres, axis=0), [0.5, 0.5], atol=0.03)


def test_fairface_s_own_crop_is_where_dlib_put_it(aligner):
    """Its photos are dlib's crops: over 207 the median distance of the corners is 0.058."""
    unit = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    found = [aligner.landmarks(photo) for photo in fairface(10)]
    squares = [SQUARES["fairface-0.25"](points) for points in found if points is not None]
    off = [np.hypot(*(square.to_photo(unit) / 224 - unit).T).mean() for square in squares]
    assert len(off) >= 8
    assert np.median(off) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_small_celeba_crop_is_the_middle_of_the_large_one(seed):
    _, landmarks = fitted_landmarks(seed, "celeba")
    large, small = SQUARES["celeba"](landmarks), SQUARES["celeba-108"](landmarks)
    np.testing.assert_allclose(small.centre, large.centre)
    np.testing.assert_allclose(small.right, large.right * 108 / 178)


def in_ffhq(landmarks, size):
    """Where an upright picture with these landmarks lies in FFHQ's square, in its units."""
    square = SQUARES["ffhq"](landmarks)
    return np.array([*(0.5 - square.centre / square.side), size / square.side])


@pytest.mark.parametrize("crop", list(TEMPLATES))
def test_a_face_on_the_template_is_cut_alike_directly_and_by_its_frame_in_ffhq(crop, portrait):
    """The crop itself, and its frame of FFHQ's crop, sampled by two different ways."""
    landmarks = 130 + 110 * TEMPLATES[crop]
    frame, square = frame_in_ffhq(crop), SQUARES[crop](landmarks)
    within = np.array([[frame.left, frame.top], [frame.left + frame.side, frame.top + frame.side]])
    corners = SQUARES["ffhq"](landmarks).to_photo(within)
    expected = square.to_photo(np.array([[0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(corners, expected, atol=0.01 * square.side)
    if not WHOLE.contains(frame):
        return
    whole = cut(portrait, SQUARES["ffhq"](landmarks), 256)
    seen = cut_to_frame(whole[None], frame, 64)[0]
    direct = cut(portrait, square, 64)
    assert float((seen - direct).abs().mean()) < 0.01


def test_fairface_s_crops_lie_in_ffhq_s_as_dlib_s_padding_says():
    small, large = frame_in_ffhq("fairface-0.25"), frame_in_ffhq("fairface-1.25")
    assert WHOLE.contains(small) and large.contains(WHOLE) and large.contains(small)
    # A padding of 1.25 shows 3.5 / 1.5 times as much, about the same centre.
    assert large.side / small.side == pytest.approx(3.5 / 1.5)
    for axis in ("left", "top"):
        centres = [getattr(f, axis) + f.side / 2 for f in (small, large)]
        assert centres[0] == pytest.approx(centres[1])


def test_the_fixed_frame_is_about_that_of_each_photo(aligner):
    photos = fairface(28)
    found = [aligner.landmarks(photo) for photo in photos]
    frames = [in_ffhq(points, 224) for points in found if points is not None]
    fixed = frame_in_ffhq("fairface-0.25")
    assert len(frames) > 20
    expected = [fixed.left, fixed.top, fixed.side]
    np.testing.assert_allclose(np.median(frames, axis=0), expected, atol=0.05)


def test_a_frame_of_the_centre_square_is_that_part_of_it(portrait):
    wide = portrait[100:400]  # 300 x 512: the square begins at column 106
    found = centre_square(wide, 60, Frame(0.1, 0.2, 0.4))
    expected = wide[60:180, 136:256].reshape(60, 2, 60, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(as_photo(found), expected, atol=0.02)


def test_every_face_is_found_from_left_to_right_and_once(aligner, portrait):
    # a large face to the right, a small one to the left, and texture between
    both = np.full((512, 812, 3), 0.4, np.float32)
    small = np.asarray(Image.fromarray(astronaut()).resize((160, 160)), np.float32) / 255
    both[:160, :160], both[:, 300:] = small, portrait
    both[300:, :300] = np.random.default_rng(0).random((212, 300, 3))
    found = aligner.find_every(both)
    assert [face.box[0] < 160 for face in found] == [True, False]
    whole = aligner.landmarks(portrait)
    np.testing.assert_allclose(found[0].landmarks, whole * 160 / 512, atol=2)
    np.testing.assert_array_equal(found[1].landmarks, aligner.landmarks(both))
    assert len(aligner.find_every(portrait)) == 1
    assert aligner.find_every(both[300:, :290]) == []


def test_photos_of_one_face_have_one(aligner):
    photos = fairface(30)
    counts = [len(aligner.find_every(photo)) for photo in photos]
    assert counts == [aligner.landmarks(photo) is not None for photo in photos]


def waves(height, width):
    """A smooth photo, which survives resampling."""
    y, x = np.mgrid[:height, :width] / 25
    channels = [np.sin(x + 0.3 * y), np.cos(y), np.sin(x - y)]
    return (0.5 + 0.3 * np.stack(channels, axis=-1)).astype(np.float32)


@pytest.mark.parametrize("size", [24, 60, 240])
def test_pasting_is_the_inverse_of_cutting(size):
    photo = waves(200, 260)
    square = Square(np.array([120.0, 90.0]), np.array([38.0, 14.0]))
    picture = as_photo(cut(photo, square, size))
    changed = np.clip(photo + 0.15, 0, 1)
    pasted = paste(changed, [(square, picture)])
    y, x = np.mgrid[:200, :260] + 0.5
    unit = square.to_unit(np.stack([x.ravel(), y.ravel()], axis=1))
    radius = (((2 * unit - 1) ** 4).sum(axis=1) ** 0.25).reshape(200, 260)
    # The picture inside, the photo's own values outside, and between them a mixture.
    assert np.abs(pasted - photo)[radius < 1 - EDGE].max() < (0.02 if size == 24 else 0.005)
    np.testing.assert_array_equal(pasted[radius > 1], changed[radius > 1])
    middle = (radius > 0.96 - EDGE / 2) & (radius < 1.04 - EDGE / 2)
    assert np.abs((pasted - photo)[middle] - 0.075).max() < 0.035


def test_pasted_pictures_that_overlap_do_not_depend_on_their_order():
    photo = np.full((80, 140, 3), 0.5, np.float32)
    faces = [
        (Square(np.array([x, 40.0]), np.array([36.0, 0.0])), np.full((8, 8, 3), level, np.uint8))
        for x, level in ((45.0, 0), (95.0, 255))
    ]
    pasted = paste(photo, faces)
    np.testing.assert_allclose(pasted, paste(photo, faces[::-1]), atol=1e-6)
    # Each keeps its middle, and half way between they are equal.
    assert pasted[40, 45].max() < 1e-3 and pasted[40, 94].min() > 1 - 1e-3
    assert pasted[40, 69:71].mean() == pytest.approx(0.5, abs=0.01)


def test_a_square_outside_the_photo_pastes_nothing():
    photo = waves(20, 20)
    beyond = Square(np.array([-50.0, 10.0]), np.array([8.0, 0.0]))
    np.testing.assert_array_equal(paste(photo, [(beyond, np.zeros((4, 4, 3)))]), photo)
