"""What ``list`` and ``doctor`` say."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pulse_audit.files import cache_folder
from pulse_audit.models import published
from pulse_audit.models.attributes import attribute_names, load_attributes
from pulse_audit.models.generators import describe_generator
from pulse_audit.models.published import WeightCard, cards
from pulse_audit.models.shipped import shipped_file, shipped_generators
from pulse_audit.names import CONDITIONS, INTERPOLATION, nearest
from pulse_audit.types import GeneratorCard, InputError

Rows = list[dict[str, str]]

DEPENDENCIES = (
    "torch torchvision numpy pandas scipy scikit-image lpips facenet-pytorch seaborn statsmodels"
)
EXTRAS = {
    "onnxruntime": "the `onnx` extra: other people's models as ONNX files",
    "ray": "the `ray` extra: audits over many machines",
}


#: Columns a terminal has no room for; ``--json`` prints them.
ONLY_IN_JSON = {
    "generators": ("what", "family", "size"),
    "datasets": ("licence",),
    "metrics": ("what",),
}


def rows_of(what: str, datasets_file: Path | None) -> Rows:
    """Rows of a listing.

    Raises
    ------
    InputError
        If there is no such listing.
    """
    listings: dict[str, Callable[[], Rows]] = {
        "datasets": lambda: _datasets(datasets_file),
        "generators": _generators,
        "weights": lambda: [_weights_row(card) for card in cards().values()],
        "arms": _arms,
        "metrics": _metrics,
        "attributes": _attributes,
        "conditions": _conditions,
        "specs": _specs,
    }
    if what not in listings:
        raise InputError(f"list {what}: unknown{nearest(what, list(listings))}")
    return listings[what]()


def _datasets(datasets_file: Path | None) -> Rows:
    from pulse_audit.datasets.registry import load_registry

    return [
        {
            "name": card.name,
            "title": card.title,
            "groups": " x ".join(card.group_by) or "-",
            "crop": card.crop,
            "licence": card.licence,
        }
        for card in load_registry(datasets_file).cards.values()
    ]


def _generators() -> Rows:
    own = {
        "FILE.py:FACTORY": "your own code that returns a generator",
        "FILE": "a checkpoint: StyleGAN 1, 2, ADA, 3, a torch.export program, our safetensors",
    }
    named = [_generator_row(card) for card in cards().values() if card.kind == "generator"]
    blank = dict.fromkeys(named[0], "-")
    forms = [{**blank, "name": name, "what": what} for name, what in own.items()]
    return [*(_shipped_row(name) for name in shipped_generators()), *forms, *named]


def _shipped_row(name: str) -> dict[str, str]:
    """Say what is known of a generator that comes with the package, without loading it."""
    path = shipped_file(name)
    content = json.loads(path.with_suffix(".json").read_text())
    card = content["card"]
    side = int(card["resolution"])
    return {
        "name": name,
        "what": card["title"],
        "family": content["family"],
        "resolution": str(side),
        "crop": card["crop"],
        "latent": f"{2 * side.bit_length() - 4} x {card['configuration']['latent_dim']}",
        "licence": card["licence"],
        "size": f"{path.stat().st_size / 1e6:,.0f} MB",
        "sha256": "confirmed",
        "state": "shipped, interim" if card["interim"] else "shipped",
    }


def _generator_row(card: WeightCard) -> dict[str, str]:
    """Say what is known of a generator before it is fetched."""
    row = _weights_row(card)
    return {
        "name": row.pop("name"),
        "what": row.pop("what"),
        "family": card.family or "-",
        "resolution": row.pop("resolution"),
        "crop": row.pop("crop"),
        "latent": _latent(card),
        **row,
    }


def _latent(card: WeightCard) -> str:
    """Styles an image and their length, as published networks of these families have them."""
    if card.family is None or card.resolution is None or not card.family.startswith("stylegan"):
        return "-"
    layers = 16 if card.family.startswith("stylegan3") else 2 * card.resolution.bit_length() - 4
    return f"{layers} x 512"


def generator_cards(what: str, references: Sequence[str], trusted: Sequence[str]) -> Rows:
    """Rows of ``list generators FILE...``: the cards of these generators.

    Raises
    ------
    InputError
        If one cannot be used, or the listing is another one.
    """
    if what != "generators":
        raise InputError(f"list {what}: takes no further names")
    return [_card_row(describe_generator(r, trusted)) for r in references]


def _card_row(card: GeneratorCard) -> dict[str, str]:
    return {
        "name": card.name,
        "family": card.family,
        "resolution": str(card.resolution),
        "crop": card.crop,
        "latent": f"{card.n_latents} x {card.latent_dim}",
        "parameters": f"{card.parameters:,}",
        "training data": card.training_data or "unknown",
        "licence": card.licence or "unknown",
        "sha256": card.sha256 or "unknown",
    }


def fetched_row(card: WeightCard) -> dict[str, str]:
    """Say where the file of a fetched card is, and what its SHA-256 is worth."""
    recorded = published.first_download(card)
    return {
        "name": card.name,
        "file": str(published.path_of(card)),
        "sha256": recorded.sha256 if recorded else "-",
        "which is": published.hash_state(card),
    }


def _weights_row(card: WeightCard) -> dict[str, str]:
    return {
        "name": card.name,
        "what": card.title,
        "resolution": str(card.resolution or "-"),
        "crop": card.crop or "-",
        "licence": card.licence.name,
        "size": f"{card.size / 1e6:,.0f} MB" if card.size else "unknown",
        "sha256": published.hash_state(card),
        "state": published.file_state(card),
    }


def _arms() -> Rows:
    return [
        {
            "name": "pulse",
            "what": "searches each --generator for faces that downscale to the input",
        },
        *({"name": n, "what": "interpolation"} for n in INTERPOLATION),
        {
            "name": "planted:MATRIX.csv",
            "what": "another real face, its group drawn from a matrix you give: a known bias",
        },
        {"name": "FILE.py:FACTORY", "what": "your own code that returns an upsampler"},
    ]


def _metrics() -> Rows:
    """Metrics of the samples and of sets of them, then those that installed packages offer."""
    from pulse_audit.harness.suite import METRICS, requirements
    from pulse_audit.plugins import metric_names
    from pulse_audit.summary import METRICS as SUMMARISED

    needs = requirements()
    rows = [_metric_row(m.name, m.unit, m.better, m.what, needs.get(m.name)) for m in SUMMARISED]
    listed = {row["name"] for row in rows}
    rows += [
        _metric_row(name, "", "-", "a column of the samples", needs[name])
        for name in METRICS
        if name not in listed
    ]
    foreign = [_metric_row(n, "", "-", "of an installed package", None) for n in metric_names()]
    own = _metric_row("FILE.py:FACTORY", "", "-", "your own code that returns a metric", None)
    return [*rows, *foreign, own]


def _metric_row(
    name: str, unit: str, better: str, what: str, needs: tuple[str, str, str] | None
) -> dict[str, str]:
    smallest, needed, here = needs or ("-", "-", "-")
    return {
        "name": name,
        "unit": unit or "-",
        "better": better,
        "from px": smallest,
        "needs": needed,
        "here": here,
        "what": what,
    }


def _attributes() -> Rows:
    """Attribute models with their words, and how often they agree with people on held-out faces."""
    forms = {
        "FILE.onnx": "other people's model, with a card beside it",
        "FILE.py:FACTORY": "your own code that returns an attribute model",
    }
    blank = {"predicts": "-", "held-out accuracy": "-"}
    rows = [_attribute_row(name) for name in attribute_names()]
    return [*rows, *({"name": n, **blank, "here": what} for n, what in forms.items())]


def _attribute_row(name: str) -> dict[str, str]:
    from pulse_audit.faces.fairface import LAYOUTS

    words: Mapping[str, Sequence[str]]
    try:
        card = load_attributes(name, "cpu").card
    except InputError as error:
        layout = LAYOUTS.get(name)
        words = {a: w for a, (w, _) in layout.attributes.items()} if layout else {}
        accuracy, here = "-", str(error).rpartition(": ")[2]
    else:
        words, here = card.vocabulary, "yes"
        shares = (f"{a} {_accuracy(counts)}" for a, counts in card.confusion.items())
        accuracy = ", ".join(shares) or "not measured"
    predicts = "; ".join(f"{a}: {', '.join(known)}" for a, known in words.items())
    return {
        "name": name,
        "predicts": predicts or "-",
        "held-out accuracy": accuracy,
        "here": here,
    }


def _accuracy(counts: Sequence[Sequence[int]]) -> str:
    """Share of the diagonal, as its card's people and model count."""
    total = sum(map(sum, counts))
    right = sum(row[i] for i, row in enumerate(counts))
    return f"{100 * right / total:.1f} % of {total:,}" if total else "-"


