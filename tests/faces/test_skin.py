from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.data import astronaut
from skimage.filters import gaussian

from pulse_audit.faces.skin import (
    ELLIPSES,
    MONK_HEX,
    MONK_LAB,
    Skin,
    apparent_colour,
    face_ellipse,
    find_skin,
    individual_typology_angle,
    monk_tone,
    skin_mask,
    tone_of,
)
from pulse_audit.frames import Frame
from pulse_audit.types import Unavailable

SAMPLE = Path(__file__).resolve().parents[2] / ".." / "shared" / "fairface-sample"

#: L*, a*, b* of the Monk swatches under D65, as published beside their hex codes.
MONK_PUBLISHED = [
    (94.21, 1.50, 5.43),
    (92.28, 2.06, 7.29),
    (93.09, 0.22, 14.22),
    (87.57, 0.46, 17.76),
    (77.90, 3.47, 23.14),
    (55.14, 7.78, 26.75),
    (42.47, 12.33, 20.54),
    (30.68, 11.67, 13.34),
    (21.07, 2.69, 5.97),
    (14.61, 1.48, 3.53),
]
BACKGROUNDS = {
    "blue": (0.2, 0.4, 0.8),
    "green": (0.2, 0.5, 0.2),
    "grey": (0.5, 0.5, 0.5),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}
TONES = range(1, 11)


def colour(tone):
    return np.array([int(MONK_HEX[tone - 1][i : i + 2], 16) / 255 for i in (0, 2, 4)])


