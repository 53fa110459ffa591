"""Rows of ``list`` and ``doctor``."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pulse_audit.conditions import CONDITIONS
from pulse_audit.documents import read_json
from pulse_audit.files import cache_folder
from pulse_audit.models import published
from pulse_audit.models.attributes import attribute_names, load_attributes
from pulse_audit.models.generators import describe_generator
from pulse_audit.models.published import WeightCard, cards, file_state, hash_state
from pulse_audit.models.shipped import ATTRIBUTES, shipped_file, shipped_generators
from pulse_audit.names import INTERPOLATION, NETWORKS, nearest
from pulse_audit.sweeps import SETTINGS
from pulse_audit.types import InputError

Rows = list[dict[str, str]]

LISTINGS = (
    "datasets", "generators", "weights", "arms", "metrics", "attributes", "conditions", "settings",
    "specs", "rules",
)  # fmt: skip
#: Columns a terminal has no room for; ``--json`` prints them.
ONLY_IN_JSON = {
    "generators": ("what", "family", "size"),
    "datasets": ("licence",),
    "metrics": ("what",),
}
#: Packages that every audit needs, and optional ones.
DEPENDENCIES = "torch torchvision numpy pandas scipy scikit-image lpips facenet-pytorch seaborn"
EXTRAS = {
    "onnxruntime": "the `onnx` extra: other people's models as ONNX files",
    "diffusers": "the `diffusers` extra: diffusion models as arms",
    "ray": "the `ray` extra: audits over many machines",
}


def rows_of(listing: str, datasets_file: Path | None) -> Rows:
    """Return the rows of a listing; `InputError` if there is no such listing."""
    if listing == "datasets":
        from pulse_audit.datasets.registry import load_registry

        rows = [
            {
                "name": card.name,
                "title": card.title,
                "groups": " x ".join(card.group_by) or "-",
                "crop": card.crop,
                "licence": card.licence,
            }
            for card in load_registry(datasets_file).cards.values()
        ]
        samples = ("samples:GENERATOR", "Faces drawn from a generator's own prior, by a run")
        values = (*samples, "the attribute model's", "the generator's", "the generator's")
        return [*rows, dict(zip(rows[0], values, strict=True))]
    if listing == "generators":
        return _generators()
    if listing == "weights":
        return [_weights(card) for card in cards().values()]
    if listing == "arms":
        from pulse_audit.plugins import arm_names

        planted = "another real face, its group drawn from a matrix you give: a known bias"
        arms = {
            "pulse": "searches each --generator for faces that downscale to the input",
            **dict.fromkeys(INTERPOLATION, "interpolation"),
            **_networks(),
            "posterior:GENERATOR": "samples of a generator that downscale to the input within "
            "--eps: draws of its posterior, the reference for a search",
            "posterior-pulse:GENERATOR": "the same, of samples of PULSE's own prior",
            "dps:MODEL": "draws of a diffusion model (diffusers folder), each step guided to the "
            "input",
            "ddnm:MODEL": "draws of a diffusion model, made consistent with the input at each step",
            "planted:MATRIX.csv": planted,
            "onnx:FILE": "a network in an ONNX file, small image to large",
            "folder:DIR": "outputs made elsewhere, for the inputs of export-inputs; also with a "
            "pattern: folder:DIR/{setting}/faces/{name}_00.png (docs/restorers.md)",
            'command:"PROG {input} {output}"': "a program that reads an image file and writes one",
            "FILE.py:FACTORY": "your own code that returns an upsampler",
            **dict.fromkeys(arm_names(), "an entry point of an installed package"),
        }
        return [{"name": name, "what": what} for name, what in arms.items()]
    if listing == "metrics":
        return _metrics()
    if listing == "attributes":
        return _attributes()
    if listing == "conditions":
        return [{"form": form, "what": meaning} for form, meaning in CONDITIONS.items()]
    if listing == "settings":
        return [
            {
                "name": setting.name,
                "values": setting.form,
                "arms": ", ".join(setting.kinds),
                "what": setting.meaning,
            }
            for setting in SETTINGS.values()
        ]
    if listing == "specs":
        from pulse_audit.harness.spec import shipped_specs

        return [{"name": name, "what": what} for name, what in shipped_specs().items()]
    if listing == "rules":
        from pulse_audit.gate.rules import shipped_rules

        files = {name: path.read_text().splitlines()[0] for name, path in shipped_rules().items()}
        return [{"name": name, "what": line.lstrip("# ")} for name, line in files.items()]
    raise InputError(f"list {listing}: unknown{nearest(listing, LISTINGS)}")


def _networks() -> dict[str, str]:
    """Arms of shipped networks with the titles of their cards, and those of a file."""
    files = {name: shipped_file(name).with_suffix(".json") for name in NETWORKS}
    shipped = {n: read_json(f)["card"]["title"] for n, f in files.items() if f.is_file()}
    method = "with weights of your own, made by pulse_audit.training.fsr"
    return {**shipped, **{f"{name}:FILE": method for name in NETWORKS}}


def _weights(card: WeightCard) -> dict[str, str]:
    return {
        "name": card.name,
        "what": card.title,
        "resolution": str(card.resolution or "-"),
        "crop": card.crop or "-",
        "licence": card.licence.name,
        "size": f"{card.size / 1e6:,.0f} MB" if card.size else "unknown",
        "sha256": hash_state(card),
        "state": file_state(card),
    }


def _generators() -> Rows:
    columns = ("name", "what", "family", "resolution", "crop", "latent")
    rows: Rows = []
    # Shipped generators, from their cards; their weights are not loaded.
    for name in shipped_generators():
        path = shipped_file(name)
        content = read_json(path.with_suffix(".json"))
        card, side = content["card"], int(content["card"]["resolution"])
        latent = f"{2 * side.bit_length() - 4} x {card['configuration']['latent_dim']}"
        values = (name, card["title"], content["family"], str(side), card["crop"], latent)
        rows.append(
            {
                **dict(zip(columns, values, strict=True)),
                "licence": card["licence"],
                "size": f"{path.stat().st_size / 1e6:,.0f} MB",
                "sha256": "confirmed",
                "state": "shipped, interim" if card["interim"] else "shipped",
            }
        )

    # Published generators. A StyleGAN has two 512-vectors at each resolution from 4 px on,
    # StyleGAN 3 has 16 in all, MobileStyleGAN three a block from 8 px on and two more.
    named: Rows = []
    for weights in map(published.get, published.names_of("generator")):
        family, side = weights.family or "-", weights.resolution or 0
        layers = 16 if family.startswith("stylegan3") else 2 * side.bit_length() - 4
        layers = 3 * side.bit_length() - 10 if family == "mobilestylegan" else layers
        latent = f"{layers} x 512" if "stylegan" in family and side else "-"
        row = {**_weights(weights), "family": family, "latent": latent}
        named.append({**{column: row[column] for column in columns}, **row})

    # The other forms of --generator.
    forms = {
        "FILE.py:FACTORY": "your own code that returns a generator",
        "FILE": "a checkpoint: StyleGAN 1, 2, ADA, 3, MobileStyleGAN, a torch.export program, "
        "our safetensors",
    }
    blank = dict.fromkeys(named[0], "-")
    rows += [{**blank, "name": form, "what": what} for form, what in forms.items()]
    return rows + named


def model_cards(listing: str, references: Sequence[str], trusted: Sequence[str]) -> Rows:
    """Return rows with the cards of models, for ``list generators|attributes FILE...``."""
    if listing == "attributes":
        return [_attribute_card(reference) for reference in references]
    if listing != "generators":
        raise InputError(f"list {listing}: takes no further names")
    return [
        {
            "name": card.name,
            "family": card.family,
            "resolution": str(card.resolution),
            "crop": card.crop,
            "latent": f"{card.n_latents} x {card.latent_dim}",
            "classes": str(card.classes or "-"),
            "parameters": f"{card.parameters:,}",
            "training data": card.training_data or "unknown",
            "licence": card.licence or "unknown",
            "sha256": card.sha256 or "unknown",
        }
        for card in (describe_generator(reference, trusted) for reference in references)
    ]


def fetched_row(card: WeightCard) -> dict[str, str]:
    """Return where the file of a fetched card is, and how far its SHA-256 can be trusted."""
    recorded = published.first_download(card)
    return {
        "name": card.name,
        "file": str(published.path_of(card)),
        "sha256": recorded.sha256 if recorded else "-",
        "which is": hash_state(card),
    }


def _metrics() -> Rows:
    """Metrics of the samples and of sets of them, then those that installed packages offer."""
    from pulse_audit.metrics.registry import METRICS
    from pulse_audit.plugins import metric_names

    rows = []
    for metric in METRICS:
        # Whether what it needs is here; metrics of a summary need nothing beyond the samples.
        here = "yes" if metric.measured_from else "-"
        if metric.weights and file_state(published.get(metric.weights)) != "fetched":
            here = f"pulse-audit fetch {metric.weights}"
        elif metric.measured_from == "attribute features" and ATTRIBUTES not in attribute_names():
            here = "name an attribute model"
        rows.append(
            {
                "name": metric.name,
                "unit": metric.unit or "-",
                "better": metric.direction,
                "from px": str(metric.smallest) if metric.measured_from else "-",
                "needs": metric.needs or metric.weights or "-",
                "here": here,
                "what": metric.description,
            }
        )
    blank = dict.fromkeys(rows[0], "-")
    others = {name: "of an installed package" for name in metric_names()}
    others["FILE.py:FACTORY"] = "your own code that returns a metric"
    return [*rows, *({**blank, "name": name, "what": what} for name, what in others.items())]


def _attributes() -> Rows:
    """Attribute models: their words, and how often they agree with people on held-out faces."""
    from pulse_audit.faces.fairface import LAYOUTS

    rows: Rows = []
    for name in attribute_names():
        # Attribute -> its words.
        words: Mapping[str, Sequence[str]]
        try:
            card = load_attributes(name, "cpu").card
        except InputError as error:
            # FairFace's words are known before its weights are fetched.
            layout = LAYOUTS.get(name)
            words = {a: w for a, (w, _) in layout.attributes.items()} if layout else {}
            accuracy, here = "-", str(error).rpartition(": ")[2]
        else:
            words, here = card.vocabulary, "yes"
            shares = (f"{a} {_accuracy(counts)}" for a, counts in card.confusion.items())
            accuracy = ", ".join(shares) or "not measured"
        predicts = "; ".join(f"{a}: {', '.join(of)}" for a, of in words.items()) or "-"
        columns = {"name": name, "predicts": predicts, "held-out accuracy": accuracy, "here": here}
        rows.append(columns)
    # The other forms of --attributes.
    forms = {
        "FILE.onnx": "other people's model, with a card beside it",
        "FILE.py:FACTORY": "your own code that returns an attribute model",
    }
    blank = dict.fromkeys(rows[0], "-")
    return [*rows, *({**blank, "name": form, "here": what} for form, what in forms.items())]


def _attribute_card(reference: str) -> dict[str, str]:
    """Card of an attribute model, after a run on a blank image, whose answers it shows."""
    import torch

    from pulse_audit.faces.attributes import checked

    model = load_attributes(reference, "cpu")
    card = model.card
    with torch.no_grad():
        answer = checked(model, torch.full((1, 3, card.resolution, card.resolution), 0.5))
    row = {"name": card.name, "resolution": str(card.resolution), "crop": card.crop}
    for attribute, words in card.vocabulary.items():
        values = answer.probabilities[attribute][0].tolist()
        row[attribute] = ", ".join(words)
        blank = max(range(len(words)), key=values.__getitem__)
        row[f"{attribute} of a blank image"] = f"{words[blank]} ({values[blank]:.2f})"
        counts = card.confusion.get(attribute)
        row[f"{attribute}, held out"] = _accuracy(counts) if counts else "not measured"
    return row | {
        "features": str(card.feature_dim or "none"),
        "training data": card.training_data or "unknown",
        "licence": card.licence or "unknown",
        "sha256": card.sha256 or "unknown",
    }


def _accuracy(counts: Sequence[Sequence[int]]) -> str:
    """Share of a confusion matrix that lies on its diagonal, as text."""
    total = sum(map(sum, counts))
    right = sum(row[i] for i, row in enumerate(counts))
    return f"{100 * right / total:.1f} % of {total:,}" if total else "-"


def doctor() -> Rows:
    """Return the state of this installation: a row for each part, and what a missing one costs."""
    import torch

    from pulse_audit.search.memory import keep_freed_memory

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "missing"

    # Versions of this package, Python and its dependencies.
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    parts = [
        ("pulse-audit", installed("pulse-audit"), "this program"),
        ("python", python, sys.executable),
        *((name, installed(name), "needed") for name in DEPENDENCIES.split()),
        *((name, installed(name), what) for name, what in EXTRAS.items()),
    ]

    # Device and folders.
    if torch.cuda.is_available():
        device = f"cuda, {torch.cuda.get_device_name()}", "searches run on it"
    else:
        waiting = "sleep" if os.environ.get("OMP_WAIT_POLICY") == "PASSIVE" else "spin"
        hint = f"no GPU: fine for small nets; waiting threads {waiting} (OMP_WAIT_POLICY)"
        device = f"cpu, {torch.get_num_threads()} threads", hint
    data = os.environ.get("PULSE_AUDIT_DATA") or "not set"
    kept = "keeps freed memory" if keep_freed_memory() else "as the system sets it"
    parts += [
        ("device", *device),
        ("allocator", kept, "set by commands that search, where the C library is glibc"),
        ("cache", str(cache_folder()), "set PULSE_AUDIT_HOME to move it"),
        ("data", data, "PULSE_AUDIT_DATA, the default of --data-root"),
    ]

    # MTCNN's weights come inside the facenet-pytorch wheel.
    wheel = find_spec("facenet_pytorch")
    folder = Path(wheel.origin).parent / "data" if wheel and wheel.origin else Path()
    mtcnn = "in the facenet-pytorch wheel" if (folder / "pnet.pt").is_file() else "missing"
    parts.append(("MTCNN weights", mtcnn, "without them no face can be found or aligned"))

    # Published weights: all generators in one row, the others one by one.
    generators = [card for card in cards().values() if card.kind == "generator"]
    fetched = [card.name for card in generators if file_state(card) == "fetched"]
    state = ", ".join([f"{len(fetched)} of {len(generators)} fetched", *fetched])
    hint = "named with --generator; `pulse-audit list generators` shows all"
    parts.append(("generators", state, hint))
    for card in (card for card in cards().values() if card.kind != "generator"):
        state = file_state(card)
        if state == "fetched":
            parts.append((card.name, f"fetched, SHA-256 {hash_state(card)}", card.title))
        else:
            parts.append((card.name, state, f"{card.without}; pulse-audit fetch {card.name}"))
    return [{"part": part, "state": state, "meaning": what} for part, state, what in parts]
