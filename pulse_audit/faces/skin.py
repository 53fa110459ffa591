"""Skin tone of a face: ITA, hue angle, lightness and the Monk tone; and apparent skin colour.

Which pixels are skin is decided in CIELAB by hue and chroma, within the ellipse that a face fills
in its crop. The rule keeps all ten swatches of the Monk scale (rules in RGB or YCrCb reject up to
six of them) and leaves out greys, greens and blues.

**The tone of an original** is that of its lightest skin, so that shadows, brows and nostrils do not
count: five clusters in lightness and hue, the mode of each, and the mean of the lightest weighted
by their size (`_representative`).

**The tone of an output** is compared on the same pixels: it is the colour of the original, moved by
the mean difference in CIELAB between output and original over the original's skin. A tone measured
on each image by itself is mostly one of sharpness: the lightest clusters of a blurred face are
darker. Over 206 photos of FairFace at 64 px, downscaled by 8 and upsampled bicubically, that
changed lightness by -1.7 L*, the mean over a fixed ellipse by +0.1, and the same pixels by -0.2.

**Apparent skin colour** (`apparent_colour`) follows Thong et al. (2023) on each image by itself, as
published: it describes one photo, and stands beside the shift for comparison with their work.

References
----------
Chardon et al. (1991), Int. J. Cosmetic Sci. 13:191 (ITA). W. Thong, P. Joniak and A. Xiang (2023),
Beyond skin tone, ICCV. E. Monk (2019), the Monk Skin Tone scale. Sharma et al. (2005), Color Res.
Appl. 30:21 (Delta-E 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans, vq
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from skimage.color import deltaE_ciede2000, rgb2lab

from pulse_audit.frames import WHOLE, Frame
from pulse_audit.types import Unavailable

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The Monk Skin Tone scale, lightest first, as sRGB hex.
MONK_HEX = (
    "f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96",
    "a07e56", "825c43", "604134", "3a312a", "292420",
)  # fmt: skip


#: L*, a*, b* of the Monk swatches (D65, 2 degrees), (10, 3).
MONK_LAB: FloatArray = rgb2lab(np.array([list(bytes.fromhex(code)) for code in MONK_HEX]) / 255)

#: Skin: hue angle in degrees and least chroma, in CIELAB. The swatches have hues from 48.8 to 89.1
#: degrees and chromas from 3.8; the ranges are wider by what light and cameras add.
HUE_RANGE = (15.0, 100.0)
LEAST_CHROMA = 2.5
#: Darker is shadow on any skin (the darkest swatch has L* 14.6), lighter is glare.
LIGHTNESS_RANGE = (6.0, 98.5)

#: Middle height and semi-axes (x, y) of the ellipse that a face fills in a crop, in units of the
#: side: centred between the eyes and the mouth, 0.78 and 1.07 times their distance, as they were
#: measured in each crop (medians over 203 aligned photos of FairFace); celeba-108 is that of
#: celeba enlarged, and shortened because the frame cuts off the chin.
ELLIPSES = {
    "ffhq": (0.608, 0.209, 0.287),
    "fairface-0.25": (0.502, 0.310, 0.425),
    "fairface-1.25": (0.501, 0.133, 0.182),
    "celeba": (0.630, 0.182, 0.249),
    "celeba-108": (0.660, 0.300, 0.330),
}
#: Fewer skin pixels than this share of the ellipse say nothing of a face.
LEAST_SHARE = 0.05
#: A picture whose pixels have no more chroma than this, but for one in a hundred, is greyscale.
#: Of 630 photos, 20 are stored without colour; the palest of the others has 6.5.
GREYSCALE_CHROMA = 2.0
GREYSCALE = "a greyscale picture has no skin colour"

CLUSTERS = 5
LIGHTEST = 3
#: Share of the skin that the clusters which count hold together, at least.
LEAST_HELD = 0.4


@dataclass(frozen=True)
class SkinTone:
    """Skin tone of one face."""

    #: Individual typology angle in degrees, -90 to 90; above 55 very light, -30 or below dark.
    ita: float
    #: Angle of (a*, b*) in degrees; below 55 red, above yellow.
    hue: float
    #: L*, 0 to 100.
    lightness: float
    #: Nearest of the ten Monk tones by Delta-E 2000, 1 the lightest.
    monk: int


@dataclass(frozen=True)
class ApparentColour:
    """Apparent skin colour of one face as Thong et al. (2023) measure it."""

    #: L*, 0 to 100; their threshold between dark and light is 60.
    lightness: float
    #: Hue angle in degrees; their threshold between red and yellow is 55.
    hue: float


@dataclass(frozen=True, eq=False)
class Skin:
    """The skin of an original: where it is, and its colours in CIELAB.

    Attributes
    ----------
    packed, shape : ndarray of uint8, tuple of int
        The mask of its pixels, eight to a byte.
    mean : ndarray, (3,)
        Mean L*, a*, b* of these pixels.
    colour : ndarray, (3,)
        L*, a*, b* of the lightest skin, which describe the face.
    """

    packed: NDArray[np.uint8]
    shape: tuple[int, int]
    mean: FloatArray
    colour: FloatArray

    @property
    def pixels(self) -> Mask:
        """Which pixels are skin, (H, W)."""
        count = self.shape[0] * self.shape[1]
        return np.unpackbits(self.packed, count=count).reshape(self.shape).astype(np.bool_)

    @property
    def tone(self) -> SkinTone:
        """Skin tone of the original."""
        return tone_of(self.colour)

    def tone_of_output(self, rgb: NDArray[np.floating]) -> SkinTone | Unavailable:
        """Measure the tone of an output (H, W, 3) in [0, 1] on the original's skin pixels."""
        lab = to_lab(rgb)
        if is_greyscale(lab):
            return Unavailable(GREYSCALE)
        moved = self.colour + lab[self.pixels].mean(axis=0) - self.mean
        # White and black are the ends of lightness.
        moved[0] = np.clip(moved[0], 0, 100)
        return tone_of(moved)


