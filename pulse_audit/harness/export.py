"""The degraded inputs of an audit in files, for outputs that are made elsewhere.

The folder holds ``audit.yaml``, the specification with everything that the inputs depend on; a
folder of PNG files for every condition and scale; and, once all files are there, ``index.csv``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pulse_audit.files import atomic_write, remove_leftovers
from pulse_audit.harness.inputs import AuditInputs
from pulse_audit.harness.photos import FacePipeline, encode_png
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.store.images import is_whole
from pulse_audit.store.manifest import Manifest, WorkUnit
from pulse_audit.types import Draw, InputError, Progress
from pulse_audit.upsamplers.folder import picture_names, setting_folder

SPEC, INDEX = "audit.yaml", "index.csv"
#: Columns of the index: ``input`` and ``output`` are paths below the folders of inputs and outputs.
Row = dict[str, str | int]
COLUMNS = ("input", "output", "face_id", "condition", "scale", "draw", "seed")


@dataclass(frozen=True)
class ExportedInputs:
    """What was written: inputs of ``draws`` draws in ``files`` files, and what to know of them."""

    folder: Path
    files: int
    draws: int
    #: Side of the outputs in pixels, and that of the inputs at each scale.
    resolution: int
    input_sides: dict[int, int]
    notes: list[str]

    @property
    def index(self) -> Path:
        """The table of all files."""
        return self.folder / INDEX

    @property
    def spec(self) -> Path:
        """The specification for the audit of the outputs."""
        return self.folder / SPEC

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        files = {name: str(getattr(self, name)) for name in ("folder", "index", "spec")}
        return {**asdict(self), **files}


def export_inputs(
    spec: AuditSpec, out: Path, inputs: AuditInputs, progress: Progress | None = None
) -> ExportedInputs:
    """Write the degraded inputs of an audit; the same call goes on where it was interrupted.

    Parameters
    ----------
    spec : AuditSpec
        Without folders; see `spec.without_folders`.
    out : Path
    inputs : AuditInputs
        Result of `find_inputs` for the specification.
    progress : callable, optional
        Called as ``progress(done, total, restored)`` in draws.

    Raises
    ------
    InputError
        If the audit cannot be planned, or the folder holds the inputs of another one.
    """
    progress = progress or (lambda done, total, restored: None)
    manifest, faces = (plan := plan_audit(spec, inputs=inputs)).manifest, plan.faces
    notes = photo_notes(manifest)
    _write_spec(out, manifest, notes)

    # Every arm has the same inputs: the units of the first are all.
    first = next(iter(manifest.arms))
    units = [unit for unit in manifest.units if unit.arm == first]
    names = picture_names([face.id for face in inputs.index.faces])
    pipeline = FacePipeline(None, manifest, faces)
    total = sum(len(unit.draws) for unit in units)
    rows: list[Row] = []
    done = restored = 0
    progress(done, total, restored)
    for unit in units:
        own = _rows(unit, spec, names)
        wanted = dict.fromkeys(str(row["input"]) for row in own)
        if all(is_whole(out / path) for path in wanted):
            restored += len(own)
        else:
            lr = pipeline.unit_inputs(unit).lr
            for row, image in zip(own, lr, strict=True):
                path = out / str(row["input"])
                # Draws without noise share their input.
                if not is_whole(path):
                    atomic_write(path, encode_png(image))
        rows += own
        done += len(own)
        progress(done, total, restored)

    # The index last: where it is, nothing is missing.
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    atomic_write(out / INDEX, text.getvalue().encode())
    files = len({row["input"] for row in rows})
    resolution = manifest.prepared.resolution
    sides = {scale: resolution // scale for scale in manifest.spec.scales}
    return ExportedInputs(out, files, total, resolution, sides, notes)


def photo_notes(manifest: Manifest) -> list[str]:
    """Say what the inputs are, where they are photos of people."""
    data, title = manifest.dataset, manifest.dataset.title or manifest.dataset.name
    notes = []
    if data.revocable:
        notes.append(
            f"the inputs are photos too: people in {title} may withdraw their consent, and their "
            f"files have to be deleted then wherever they were taken; {INDEX} names them"
        )
    elif not data.may_publish_images:
        notes.append(
            f"the inputs are photos too, only smaller: the terms of {title} hold for them, and "
            "they may not be published"
        )
    return notes


def _write_spec(out: Path, manifest: Manifest, notes: list[str]) -> None:
    """Write the specification, or check that it is the one that is there."""
    remove_leftovers(out)
    # What the inputs follow from is written out: the generators by default, and the resolution.
    stored = manifest.spec.as_dict()
    stored = {key: value for key, value in stored.items() if value not in (None, [])}
    stored["resolution"] = manifest.prepared.resolution
    if "generators" not in stored and any(arm.kind == "pulse" for arm in manifest.arms.values()):
        stored |= {"generators": shipped_generators()}
    head = [
        f"# The audit whose inputs pulse-audit {manifest.package_version} exported. They depend on "
        "all of this, the generators included: arms may be added, and nothing else changed.",
        *notes,
    ]
    text = "\n# ".join(head) + "\n" + yaml.safe_dump(stored, sort_keys=False, allow_unicode=True)
    path = out / SPEC
    if path.exists() or (out.is_dir() and any(out.iterdir())):
        if path.is_file() and path.read_text() == text:
            return
        raise InputError(f"{out}: holds something else than these inputs; choose another --out")
    atomic_write(path, text.encode())


def _rows(unit: WorkUnit, spec: AuditSpec, names: Mapping[str, str]) -> list[Row]:
    """Rows of the index for the draws of a unit."""
    place, rows = setting_folder(unit.condition, unit.scale), []
    for face_id, index in unit.draws:
        name = names[face_id]
        numbered = f"{name}_{index + 1}" if spec.draws > 1 else name
        # Without random corruption every draw has the same input.
        own = name if unit.condition == "clean" else numbered
        row: Row = {
            "input": f"{place}/{own}.png",
            "output": f"{place}/{numbered}.png",
            "face_id": face_id,
            "condition": unit.condition,
            "scale": unit.scale,
            "draw": index,
            "seed": Draw(face_id, unit.condition, unit.scale, index).seed(spec.seed),
        }
        rows.append(row)
    return rows
