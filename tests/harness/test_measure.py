"""Attributes, features, found faces and metrics of a run, with small models of nobody."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit import store
from pulse_audit.faces.embed import FaceNet
from pulse_audit.faces.skin import apparent_colour, find_skin
from pulse_audit.harness.measure import ImageMeasurements
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.harness.suite import MetricSuite
from pulse_audit.harness.unit import UnitRunner, status
from pulse_audit.metrics.distribution import FeatureNetwork
from pulse_audit.metrics.perceptual import Lpips, bare
from pulse_audit.summary import summarise_run
from pulse_audit.types import (
    AttributeCard,
    AttributeModel,
    InputError,
    Status,
    Unavailable,
    Upsampled,
)

pytestmark = pytest.mark.usefixtures("without_reports")

RACES = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern",
)  # fmt: skip

FAIRFACE_AGES = (
    '("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")'
)


def write_model(folder: Path, code: str) -> str:
    (folder / "colours.py").write_text(code)
    return f"{folder / 'colours.py'}:Model"


@pytest.fixture
def model(tmp_path: Path, attribute_code: str) -> str:
    return write_model(tmp_path, attribute_code)


def write_faces(root: Path) -> Path:
    """Seven patterns of nobody in FairFace's layout, one a race."""
    (root / "val").mkdir(parents=True)
    draw = np.random.default_rng(0)
    rows = ["file,age,gender,race,service_test"]
    for number, race in enumerate(RACES):
        small = Image.fromarray(draw.integers(60, 220, (6, 6, 3), dtype=np.uint8))
        small.resize((48, 48), Image.Resampling.BICUBIC).save(root / f"val/{number}.jpg")
        rows.append(f"val/{number}.jpg,20-29,Female,{race},True")
    (root / "fairface_label_val.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def fairface_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("data") / "fairface")


def audit(root: Path, out: Path, **changes: object) -> store.Run:
    values: dict[str, object] = {
        "dataset": "fairface", "data_root": root, "arms": ["bicubic", "nearest"], "scales": [4],
        "resolution": 32, "crop": "fairface-0.25", "per_group": 1, "draws": 2, "threads": 1,
        "batch": 4, "device": "cpu", "metrics": ["psnr", "sharpness", "attribute_cosine"],
        "attributes": "none", "keep_images": "none",
    }  # fmt: skip
    return run_audit(make_spec(values | changes), out)


@pytest.fixture(scope="module")
def attributed(
    fairface_root: Path, attribute_code: str, tmp_path_factory: pytest.TempPathFactory
) -> store.Run:
    folder = tmp_path_factory.mktemp("attributed")
    return audit(fairface_root, folder / "out", attributes=write_model(folder, attribute_code))


def test_probabilities_come_in_the_words_of_the_data_set(
    attributed: store.Run, fairface_root: Path, attribute_code: str
) -> None:
    """The model's own answer to the same image, put into the data set's order by name."""
    rows, manifest = attributed.samples(), attributed.manifest
    words = manifest.attributes.vocabulary["race"]
    assert words == manifest.dataset.vocabulary["race"]
    namespace: dict = {}
    exec(attribute_code, namespace)
    spec = {**manifest.spec.as_dict(), "data_root": fairface_root}
    runner = UnitRunner(plan_audit(make_spec(spec)), attributed)
    row = rows.iloc[0]
    answer = namespace["Model"]()(runner.photos.original(row.face_id).image[None])
    by_name = dict(zip(namespace["RACES"], answer.probabilities["race"][0].tolist(), strict=True))
    assert list(row.hr_race_p) == pytest.approx([by_name[word] for word in words], abs=1e-6)
    assert row.hr_race == max(by_name, key=by_name.__getitem__)
    assert rows.sr_race_p.map(sum).to_numpy() == pytest.approx(1, abs=1e-6)


def test_derived_groupings_are_predicted_by_summing(attributed: store.Run) -> None:
    words = attributed.manifest.attributes.vocabulary
    rows, races = attributed.samples(), attributed.manifest.attributes.vocabulary["race"]
    row = rows.iloc[3]
    fine = dict(zip(races, row.sr_race_p, strict=True))
    coarse = dict(zip(words["race6"], row.sr_race6_p, strict=True))
    merged = [word for word in words["race6"] if word not in races]
    assert len(merged) == 1
    assert coarse[merged[0]] == pytest.approx(1 - sum(fine[w] for w in words["race6"] if w in fine))


def test_utkface_is_measured_by_a_model_of_finer_words(model: str, tmp_path: Path) -> None:
    """UTKFace's Asian is two words of the model, its Others none; ages are in other words."""
    (tmp_path / "UTKFace").mkdir()
    draw = np.random.default_rng(1)
    for race in range(5):
        small = Image.fromarray(draw.integers(60, 220, (6, 6, 3), dtype=np.uint8))
        photo = small.resize((48, 48), Image.Resampling.BICUBIC)
        photo.save(tmp_path / f"UTKFace/2{race}_1_{race}_2017.jpg")
    code = Path(model.rpartition(":")[0])
    code.write_text(code.read_text().replace('("young", "old")', FAIRFACE_AGES))
    changes = {"dataset": "utkface", "crop": "as-is", "attributes": model}
    run = audit(tmp_path, tmp_path / "out", **changes)
    words = ["White", "Black", "Asian", "Indian", "Latino_Hispanic", "Middle Eastern"]
    assert run.manifest.attributes.vocabulary["race"] == words
    rows = run.samples()
    assert set(rows.label_race) == {"White", "Black", "Asian", "Indian", "Others"}
    assert set(rows.sr_race) <= set(words) and rows.sr_race_p.map(sum).to_numpy() == pytest.approx(
        1
    )
    # Age in years is not predicted, and the reason says where to look.
    assert rows.hr_age_group.notna().all()
    expected = "the attribute model predicts it in the words of age_group"
    assert run.manifest.unavailable["hr_age"] == expected
    summary = summarise_run(run)
    measured = {
        r.group for r in summary.estimates if r.metric == "retention" and r.value is not None
    }
    assert measured == {"all", "White", "Black", "Asian", "Indian"}
    assert "Retention of Others was not measured" in summary.findings[0].text


def test_an_original_is_predicted_alike_for_every_arm_and_draw(attributed: store.Run) -> None:
    rows = attributed.samples()
    predicted = {
        (face, tuple(each)) for face, each in zip(rows.face_id, rows.hr_race_p, strict=True)
    }
    assert len(predicted) == rows.face_id.nunique()
    assert len({tuple(each) for each in rows.sr_race_p}) > rows.face_id.nunique()


def test_what_nobody_labels_is_predicted_and_other_words_are_not(attributed: store.Run) -> None:
    rows, reasons = attributed.samples(), attributed.manifest.unavailable
    assert set(rows.hr_hat) <= {"no", "yes"} and "label_hat" not in rows
    assert "young" in reasons["hr_age"] and "20-29" in reasons["hr_age"]
    assert "gender" in attributed.manifest.dataset.vocabulary and "hr_gender" not in rows


def test_the_manifest_says_what_it_was_measured_with(attributed: store.Run) -> None:
    manifest = attributed.manifest
    assert manifest.attributes.labels_from == "people"
    assert manifest.attributes.card.as_dict()["sha256"] == "ab" * 32
    assert manifest.features.as_dict() == {"network": "colours", "dim": 5, "why": None}
    assert set(manifest.metrics) == {"psnr", "sharpness", "attribute_cosine"}
    assert manifest.unavailable["ssim"] == "not requested (--metrics)"


def test_features_are_aligned_with_the_rows(attributed: store.Run) -> None:
    """The stored cosine, recomputed from the stored features."""
    rows, features = attributed.samples(), attributed.features()
    assert features is not None
    outputs, originals = features
    assert outputs.shape == (len(rows), 5) and outputs.dtype == np.float32
    assert set(originals) == set(rows.face_id)
    for row, sr in zip(rows.itertuples(), outputs.astype(float), strict=True):
        hr = originals[row.face_id].astype(float)
        cosine = sr @ hr / np.sqrt((sr @ sr) * (hr @ hr))
        assert row.attribute_cosine == pytest.approx(cosine, abs=1e-9)


@pytest.mark.parametrize("lost", ["features/u00002.npz", "samples/u00002.parquet", "originals"])
def test_a_unit_without_one_of_its_shards_is_made_again(
    fairface_root: Path, model: str, tmp_path: Path, lost: str
) -> None:
    """What a kill leaves: the features without the rows, or neither; equal bit for bit."""
    out = tmp_path / "out"
    whole = audit(fairface_root, out, attributes=model, arms=["bicubic"])
    rows, features = whole.samples().drop(columns="seconds"), whole.features()
    if lost == "originals":
        (out / "features" / "originals.npz").unlink()
    else:
        (out / lost).unlink()
    resumed = audit(fairface_root, out, attributes=model, arms=["bicubic"])
    assert resumed.samples().drop(columns="seconds").to_json() == rows.to_json()
    again = resumed.features()
    assert features is not None and again is not None
    assert np.array_equal(again[0], features[0])
    assert all(np.array_equal(again[1][face], vector) for face, vector in features[1].items())


def test_damaged_features_are_refused(attributed: store.Run) -> None:
    shard = attributed.path / "features" / "u00000.npz"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-40])
    with pytest.raises(InputError, match="checksum"):
        attributed.features()
    shard.write_bytes(whole)