def to_lab(rgb: NDArray[np.floating]) -> FloatArray:
    """Convert sRGB (H, W, 3), clipped to [0, 1], to CIELAB (D65)."""
    return np.asarray(rgb2lab(np.clip(np.asarray(rgb, dtype=np.float64), 0, 1)))


def is_greyscale(lab: FloatArray) -> bool:
    """Whether a CIELAB picture (H, W, 3) has no colour, so that no skin colour can be told."""
    return float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 99)) <= GREYSCALE_CHROMA


def skin_mask(lab: FloatArray) -> Mask:
    """Mark the pixels (H, W) of a CIELAB picture (H, W, 3) that look like skin."""
    lightness, a, b = np.moveaxis(lab, -1, 0)
    hue, chroma = np.degrees(np.arctan2(b, a)), np.hypot(a, b)
    mask: Mask = (
        (hue >= HUE_RANGE[0])
        & (hue <= HUE_RANGE[1])
        & (chroma >= LEAST_CHROMA)
        & (lightness >= LIGHTNESS_RANGE[0])
        & (lightness <= LIGHTNESS_RANGE[1])
    )
    return mask


def face_ellipse(
    height: int, width: int, crop: str = "fairface-0.25", frame: Frame = WHOLE
) -> Mask:
    """Mark the ellipse that a face fills in a frame of its crop, (H, W)."""
    middle, across, down = ELLIPSES.get(crop, ELLIPSES["fairface-0.25"])
    # Pixel centres in units of the crop's side.
    y = (frame.top + (np.arange(height) + 0.5) / height * frame.side - middle) / down
    x = (frame.left + (np.arange(width) + 0.5) / width * frame.side - 0.5) / across
    inside: Mask = x[None] ** 2 + y[:, None] ** 2 <= 1
    return inside


