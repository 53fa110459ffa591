"""The registry of metrics: one entry each, and what is derived from it."""

from importlib import import_module

import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.faces import embed
from pulse_audit.metrics import distribution, fidelity, identity, naturalness
from pulse_audit.metrics.definition import RunConditions
from pulse_audit.metrics.registry import BY_NAME, MEASURED, METRICS, metrics_of_run
from pulse_audit.models import published
from pulse_audit.store.manifest import MetricEntry
from pulse_audit.types import AttributeCard, Unavailable

CARD = AttributeCard("model", {}, 64, "as-is", feature_dim=4, sha256="ab" * 32)


def conditions(resolution: int = 256, card: AttributeCard | None = CARD) -> RunConditions:
    """Weights of LPIPS are here, others are not."""

    def weights(name: str) -> dict[str, str] | Unavailable:
        if not name.startswith("lpips"):
            return Unavailable(f"{name} is known but not fetched: pulse-audit fetch {name}")
        return {"weights": name, "sha256": "0" * 64}

    return RunConditions(resolution, weights, card, "no attribute model was requested")


def test_every_metric_has_a_name_of_its_own_and_every_column_one_metric() -> None:
    columns = [column for metric in METRICS for column in metric.columns]
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len(set(columns)) == len(columns)


def test_the_samples_have_the_columns_of_the_contract_in_their_order() -> None:
    assert list(store.COLUMNS)[12:25] == [
        *("image", "psnr", "ssim", "ms_ssim", "lpips", "niqe", "sharpness"),
        *("attribute_cosine", "identity_cosine", "verified"),
        *("hr_aligned", "hr_face_found", "sr_face_found"),
    ]
    assert "niqe_small" not in store.COLUMNS
    schema = store.sample_schema(["race"], metrics=["niqe_small", "psnr"])
    assert schema.field("niqe_small").type == schema.field("psnr").type


@pytest.mark.parametrize("metric", MEASURED.values(), ids=list(MEASURED))
def test_what_an_entry_names_is_there(metric) -> None:
    module, _, name = metric.computed_by.partition(":")
    assert callable(getattr(import_module(module), name))
    assert not metric.weights or published.get(metric.weights)


def test_sides_and_rates_are_those_of_the_code_that_computes() -> None:
    windows = (fidelity.WINDOW - 1) * 2 ** (len(fidelity.SCALE_WEIGHTS) - 1) + 1
    assert (BY_NAME["ssim"].smallest, BY_NAME["ms_ssim"].smallest) == (fidelity.WINDOW, windows)
    assert BY_NAME["verified"].weights == embed.WEIGHTS
    assert BY_NAME["niqe"].arguments["patch"] == naturalness.PATCH
    assert BY_NAME["niqe_small"].arguments["patch"] == naturalness.SMALL_PATCH
    assert BY_NAME["fid"].settings()["network"] == distribution.INCEPTION
    assert BY_NAME["verified"].settings()["false_accept_rates"] == list(identity.RATES)


def test_the_manifest_records_what_a_metric_was_measured_with() -> None:
    records = {name: metric.in_run(conditions()) for name, metric in MEASURED.items()}
    assert records["psnr"] == {"columns": ["psnr"], "unit": "dB", "better": "higher"}
    assert records["lpips"]["net"] == "alex" and records["lpips"]["sha256"] == "0" * 64
    assert records["niqe"]["patch"] == 96 and records["niqe"]["fitted_on"] == "the originals"
    assert records["attribute_cosine"]["network"] == "model"
    assert records["face_found"]["columns"] == ["hr_face_found", "sr_face_found"]


@pytest.mark.parametrize(
    ("name", "run", "reason"),
    [
        ("ms_ssim", conditions(160), "ms_ssim needs images of at least 161 px, not 160"),
        ("lpips", conditions(30), "lpips needs images of at least 31 px, not 30"),
        ("niqe", conditions(191), "niqe needs images of at least 192 px, not 191"),
        ("niqe_small", conditions(192), "niqe is measured in place of niqe_small"),
        ("verified", conditions(32), "verified needs images of at least 40 px, not 32"),
        ("verified", conditions(), "is known but not fetched: pulse-audit fetch facenet-vggface2"),
        ("attribute_cosine", conditions(card=None), "no attribute model was requested"),
        (
            "attribute_cosine",
            conditions(card=AttributeCard("plain", {}, 64, "as-is")),
            "attribute model plain gives no features",
        ),
        ("fid", conditions(), "is known but not fetched: pulse-audit fetch fid-inception"),
        ("face_found", conditions(31), "face_found needs images of at least 32 px, not 31"),
    ],
)
def test_a_metric_that_cannot_be_measured_says_why(name, run, reason) -> None:
    answer = BY_NAME[name].in_run(run)
    assert isinstance(answer, Unavailable) and answer.reason.endswith(reason)


def test_a_summary_takes_the_metrics_of_every_run_then_those_of_this_one() -> None:
    recorded = {
        "psnr": MetricEntry(columns=["psnr"]),
        "face_found": MetricEntry(columns=["hr_face_found", "sr_face_found"]),
        "niqe_small": MetricEntry(columns=["niqe_small"], better="lower"),
        "blur": MetricEntry(columns=["blur"], better="lower", unit="px"),
    }
    names = [metric.name for metric in metrics_of_run(recorded)]
    assert names[0] == "feasible_rate" and names[-2:] == ["niqe_small", "blur"]
    assert len(set(names)) == len(names) and "lpips_vgg" not in names
    blur = metrics_of_run(recorded)[-1]
    assert (blur.kind, blur.unit, blur.direction) == ("mean", "px", "lower")


def test_a_metric_is_missing_with_the_reason_of_its_column() -> None:
    samples = pd.DataFrame({"psnr": [1.0], "hr_hue": [None], "sr_hue": [2.0]})
    assert BY_NAME["psnr"].missing(samples, {}) is None
    assert BY_NAME["hue_shift"].missing(samples, {"hr_hue": "grey"}) == "grey"
    assert BY_NAME["ssim"].missing(samples, {}) == "no draw has a value in column ssim"
