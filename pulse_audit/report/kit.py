"""The rating kit: a page, opened from disk, on which people rate pictures and are not told whose.

The page holds pictures, the words of the answers, and numbers drawn for the items; no name of an
arm, face or file. Pictures are decoded and encoded again, so that nothing else in a file reaches
it. What every item shows is in the key, which is not given to raters.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pulse_audit import store
from pulse_audit.files import atomic_write
from pulse_audit.report.content import templates
from pulse_audit.report.gallery import data_uri
from pulse_audit.seeding import fingerprint, hexdigest
from pulse_audit.store import RatingItem, RatingKey
from pulse_audit.store.ratings import CANNOT_TELL, FOLDER, TASKS, Task
from pulse_audit.types import InputError

#: Longest side of a picture of a kit in pixels, and that up to which it is kept without loss.
LONGEST_SIDE, LOSSLESS = 512, 256
#: Five-grade quality scale of absolute category rating, ITU-T P.800 and P.910.
GRADES = {"5": "Excellent", "4": "Good", "3": "Fair", "2": "Poor", "1": "Bad"}


def write_kit(run: store.Run, key: RatingKey, out: Path | None = None) -> Path:
    """Write the page of a kit and its key, each whole or not at all.

    Parameters
    ----------
    run : store.Run
        Locked for writing; the key is kept in it.
    key : RatingKey
    out : Path, optional
        The page; default ``rating/kit-....html`` in the run.

    Raises
    ------
    InputError
        If an image that the kit shows is missing or cannot be read.
    """
    text = page_text(run, key)
    page = out if out is not None else run.path / FOLDER / f"kit-{key.kit}.html"
    run.write_rating_key(key)
    atomic_write(page, text.encode())
    return page


def page_text(run: store.Run, key: RatingKey) -> str:
    """Fill the template with the items of a kit."""
    # Every picture once, in an order that follows from digests.
    paths = sorted(
        {path for item in key.items for path in _paths(item)},
        key=lambda path: hexdigest(key.seed, key.kit, path),
    )
    place = {path: number for number, path in enumerate(paths)}
    tasks = []
    for task in TASKS:
        items = [item for item in key.items if item.task == task]
        if items:
            shown = [{"id": i.id, "pictures": [place[path] for path in _paths(i)]} for i in items]
            orders = {rater: order_of(key, task, rater) for rater in key.raters}
            tasks.append({"name": task, "items": shown, "orders": orders, **_texts(task, key)})
    content = {
        "kit": key.kit,
        "raters": key.raters,
        "tasks": tasks,
        "pictures": [_picture(run.path, path) for path in paths],
    }
    script = (files("pulse_audit.report") / "templates" / "kit.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # JSON in which no tag can be opened or closed
    data = json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    number = len(key.items)
    return (
        templates()
        .get_template("kit.html.j2")
        .render(
            key=key,
            private=not run.manifest.dataset.may_publish_images,
            counts=f"{number:,} questions" + (f" in {len(tasks)} parts" if len(tasks) > 1 else ""),
            content=Markup(data),
            script=Markup(script),
            script_digest=f"sha256-{digest}",
        )
    )


def order_of(key: RatingKey, task: Task, rater: str) -> list[int]:
    """Places of a task's items in the order in which a rater meets them, drawn for each rater."""
    places = list(range(sum(item.task == task for item in key.items)))
    random.Random(fingerprint(key.seed, key.kit, task, rater)).shuffle(places)
    return places


def _texts(task: Task, key: RatingKey) -> dict[str, Any]:
    """Question, advice, captions and choices of a task; a choice has the keys that give it."""
    if task == "mos":
        choices = [_choice(grade, word, grade) for grade, word in GRADES.items()]
        return {
            "question": "How do you rate the quality of this picture?",
            "advice": "Excellent: a flawless picture of a face; bad: hardly one.",
            "alts": ["the picture to rate"],
            "captions": [""],
            "choices": choices,
        }
    if task == "choice":
        return {
            "question": "Which of the two looks closer to the original?",
            "advice": "Decide for one, also where it is hard.",
            "alts": ["left picture", "the original", "right picture"],
            "captions": ["Left", "Original", "Right"],
            "choices": [
                _choice("left", "Left", "←", ["ArrowLeft", "1"]),
                _choice("right", "Right", "→", ["ArrowRight", "2"]),
            ],
        }
    words = [
        _choice(word, word, str(number) if number < 10 else "")
        for number, word in enumerate(key.words, start=1)
    ]
    attribute = str(key.attribute).replace("_", " ")
    return {
        "question": f"Apparent {attribute}: which group does this face appear to belong to?",
        "advice": "By what the picture shows.",
        "alts": ["the picture to judge"],
        "captions": [""],
        "choices": [*words, _choice(CANNOT_TELL, CANNOT_TELL, "0")],
    }


def _choice(
    value: str, label: str, shown: str, keys: Sequence[str] | None = None
) -> dict[str, Any]:
    """One answer: its value, its word, and the keys that give it."""
    own = [shown] if shown else []
    return {"value": value, "label": label, "shown": shown, "key": list(keys or own)}


def _paths(item: RatingItem) -> list[str]:
    """Images of an item from left to right, relative to the run; the original between two."""
    outputs = [
        store.output_path(arm, item.face, item.condition, item.scale, item.draw)
        for arm in item.arms
    ]
    original = store.original_path(item.face)
    return [outputs[0], original, outputs[1]] if len(outputs) == 2 else outputs or [original]


def _picture(run_path: Path, path: str) -> dict[str, Any]:
    """Return a picture as the page holds it."""
    uri, pixels = data_uri(run_path, path, LONGEST_SIDE, LOSSLESS)
    if uri is None:
        raise InputError(
            f"{run_path / path}: is missing or no image; the same `pulse-audit run` command makes "
            "it again"
        )
    return {"uri": uri, "pixels": pixels}
