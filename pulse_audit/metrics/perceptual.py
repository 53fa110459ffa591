"""LPIPS: distance between the features of a trained network (Zhang et al. 2018).

The network and its heads are those of the ``lpips`` package, version 0.1 of the heads; the weights
of the trunk, which the package would download, come from a file of ``pulse-audit fetch``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pulse_audit.files import read_state
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.registry import MEASURED
from pulse_audit.names import nearest
from pulse_audit.types import InputError, Metric, Unavailable

#: Features of one image: a layer a tensor (1, c, h, w), of unit length at every position.
Features = tuple[Tensor, ...]


#: The metric of each network, by the package's own name of it. ``alex`` is its default, and
#: the ``lpips`` of most papers.
TRUNKS: Mapping[str, MetricDefinition] = {
    metric.arguments["net"]: metric for metric in MEASURED.values() if "net" in metric.arguments
}

#: Pixels that pass through a trunk at once on a GPU: 16 images of 256 px. The first layer of VGG
#: makes 64 floats of each.
PIXELS_AT_ONCE = 2**20

#: Reference features kept, in bytes: two originals of 1024 px with VGG, hundreds of 64 px.
KEPT_BYTES = 2**30


class Lpips:
    """LPIPS with one trunk, and the features of the originals it has met.

    Parameters
    ----------
    model : nn.Module
        A ``lpips.LPIPS`` whose weights are in place.
    net : str
        A name of `TRUNKS`.
    kept_bytes : int
        How much the kept features of originals may occupy, on the model's device.
    """

    def __init__(self, model: nn.Module, net: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.definition = TRUNKS[net]
        self._model: Any = model.eval().requires_grad_(False)
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._kept_bytes = kept_bytes

    @torch.inference_mode()
    def features(self, images: Tensor) -> list[Features]:
        """Pass images through the trunk, and bring every position's features to unit length.

        Parameters
        ----------
        images : Tensor, (n, 3, h, w)
            In [0, 1], on any device.

        Returns
        -------
        list of n tuples
            The features of each image, in float32 on the model's device.
        """
        import lpips

        scaled = self._model.scaling_layer(2 * images.to(self._device).float() - 1)
        features: list[Features] = []
        with _full_float32():
            for part in torch.split(scaled, self._at_once(images)):
                # A layer is (part, c, h, w); one image keeps (1, c, h, w) of each.
                layers = [lpips.normalize_tensor(layer) for layer in self._model.net(part)]
                features += [tuple(layer[i : i + 1] for layer in layers) for i in range(len(part))]
        return features

    @torch.inference_mode()
    def distance(self, one: Sequence[Features], other: Sequence[Features]) -> Tensor:
        """Distance between features, pair by pair: (n,) float64, at least 0."""
        heads = [head.model[-1].weight.double() for head in self._model.lins]
        totals = []
        for pair in zip(one, other, strict=True):
            # Equation 1: squared differences, mean over positions, weighted sum over channels.
            total = torch.zeros((), dtype=torch.float64, device=self._device)
            for a, b, weights in zip(*pair, heads, strict=True):
                means = (a - b).square().double().mean((2, 3), keepdim=True)
                total = total + (means * weights).sum()
            totals.append(total)
        return torch.stack(totals)

    def reference(self, originals: Tensor) -> list[Features]:
        """Return the features of originals; an image met before costs no pass through the trunk.

        Kept by a digest of all pixels, the least recently used are dropped first.
        """
        # The digest covers shape and pixels: equal keys are equal images.
        keys = []
        for original in originals.detach().float().cpu():
            shape = str(tuple(original.shape)).encode()
            pixels = original.contiguous().numpy().tobytes()
            keys.append(hashlib.blake2b(pixels, key=shape).hexdigest())
        # Only images that were not met before pass through the trunk.
        missing = {
            key: original
            for key, original in zip(keys, originals, strict=True)
            if key not in self._kept
        }
        computed = self.features(torch.stack([*missing.values()])) if missing else []
        new = dict(zip(missing, computed, strict=True))
        references = [new.get(key) or self._kept[key] for key in keys]
        for key, features in zip(keys, references, strict=True):
            # Copies: a slice would keep the whole batch it was cut from.
            kept = self._kept.pop(key, None) or tuple(layer.clone() for layer in features)
            self._kept[key] = kept
        # The oldest are dropped until the rest fits.
        while self._occupied() > self._kept_bytes:
            self._kept.popitem(last=False)
        return references

    def compute(self, sr: Tensor, hr: Tensor) -> Tensor | Unavailable:
        """LPIPS of outputs and originals.

        Parameters
        ----------
        sr, hr : Tensor, (n, 3, h, w)
            In [0, 1]. An original may stand in many rows and many calls; it passes the trunk once.

        Returns
        -------
        Tensor, (n,)
            float64, at least 0, lower is nearer; `Unavailable` where a side is under the trunk's
            smallest. On a CPU a score does not depend on its batch mates in any bit; on a GPU
            the trunk's own rounding (float32) may differ with the size of the batch.
        """
        if sr.shape != hr.shape or sr.ndim != 4:
            raise ValueError(
                f"outputs {tuple(sr.shape)} and originals {tuple(hr.shape)} must be "
                "batches of one shape, (n, 3, h, w)"
            )
        if too_small := self.definition.available(min(sr.shape[-2:])):
            return too_small
        step = self._at_once(sr)
        # In parts, so that memory does not grow with the batch.
        chunks = (slice(start, start + step) for start in range(0, len(sr), step))
        return torch.cat(
            [self.distance(self.features(sr[part]), self.reference(hr[part])) for part in chunks]
        )

    @property
    def metric(self) -> Metric:
        """LPIPS as a metric, named ``lpips``, ``lpips_vgg`` or ``lpips_squeeze``."""
        return self.definition.computed_with(self.compute)

    @property
    def _device(self) -> torch.device:
        shift: Tensor = self._model.scaling_layer.shift
        return shift.device

    def _at_once(self, images: Tensor) -> int:
        # On a CPU a batch is no faster, takes its memory at once and rounds by its size.
        if self._device.type == "cpu":
            return 1
        return max(1, PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2]))

    def _occupied(self) -> int:
        """Bytes of the features that are kept."""
        layers = (layer for features in self._kept.values() for layer in features)
        return sum(layer.numel() * layer.element_size() for layer in layers)


def load(net: str, path: Path, device: torch.device | str = "cpu") -> Lpips:
    """Build LPIPS from the weights of its trunk.

    Parameters
    ----------
    net : str
        ``alex``, ``vgg`` or ``squeeze``.
    path : Path
        The trunk's weights as torchvision publishes them.
    device : torch.device or str
        Where it computes.

    Raises
    ------
    InputError
        If there is no such net, or the file does not hold its weights.
    """
    if net not in TRUNKS:
        raise InputError(f"no LPIPS net {net}{nearest(net, [*TRUNKS])}")
    try:
        # Only the trunk is copied from it: VGG's file is ten times as large.
        state = read_state(path, mapped=True)
    except InputError as error:
        raise InputError(f"{error}; delete it and fetch it again") from None

    # The slices of the package's trunk keep torchvision's numbers: slice1.0.weight is
    # features.0.weight there.
    model: Any = bare(net)
    names = {name: f"features.{name.split('.', 1)[1]}" for name, _ in model.net.named_parameters()}
    try:
        model.net.load_state_dict({name: state[published] for name, published in names.items()})
    except (KeyError, RuntimeError) as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(
            f"{path}: does not hold the weights of this LPIPS network ({first}); delete it and "
            "fetch it again"
        ) from None
    return Lpips(model.to(device), net)


def bare(net: str) -> nn.Module:
    """Build the package's network with its trained heads, on a trunk of random weights.

    The trunk's draws come from torch's generator, whose state is left as it was found.
    """
    import lpips

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # lpips 0.1.4 asks torchvision for its networks in words that torchvision gave up.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision.models._utils")
        model: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    return model


@contextmanager
def _full_float32() -> Iterator[None]:
    """Convolve in float32 on GPUs that would round to TF32, and choose the algorithm by shape."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, cudnn.benchmark = False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before
