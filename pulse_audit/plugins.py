"""Code from outside the package: ``FILE.py:FACTORY``, and entry points of installed packages.

Such code runs only when it is named, on the command line or in the user's own spec. The objects it
returns are checked before they are used, and their results at every call.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pulse_audit.metrics.registry import MEASURED
from pulse_audit.names import is_factory, nearest
from pulse_audit.seeding import hexdigest, sha256
from pulse_audit.types import Attributes, InputError, Metric, Unavailable, Upsampler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pulse_audit.types import AttributeModel

#: Groups of entry points.
METRICS = "pulse_audit.metrics"
ATTRIBUTES = "pulse_audit.attributes"
ARMS = "pulse_audit.arms"

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")


def factory_file(reference: str) -> Path:
    """Return the file of ``FILE.py:FACTORY``; `InputError` if there is no such file."""
    path = Path(reference.rpartition(":")[0])
    if not path.is_file():
        raise InputError(f"{reference}: no such file {path}")
    return path


def load_factory(reference: str) -> Any:
    """Run ``FACTORY()`` of ``FILE.py``; `InputError` if it cannot be imported or raises."""
    path, name = factory_file(reference), reference.rpartition(":")[2]
    # A name of its own for each file, so that two plug-ins of one file name stay apart.
    module_name = f"pulse_audit_plugin_{hexdigest(str(path.resolve()))[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{reference}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    call_plugin(partial(spec.loader.exec_module, module), reference)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise InputError(f"{reference}: {path.name} has no function {name!r}")
    return call_plugin(factory, reference)


def call_plugin(call: Callable[[], Any], reference: str) -> Any:
    """Call foreign code; any exception becomes an `InputError` of one line."""
    try:
        # Its own InputErrors are already one line; a plug-in may also exit.
        with suppress_sphere_warning():
            return call()
    except InputError as error:
        raise InputError(f"{reference}: {error}") from None
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{reference}: raised {type(error).__name__}: {text}") from None


@contextmanager
def suppress_sphere_warning() -> Iterator[None]:
    """Suppress the warning about small latent spaces, which manifest and report state."""
    from pulse_audit.generators.adapt import SphereWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SphereWarning)
        yield


def entry_point_names(group: str) -> list[str]:
    """Return the names that installed packages offer; none of their code is run."""
    return sorted({point.name for point in entry_points(group=group)})


def _entry_point(group: str, name: str) -> tuple[EntryPoint, str]:
    """Find an entry point and the package it is from; none of its code is run."""
    # The name has to be unique; the same entry point may be installed twice.
    points = list(entry_points(group=group, name=name))
    if not points:
        raise InputError(f"{name}: no installed package offers it any more")
    if len({point.value for point in points}) > 1:
        owners = sorted({point.dist.name if point.dist else "?" for point in points})
        raise InputError(f"{name}: offered by {' and '.join(owners)}; uninstall one of them")
    point = points[0]
    return point, f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _load_entry_point(group: str, name: str) -> tuple[Any, str]:
    """Run the factory of an entry point; returns its result and the package it is from."""
    point, package = _entry_point(group, name)
    factory = call_plugin(point.load, name)
    if not callable(factory):
        raise InputError(f"{name}: {point.value} is not a function")
    return call_plugin(factory, name), package


def arm_names() -> list[str]:
    """Return the names of the arms that installed packages offer."""
    return entry_point_names(ARMS)


def arm_package(name: str) -> str:
    """Return the package and version that offer an arm; `InputError` if none does, or two do."""
    return _entry_point(ARMS, name)[1]


def load_arm(reference: str) -> Upsampler:
    """Load the upsampler of ``FILE.py:FACTORY`` or of an entry point.

    Raises
    ------
    InputError
        If it cannot be loaded, or is no upsampler.
    """
    of_a_file = is_factory(reference)
    arm = load_factory(reference) if of_a_file else _load_entry_point(ARMS, reference)[0]
    if not (callable(arm) and hasattr(arm, "describe")):
        raise InputError(f"{reference}: returned no upsampler (see CONTRIBUTING.md)")
    upsampler: Upsampler = arm
    return upsampler


def load_attribute_plugin(reference: str) -> PluginAttributes:
    """Load the attribute model of ``FILE.py:FACTORY`` or of an entry point, and try it.

    Raises
    ------
    InputError
        With one line if it cannot be loaded, is no attribute model, or its card or its predictions
        are invalid.
    """
    import torch

    from pulse_audit.faces.attributes import check_card, is_attribute_model

    # The card of a model without weights gets the digest of its code, where that is a file.
    if is_factory(reference):
        file = factory_file(reference)
        foreign, origin, digest = load_factory(reference), file.name, sha256(file.read_bytes())
    else:
        (foreign, origin), digest = _load_entry_point(ATTRIBUTES, reference), None
    if not is_attribute_model(foreign):
        raise InputError(
            f"{reference}: returned a {type(foreign).__name__}, not an attribute model: an object "
            "with card, to(device) and a call (see CONTRIBUTING.md)"
        )
    call_plugin(partial(check_card, foreign.card), reference)
    model = PluginAttributes(foreign, reference, origin, digest)
    # Try it on two grey images.
    with torch.no_grad():
        model(torch.full((2, 3, foreign.card.resolution, foreign.card.resolution), 0.5))
    return model


class PluginAttributes:
    """An attribute model from outside whose predictions are checked at every call.

    ``reference`` is what the user wrote; ``origin``, the file or package of the code, enters the
    card's notes, and ``digest``, the SHA-256 of the code, the card of a model without weights.
    """

    def __init__(
        self, model: AttributeModel, reference: str, origin: str, digest: str | None
    ) -> None:
        self._model, self._reference = model, reference
        notes = (*model.card.notes, f"code of {origin}")
        self.card = replace(model.card, sha256=model.card.sha256 or digest, notes=notes)
        self.differentiable = bool(getattr(model, "differentiable", True))

    def __call__(self, images: Tensor) -> Attributes:
        """Predict from (n, 3, R, R) in [0, 1]."""
        from pulse_audit.faces.attributes import checked

        prediction = call_plugin(partial(checked, self._model, images), self._reference)
        assert isinstance(prediction, Attributes)
        return prediction

    def to(self, device: torch.device | str) -> Self:
        """Move to a device; returns the model itself."""
        self._model = call_plugin(partial(self._model.to, device), self._reference)
        return self


def metric_names() -> list[str]:
    """Return the names of the metrics that installed packages offer."""
    return entry_point_names(METRICS)


def find_metric(name: str) -> None:
    """Raise `InputError` unless a metric is known by name, or the file of its factory exists."""
    if is_factory(name):
        factory_file(name)
    elif name not in MEASURED and name not in metric_names():
        hint = nearest(name, [*MEASURED, *metric_names()])
        raise InputError(f"unknown metric {name!r}{hint}; FILE.py:FACTORY is one too")


def load_metrics(names: Sequence[str] | None) -> list[Metric]:
    """Load the metrics that come from outside; names of the package's own are passed over.

    Parameters
    ----------
    names : sequence of str or None
        As for ``--metrics``: ``FILE.py:FACTORY``, names of entry points, and names of the
        package's own; None requests no metric from outside.

    Returns
    -------
    list of Metric
        In the order of the names; a factory may return several.

    Raises
    ------
    InputError
        With one line if a name is unknown (with the nearest known), a factory raises or returns no
        metrics, or two metrics have one name.
    """
    metrics: list[Metric] = []
    for name in names or ():
        find_metric(name)
        if name in MEASURED:
            continue
        # A factory returns one metric or a list of them.
        result = load_factory(name) if is_factory(name) else _load_entry_point(METRICS, name)[0]
        results = [result] if isinstance(result, Metric) else result
        if not isinstance(results, list | tuple) or not results:
            raise InputError(
                f"{name}: returned a {type(result).__name__}, not a Metric or a list of them"
            )
        for metric in results:
            if not isinstance(metric, Metric):
                raise InputError(
                    f"{name}: returned a {type(metric).__name__} where a Metric is due"
                )
            if not _METRIC_NAME.fullmatch(metric.name):
                raise InputError(
                    f"{name}: metric name {metric.name!r}: use small letters, digits and _, as it "
                    "becomes a column"
                )
            if metric.name in [*MEASURED, *(other.name for other in metrics)]:
                raise InputError(f"{name}: there is a metric {metric.name!r} already; rename yours")
            # Every value of it is checked when it is computed.
            metrics.append(replace(metric, compute=partial(_computed, metric, name)))
    return metrics


def _computed(metric: Metric, reference: str, sr: Tensor, hr: Tensor) -> Tensor | Unavailable:
    """Compute a metric from outside and check its values: (n,) real numbers."""
    import torch

    values = call_plugin(partial(metric.compute, sr, hr), f"{reference}, {metric.name}")
    if isinstance(values, Unavailable):
        return values
    if not isinstance(values, torch.Tensor) or tuple(values.shape) != (len(sr),):
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise InputError(f"{reference}, {metric.name}: gives {shape} where ({len(sr)},) is due")
    return values.detach().double()
