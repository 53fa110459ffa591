"""The methods of a run in words that an author can paste, from what its manifest records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment

from pulse_audit.names import INTERPOLATION
from pulse_audit.report.content import latents_of_searches, templates
from pulse_audit.report.tables import display_name
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import Summary

#: Settings of the metrics, as `pulse_audit.metrics.fidelity` and `pulse_audit.faces.skin` hold
#: them; those load torch, which a report does not.
SSIM = {"window": 11, "sigma": 1.5}
SKIN: Mapping[str, Any] = {
    "hue": (15.0, 100.0),
    "chroma": 2.5,
    "lightness": (6.0, 98.5),
}
#: Arms whose outputs others' code made, by kind.
FOREIGN = {
    "onnx": "an ONNX network",
    "command": "a program that was run once for every draw, on 8-bit inputs",
    "folder": "outputs that were made elsewhere, of 8-bit inputs",
    "dps": "draws of a diffusion model by DPS (Chung et al., ICLR 2023), norms taken per image",
    "ddnm": "draws of a diffusion model by DDNM (Wang et al., ICLR 2023)",
}
#: BibTeX entries of methods by the name of their arms: in a report only where such an arm ran.
CITED = {"dps": "chung2023dps", "ddnm": "wang2023ddnm", "fsrnet": "chen2018fsrnet"}
_SPECIAL = re.compile(r"([\\`*\[\]|~$])")


def markdown(text: object) -> str:
    """Untrusted text on one line of Markdown, in which it is neither markup nor HTML."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def text_templates() -> Environment:
    """Templates of the text files beside the page; ``md`` escapes what comes from outside."""
    environment = templates(html=False).overlay(keep_trailing_newline=True)
    environment.filters["md"] = markdown
    return environment


def references(ran: Collection[str] = tuple(CITED)) -> str:
    """Return the BibTeX entries that ``methods.md`` cites, where some methods ran."""
    text = (resources.files("pulse_audit.report") / "templates" / "references.bib").read_text()
    for method, key in CITED.items():
        if method not in ran:
            text = re.sub(rf"\n@\w+{{{key},.*?\n}}\n", "", text, flags=re.DOTALL)
    return text


def methods_of(manifest: Manifest) -> set[str]:
    """Return the methods of a run, as arms are named after them; FSRGAN is cited with FSRNet."""
    names = {re.split("[:~]", arm)[0] for arm in manifest.arms}
    return names | ({"fsrnet"} if "fsrgan" in names else set())