def find_skin(
    rgb: NDArray[np.floating], crop: str = "fairface-0.25", frame: Frame = WHOLE
) -> Skin | Unavailable:
    """Find the skin of the face in a crop, and measure its colour.

    Parameters
    ----------
    rgb : array, (H, W, 3)
        sRGB in [0, 1].
    crop : str
        How the face lies in the picture: a name of `ELLIPSES`; of any other crop (``as-is``)
        nothing is known, and the face is taken to fill it as in ``fairface-0.25``.
    frame : Frame
        The part of the crop that the picture shows.

    Returns
    -------
    Skin, or Unavailable
        The latter for greyscale pictures and where too little looks like skin.
    """
    lab = to_lab(rgb)
    mask = _skin_pixels(lab, crop, frame)
    if isinstance(mask, Unavailable):
        return mask
    # Smooth the skin with a standard deviation of one pixel; other pixels have no weight.
    weight = gaussian_filter(mask.astype(np.float64), 1.0)
    blurred = gaussian_filter(lab * mask[..., None], (1.0, 1.0, 0.0))
    smoothed = np.asarray(blurred / np.maximum(weight, 1e-12)[..., None])
    return Skin(
        np.packbits(mask),
        (mask.shape[0], mask.shape[1]),
        np.asarray(lab[mask].mean(axis=0)),
        _representative(smoothed[mask]),
    )


def apparent_colour(
    rgb: NDArray[np.floating], crop: str = "fairface-0.25", frame: Frame = WHOLE
) -> ApparentColour | Unavailable:
    """Measure apparent skin colour on one image by itself (Thong et al. 2023).

    The picture is smoothed (standard deviation of one pixel, in RGB), its skin clustered by k-means
    in lightness and hue into five, and the modes of the three lightest clusters (left edge of the
    fullest bin; as many bins as Sturges' rule says) averaged with their sizes as weights.

    Parameters
    ----------
    rgb : array, (H, W, 3)
        sRGB in [0, 1].
    crop, frame : str, Frame
        As of `find_skin`.

    Notes
    -----
    The authors take the skin from a face-parsing network; here it is that of `skin_mask` within
    the ellipse of the crop. k-means starts from fifths by lightness, not from a seeded draw, and
    the hue is that of atan2, equal to theirs where a* is positive.
    """
    lab = to_lab(rgb)
    mask = _skin_pixels(lab, crop, frame)
    if isinstance(mask, Unavailable):
        return mask
    smoothed = gaussian_filter(np.asarray(rgb, dtype=np.float64), (1.0, 1.0, 0.0))
    pixels = to_lab(smoothed)[mask]
    clusters = _clusters(pixels)
    # Modes of lightness and hue of each cluster, (clusters, 2), and the three of most lightness.
    modes = np.array([[_sturges_mode(part[:, 0]), _sturges_mode(_hue(part))] for part in clusters])
    lightest = np.argsort(-modes[:, 0], kind="stable")[:LIGHTEST]
    sizes = np.array([len(clusters[number]) for number in lightest])
    lightness, hue = np.average(modes[lightest], axis=0, weights=sizes)
    return ApparentColour(float(lightness), float(hue))


def _skin_pixels(lab: FloatArray, crop: str, frame: Frame) -> Mask | Unavailable:
    """Mark the skin of the face in a frame of a crop, (H, W, 3) to (H, W)."""
    if is_greyscale(lab):
        return Unavailable(GREYSCALE)
    ellipse = face_ellipse(lab.shape[0], lab.shape[1], crop, frame)
    # Noise gives dark skin, which has little chroma, an arbitrary hue: smooth it away first.
    mask = skin_mask(gaussian_filter(lab, (1.0, 1.0, 0.0))) & ellipse
    if mask.sum() < max(CLUSTERS, LEAST_SHARE * ellipse.sum()):
        return Unavailable("too few pixels look like skin")
    return mask


