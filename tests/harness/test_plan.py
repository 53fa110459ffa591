"""What a plan takes from its arms: crop and precision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit import store
from pulse_audit.harness.inputs import find_inputs
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import check_same_plan, run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.summary import read
from pulse_audit.types import InputError


def small(root: Path, generator: str, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "dataset": "fairface", "data_root": root, "generators": [generator], "scales": [4],
        "per_group": 1, "limit": 2, "draws": 1, "threads": 1, "device": "cpu",
        "metrics": ["psnr"], "attributes": "none",
    }  # fmt: skip
    return values | changes


def planned(root: Path, generator: str, **changes: object) -> store.Manifest:
    return plan_audit(make_spec(small(root, generator, **changes))).manifest


@pytest.fixture
def celeba_generator(tiny_generator: str) -> str:
    """The small generator, made for CelebA's crop."""
    path = Path(tiny_generator.rsplit(":", 1)[0])
    path.write_text(path.read_text().replace('name="tiny"', 'name="tiny", crop="celeba"'))
    return tiny_generator


def test_a_crop_asked_for_is_the_run_s_and_mirrored_edges_are_noted(
    fairface_root: Path, celeba_generator: str
) -> None:
    manifest = planned(fairface_root, celeba_generator, crop="celeba")
    assert manifest.prepared.as_dict() == {"resolution": 32, "crop": "celeba", "aligned": True}
    assert manifest.arms["pulse:tiny"].notes == []
    (note,) = [note for note in manifest.notes if "mirrored" in note]
    assert note.startswith("photos of crop fairface-0.25 do not fill crop celeba")
    assert "without --crop outputs are cut" in note


def test_a_generator_that_shows_less_than_the_crop_asked_for_says_so(
    fairface_root: Path, celeba_generator: str
) -> None:
    manifest = planned(fairface_root, celeba_generator, crop="fairface-1.25")
    notes = manifest.arms["pulse:tiny"].notes
    assert notes == ["made for crop celeba, compared at crop fairface-1.25"]


def test_a_generator_of_no_known_crop_leaves_the_photos_as_they_are(
    fairface_root: Path, tiny_generator: str
) -> None:
    manifest = planned(fairface_root, tiny_generator)
    assert manifest.prepared.as_dict() == {
        "resolution": 32,
        "crop": "fairface-0.25",
        "aligned": False,
    }


def test_the_card_of_a_factory_carries_its_digest(fairface_root: Path, tiny_generator: str) -> None:
    arm = planned(fairface_root, tiny_generator).arms["pulse:tiny"].as_dict()
    assert len(arm["file_sha256"]) == 64
    assert arm["generator"]["sha256"] == arm["file_sha256"]