def methods(manifest: Manifest, samples: pd.DataFrame, summary: Summary) -> str:
    """Describe data, arms, measurements and statistics of a run, with its exact numbers."""
    arms = list(manifest.arms)
    trial = on_trial(manifest, arms)
    columns = next(iter(manifest.spec.groupings), [])
    groups = Counter(
        " × ".join(str(face.labels.get(c) or "no label") for c in columns)
        for face in manifest.faces
        if columns and set(columns) <= set(face.labels)
    )
    measured = {r.metric for r in summary.estimates if r.value is not None}
    dataset = manifest.dataset.as_dict()
    spec = manifest.spec.as_dict()
    text = (
        text_templates()
        .get_template("methods.md.j2")
        .render(
            manifest=manifest,
            cited=methods_of(manifest),
            trial=trial,
            floors=[arm for arm in arms if arm not in trial],
            n_faces=samples["face_id"].nunique(),
            n_draws=f"{len(samples):,}",
            draws=per_face(samples),
            dataset_title=manifest.dataset.title or manifest.dataset.name,
            split=spec.get("split"),
            cells=[f"{n} {group}" for group, n in groups.items()],
            limit=manifest.spec.limit,
            labels=labels_sentence(manifest),
            frame=_frame(manifest),
            scales=[f"{scale}×" for scale in manifest.spec.scales],
            conditions=manifest.spec.conditions,
            kernel=manifest.spec.kernel,
            searches=_searches(manifest),
            apparent=_apparent(
                manifest, [display_name(",".join(c)) for c in manifest.spec.groupings]
            )
            if "retention" in measured
            else "",
            corrected=any(
                r.metric == "retention" and r.correction == "corrected" and r.value is not None
                for r in summary.estimates
            ),
            measured=measured,
            raters=max(
                (int((r.detail or {}).get("raters") or 0) for r in summary.estimates), default=0
            ),
            ssim=SSIM,
            skin=SKIN,
            small=min(groups.values(), default=0),
            unavailable=[f"{name} ({why})" for name, why in summary.unavailable.items()],
            fairface="fairface" in manifest.dataset.name
            or "FairFace" in str(dataset.get("citation")),
            versions=[f"{name} {version}" for name, version in manifest.versions.items()],
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def per_face(samples: pd.DataFrame) -> str:
    """Say how many draws a face had under each arm, condition and scale."""
    counts = samples.groupby(["face_id", "arm", "condition", "scale"]).size()
    if not len(counts):
        return "no draw yet"
    least, most = int(counts.min()), int(counts.max())
    if least == most:
        return f"{most} draw{'s' if most > 1 else ''} a face"
    return f"{least} to {most} draws a face"


def labelled_by(manifest: Manifest) -> str:
    """Say who gave the labels of the faces, in a word or few."""
    return {"people": "people", "model": "an attribute model"}.get(
        str(manifest.dataset.labels_from), "a source that is not recorded"
    )


def labels_sentence(manifest: Manifest) -> str:
    """Say who gave the labels of the faces, and how."""
    note = str(manifest.dataset.as_dict().get("labels_note") or "").rstrip(".")
    return f"The labels were given by {labelled_by(manifest)}{f' ({note})' if note else ''}."


def _frame(manifest: Manifest) -> str:
    """Say which part of pictures was compared, where it is not the whole."""
    if manifest.prepared.per_photo:
        return "each photo was compared on the part of the crop that it shows, outputs cut alike"
    parts = [
        f"of pictures in the crop {crop} the square of {100 * frame.side:.1f} % of the side at "
        f"({100 * frame.left:.1f} %, {100 * frame.top:.1f} %) was compared"
        for crop, frame in manifest.prepared.frames.items()
    ]
    return "; ".join(parts)


def _searches(manifest: Manifest) -> list[str]:
    """One sentence per arm with a search or of others: generator, loss, steps, eps, latents."""
    latents, sentences = latents_of_searches(manifest), []
    for name, arm in manifest.arms.items():
        recorded = arm.as_dict()
        search, generator = recorded.get("search"), recorded.get("generator")
        digest = str(recorded.get("file_sha256") or "")[:12]
        if arm.kind in FOREIGN:
            sentences.append(f"{name}: {FOREIGN[arm.kind]} (SHA-256 {digest}).")
        if name in INTERPOLATION or not isinstance(search, Mapping):
            continue
        words = [f"{name}: {manifest.spec.search} search of PULSE"]
        if isinstance(generator, Mapping):
            of = [str(generator[k]) for k in ("family", "training_data") if generator.get(k)]
            words.append(
                f"on {generator.get('name', 'a generator')}, {generator.get('resolution')} px"
                + (f" ({'; '.join(of)})" if of else "")
            )
        settings = [
            f"{title} {search[key]}"
            for key, title in (
                ("steps", "steps"),
                ("optimizer", "optimiser"),
                ("learning_rate", "learning rate"),
                ("loss", "loss"),
                ("eps", "feasible below an MSE of"),
            )
            if search.get(key) is not None
        ]
        if search.get("stop_at_feasibility"):
            settings.append("stopped at the first feasible image")
        if name in latents:
            settings.append(f"latents {latents[name]}")
        settings += [f"weights SHA-256 {digest}"] if digest else []
        sentences.append(f"{', '.join(words)}; {', '.join(settings)}.")
    return sentences


def _apparent(manifest: Manifest, groupings: list[str]) -> str:
    """Say which model saw the apparent groups."""
    model = manifest.attributes
    name = model.card.name if model is not None else "no attribute model"
    second = manifest.second_attributes
    checked = f", checked by {second.card.name}" if second is not None else ""
    return (
        f"Apparent groups ({', '.join(groupings)}) were predicted by {name}{checked}, the most "
        "probable class."
    )
