"""Skin tone of a face: ITA, hue angle, lightness and the Monk tone.

Which pixels are skin is decided in CIELAB by hue and chroma, within the ellipse that a face fills
in its crop. The rule keeps all ten swatches of the Monk scale (rules in RGB or YCrCb reject up to
six of them) and leaves out greys, greens and blues. The tone is then taken as Thong et al. (2023)
do: smoothing, five clusters in lightness and hue, the histogram mode of each, and the mean of the
three lightest weighted by their size, so that shadows, brows and nostrils do not count.

References
----------
Chardon et al. (1991), Int. J. Cosmetic Sci. 13:191 (ITA). W. Thong, P. Joniak and A. Xiang (2023),
Beyond skin tone, ICCV. E. Monk (2019), the Monk Skin Tone scale. Sharma et al. (2005), Color Res.
Appl. 30:21 (Delta-E 2000).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from pulse_audit.types import Unavailable

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The Monk Skin Tone scale, lightest first, as sRGB hex.
MONK_HEX = (
    "f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96",
    "a07e56", "825c43", "604134", "3a312a", "292420",
)  # fmt: skip


def _lab(hexes: tuple[str, ...]) -> Floats:
    rgb = [[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in hexes]
    return np.asarray(rgb2lab(np.array(rgb)[None])[0], dtype=np.float64)


#: L*, a*, b* of the Monk swatches (D65, 2 degrees), (10, 3).
MONK_LAB: Floats = _lab(MONK_HEX)

#: Skin: hue angle in degrees and least chroma, in CIELAB. The swatches have hues from 48.8 to 89.1
#: degrees and chromas from 3.8; the ranges are wider by what light and cameras add.
HUE_RANGE = (15.0, 100.0)
LEAST_CHROMA = 2.5
#: Darker is shadow on any skin (the darkest swatch has L* 14.6), lighter is glare.
LIGHTNESS_RANGE = (6.0, 98.5)

#: The ellipse a face fills in its crop: semi-axes in units of half the side.
ELLIPSE = (0.62, 0.85)
#: Fewer skin pixels than this share of the ellipse say nothing of a face.
LEAST_SHARE = 0.05
#: A picture of which no pixel has more chroma than this is greyscale.
GREYSCALE_CHROMA = 1.0

CLUSTERS = 5
LIGHTEST = 3
SEED = 0


@dataclass(frozen=True)
class SkinTone:
    """Skin tone of one face.

    Attributes
    ----------
    ita : float
        Individual typology angle in degrees, (-180, 180]; above 55 very light, -30 or below dark.
    hue : float
        Angle of (a*, b*) in degrees; below 55 red, above yellow.
    lightness : float
        L*, 0 to 100.
    monk : int
        Nearest of the ten Monk tones by Delta-E 2000, 1 the lightest.
    """

    ita: float
    hue: float
    lightness: float
    monk: int


def skin_mask(rgb: NDArray[np.floating]) -> Mask:
    """Mark the pixels that look like skin, anywhere in a picture.

    Parameters
    ----------
    rgb : array, (H, W, 3)
        sRGB in [0, 1].

    Returns
    -------
    array of bool, (H, W)
    """
    return _is_skin(_to_lab(rgb))


def face_ellipse(height: int, width: int) -> Mask:
    """Mark the central ellipse that a face fills in its crop, (H, W)."""
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    inside: Mask = (x[None] / ELLIPSE[0]) ** 2 + (y[:, None] / ELLIPSE[1]) ** 2 <= 1
    return inside


def skin_tone(rgb: NDArray[np.floating]) -> SkinTone | Unavailable:
    """Measure the skin tone of the face in a crop.

    Parameters
    ----------
    rgb : array, (H, W, 3)
        sRGB in [0, 1], a face filling its middle.

    Returns
    -------
    SkinTone, or Unavailable
        The latter for greyscale pictures and where too little looks like skin.
    """
    lab = _to_lab(rgb)
    if float(np.hypot(lab[..., 1], lab[..., 2]).max()) <= GREYSCALE_CHROMA:
        return Unavailable("a greyscale picture has no skin colour")
    ellipse = face_ellipse(*lab.shape[:2])
    mask = _is_skin(lab) & ellipse
    if mask.sum() < max(CLUSTERS, LEAST_SHARE * ellipse.sum()):
        return Unavailable("too few pixels look like skin")
    return tone_of(_representative(_smoothed(lab, mask)[mask]))


def tone_of(lab: Floats) -> SkinTone:
    """Describe one colour (L*, a*, b*) as a skin tone."""
    lightness, a, b = (float(value) for value in lab)
    return SkinTone(
        ita=individual_typology_angle(lightness, b),
        hue=float(np.degrees(np.arctan2(b, a))),
        lightness=lightness,
        monk=monk_tone(lab),
    )


def individual_typology_angle(lightness: float, b: float) -> float:
    """ITA in degrees: the angle of (b*, L* - 50) seen from (0, 50).

    For b* > 0 this is arctan((L* - 50) / b*), the published definition; with b* at or below 0,
    where that has a pole and then the wrong sign, the angle goes on round the circle.
    """
    return float(np.degrees(np.arctan2(lightness - 50, b)))


def monk_tone(lab: Floats) -> int:
    """Nearest Monk tone of a colour (L*, a*, b*), 1 to 10, by Delta-E 2000."""
    distances: Floats = deltaE_ciede2000(np.asarray(lab)[None], MONK_LAB)
    return int(distances.argmin()) + 1


def _to_lab(rgb: NDArray[np.floating]) -> Floats:
    return np.asarray(rgb2lab(np.clip(np.asarray(rgb, dtype=np.float64), 0, 1)))


def _is_skin(lab: Floats) -> Mask:
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


def _smoothed(lab: Floats, mask: Mask) -> Floats:
    """Gaussian smoothing (one pixel) of the skin alone: what is not skin has no weight."""
    weight = gaussian_filter(mask.astype(np.float64), 1.0)
    blurred = gaussian_filter(lab * mask[..., None], (1.0, 1.0, 0.0))
    return np.asarray(blurred / np.maximum(weight, 1e-12)[..., None])


def _representative(pixels: Floats) -> Floats:
    """Mean of the modes of the lightest clusters, weighted by their sizes; (n, 3) to (3,)."""
    labels = _clusters(pixels)
    members = [pixels[labels == k] for k in range(CLUSTERS) if (labels == k).any()]
    members.sort(key=lambda cluster: -float(cluster[:, 0].mean()))
    lightest = members[:LIGHTEST]
    modes = np.array([[_mode(channel) for channel in cluster.T] for cluster in lightest])
    return np.asarray(np.average(modes, axis=0, weights=[len(cluster) for cluster in lightest]))


def _clusters(pixels: Floats) -> NDArray[np.int_]:
    """Cluster number of each pixel, by lightness and hue on a common scale."""
    hue = np.degrees(np.arctan2(pixels[:, 2], pixels[:, 1]))
    features = np.stack([pixels[:, 0], hue], axis=1)
    spread = features.std(axis=0)
    if float(spread.max()) < 1e-6:
        return np.zeros(len(pixels), dtype=int)
    with warnings.catch_warnings():
        # A face of fewer colours than clusters leaves some empty, which is fine here.
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        _, labels = kmeans2(features / np.maximum(spread, 1e-6), CLUSTERS, minit="++", rng=SEED)
    return np.asarray(labels)


def _mode(values: Floats) -> float:
    """Middle of the fullest bin, one unit wide: a histogram's mode, steadied by a mean within."""
    bins = np.floor(values)
    found, counts = np.unique(bins, return_counts=True)
    return float(values[bins == found[counts.argmax()]].mean())