@pytest.mark.parametrize(
    ("asked", "settled"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")]
)
def test_the_precision_is_settled_and_recorded(
    fairface_root: Path, tiny_generator: str, asked: str, settled: str
) -> None:
    manifest = planned(fairface_root, tiny_generator, precision=asked)
    assert manifest.execution.precision == settled


def test_a_precision_that_was_measured_is_recorded_and_a_resumed_run_keeps_it(
    fairface_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulse_audit.harness.plan.bf16_time", lambda generator, device: 0.25)
    monkeypatch.setattr("pulse_audit.harness.plan.choose_precision", lambda *given: "bf16")
    spec = make_spec(small(fairface_root, "faces-balanced"))
    plan = plan_audit(spec)
    assert plan.manifest.execution.precision == "bf16"
    assert plan.manifest.bf16_times == {"pulse:faces-balanced": 0.25}
    (arm,) = plan.arms.values()
    assert getattr(arm.generator, "whole", arm.generator).network.dtype == torch.bfloat16
    # Another machine would choose otherwise; the run goes on as it began.
    monkeypatch.setattr("pulse_audit.harness.plan.choose_precision", lambda *given: "fp32")
    again = plan_audit(spec, plan.manifest)
    assert again.manifest.execution == plan.manifest.execution
    assert again.manifest.bf16_times == plan.manifest.bf16_times
    (arm,) = again.arms.values()
    assert getattr(arm.generator, "whole", arm.generator).network.dtype == torch.bfloat16


def test_more_draws_than_a_run_holds_are_refused_before_anything_is_written(
    fairface_root: Path, tiny_generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulse_audit.harness.plan.MAX_DRAWS", 7)
    changes = {"limit": None, "arms": ["bicubic"]}
    spec = make_spec(small(fairface_root, tiny_generator, **changes))
    # One face of each of seven groups, for two arms.
    with pytest.raises(InputError, match=r"^14 draws .* more than a run holds \(7\)"):
        run_audit(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_precisions_are_refused() -> None:
    with pytest.raises(InputError, match="precision"):
        make_spec({"dataset": "fairface", "precision": "fp16"})


def test_in_bfloat16_the_downscale_error_is_that_of_the_image(
    fairface_root: Path, tiny_generator: str, tmp_path: Path
) -> None:
    """Recomputed from the stored files by block means in numpy."""
    values = small(
        fairface_root, tiny_generator, precision="bf16", kernel="area", keep_images="all", limit=7
    )
    finished = run_audit(make_spec(values), tmp_path / "out")
    rows = finished.samples()
    assert len(rows) == 7 and set(rows.status) <= {"ok", "infeasible"}
    for row in rows.itertuples():
        files = (row.image, store.lr_path(row.face_id, row.condition, row.scale, row.draw))
        output, lr = (np.asarray(Image.open(finished.path / file)) / 255 for file in files)
        error = ((output.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)) - lr) ** 2).mean()
        assert error == pytest.approx(row.downscale_error, rel=0.01, abs=2e-5)  # 8 bits


def test_a_search_that_stops_at_feasibility_says_so(
    fairface_root: Path, tiny_generator: str
) -> None:
    arm = planned(fairface_root, tiny_generator, search="fast").arms["pulse:tiny"].as_dict()
    assert arm["search"]["stop_at_feasibility"] is True
    assert "first feasible step" in arm["notes"][0]


def test_the_default_scale_leaves_an_input_of_eight_pixels(
    fairface_root: Path, tiny_generator: str
) -> None:
    values = small(fairface_root, tiny_generator)
    del values["scales"]
    manifest = plan_audit(make_spec(values)).manifest
    assert manifest.prepared.resolution == 32 and manifest.spec.scales == [4]
    assert {unit.scale for unit in manifest.units} == {4}
    assert manifest.notes == []


def test_a_smaller_input_is_made_when_asked_for_and_noted(
    fairface_root: Path, tiny_generator: str
) -> None:
    manifest = planned(fairface_root, tiny_generator, scales=[4, 8])
    assert manifest.spec.scales == [4, 8]
    (note,) = manifest.notes
    assert note.startswith("scale 8 makes inputs of 4 px, under 8") and "no-face rate" in note


#: Groups of RFW, of which Latino_Hispanic and Middle Eastern faces have none.
RACE4 = {"African", "Asian", "Caucasian", "Indian"}


def grouped(root: Path, *group_by: str, **changes: object) -> dict[str, object]:
    return {
        "dataset": "fairface", "data_root": root, "arms": ["bicubic"], "scales": [4],
        "resolution": 32, "per_group": 2, "draws": 1, "threads": 1, "device": "cpu",
        "metrics": ["psnr"], "group_by": list(group_by),
    } | changes  # fmt: skip


def test_a_sample_balanced_over_a_derived_grouping_has_no_face_without_a_group(
    fairface_root: Path, tmp_path: Path
) -> None:
    # Four faces of each of seven races; one photo is there under two of them.
    (fairface_root / "val/3.jpg").write_bytes((fairface_root / "val/1.jpg").read_bytes())
    groups = ("Caucasian", "African", "Asian", "Indian")
    matrix = tmp_path / "indian.csv"
    rows = [[g, *("1" if h == "Indian" else "0" for h in groups)] for g in groups]
    matrix.write_text("\n".join(",".join(row) for row in [["", *groups], *rows]) + "\n")
    spec = grouped(fairface_root, "race4", arms=["bicubic", f"planted:{matrix}"], per_group=3)
    run = run_audit(make_spec(spec), tmp_path / "run")
    labels = [face.labels["race4"] for face in run.manifest.faces]
    assert {group: labels.count(group) for group in labels} == dict.fromkeys(RACE4, 3)
    assert "val/1.jpg" not in {face.id for face in run.manifest.faces}
    said = [note for note in run.manifest.notes if note.startswith("race4")]
    assert said == [
        "race4: 8 faces of the data have no group (race: Latino_Hispanic 4, Middle Eastern 4)"
    ]
    rows = run.samples()
    planted = rows[rows.arm == "planted:indian"]
    assert set(planted.planted_group) == {"Indian"}
    # Predictions keep the words that no face of the grouping is labelled with.
    assert run.manifest.attributes is not None
    words = run.manifest.attributes.vocabulary["race4"]
    assert set(words) == RACE4 | {"Latino_Hispanic", "Middle Eastern"}
    retained = [row for row in read(run.path).estimates if row.metric == "retention"
                and row.group_by == "race4" and row.statistic == "value"
                and row.arm == "planted:indian" and row.correction == "raw"]  # fmt: skip
    assert {row.group for row in retained} == RACE4


def test_faces_without_a_group_are_counted_and_compared_with_none(
    fairface_root: Path, tmp_path: Path
) -> None:
    spec = make_spec(grouped(fairface_root, "race", "race4", attributes="none"))
    run = run_audit(spec, tmp_path / "run")
    notes = [note for note in run.manifest.notes if note.startswith("race4")]
    assert notes[1] == (
        "race4: 4 faces of this run have no group (race: Latino_Hispanic 2, Middle Eastern 2)"
    )
    psnr = [row for row in read(run.path).estimates
            if row.metric == "psnr" and row.group_by == "race4"]  # fmt: skip
    counts = {row.group: row.n_faces for row in psnr if row.statistic == "value"}
    assert counts == {"Caucasian": 2, "African": 2, "Asian": 4, "Indian": 2, "no label": 4}
    assert all("no label" not in str(row.detail) for row in psnr if row.statistic != "value")


def test_a_run_from_before_a_derived_grouping_is_resumed_without_it(fairface_root: Path) -> None:
    spec = make_spec(grouped(fairface_root, "race"))
    inputs = find_inputs(spec)
    older = inputs.index.within(set(inputs.index.vocabulary) - {"race4"})
    before = plan_audit(spec, inputs=replace(inputs, index=older)).manifest
    assert "race4" not in before.dataset.vocabulary
    assert before.attributes is not None and "race4" not in before.attributes.vocabulary
    after = plan_audit(spec, before).manifest
    check_same_plan(before, after, Path("run"))
    assert after.dataset == before.dataset