def _conditions() -> Rows:
    return [{"form": form, "what": what} for form, what in CONDITIONS.items()]


def _specs() -> Rows:
    from pulse_audit.harness.spec import shipped_specs

    return [{"name": name, "what": what} for name, what in shipped_specs().items()]


def doctor() -> Rows:
    """State of this installation, a row a part, with what a missing part costs."""
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    rows = [
        _row("pulse-audit", _installed("pulse-audit"), "this program"),
        _row("python", python, sys.executable),
    ]
    rows += [_row(name, _installed(name), "needed") for name in DEPENDENCIES.split()]
    rows += [_row(name, _installed(name), what) for name, what in EXTRAS.items()]
    rows += [_device(), *_places(), *_weights()]
    return rows


def _row(part: str, state: str, meaning: str) -> dict[str, str]:
    return {"part": part, "state": state, "meaning": meaning}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _device() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        return _row("device", f"cuda, {torch.cuda.get_device_name()}", "searches run on it")
    threads = torch.get_num_threads()
    return _row("device", f"cpu, {threads} threads", "no GPU: fine for small nets and samples")


def _weights() -> Rows:
    """State of the fetchable weights: all generators in one row, the others one by one."""
    generators = [card for card in cards().values() if card.kind == "generator"]
    there = [card.name for card in generators if published.file_state(card) == "fetched"]
    what = "named with --generator; `pulse-audit list generators` shows all"
    counted = f"{len(there)} of {len(generators)} fetched"
    others = [card for card in cards().values() if card.kind != "generator"]
    return [
        _row("generators", ", ".join([counted, *there]), what),
        *(_weight(card, published.file_state(card)) for card in others),
    ]


def _weight(card: WeightCard, state: str) -> dict[str, str]:
    if state == "fetched":
        return _row(card.name, f"fetched, SHA-256 {published.hash_state(card)}", card.title)
    return _row(card.name, state, f"{card.without}; pulse-audit fetch {card.name}")


def _places() -> Rows:
    data = os.environ.get("PULSE_AUDIT_DATA")
    weights = find_spec("facenet_pytorch")
    folder = Path(weights.origin).parent / "data" if weights and weights.origin else Path()
    detector = (folder / "pnet.pt").is_file()
    return [
        _row("cache", str(cache_folder()), "set PULSE_AUDIT_HOME to move it"),
        _row("data", data or "not set", "PULSE_AUDIT_DATA, the default of --data-root"),
        _row(
            "MTCNN weights",
            "in the facenet-pytorch wheel" if detector else "missing",
            "without them no face can be found or aligned",
        ),
    ]
