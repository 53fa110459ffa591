"""Faces of a run as cards: what was measured of every draw, and small pictures.

A run directory may come from elsewhere: its paths are not trusted to stay inside it, nor its files
to be images. What the viewer loads is JSON within a script of its own, ``data/part-NNN.js``.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pulse_audit import store
from pulse_audit.files import atomic_write
from pulse_audit.metrics.registry import DRAW_METRICS
from pulse_audit.seeding import hexdigest
from pulse_audit.store import Manifest
from pulse_audit.summary.groups import JOIN, assign

#: Longest side of an embedded picture, pixels, and the largest file and image that is opened.
LONGEST_SIDE, MAX_BYTES, MAX_PIXELS = 128, 32 * 2**20, 8192**2
#: Side in pixels below which a picture is shown pixel by pixel.
SMALL = 96
#: Outputs in the viewer, cards in one file of pictures, at most.
MAX_OUTPUTS, CARDS_IN_PART = 5000, 24
#: Faces, and draws of an arm, on the first screen.
FIRST_FACES, FIRST_DRAWS = 4, 2


def cards(manifest: Manifest, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Make one card for each face, condition and scale, as plain JSON values.

    Where there are more than `MAX_OUTPUTS` outputs, faces are sampled: those first in the order of
    a digest of the run's seed and their id. The same for every run of the same seed and faces.

    Returns
    -------
    list of dict
        ``face``, ``condition``, ``scale``; ``group`` by grouping; ``apparent`` and ``p`` of the
        original by attribute; ``draws``, each with its ``arm``, ``draw``, ``seed``, ``status``,
        ``feasible``, ``reason``, ``apparent``, ``p`` and ``metrics``, in display units.
        ``shift`` is the largest total variation, over draws and attributes, between what the
        attribute model predicts of the original and of the output, 0 to 1; None if unknown.
    """
    # The faces, in the order of the plan.
    names = [",".join(columns) for columns in manifest.spec.groupings]
    of_face = len(samples) / max(1, samples["face_id"].nunique())
    present = set(samples["face_id"].unique())
    faces = [face.id for face in manifest.faces if face.id in present]
    most = max(1, int(MAX_OUTPUTS / max(1.0, of_face)))
    chosen = set(seeded(manifest, faces)[:most])
    samples = samples[samples["face_id"].isin(chosen)].copy()
    for name, columns in zip(names, manifest.spec.groupings, strict=True):
        samples[f"group {name}"] = assign(samples, columns)

    # Means of a draw in display units; feasibility and the like are words of their own.
    metrics = {
        metric.title: (values * metric.display_scale).round(metric.decimals + 1)
        for metric in DRAW_METRICS
        if metric.kind == "mean"
        and (values := _values(metric.values, samples)) is not None
        and values.notna().any()
    }
    for title, values in metrics.items():
        samples[f"metric {title}"] = values

    order = {face: place for place, face in enumerate(faces)}
    made: dict[tuple[Any, ...], dict[str, Any]] = {}
    attributes = [a for a in _attributes(manifest) if f"sr_{a}" in samples]
    for row in samples.to_dict("records"):
        key = (str(row["condition"]), int(row["scale"]), order[row["face_id"]])
        card = made.get(key)
        if card is None:
            card = made[key] = {
                "face": row["face_id"],
                "condition": key[0],
                "scale": key[1],
                "group": {name: str(row[f"group {name}"]) for name in names},
                **_prediction(row, "hr", attributes),
                "shift": None,
                "draws": [],
            }
        draw = {
            "arm": row["arm"],
            "draw": int(row["draw"]),
            "seed": str(row["seed"]),
            "status": row["status"],
            "feasible": row["feasible"] if isinstance(row["feasible"], bool) else None,
            "reason": row["reason"] if isinstance(row["reason"], str) else None,
            **_prediction(row, "sr", attributes),
            "metrics": {t: _plain(row[f"metric {t}"]) for t in metrics},
        }
        draw["changed"] = changed(manifest, card, draw)
        card["draws"].append(draw)
        for attribute in draw["p"].keys() & card["p"].keys():
            pair = (draw["p"][attribute], card["p"][attribute])
            distance = sum(abs(a - b) for a, b in zip(*pair, strict=True)) / 2
            card["shift"] = max(card["shift"] or 0.0, round(distance, 3))
    return [made[key] for key in sorted(made)]