def test_an_output_that_failed_has_features_of_nan_and_no_prediction(
    fairface_root: Path, model: str, tmp_path: Path
) -> None:
    (tmp_path / "lazy.py").write_text(
        "from pulse_audit.types import Status, Upsampled\n"
        "class Lazy:\n"
        "    name, promises_feasibility, resolution = 'lazy', False, None\n"
        "    def __call__(self, requests, degradation):\n"
        "        small = [r.lr.repeat_interleave(4, 1).repeat_interleave(4, 2) for r in requests]\n"
        "        return [Upsampled(small[0], 0.0, True, 0, 0.0, Status.OK)] + [Upsampled("
        "None, None, None, 0, 0.0, Status.ERROR, 'asleep') for _ in requests[1:]]\n"
        "    def describe(self):\n        return {'kind': 'lazy'}\n"
    )
    arms = [f"{tmp_path / 'lazy.py'}:Lazy"]
    finished = audit(fairface_root, tmp_path / "out", attributes=model, arms=arms)
    rows, features = finished.samples(), finished.features()
    assert features is not None
    failed = rows.status.eq("error").to_numpy()
    assert 0 < failed.sum() < len(rows)
    assert (np.isnan(features[0]).all(axis=1) == failed).all()
    assert (rows.sr_race.isna() == failed).all() and rows.hr_race.notna().all()