def tone_of(lab: FloatArray) -> SkinTone:
    """Describe one colour (L*, a*, b*) as a skin tone."""
    lightness, a, b = (float(value) for value in lab)
    return SkinTone(
        ita=individual_typology_angle(lightness, b),
        hue=float(np.degrees(np.arctan2(b, a))),
        lightness=lightness,
        monk=monk_tone(lab),
    )


def individual_typology_angle(lightness: float, b: float) -> float:
    """ITA in degrees, arctan((L* - 50) / b*) (Chardon et al. 1991), -90 to 90.

    The formula has a pole at b* = 0 and the wrong sign beyond it. Bluish skin, b* < 0, is an
    artefact of the light; it gets the limit for b* -> 0 from above, 90 or -90 (0 at L* = 50), so
    that lighter is never a smaller angle.
    """
    return float(np.degrees(np.arctan2(lightness - 50, max(b, 0.0))))


def monk_tone(lab: FloatArray) -> int:
    """Nearest Monk tone of a colour (L*, a*, b*), 1 to 10, by Delta-E 2000."""
    distances: FloatArray = deltaE_ciede2000(np.asarray(lab)[None], MONK_LAB)
    return int(distances.argmin()) + 1


def _hue(pixels: FloatArray) -> FloatArray:
    """Hue angles in degrees of colours (n, 3)."""
    return np.degrees(np.arctan2(pixels[:, 2], pixels[:, 1]))


def _clusters(pixels: FloatArray) -> list[FloatArray]:
    """Split colours (n, 3) into up to five clusters in lightness and hue, units and degrees.

    k-means starts from fifths of the pixels by lightness, so nothing in it is random.
    """
    features = np.stack([pixels[:, 0], _hue(pixels)], axis=1)
    by_lightness = np.argsort(pixels[:, 0], kind="stable")
    start = [features[part].mean(axis=0) for part in np.array_split(by_lightness, CLUSTERS)]
    centres, _ = kmeans(features, np.array(start), thresh=1e-9)
    labels = vq(features, centres)[0]
    return [pixels[labels == k] for k in np.unique(labels)]


def _representative(pixels: FloatArray) -> FloatArray:
    """Mean of the modes of the lightest clusters, weighted by their sizes; (n, 3) to (3,)."""
    clusters = _clusters(pixels)
    clusters.sort(key=lambda cluster: -float(cluster[:, 0].mean()))
    # On dark skin the three lightest can be lips, teeth and glare alone, so further ones are added
    # until together they hold LEAST_HELD of the skin.
    held = np.cumsum([len(cluster) for cluster in clusters])
    fewest = 1 + int((held < LEAST_HELD * len(pixels)).sum())
    # A picture of few colours has fewer clusters; the darkest two are left out all the same.
    lightest = clusters[: max(fewest, LIGHTEST - (CLUSTERS - len(clusters)))]
    modes = np.array([[_mode(channel) for channel in cluster.T] for cluster in lightest])
    return np.asarray(np.average(modes, axis=0, weights=[len(cluster) for cluster in lightest]))


def _mode(values: FloatArray) -> float:
    """Peak of the histogram, smoothed with a standard deviation of two units.

    A few hundred pixels fill bins too unevenly: by the plain mode (one unit wide) the same photo
    at 128 and 64 px differs by 5.1 degrees of ITA (SD over 315 photos), by this one by 3.9; at 128
    and 32 px by 7.6 and 6.0.
    """
    edges = np.arange(values.min() - 8, values.max() + 8.25, 0.25)
    counts, _ = np.histogram(values, edges)
    peak = int(gaussian_filter1d(counts.astype(np.float64), 8.0).argmax())
    return float(edges[peak] + 0.125)


def _sturges_mode(values: FloatArray) -> float:
    """Left edge of the fullest bin of a histogram with as many bins as Sturges' rule says."""
    counts, edges = np.histogram(values, bins="sturges")
    return float(edges[counts.argmax()])