def seeded(manifest: Manifest, faces: Sequence[str]) -> list[str]:
    """Order faces by a digest of the run's seed and their id."""
    return sorted(faces, key=lambda face: hexdigest(manifest.spec.seed, "shown", face))


def first_faces(
    manifest: Manifest, run_path: Path, made: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Cards of the first screen, with pictures: seeded faces, of as many groups as there are.

    Of the first condition and scale; empty where no picture was kept. Draws are those of all arms,
    `FIRST_DRAWS` of each and one of interpolation.
    """
    if not made:
        return []
    setting = (made[0]["condition"], made[0]["scale"])
    here = {c["face"]: c for c in made if (c["condition"], c["scale"]) == setting}
    name = next(iter(made[0]["group"]), None)
    shown: list[dict[str, Any]] = []
    # The first face of each group in the seeded order, then second ones.
    turns: dict[Any, int] = {}
    ranked = []
    for place, face in enumerate(seeded(manifest, list(here))):
        group = here[face]["group"].get(name)
        turns[group] = turns.get(group, 0) + 1
        ranked.append((turns[group], place, face))
    for *_, face in sorted(ranked):
        card = here[face]
        draws = [
            draw
            for draw in sorted(card["draws"], key=lambda d: d["draw"])
            if draw["draw"] < (1 if _interpolates(manifest, draw["arm"]) else FIRST_DRAWS)
        ]
        arms = [arm for arm in manifest.arms if any(d["arm"] == arm for d in draws)]
        draws = [d for arm in arms for d in draws if d["arm"] == arm]
        first = {**card, "draws": [dict(draw) for draw in draws]}
        first["pictures"] = pictures(run_path, first)
        for draw, picture in zip(first["draws"], first["pictures"][2:], strict=True):
            draw["picture"] = picture
        first["by_arm"] = {arm: [d for d in first["draws"] if d["arm"] == arm] for arm in arms}
        if any(first["pictures"][2:]):
            shown.append(first)
        if len(shown) == FIRST_FACES:
            break
    return shown


def pictures(run_path: Path, card: Mapping[str, Any]) -> list[tuple[str, bool] | None]:
    """Original, input and outputs of a card: (data URI, whether pixels show), None where absent."""
    face, condition, scale = card["face"], card["condition"], card["scale"]
    paths = [store.original_path(face), store.lr_path(face, condition, scale, 0)]
    paths += [store.output_path(d["arm"], face, condition, scale, d["draw"]) for d in card["draws"]]
    loaded = [data_uri(run_path, path) for path in paths]
    return [
        None if uri is None else (uri, small or i == 1) for i, (uri, small) in enumerate(loaded)
    ]


def write_parts(
    folder: Path, run: store.Run, made: Sequence[Mapping[str, Any]], with_pictures: bool
) -> None:
    """Write what the viewer loads: ``part-000.js``, the rows; the others, their pictures."""
    rows = [
        {**card, "part": i // CARDS_IN_PART + 1 if with_pictures else 0, "place": i % CARDS_IN_PART}
        for i, card in enumerate(made)
    ]
    model = run.manifest.attributes
    content = {
        "cards": rows,
        "vocabulary": {} if model is None else dict(model.vocabulary),
        "metrics": {m.title: m.direction for m in DRAW_METRICS if _measured(m.title, made)},
    }
    written = [folder / "part-000.js"]
    atomic_write(written[0], _script(0, content))
    for start in range(0, len(made) if with_pictures else 0, CARDS_IN_PART):
        number = len(written)
        written.append(folder / f"part-{number:03d}.js")
        loaded = [pictures(run.path, card) for card in made[start : start + CARDS_IN_PART]]
        atomic_write(written[-1], _script(number, loaded))

    # Pictures of an earlier report do not stay beside this one.
    for path in set(folder.glob("part-[0-9]*.js")) - set(written):
        path.unlink()


def viewer_note(samples: pd.DataFrame, made: Sequence[Mapping[str, Any]]) -> str:
    """Say what the viewer shows, and whether that is a sample of the faces."""
    shown = sum(len(card["draws"]) for card in made)
    if not shown:
        return ""
    if shown == len(samples):
        return f"All {shown:,} outputs."
    faces = len({card["face"] for card in made})
    return (
        f"{shown:,} of {len(samples):,} outputs: all of {faces:,} faces, sampled by the run's seed."
    )


def _measured(title: str, made: Sequence[Mapping[str, Any]]) -> bool:
    return any(title in draw["metrics"] for card in made[:1] for draw in card["draws"])


def _script(number: int, content: Any) -> bytes:
    """Return a part: a call with JSON in it, in which no tag can be opened or closed."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"pulseAuditPart({number},{text.replace('<', chr(92) + 'u003c')});\n".encode()


def _interpolates(manifest: Manifest, arm: str) -> bool:
    return arm in manifest.arms and manifest.arms[arm].kind == "interpolation"


def _attributes(manifest: Manifest) -> list[str]:
    """Attributes of the groupings that the attribute model predicts; its first if none is."""
    if manifest.attributes is None:
        return []
    known = list(manifest.attributes.vocabulary)
    asked = dict.fromkeys(c for columns in manifest.spec.groupings for c in columns if c in known)
    return list(asked) or known[:1]


def _prediction(row: Mapping[Any, Any], side: str, attributes: Sequence[str]) -> dict[str, Any]:
    """Predicted word and probabilities of each attribute, as far as there are any."""
    words = {a: row.get(f"{side}_{a}") for a in attributes}
    p = {a: row.get(f"{side}_{a}_p") for a in attributes}
    return {
        "apparent": {a: word for a, word in words.items() if isinstance(word, str)},
        "p": {
            a: [round(float(x), 3) for x in v]
            for a, v in p.items()
            if isinstance(v, (list, np.ndarray)) and np.isfinite(np.asarray(v, float)).all()
        },
    }


def _values(values: Any, samples: pd.DataFrame) -> pd.Series[float] | None:
    """Take a metric from the samples; None where its columns are not there."""
    try:
        return pd.Series(np.asarray(values(samples), dtype="float64"), samples.index)
    except KeyError:
        return None


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def changed(manifest: Manifest, card: Mapping[str, Any], draw: Mapping[str, Any]) -> str:
    """Say what became of the group of a face: ``White``, or ``Black → White``."""
    if draw["status"] in ("error", "no_face"):
        return str(draw["status"]).replace("_", " ")
    columns = next(iter(manifest.spec.groupings), [])
    attributes = [c for c in columns if c in draw["apparent"]]
    if not attributes:
        return ""
    words = card["group"][",".join(columns)].split(JOIN)
    labels = dict(zip(columns, words, strict=False))
    before = JOIN.join(labels[a] for a in attributes)
    after = JOIN.join(draw["apparent"][a] for a in attributes)
    return after if before == after else f"{before} → {after}"


def data_uri(
    run_path: Path, relative: object, longest: int = LONGEST_SIDE, lossless: int = SMALL - 1
) -> tuple[str | None, bool]:
    """Return an image of the run as a data URI, and whether it is small enough for pixels.

    Those of at most ``lossless`` px are PNG, others JPEG, shrunk to ``longest`` px.

    Anything that is not a readable PNG, JPEG or WebP inside the run gives (None, False).
    """
    # Decoded and encoded again, so that nothing else in the file reaches the page.
    image = read_picture(run_path, relative)
    if image is None:
        return None, False
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer, side = io.BytesIO(), max(image.size)
    kind = "png" if side <= lossless else "jpeg"
    image.save(buffer, format=kind, quality=88 if longest == LONGEST_SIDE else 95)
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return uri, side < SMALL


def read_picture(run_path: Path, relative: object) -> Image.Image | None:
    """Decode an image of a run; None for what is no readable PNG, JPEG or WebP inside it."""
    # The file must lie in the run, links resolved, and be of a sensible size.
    if not isinstance(relative, str) or not relative or "\0" in relative:
        return None
    root = run_path.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return None
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