def paint_face(skin, size=64, background="grey", noise=0.01, seed=0):
    """A face of one skin colour with hair, eyes and lips, as it lies in a FairFace crop."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.empty((size, size, 3))
    image[:] = BACKGROUNDS[background]
    image[(x / 0.7) ** 2 + (y / 0.95) ** 2 < 1] = skin
    image[y < -0.8] = (0.08, 0.06, 0.05)
    for side in (-0.36, 0.36):
        image[(x - side) ** 2 + (y + 0.4) ** 2 < 0.01] = (0.1, 0.07, 0.05)
    image[(x / 0.25) ** 2 + ((y - 0.4) / 0.06) ** 2 < 1] = (0.6, 0.2, 0.2)
    noisy = image + noise * np.random.default_rng(seed).standard_normal(image.shape)
    return noisy.clip(0, 1)


def skin_tone(image, crop="fairface-0.25"):
    """Tone of an original, or why it has none."""
    skin = find_skin(image, crop)
    return skin.tone if isinstance(skin, Skin) else skin


def flat(rgb, size=16):
    return np.full((size, size, 3), rgb, dtype=float)


def test_the_swatches_have_their_published_lab_values():
    np.testing.assert_allclose(MONK_LAB, MONK_PUBLISHED, atol=0.01)


@pytest.mark.parametrize("tone", TONES)
def test_the_mask_keeps_every_monk_swatch(tone):
    assert skin_mask(rgb2lab(flat(colour(tone)))).all()


@pytest.mark.parametrize("background", list(BACKGROUNDS))
@pytest.mark.parametrize("brightness", [0.4, 0.7, 1.0])
def test_the_mask_leaves_out_backgrounds(background, brightness):
    assert not skin_mask(rgb2lab(flat(BACKGROUNDS[background]) * brightness)).any()


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize("tone", TONES)
def test_a_face_painted_in_a_monk_tone_has_that_tone(tone, size, noise):
    measured = skin_tone(paint_face(colour(tone), size, noise=noise))
    assert measured.monk == tone


@pytest.mark.parametrize("background", list(BACKGROUNDS))
@pytest.mark.parametrize("tone", [1, 5, 10])
def test_the_background_does_not_matter(tone, background):
    assert skin_tone(paint_face(colour(tone), background=background)).monk == tone


@pytest.mark.parametrize("tone", TONES)
def test_a_painted_face_has_the_lightness_and_angles_of_its_colour(tone):
    measured, true = skin_tone(paint_face(colour(tone))), tone_of(MONK_LAB[tone - 1])
    assert measured.lightness == pytest.approx(true.lightness, abs=1.5)
    # The angles are wide open at the ends of the scale, where skin has little chroma.
    chroma = float(np.hypot(*MONK_LAB[tone - 1][1:]))
    assert measured.hue == pytest.approx(true.hue, abs=np.degrees(1.0 / chroma))
    assert measured.ita == pytest.approx(true.ita, abs=4.0)


def test_lips_do_not_pass_for_the_light_part_of_dark_skin():
    image = paint_face(colour(10), noise=0)
    assert skin_tone(image).lightness == pytest.approx(MONK_LAB[9][0], abs=0.5)


@pytest.mark.parametrize("tone", [2, 5, 8])
def test_a_shadow_over_a_third_of_the_face_hardly_counts(tone):
    image = paint_face(colour(tone))
    shaded = image.copy()
    shaded[:, :26] *= 0.5
    assert abs(skin_tone(shaded).lightness - skin_tone(image).lightness) < 3


def test_lighter_paint_is_measured_lighter():
    shades = [lab2rgb([[[lightness, 10.0, 18.0]]])[0, 0] for lightness in range(20, 95, 5)]
    measured = [skin_tone(paint_face(shade)) for shade in shades]
    for attribute in ("ita", "lightness"):
        values = [getattr(tone, attribute) for tone in measured]
        assert values == sorted(values)
    tones = [tone.monk for tone in measured]
    assert tones == sorted(tones, reverse=True)


def test_measuring_is_deterministic_and_the_mirror_image_has_the_same_tone():
    image = astronaut()[50:190, 150:290] / 255
    first, again, mirrored = skin_tone(image), skin_tone(image), skin_tone(image[:, ::-1])
    assert first == again
    assert mirrored.ita == pytest.approx(first.ita, abs=0.5)


def test_float32_and_float64_agree():
    image = astronaut()[50:190, 150:290] / 255
    assert skin_tone(image.astype(np.float32)).ita == pytest.approx(skin_tone(image).ita, abs=0.3)


@pytest.mark.parametrize(
    ("lightness", "b", "degrees"),
    [
        (60, 10, 45.0),
        (40, 10, -45.0),
        (50, 10, 0.0),
        (50 + 10 * np.tan(np.radians(55)), 10, 55.0),
        (70, 0, 90.0),
        (70, -5, 90.0),
        (30, 0, -90.0),
        (30, -5, -90.0),
        (50, -5, 0.0),
    ],
)
def test_typology_angle_in_closed_form(lightness, b, degrees):
    assert individual_typology_angle(lightness, b) == pytest.approx(degrees)


@settings(max_examples=50, derandomize=True)
@given(lightness=st.floats(0, 99), more=st.floats(0.01, 1), b=st.floats(-20, 60))
def test_lighter_never_has_the_smaller_typology_angle(lightness, more, b):
    first = individual_typology_angle(lightness, b)
    assert individual_typology_angle(lightness + more, b) >= first


def test_hue_is_an_angle_of_a_and_b():
    assert tone_of(np.array([60.0, 10.0, 10.0])).hue == pytest.approx(45)
    assert tone_of(np.array([60.0, 0.0, 10.0])).hue == pytest.approx(90)


@pytest.mark.parametrize("tone", TONES)
def test_each_swatch_is_nearest_to_itself(tone):
    assert monk_tone(MONK_LAB[tone - 1]) == tone


def test_a_greyscale_photo_has_no_tone():
    grey = np.repeat(astronaut()[50:190, 150:290].mean(axis=2, keepdims=True) / 255, 3, axis=2)
    assert skin_tone(grey) == Unavailable("a greyscale picture has no skin colour")


def test_a_greyscale_photo_with_a_little_colour_noise_has_no_tone():
    grey = np.repeat(astronaut()[50:190, 150:290].mean(axis=2, keepdims=True) / 255, 3, axis=2)
    noise = np.random.default_rng(0).integers(-1, 2, grey.shape) / 255
    assert isinstance(skin_tone((grey + noise).clip(0, 1)), Unavailable)


@pytest.mark.parametrize("background", ["blue", "green"])
def test_a_picture_without_skin_has_no_tone(background):
    picture = flat(BACKGROUNDS[background], 64)
    assert skin_tone(picture) == Unavailable("too few pixels look like skin")


@pytest.mark.parametrize("crop", list(ELLIPSES))
def test_the_ellipse_lies_whole_within_its_crop(crop):
    mask = face_ellipse(100, 100, crop)
    middle, across, down = ELLIPSES[crop]
    assert mask.mean() == pytest.approx(np.pi * across * down, rel=0.02)
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    assert np.nonzero(mask)[0].mean() == pytest.approx(100 * middle - 0.5, abs=0.5)


def test_skin_outside_the_ellipse_of_the_crop_does_not_count():
    inside = face_ellipse(128, 128, "fairface-1.25")
    picture = flat(colour(3), 128)
    picture[inside] = colour(8)
    assert skin_tone(picture, "fairface-1.25").monk == 8
    assert skin_tone(picture, "fairface-0.25").monk == 3


def test_an_unknown_lie_of_the_face_is_taken_for_a_tight_crop():
    image = paint_face(colour(6))
    assert skin_tone(image, "as-is") == skin_tone(image, "fairface-0.25")


def test_the_tone_of_real_photos_survives_their_shrinking():
    if not SAMPLE.is_dir():
        pytest.skip("the FairFace sample is not beside the checkout")
    differences = []
    for path in sorted((SAMPLE / "val").glob("*.jpg"))[:40]:
        photo = Image.open(path).convert("RGB")
        small = photo.resize((64, 64), Image.Resampling.BICUBIC)
        tones = [skin_tone(np.asarray(p, dtype=float) / 255) for p in (photo, small)]
        if not any(isinstance(tone, Unavailable) for tone in tones):
            differences.append(tones[0].lightness - tones[1].lightness)
    assert len(differences) >= 36
    assert np.median(np.abs(differences)) < 1.5
    assert abs(np.mean(differences)) < 1.0


def blurred(image, factor=8):
    """Downscaled by a factor and enlarged again, as plain interpolation does."""
    picture = Image.fromarray((255 * image).round().astype(np.uint8))
    small = picture.resize([side // factor for side in picture.size], Image.Resampling.BICUBIC)
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC), dtype=float) / 255


@pytest.fixture(scope="module")
def face():
    return astronaut()[50:178, 150:278] / 255


def test_an_output_equal_to_its_original_has_its_tone(face):
    skin = find_skin(face)
    output = skin.tone_of_output(face)
    for name in ("lightness", "ita", "hue"):
        assert getattr(output, name) == pytest.approx(getattr(skin.tone, name))
    assert output.monk == skin.tone.monk


@pytest.mark.parametrize("change", [(-6.0, 0.0, 0.0), (5.0, 2.0, -3.0)])
def test_the_tone_of_an_output_moves_as_its_pixels_do(face, change):
    skin = find_skin(face)
    # Colours out of gamut are clipped: a face of less contrast has none.
    grey = rgb2lab(face) * (0.6, 1, 1) + (22, 0, 0)
    original, output = lab2rgb(grey), lab2rgb(grey + change)
    skin = find_skin(original)
    moved = tone_of(skin.colour + change)
    measured = skin.tone_of_output(output)
    assert measured.lightness == pytest.approx(moved.lightness, abs=0.1)
    assert measured.ita == pytest.approx(moved.ita, abs=0.5)
    assert measured.hue == pytest.approx(moved.hue, abs=0.5)


def test_pixels_outside_the_skin_of_the_original_do_not_count(face):
    skin = find_skin(face)
    painted = np.where(skin.pixels[..., None], face, 0.0)
    assert skin.pixels.mean() < 0.5
    assert skin.tone_of_output(painted).lightness == pytest.approx(skin.tone.lightness)


def test_a_greyscale_output_has_no_tone(face):
    grey = np.repeat(face.mean(axis=2, keepdims=True), 3, axis=2)
    assert find_skin(face).tone_of_output(grey) == Unavailable(
        "a greyscale picture has no skin colour"
    )


def test_interpolation_hardly_shifts_the_same_pixels_but_darkens_apparent_colour():
    """The floor that the report shows, on real photos."""
    if not SAMPLE.is_dir():
        pytest.skip("the FairFace sample is not beside the checkout")
    shifts = []
    for path in sorted((SAMPLE / "val").glob("*.jpg"))[:60]:
        photo = Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
        image = np.asarray(photo, dtype=float) / 255
        output, skin = blurred(image), find_skin(image)
        apart = [apparent_colour(picture) for picture in (image, output)]
        if isinstance(skin, Skin) and not any(isinstance(a, Unavailable) for a in apart):
            same = skin.tone_of_output(output).lightness - skin.tone.lightness
            shifts.append((same, apart[1].lightness - apart[0].lightness))
    assert len(shifts) >= 54
    same, apart = np.mean(shifts, axis=0)
    assert abs(same) < 0.5 and apart < -1.0


def lloyd(points, centres):
    """k-means by hand, to convergence."""
    while True:
        labels = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.array([points[labels == k].mean(axis=0) for k in range(len(centres))])
        if np.allclose(moved, centres, atol=1e-7):
            return labels
        centres = moved


def test_apparent_colour_follows_the_published_recipe(face):
    """Against the steps by hand, from the same start of k-means."""
    lab = rgb2lab(gaussian(face, sigma=1, truncate=4, channel_axis=-1))[find_skin(face).pixels]
    features = np.stack([lab[:, 0], np.degrees(np.arctan(lab[:, 2] / lab[:, 1]))], axis=1)
    order = np.argsort(features[:, 0], kind="stable")
    start = [features[part].mean(axis=0) for part in np.array_split(order, 5)]
    labels = lloyd(features, np.array(start))
    modes, sizes = [], []
    for k in range(5):
        part = features[labels == k]
        bins = [np.histogram(column, bins="sturges") for column in part.T]
        modes.append([edges[counts.argmax()] for counts, edges in bins])
        sizes.append(len(part))
    top = sorted(range(5), key=lambda k: -modes[k][0])[:3]
    wanted = np.average([modes[k] for k in top], axis=0, weights=[sizes[k] for k in top])
    measured = apparent_colour(face)
    assert (measured.lightness, measured.hue) == pytest.approx(tuple(wanted), abs=0.3)


@pytest.mark.parametrize("tone", [2, 5, 7])
def test_the_apparent_colour_of_a_painted_face_is_its_paint(tone):
    measured, true = apparent_colour(paint_face(colour(tone))), tone_of(MONK_LAB[tone - 1])
    # The left edge of a bin lies below the values in it.
    assert true.lightness - 2.5 < measured.lightness < true.lightness + 0.5
    assert measured.hue == pytest.approx(true.hue, abs=4)


def test_without_skin_there_is_no_apparent_colour():
    picture = flat(BACKGROUNDS["green"], 64)
    assert apparent_colour(picture) == Unavailable("too few pixels look like skin")


def test_the_ellipse_in_a_frame_is_that_part_of_the_crop_s() -> None:
    whole = face_ellipse(200, 200, "ffhq")
    found = face_ellipse(100, 100, "ffhq", Frame(0.2, 0.4, 0.5))
    assert np.array_equal(found, whole[80:180, 40:140])
