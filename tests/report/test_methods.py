import re
from importlib import resources

import pytest

from pulse_audit import report
from pulse_audit.faces import skin
from pulse_audit.metrics import fidelity
from pulse_audit.report import methods as module
from pulse_audit.report.methods import SKIN, SSIM, markdown, methods, references
from pulse_audit.store.manifest import ArmEntry
from pulse_audit.summary import summarise_run


@pytest.fixture(scope="module")
def text(write_run, tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("run"), per_group=3)
    return methods(run.manifest, run.samples(), summarise_run(run))


def test_settings_are_those_that_metrics_and_skin_use():
    assert SSIM == {"window": fidelity.WINDOW, "sigma": fidelity.SIGMA}
    assert SKIN == {
        "hue": skin.HUE_RANGE,
        "chroma": skin.LEAST_CHROMA,
        "lightness": skin.LIGHTNESS_RANGE,
    }


def test_the_exact_numbers_of_the_run_are_in_the_methods(text):
    assert "on 21 faces of FairFace (val split): 3 White, 3 Black" in text
    assert "2 draws a face (run seed 0): 84 draws in all" in text
    assert "beside bicubic" in text
    assert "feasible below an MSE of 0.002" in text and "steps 100" in text
    assert "11 × 11 pixels (standard deviation 1.5), population covariances" in text
    assert "hue from 15.0° to 100.0°" in text
    assert "lpips (weights not fetched: pulse-audit fetch lpips)" in text
    assert "The smallest group has 3 faces." in text


def test_every_citation_has_a_complete_entry(text):
    bib = references()
    entries = dict(re.findall(r"@(\w+){(\w+),", bib)[::-1]) and re.findall(r"@(\w+){(\w+),", bib)
    keys = {key for _, key in entries}
    assert len(keys) == len(entries)
    # Everything that any run's methods cite, and nothing else.
    template = (resources.files(report) / "templates" / "methods.md.j2").read_text("utf-8")
    assert set(re.findall(r"@([a-z]+\d{4}[a-z0-9]*)", template)) == keys
    assert set(re.findall(r"@([a-z]+\d{4}[a-z0-9]*)", text)) <= keys
    for kind, key in entries:
        body = bib[bib.index(f"{{{key},") :].split("\n}\n")[0]
        venue = {"inproceedings": "booktitle", "article": "journal", "book": "publisher"}[kind]
        for field in ("author", "title", "year", venue):
            assert re.search(rf"^  {field} +=", body, re.M), (key, field)
        assert body.count("{") == body.count("}") + 1


def test_methods_of_papers_are_cited_where_they_ran(write_run, tmp_path):
    run = write_run(tmp_path / "run", per_group=3)
    entry = next(iter(run.manifest.arms.values()))
    for arm, key in (
        ("dps:celeba~dps_step=1", "chung2023dps"),
        ("ddnm:celeba", "wang2023ddnm"),
        ("fsrgan", "chen2018fsrnet"),
    ):
        arms = {**run.manifest.arms, arm: entry}
        manifest = run.manifest.model_copy(update={"arms": arms})
        text = methods(manifest, run.samples(), summarise_run(run))
        bib = references(module.methods_of(manifest))
        for other in module.CITED.values():
            assert (other in text) == (other in bib) == (other == key)
        assert bib.count("@") == references().count("@") - 2 and bib.endswith("}\n")


def test_methods_of_others_are_named_with_their_digest(write_run, tmp_path):
    run = write_run(tmp_path / "run", per_group=3)
    entry = ArmEntry.model_validate({"kind": "folder", "file_sha256": "ab" * 32})
    arms = dict.fromkeys(run.manifest.arms, entry)
    manifest = run.manifest.model_copy(update={"arms": arms})
    text = methods(manifest, run.samples(), summarise_run(run))
    assert "outputs that were made elsewhere, of 8-bit inputs (SHA-256 abababababab)." in text


def test_untrusted_text_is_no_markup():
    assert markdown("a\n# <script>x</script> [l](u) *b* `c`") == (
        r"a # &lt;script&gt;x&lt;/script&gt; \[l\](u) \*b\* \`c\`"
    )


def test_a_frame_is_described(write_run, tmp_path):
    frames = {"ffhq": {"left": 0.125, "top": 0.1, "side": 0.69}}
    run = write_run(
        tmp_path, prepared={"resolution": 32, "crop": "fairface-0.25", "frames": frames}
    )
    text = module.methods(run.manifest, run.samples(), summarise_run(run))
    assert (
        "of pictures in the crop ffhq the square of 69.0 % of the side at (12.5 %, 10.0 %)" in text
    )
