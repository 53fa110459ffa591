"""A metric of one's own: pulse-audit run --metrics psnr,examples/mean_colour_metric.py:build."""

from pulse_audit.types import Metric


def mean_colour_error(sr, hr):  # two (n, 3, R, R) in [0, 1] to (n,)
    """Distance between the mean colours of output and original, on the 0-255 scale of RGB."""
    means = [255 * images.double().mean((2, 3)) for images in (sr, hr)]
    return (means[0] - means[1]).norm(dim=1)


def build():
    return Metric("mean_colour_error", False, mean_colour_error, unit="of 255")
