"""Skin tone of a face: ITA, hue angle, lightness and the Monk tone.

Which pixels are skin is decided in CIELAB by hue and chroma, within the ellipse that a face fills
in its crop. The rule keeps all ten swatches of the Monk scale (rules in RGB or YCrCb reject up to
six of them) and leaves out greys, greens and blues. The tone is then measured as by Thong et al.
(2023): smoothing, five clusters in lightness and hue, the histogram mode of each, and the mean of
the three lightest weighted by their size, so that shadows, brows and nostrils do not count. Two
steps differ, for reasons given there: the histograms are smoothed (`_mode`), and where the three
lightest clusters hold less than 0.4 of the skin, the next ones count too (`_representative`).

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


def face_ellipse(height: int, width: int, crop: str = "fairface-0.25") -> Mask:
    """Mark the ellipse that a face fills in its crop, (H, W)."""
    middle, across, down = ELLIPSES.get(crop, ELLIPSES["fairface-0.25"])
    y = ((np.arange(height) + 0.5) / height - middle) / down
    x = ((np.arange(width) + 0.5) / width - 0.5) / across
    inside: Mask = x[None] ** 2 + y[:, None] ** 2 <= 1
    return inside


def skin_tone(rgb: NDArray[np.floating], crop: str = "fairface-0.25") -> SkinTone | Unavailable:
    """Measure the skin tone of the face in a crop.

    Parameters
    ----------
    rgb : array, (H, W, 3)
        sRGB in [0, 1].
    crop : str
        How the face lies in the picture: a name of `ELLIPSES`; of any other crop (``as-is``)
        nothing is known, and the face is taken to fill it as in ``fairface-0.25``.

    Returns
    -------
    SkinTone, or Unavailable
        The latter for greyscale pictures and where too little looks like skin.
    """
    lab = np.asarray(rgb2lab(np.clip(np.asarray(rgb, dtype=np.float64), 0, 1)))
    if float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 99)) <= GREYSCALE_CHROMA:
        return Unavailable("a greyscale picture has no skin colour")
    ellipse = face_ellipse(lab.shape[0], lab.shape[1], crop)
    # Noise gives dark skin, which has little chroma, an arbitrary hue: smooth it away first.
    mask = skin_mask(gaussian_filter(lab, (1.0, 1.0, 0.0))) & ellipse
    if mask.sum() < max(CLUSTERS, LEAST_SHARE * ellipse.sum()):
        return Unavailable("too few pixels look like skin")
    # Smooth the skin with a standard deviation of one pixel; other pixels have no weight.
    weight = gaussian_filter(mask.astype(np.float64), 1.0)
    blurred = gaussian_filter(lab * mask[..., None], (1.0, 1.0, 0.0))
    smoothed = np.asarray(blurred / np.maximum(weight, 1e-12)[..., None])
    return tone_of(_representative(smoothed[mask]))


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


def _representative(pixels: FloatArray) -> FloatArray:
    """Mean of the modes of the lightest clusters, weighted by their sizes; (n, 3) to (3,)."""
    # Cluster by lightness and hue, in units and degrees. k-means starts from fifths of the pixels
    # by lightness, so nothing in it is random.
    hue = np.degrees(np.arctan2(pixels[:, 2], pixels[:, 1]))
    features = np.stack([pixels[:, 0], hue], axis=1)
    by_lightness = np.argsort(pixels[:, 0], kind="stable")
    start = [features[part].mean(axis=0) for part in np.array_split(by_lightness, CLUSTERS)]
    centres, _ = kmeans(features, np.array(start))
    labels = vq(features, centres)[0]
    clusters = [pixels[labels == k] for k in np.unique(labels)]
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
