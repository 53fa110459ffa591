"""An attribute model of one's own: --attributes examples/exposure_attributes.py:build."""

import torch

from pulse_audit.types import AttributeCard, Attributes

WORDS = ("dark", "bright")
LUMA = (0.2126, 0.7152, 0.0722)  # of ITU-R BT.709


class Exposure:
    """Is the middle of a photo dark or bright? No weights; one feature, the mean luminance."""

    card = AttributeCard(
        "exposure", {"exposure": WORDS}, resolution=32, crop="as-is", feature_dim=1, licence="MIT"
    )

    def __call__(self, images):  # (n, 3, R, R) in [0, 1], R any
        edge = images.shape[-1] // 4
        middle = images[..., edge : images.shape[-1] - edge, edge : images.shape[-1] - edge]
        luminance = middle.mean((2, 3)) @ images.new_tensor(LUMA)
        bright = torch.sigmoid(20 * (luminance - 0.4))
        return Attributes({"exposure": torch.stack([1 - bright, bright], 1)}, luminance[:, None])

    def to(self, device):  # nothing to move
        return self


def build():
    return Exposure()
