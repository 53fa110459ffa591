"""Planted arms in a run: other faces than the run's own, prepared like them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pulse_audit.datasets.readers import read_faces
from pulse_audit.datasets.registry import load_registry
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.harness.arms import default_scale
from pulse_audit.harness.photos import FacePreparer
from pulse_audit.harness.plan import Plan, plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.summary import read
from pulse_audit.types import Draw, InputError, Request, Status

RACES = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern",
)  # fmt: skip


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    """Everybody becomes White, the White become Black."""
    path = tmp_path / "turned.csv"
    lines = ["," + ",".join(RACES)]
    for race in RACES:
        target = "Black" if race == "White" else "White"
        lines.append(",".join([race, *("1" if r == target else "0" for r in RACES)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def values(root: Path, matrix: Path, **changes: object) -> dict[str, object]:
    return {
        "dataset": "fairface", "data_root": root, "arms": ["bicubic", f"planted:{matrix}"],
        "scales": [8], "resolution": 32, "per_group": 2, "draws": 3, "threads": 1,
        "device": "cpu", "keep_images": "all", "group_by": ["race", "gender"],
        "metrics": ["psnr"],
    } | changes  # fmt: skip


def answers(
    root: Path, matrix: Path, seed: int = 0
) -> tuple[Plan, list[Tensor], list[tuple[str, str]]]:
    """A plan, and images and donors of its planted arm for three draws of each of its faces."""
    plan = plan_audit(make_spec(values(root, matrix, seed=seed)))
    requests = [
        Request(torch.zeros(3, 4, 4), face.id, face.labels, Draw(face.id, "clean", 8, i).seed(seed))
        for face in plan.faces.values()
        for i in range(3)
    ]
    answered = plan.arms["planted:turned"](requests, DegradationModel("clean", 8))
    assert all(one.status is Status.OK for one in answered)
    donors = [(one.planted_from, one.planted_group) for one in answered]
    return plan, [one.image for one in answered], donors


def test_outputs_are_prepared_faces_of_the_planted_group_and_never_the_run_s_own(
    fairface_root: Path, matrix: Path
) -> None:
    plan, images, donors = answers(fairface_root, matrix)
    faces = read_faces(load_registry().get("fairface"), fairface_root, "val").faces
    preparer = FacePreparer(32, "fairface-0.25", False, torch.device("cpu"))
    prepare = preparer.prepare_by_id(faces)
    free = {face.id: face for face in faces if face.id not in plan.faces}
    inputs = [face for face in plan.faces.values() for _ in range(3)]
    for image, given, donor in zip(images, inputs, donors, strict=True):
        shown = [face for i, face in free.items() if torch.equal(prepare(i), image)]
        wanted = "Black" if given.labels["race"] == "White" else "White"
        assert [face.labels["race"] for face in shown] == [wanted]
        assert donor == (shown[0].id, wanted)


def test_the_run_s_seed_decides_which_faces(fairface_root: Path, matrix: Path) -> None:
    first, again, other = (
        torch.stack(answers(fairface_root, matrix, seed)[1]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_matrix_and_folds_reach_the_manifest(fairface_root: Path, matrix: Path) -> None:
    manifest = plan_audit(make_spec(values(fairface_root, matrix))).manifest
    arm = manifest.arms["planted:turned"].as_dict()
    assert list(manifest.arms) == ["bicubic", "planted:turned"]
    assert arm["file_sha256"] == arm["matrix_sha256"]
    assert arm["folds"]["outputs"] == dict.fromkeys(RACES, 2)
    truth = manifest.arms["planted:turned"].truth
    assert truth.groups == list(RACES) and truth.matrix[0][1] == truth.matrix[1][0] == 1
    assert manifest.arms["bicubic"].truth is None


def test_a_run_records_the_donors_and_counts_what_was_planted(
    fairface_root: Path, matrix: Path, tmp_path: Path
) -> None:
    run = run_audit(
        make_spec(values(fairface_root, matrix, keep_images="none", attributes="none")),
        tmp_path / "out",
    )
    rows, own = run.samples(), {face.id for face in run.manifest.faces}
    planted, other = rows[rows.arm == "planted:turned"], rows[rows.arm == "bicubic"]
    assert other[["planted_from", "planted_group"]].isna().all(axis=None)
    assert planted.planted_from.notna().all() and not own & set(planted.planted_from)
    labels = {f.id: f.labels["race"] for f in read_faces(load_registry().get("fairface"),
                                                         fairface_root, "val").faces}  # fmt: skip
    assert (planted.planted_from.map(labels) == planted.planted_group).all()
    cells = {
        (row.group, row.to_group): row
        for row in read(run.path).estimates
        if row.metric == "planted_shift" and row.arm == "planted:turned"
    }
    assert len(cells) == 7 * 7
    assert cells["White", "Black"].value == cells["Indian", "White"].value == 1
    assert cells["White", "Black"].detail == {"planted": 1} and cells["White", "White"].value == 0
    assert cells["Black", "White"].n_faces == 2 and cells["Black", "White"].low is None


@pytest.mark.parametrize(
    ("resolution", "scale"), [(1024, 8), (128, 8), (64, 8), (48, 6), (100, 5), (32, 4), (16, 2)]
)
def test_the_default_scale_is_the_largest_that_leaves_a_face(resolution: int, scale: int) -> None:
    assert default_scale(resolution) == scale


@pytest.mark.parametrize("resolution", [8, 31])
def test_a_side_without_such_a_scale_asks_for_one(resolution: int) -> None:
    with pytest.raises(InputError, match=f"{resolution} px.*--scale"):
        default_scale(resolution)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"per_group": 4}, "no face of 'White' is left to return; lower --per-group"),
        ({"group_by": ["skin_tone"]}, "planted matrix is over labelled groups"),
        ({"group_by": ["gender"]}, "header: unknown group 'White'"),
        ({"arms": ["planted:none.csv"]}, "cannot be read"),
        ({"arms": ["planted"]}, "unknown arm 'planted'; did you mean planted:MATRIX.csv"),
    ],
)
def test_what_cannot_be_planted_gets_one_line(
    fairface_root: Path, matrix: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        plan_audit(make_spec(values(fairface_root, matrix, **changes)))


def test_intersections_have_joined_names(fairface_root: Path, tmp_path: Path) -> None:
    names = [f"{race} × {gender}" for race in RACES for gender in ("Male", "Female")]
    rows = [",".join([n, *("1" if m == n else "0" for m in names)]) for n in names]
    path = tmp_path / "both.csv"
    path.write_text("\n".join(["," + ",".join(names), *rows]), encoding="utf-8")
    spec = make_spec(values(fairface_root, path, group_by=["race,gender"], per_group=1))
    assert plan_audit(spec).manifest.arms["planted:both"].as_dict()["groups"] == names
