"""The public facade."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

import pulse_audit as pa


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, pulse_audit; assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in pa.__all__:
        assert getattr(pa, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = pa.nothing_of_the_kind


def test_an_audit_in_python(fairface_root: Path, tiny_generator: str, tmp_path: Path) -> None:
    spec = pa.AuditSpec(
        dataset="fairface", data_root=fairface_root, generators=[tiny_generator], scales=[4],
        per_group=2, draws=2, threads=1, device="cpu", metrics=["psnr"],
    )  # fmt: skip
    run = pa.audit(spec, tmp_path / "out")
    assert len(run.samples) == 7 * 2 * 2
    rate = run.estimates.query("metric == 'feasible_rate' and group_by == 'all'")
    assert rate.value.item() == pytest.approx(run.samples.feasible.mean())
    assert isinstance(run.figure("feasible-rate"), Figure)
    assert run.figure("feasible-rate", width=3.25).get_figwidth() == 3.25
    violins = run.distribution("psnr", group_by="race", width=3.25)
    assert [label.get_text() for label in violins.axes[0].get_yticklabels()][0] == "White"
    dots = [c for c in violins.axes[0].collections if isinstance(c, PathCollection)]
    points = [float(x) for c in dots for x in c.get_offsets()[:, 0]]
    means = run.samples.groupby(["arm", "face_id"]).psnr.mean()
    assert sorted(points) == pytest.approx(sorted(means))
    with pytest.raises(pa.InputError, match="lpips"):
        run.distribution("lpip")
    with pytest.raises(pa.InputError, match="not measured|nothing to draw"):
        run.distribution("lpips")
    shown = run._repr_html_()
    assert all(arm in shown for arm in run.run.manifest.arms)
    assert shown.count("<tr>") == shown.count("</tr>") > len(run.run.manifest.arms)
    with pytest.raises(pa.InputError, match="skin-tone"):
        run.figure("skin-tones")
    assert run.report(tmp_path / "page").read_text().lstrip().lower().startswith("<!doctype html>")


def test_pulse_on_a_decoder_returns_what_it_says() -> None:
    torch.manual_seed(0)
    weights = torch.randn(64, 3 * 16 * 16) / 8
    generator = pa.as_generator(
        lambda z: torch.sigmoid(z @ weights.to(z)).view(-1, 3, 16, 16),
        name="linear", latent_dim=64, output_range=(0, 1),
    )  # fmt: skip
    lr = torch.full((3, 4, 4), 0.5)
    found = pa.Pulse(generator, scale=4, kernel="area").upsample(lr, seeds=[0, 1, 2])
    assert len(found) == 3
    for result in found:
        small = result.image.view(3, 4, 4, 4, 4).mean(dim=(2, 4))
        error = (small - lr).double().square().mean().item()
        assert error == pytest.approx(result.downscale_error, rel=1e-4)
        assert result.feasible == (result.downscale_error <= 2e-3)


def test_a_scale_that_does_not_fit_the_generator_is_refused() -> None:
    generator = pa.as_generator(
        lambda z: z[:, :1, None, None].expand(-1, 3, 16, 16), name="flat", latent_dim=64
    )
    with pytest.raises(pa.InputError, match="16"):
        pa.Pulse(generator, scale=5)


def test_a_generator_is_loaded_by_name_and_shows_its_network() -> None:
    from pulse_audit.models.shipped import shipped_generators

    generator = pa.load_generator(shipped_generators()[0])
    z = torch.randn(2, generator.network.z_dim, generator=torch.Generator().manual_seed(0))
    w = generator.mapping(z, labels=None, truncation=1.0)
    assert torch.equal(w, generator.network.mapping(z))
    assert generator.synthesis(w, noise="none").shape[:2] == (2, 3)
    assert pa.as_generator(generator) is generator


def test_a_finished_run_reads_its_summary_and_makes_it_anew_where_it_is_missing(
    fairface_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pa.AuditSpec(
        dataset="fairface", data_root=fairface_root, arms=["nearest"], scales=[4], resolution=32,
        crop="fairface-0.25", per_group=1, draws=1, threads=1, device="cpu", metrics=["psnr"],
        attributes="none",
    )  # fmt: skip
    path = pa.audit(spec, tmp_path / "out").path / "summary.json"
    stored = path.read_bytes()
    from pulse_audit import store, summary

    with monkeypatch.context() as patch:
        patch.setattr(summary, "summarise_run", lambda *args: pytest.fail("summarised again"))
        assert pa.AuditRun(store.open_run(path.parent)).summary == summary.read(path)
    path.write_text('{"schema": 1}')
    assert len(pa.AuditRun(store.open_run(path.parent)).estimates) > 0
    assert path.read_bytes() == stored
