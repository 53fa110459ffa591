"""What the listings of metrics and attribute models say."""

from pathlib import Path

import pytest

from pulse_audit import listing
from pulse_audit.metrics.registry import MEASURED
from pulse_audit.types import InputError


@pytest.fixture(autouse=True)
def _nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))


def rows(what: str) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in listing.rows_of(what, None)}


def test_every_metric_is_listed_with_its_size_and_what_it_needs() -> None:
    found = rows("metrics")
    assert set(MEASURED) <= set(found)
    assert (found["ms_ssim"]["from px"], found["ms_ssim"]["here"]) == ("161", "yes")
    assert found["psnr"]["unit"] == "dB" and found["psnr"]["better"] == "higher"
    assert found["lpips"]["better"] == "lower"


def test_a_metric_without_its_weights_says_how_to_get_them() -> None:
    found = rows("metrics")
    assert found["lpips"]["here"] == "pulse-audit fetch lpips-alexnet"
    assert found["verified"]["here"] == "pulse-audit fetch facenet-vggface2"


def test_an_attribute_model_is_listed_before_it_is_fetched() -> None:
    found = rows("attributes")
    assert "race: White, Black, Latino_Hispanic" in found["fairface-race7"]["predicts"]
    assert found["fairface-race7"]["here"] == "pulse-audit fetch fairface-race7"


def test_the_accuracy_is_the_share_of_the_diagonal() -> None:
    assert listing._accuracy([[3, 1], [0, 4]]) == "87.5 % of 8"


def test_an_attribute_model_is_checked_on_a_blank_image_before_a_run(tmp_path: Path) -> None:
    code = """
import torch
from pulse_audit.types import AttributeCard, Attributes

class Model:
    card = AttributeCard("mine", {"hat": ("no", "yes")}, 16, "as-is", licence="MIT")
    def __call__(self, images):
        p = images.mean((1, 2, 3)) / 2
        return Attributes({"hat": torch.stack([p, SUM - p], 1)}, None)
    def to(self, device):
        return self
"""
    path = tmp_path / "mine.py"
    path.write_text(code.replace("SUM", "1"))
    (row,) = listing.model_cards("attributes", [f"{path}:Model"], ())
    assert (row["hat"], row["hat of a blank image"]) == ("no, yes", "yes (0.75)")
    assert (row["licence"], row["hat, held out"]) == ("MIT", "not measured")
    path.write_text(code.replace("SUM", "2"))
    with pytest.raises(InputError, match="no probabilities"):
        listing.model_cards("attributes", [f"{path}:Model"], ())


def test_other_lists_take_no_files() -> None:
    with pytest.raises(InputError, match="list metrics: takes no further names"):
        listing.model_cards("metrics", ["x"], ())


def test_the_settings_of_sweeps_are_listed_with_what_they_take() -> None:
    found = rows("settings")
    assert found["eps"]["values"] == "a number above 0 to 1"
    assert found["eps"]["arms"] == "pulse, posterior"
    assert found["prior"]["values"] == "one of sphere, none, nll, nll:WEIGHT"