def test_without_the_shipped_model_a_run_goes_on_and_says_why(
    fairface_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulse_audit.models.shipped.ASSETS", tmp_path)
    finished = audit(fairface_root, tmp_path / "out", attributes=None, arms=["bicubic"])
    manifest = finished.manifest
    assert manifest.attributes is None and finished.features() is None
    assert finished.samples().hr_race.isna().all()
    assert "comes without it" in manifest.unavailable["hr_race"]
    assert "comes without it" in manifest.unavailable["attribute_cosine"]


def test_a_named_model_that_is_not_there_stops_the_plan(
    fairface_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no such file"):
        audit(fairface_root, tmp_path / "out", attributes=f"{tmp_path / 'absent.py'}:Model")


def test_another_attribute_model_is_another_run(
    fairface_root: Path, model: str, tmp_path: Path
) -> None:
    audit(fairface_root, tmp_path / "out", attributes=model, arms=["bicubic"])
    path = Path(model.rpartition(":")[0])
    path.write_text(path.read_text().replace('"ab" * 32', '"cd" * 32'))
    with pytest.raises(InputError, match="attribute model changed"):
        audit(fairface_root, tmp_path / "out", attributes=model, arms=["bicubic"])


def test_a_metric_of_ones_own_is_a_column(fairface_root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from pulse_audit.types import Metric\n"
        "def build():\n"
        "    return Metric('brightness', True, lambda sr, hr: sr.mean((1, 2, 3)))\n"
    )
    metrics = ["psnr", f"{tmp_path / 'mine.py'}:build"]
    rows = audit(fairface_root, tmp_path / "out", metrics=metrics).samples()
    assert rows.brightness.between(0.2, 0.8).all()


@pytest.mark.parametrize("name", ["psnrr", "lpip"])
def test_an_unknown_metric_answers_with_the_nearest(
    fairface_root: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=f"{name}.*(psnr|lpips)"):
        audit(fairface_root, tmp_path / "out", metrics=[name])


def upsampled(state: Status) -> Upsampled:
    return Upsampled(torch.zeros(3, 8, 8), 0.0, True, 0, 0.0, state)


@pytest.mark.parametrize(
    ("state", "found", "expected"),
    [
        (Status.OK, False, Status.NO_FACE),
        (Status.INFEASIBLE, False, Status.NO_FACE),
        (Status.OK, True, Status.OK),
        (Status.INFEASIBLE, None, Status.INFEASIBLE),
        (Status.ERROR, False, Status.ERROR),
    ],
)
def test_an_output_without_a_face_is_no_face(
    state: Status, found: bool | None, expected: Status
) -> None:
    unknown = Unavailable("not looked at")
    measured = ImageMeasurements(unknown, unknown, unknown, found)
    assert status(upsampled(state), measured) is expected


def test_faces_are_found_in_real_originals_and_not_in_flat_outputs(
    shared: Path, tmp_path: Path
) -> None:
    """Grey outputs show no face, whether feasible or not; the floor is that of the originals."""
    (tmp_path / "grey.py").write_text(
        "import torch\nfrom pulse_audit.types import Status, Upsampled\n"
        "class Grey:\n"
        "    name, promises_feasibility, resolution = 'grey', False, None\n"
        "    def __call__(self, requests, degradation):\n"
        "        return [Upsampled(torch.full((3, 64, 64), 0.5), 0.02, None, 0, 0.0, Status.OK)"
        " for _ in requests]\n"
        "    def describe(self):\n        return {'kind': 'grey'}\n"
    )
    finished = audit(
        shared / "fairface-sample", tmp_path / "out", arms=[f"{tmp_path / 'grey.py'}:Grey"],
        metrics=["face_found", "psnr"], resolution=64, limit=3, draws=1,
    )  # fmt: skip
    rows = finished.samples()
    assert rows.hr_face_found.all() and not rows.sr_face_found.any()
    assert set(rows.status) == {"no_face"} and not rows.feasible.any()
    assert rows.psnr.notna().all() and rows.hr_aligned.isna().all()


def test_faces_are_not_looked_for_in_images_too_small_to_judge(
    fairface_root: Path, tmp_path: Path
) -> None:
    finished = audit(
        fairface_root, tmp_path / "out", metrics=["face_found"], resolution=24, arms=["nearest"]
    )
    assert "32 px" in finished.manifest.unavailable["sr_face_found"]
    assert set(finished.samples().status) == {"ok"}


def test_the_tone_of_an_output_is_measured_on_the_skin_of_its_original(tmp_path: Path) -> None:
    """Recomputed from the stored images, which have 8 bits."""
    root, draw = write_faces(tmp_path / "data"), np.random.default_rng(1)
    for path in sorted((root / "val").glob("*.jpg")):
        skin = np.array([190, 140, 110]) + draw.integers(-40, 40, (8, 8, 1))
        small = Image.fromarray(skin.astype(np.uint8))
        small.resize((48, 48), Image.Resampling.BICUBIC).save(path, quality=95)
    finished = audit(
        root, tmp_path / "out", metrics=["psnr"], arms=["bicubic"], draws=1, keep_images="all"
    )
    for row in finished.samples().itertuples():
        original, output = (
            np.asarray(Image.open(finished.path / name)) / 255
            for name in (store.original_path(row.face_id), row.image)
        )
        skin = find_skin(original)
        tone = skin.tone_of_output(output)
        assert row.hr_lightness == pytest.approx(skin.tone.lightness, abs=0.5)
        shift = row.sr_lightness - row.hr_lightness
        assert shift == pytest.approx(tone.lightness - skin.tone.lightness, abs=0.2)
        assert row.sr_apparent_lightness == pytest.approx(
            apparent_colour(output).lightness, abs=2.0
        )


def test_runs_of_the_first_version_open(fairface_root: Path, tmp_path: Path) -> None:
    """No attributes, metrics or features in the manifest, no new columns in the shards."""
    old = audit(fairface_root, tmp_path / "out", arms=["nearest"])
    shutil.rmtree(old.path / "features", ignore_errors=True)
    manifest = json.loads((old.path / "manifest.json").read_text())
    for key in ("attributes", "metrics", "features", "references"):
        manifest.pop(key, None)
    (old.path / "manifest.json").write_text(json.dumps(manifest))
    opened = store.open_run(old.path)
    assert opened.features() is None and len(opened.samples()) == 14
    assert opened.samples().hr_race_p.isna().all()


def seeded_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS and FaceNet through their packages, on seeded weights in place of fetched ones."""
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    facenet = FaceNet(InceptionResnetV1(pretrained=None))
    torch.manual_seed(0)
    lpips = Lpips(bare("squeeze"), "squeeze")
    weights = {"weights": "seeded", "sha256": "0" * 64}
    monkeypatch.setattr("pulse_audit.harness.suite.weights_of", lambda name: weights)
    measure = "pulse_audit.harness.measure"
    monkeypatch.setattr(f"{measure}._weights_file", lambda name: Path(name))
    monkeypatch.setattr(f"{measure}.FaceNet.load", lambda path, device: facenet)
    monkeypatch.setattr("pulse_audit.metrics.perceptual.load", lambda net, path, device: lpips)


def test_networks_and_references_enter_the_samples(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LPIPS beside the package's own call; an arm that returns the original is the same person."""
    seeded_networks(monkeypatch)
    metrics = ["lpips_squeeze", "niqe_small", "identity_cosine", "verified"]
    finished = audit(
        shared / "fairface-sample", tmp_path / "out", metrics=metrics, resolution=64, draws=1,
        arms=["bicubic"], scales=[2], limit=3, keep_images="all",
    )  # fmt: skip
    rows, manifest = finished.samples(), finished.manifest
    assert rows.identity_cosine.between(0.5, 1).all()
    assert "1,000 pairs" in manifest.unavailable["verified"]
    assert manifest.metrics["lpips_squeeze"].as_dict()["sha256"] == "0" * 64
    assert "37 sharp patches" in manifest.unavailable["niqe_small"]
    torch.manual_seed(0)
    package = bare("squeeze")
    for row in rows.itertuples():
        names = (row.image, store.original_path(row.face_id))
        pair = [torch.from_numpy(np.array(Image.open(finished.path / name))) for name in names]
        sr, hr = (image.permute(2, 0, 1)[None] / 127.5 - 1 for image in pair)
        assert row.lpips_squeeze == pytest.approx(
            float(package(sr, hr).detach()), rel=0.03
        )  # 8 bits


def test_fid_stores_the_features_of_inception(
    fairface_root: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small stand-in of 2048 numbers; KID and FID are its, the cosine the attribute model's."""
    name = "inception-2015-12-05 pool3"
    stand_in = FeatureNetwork(name, 2048, lambda images: images.flatten(1)[:, :2048])
    seeded_networks(monkeypatch)
    monkeypatch.setattr("pulse_audit.harness.measure.inception", lambda path, device: stand_in)
    finished = audit(
        fairface_root, tmp_path / "out", metrics=["attribute_cosine", "fid"], attributes=model,
        arms=["bicubic"],
    )  # fmt: skip
    manifest, features = finished.manifest, finished.features()
    assert manifest.features.as_dict() == {"network": name, "dim": 2048, "why": None}
    assert manifest.metrics["fid"].columns == [] and "fid" not in finished.samples()
    assert features is not None and features[0].shape == (len(finished.samples()), 2048)
    assert finished.samples().attribute_cosine.notna().all()
    rows = [r for r in summarise_run(finished).estimates if r.metric in ("kid", "fid", "gpi_kid")]
    assert {r.metric for r in rows} == {"kid", "fid", "gpi_kid"}
    assert {(r.detail or {})["network"] for r in rows} == {name}


def test_fid_that_is_not_fetched_is_unavailable_and_no_other_network_stands_in(
    fairface_root: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "cache"))
    finished = audit(
        fairface_root, tmp_path / "out", metrics=["psnr", "fid"], attributes=model,
        arms=["bicubic"],
    )  # fmt: skip
    reason = "fid-inception is known but not fetched: pulse-audit fetch fid-inception"
    assert finished.manifest.unavailable["fid"] == reason
    assert finished.features() is None and finished.samples().psnr.notna().all()
    summary = summarise_run(finished)
    assert {summary.unavailable[name] for name in ("kid", "fid", "gpi_kid")} == {reason}
    assert not [row for row in summary.estimates if row.metric in ("kid", "fid", "gpi_kid")]


@pytest.mark.parametrize(("crop", "said"), [("celeba", 1), ("fairface-0.25", 0), ("as-is", 0)])
def test_a_model_that_sees_another_crop_is_noted(crop: str, said: int) -> None:
    model = SimpleNamespace(card=AttributeCard("m", {"race": ("A", "B")}, 64, "fairface-0.25"))
    notes = MetricSuite(cast(AttributeModel, model), (), {}, (), {}).notes(crop)
    assert len(notes) == said
    assert all("made for crop fairface-0.25 and sees celeba" in note for note in notes)
