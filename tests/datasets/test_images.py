"""Every mode against known values, and every kind of broken file."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pulse_audit.datasets.images import MAX_PIXELS, UnreadableImage, decode, load

RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def check(data: bytes, expected: NDArray[Any], atol: float = 1e-6) -> None:
    found = decode(data)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found, expected, atol=atol)


def grey(values: NDArray[Any]) -> NDArray[Any]:
    return np.stack([values] * 3, axis=-1)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_colour_is_divided_by_255(form: str) -> None:
    check(encode(Image.fromarray(COLOUR), form), COLOUR / 255)


def test_webp() -> None:
    check(encode(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR / 255)


def test_grey_becomes_three_equal_channels() -> None:
    check(encode(Image.fromarray(RAMP)), grey(RAMP / 255))


def test_black_and_white() -> None:
    bits = RAMP > 100
    check(encode(Image.fromarray(bits)), grey(bits.astype(float)))


def test_palette() -> None:
    image = Image.fromarray(RAMP // 10).convert("P")
    image.putpalette([value for i in range(24) for value in (i, 2 * i, 255 - i)])
    index = np.asarray(image).astype(float)
    check(encode(image), np.stack([index, 2 * index, 255 - index], axis=-1) / 255)


@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 255, 0] + [255] * 20)])
def test_transparent_palette_entries_are_white(transparency: int | bytes) -> None:
    image = Image.fromarray(RAMP // 10).convert("P")
    image.putpalette([10] * 72)
    expected = np.full((4, 6, 3), 10 / 255)
    expected[np.asarray(image) == 3] = 1
    check(encode(image, transparency=transparency), expected)


def test_gif() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    check(encode(image, "GIF"), np.broadcast_to(np.array([200, 100, 50]) / 255, (4, 4, 3)))


def test_alpha_is_laid_over_white() -> None:
    alpha = RAMP[::-1]
    rgba = np.dstack([COLOUR, alpha])
    share = alpha[..., None] / 255
    check(encode(Image.fromarray(rgba)), COLOUR / 255 * share + (1 - share))


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (6, 4), 51)])
    check(encode(image), grey(RAMP / 255 * 0.2 + 0.8))


def test_a_transparent_colour() -> None:
    image = Image.fromarray(COLOUR)
    expected = COLOUR / 255
    expected[0, 0] = 1
    check(encode(image, transparency=tuple(int(v) for v in COLOUR[0, 0])), expected)


def test_sixteen_bit_grey_is_divided_by_65535() -> None:
    values = RAMP.astype(np.uint16) * 257 + 3
    check(encode(Image.fromarray(values)), grey(values / 65535))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_tiff(order: str) -> None:
    values = (RAMP.astype(np.uint16) * 257).astype(order)
    check(encode(Image.fromarray(values), "TIFF"), grey(values.astype(float) / 65535))


def test_sixteen_bit_colour_is_read_at_eight() -> None:
    values = (COLOUR.astype(">u2") * 257).reshape(4, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    check(png(6, 4, 16, 2, rows), COLOUR / 255)


def test_integers_of_32_bits_within_16() -> None:
    values = RAMP.astype(np.int32) * 257
    check(encode(Image.fromarray(values), "TIFF"), grey(values / 65535))


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_of_an_unknown_scale_are_refused(value: int) -> None:
    data = encode(Image.fromarray(np.full((2, 2), value, dtype=np.int32)), "TIFF")
    with pytest.raises(UnreadableImage, match="scale is unknown"):
        decode(data)


def test_floating_point_within_one() -> None:
    values = (RAMP / 255).astype(np.float32)
    check(encode(Image.fromarray(values), "TIFF"), grey(values))


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, np.inf])
def test_floating_point_of_an_unknown_scale_is_refused(value: float) -> None:
    data = encode(Image.fromarray(np.full((2, 2), value, dtype=np.float32)), "TIFF")
    with pytest.raises(UnreadableImage, match="scale is unknown"):
        decode(data)


def cmyk(ink: NDArray[np.uint8]) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(ink[..., channel]) for channel in range(4)])


def test_cmyk_jpeg_has_adobes_polarity() -> None:
    # C, M, Y, K in ink: no ink is white, and red is magenta with yellow.
    ink = np.zeros((16, 32, 4), dtype=np.uint8)
    ink[:, 16:] = (0, 255, 255, 0)
    data = encode(cmyk(ink), "JPEG", quality=100)
    assert b"Adobe" in data
    expected = np.ones((16, 32, 3))
    expected[:, 16:] = (1, 0, 0)
    check(data, expected, atol=0.02)


def test_black_ink() -> None:
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[..., 3] = 255
    check(encode(cmyk(ink), "JPEG", quality=100), np.zeros((16, 16, 3)), atol=0.02)


UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(COLOUR), exif=exif)
    check(data, UPRIGHT[orientation](COLOUR / 255))


def test_a_colour_profile_changes_nothing() -> None:
    data = encode(Image.fromarray(COLOUR), icc_profile=b"not even a profile")
    check(data, COLOUR / 255)


def test_the_first_of_several_frames_counts() -> None:
    first = Image.new("L", (4, 4), 0)
    data = encode(first, "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 255)])
    check(data, np.zeros((4, 4, 3)))


def test_phones_store_several_pictures_in_one_jpeg() -> None:
    second = Image.new("RGB", (16, 16), (0, 0, 255))
    data = encode(Image.new("RGB", (16, 16), (255, 0, 0)), "MPO", save_all=True,
                  append_images=[second])  # fmt: skip
    check(data, np.broadcast_to([1, 0, 0], (16, 16, 3)), atol=0.02)


def test_a_photo_of_one_pixel() -> None:
    check(encode(Image.new("RGB", (1, 1), (255, 0, 51))), np.array([[[1, 0, 0.2]]]))


# -- Broken files ----------------------------------------------------------------------------


def reason(data: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage) as caught:
            decode(data)
    text = str(caught.value)
    assert text and "\n" not in text and len(text) < 200
    return text


def noise(size: int = 64) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files(form: str, share: float) -> None:
    data = encode(noise(), form)
    assert reason(data[: int(len(data) * share)])


def test_an_empty_file() -> None:
    assert "empty" in reason(b"")


@pytest.mark.parametrize("data", [b"<html></html>", b"\0" * 100, b"\xff\xd8\xff\xe0", b"GIF89a"])
def test_no_image(data: bytes) -> None:
    assert reason(data)


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICNS", "SGI"])
def test_formats_beyond_the_list_are_not_opened(form: str) -> None:
    assert "known format" in reason(encode(noise(), form))


@pytest.mark.parametrize("side", [8_001, 12_000, 60_000])
def test_bombs_are_refused_before_they_are_unpacked(side: int) -> None:
    assert side * side > MAX_PIXELS
    assert "pixels" in reason(png(side, side, 8, 2, b"\0" * 1000))


def test_text_bombs() -> None:
    body = b"Comment\0\0" + zlib.compress(b"x" * 100_000_000)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = png(2, 2, 8, 0, b"\0\0\0\0\0\0")
    assert reason(data[:33] + chunk + data[33:])


def test_broken_exif_leaves_no_warning() -> None:
    data = encode(Image.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert decode(data).shape == (4, 6, 3)
        except UnreadableImage as error:
            assert str(error)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF"]), st.integers(0, 2**32))
def test_damaged_bytes_give_an_image_or_a_reason(form: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(encode(noise(16), form))
    for place in random.integers(0, len(data), 6):
        data[place] = random.integers(0, 256)
    try:
        found = decode(bytes(data))
    except UnreadableImage:
        return
    assert found.shape[2] == 3 and np.isfinite(found).all()


def test_a_source_that_cannot_be_read_is_unreadable() -> None:
    class Broken:
        def read(self) -> bytes:
            raise PermissionError(13, "Permission denied")

    with pytest.raises(UnreadableImage, match="^Permission denied$"):
        load(Broken())


def test_nothing_is_printed_of_a_tiff_with_too_many_samples_a_pixel(capfd: Any) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "TIFF")
    # the entry of tag 277 (SamplesPerPixel), type SHORT, one value: 3
    entry = struct.pack("<HHI", 277, 3, 1)
    data = file.getvalue()
    assert data.count(entry + b"\x03") == 1
    damaged = data.replace(entry + b"\x03", entry + b"\x63")
    with pytest.raises(UnreadableImage):
        decode(damaged)
    assert capfd.readouterr() == ("", "")
