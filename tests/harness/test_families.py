"""Every family through the upper floors: real files, a whole audit, single photos, bad files."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, outcome
from pulse_audit.degrade.resample import cut_to_frame, resize
from pulse_audit.frames import Frame
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models.arms import expand_arms
from pulse_audit.models.generators import describe_generator, load_generator
from pulse_audit.names import parse_generator
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError

Capture = pytest.CaptureFixture[str]
Families = dict[str, Path]
AddMember = Callable[[Path, str, bytes], None]

#: Of each file, what its card has to say: family, resolution, styles and their length.
CARDS = {
    "skip64": ("stylegan2", 64, 10, 64),
    "cond32": ("stylegan2", 32, 8, 64),
    "three": ("stylegan3", 32, 6, 64),
    "rosinality": ("stylegan2", 32, 8, 32),
    "synthesis": ("stylegan1", 64, 10, 32),
    "own": ("stylegan2", 32, 8, 64),
    "program": ("decoder", 32, 1, 100),
}


@pytest.mark.slow
def test_one_audit_of_every_family(families: Families, fairface_root: Path, tmp_path: Path) -> None:
    """Real files of seven formats side by side, one of them for a fixed class too."""
    generators = [*(str(families[name]) for name in CARDS), f"{families['cond32']}#3"]
    values = {
        "dataset": "fairface", "data_root": fairface_root, "generators": generators,
        "crop": "fairface-0.25", "resolution": 32, "per_group": 1, "limit": 2, "draws": 1,
        "threads": 1, "device": "cpu", "metrics": ["psnr"],
    }  # fmt: skip
    finished = run_audit(make_spec(values), tmp_path / "out")
    rows = finished.samples()
    assert set(rows.arm) == {*(f"pulse:{name}" for name in CARDS), "pulse:cond32#3"}
    assert rows.groupby("arm").size().eq(2).all()
    assert set(rows.status) <= {"ok", "infeasible"} and rows.downscale_error.notna().all()
    assert rows.steps.eq(100).all()
    for name, (family, resolution, count, length) in CARDS.items():
        arm = finished.manifest.arms[f"pulse:{name}"].as_dict()
        card = arm["generator"]
        assert (card["family"], card["resolution"]) == (family, resolution)
        assert (card["n_latents"], card["latent_dim"]) == (count, length)
        assert card["parameters"] > 1000
        assert card["sha256"] == arm["file_sha256"] == sha256(families[name].read_bytes())


@pytest.mark.parametrize("name", CARDS)
def test_upsample_with_every_family(
    families: Families, tmp_path: Path, capsys: Capture, name: str
) -> None:
    Image.new("RGB", (4, 4), (150, 120, 100)).save(tmp_path / "small.png")
    given = ["--generator", str(families[name]), "--is-lr", "--search", "fast", "--quiet"]
    out = tmp_path / "up"
    assert (
        outcome(["upsample", str(tmp_path / "small.png"), *given, "--json", "--out", str(out)])
        == DONE
    )
    row = json.loads(capsys.readouterr().out)[0]
    assert row["downscale_error"] < 0.1
    with Image.open(out / "small_0.png") as image:
        assert image.size == (CARDS[name][1],) * 2


def test_the_card_of_our_own_file_is_the_generators(families: Families) -> None:
    card = load_generator(str(families["own"])).card
    assert (card.name, card.crop, card.licence) == ("ours", "celeba", "CC0-1.0")
    assert card.training_data == "nobody"


def test_a_stored_fit_is_used_for_our_own_file(families: Families, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "own.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy(families["own"].with_suffix(suffix), path.with_suffix(suffix))
    mean = torch.linspace(-1, 1, 64)
    save_file({"mean": mean, "std": torch.ones(64)}, tmp_path / "own-fit.safetensors")
    assert torch.equal(load_generator(str(path)).fit.mean, mean)


def test_pulses_fit_is_not_taken_for_networks_with_a_mapping(
    families: Families, tmp_path: Path
) -> None:
    path = Path(shutil.copy(families["skip64"], tmp_path))
    torch.save(
        {"mean": torch.full((64,), 9.0), "std": torch.ones(64)}, tmp_path / "gaussian_fit.pt"
    )
    assert float(load_generator(str(path)).fit.mean.abs().max()) < 9


def test_a_lone_synthesis_file_needs_the_fit_beside_it(families: Families, tmp_path: Path) -> None:
    path = Path(shutil.copy(families["synthesis"], tmp_path))
    with pytest.raises(InputError, match=r"synthesis.pt: .*put PULSE's gaussian_fit.pt"):
        load_generator(str(path))
    fit = {"mean": torch.arange(32) / 32, "std": torch.ones(32)}
    torch.save(fit, tmp_path / "gaussian_fit.pt")
    assert torch.equal(load_generator(str(path)).fit.mean, fit["mean"])


def mean_of_class(network: object, label: int | None) -> torch.Tensor:
    """Mean before the last leaky ReLU, over 20,000 other z than the fit's."""
    source = torch.Generator().manual_seed(123)
    z = torch.randn(20_000, 64, generator=source)
    classes = torch.randint(7, (20_000,), generator=source)
    classes = classes if label is None else torch.full_like(classes, label)
    w = network.mapping(z, torch.nn.functional.one_hot(classes, 7).float())[:, 0]
    return torch.where(w < 0, w * 5, w).mean(0)


@pytest.mark.parametrize("label", [None, 3])
def test_a_class_is_fixed_or_drawn(families: Families, label: int | None) -> None:
    reference = str(families["cond32"]) + ("" if label is None else f"#{label}")
    generator = load_generator(reference)
    expected, other = (mean_of_class(generator.network, c) for c in (label, 5))
    tolerance = 5 * float(generator.fit.std.max()) / 20_000**0.5
    assert float((generator.fit.mean - expected).abs().max()) < tolerance
    assert float((generator.fit.mean - other).abs().max()) > 2 * tolerance


def test_each_makes_an_arm_of_every_class(families: Families) -> None:
    arms = expand_arms([], [parse_generator(f"{families['cond32']}#each")])
    assert [arm.name for arm in arms] == [f"pulse:cond32#{label}" for label in range(7)]
    assert arms[3].reference == f"{families['cond32']}#3"


@pytest.mark.parametrize(
    ("file", "choice", "message"),
    [
        ("cond32", "#7", "takes 0 to 6"),
        ("skip64", "#0", "has no classes"),
        ("skip64", "#each", "has no classes"),
        ("skip64", "@0", "64 px, not 0"),
        ("grown", "@0", "no layers for 0 px"),
        ("skip64", "@auto", "for a StyleGAN 1 of genforce"),
        ("own", "@auto", "for a StyleGAN 1 of genforce"),
        ("cond32", "#abc", "cond32.pkl: #abc is not understood; give @RESOLUTION"),
        ("cond32", "#3@256", "#3@256 is not understood"),
        ("program", "#0", "takes no class"),
        ("skip64", "@128", "64 px, not 128"),
        ("skip64", "@48", "64 px, not 48"),
    ],
)
def test_choices_that_do_not_fit_are_refused(
    families: Families, file: str, choice: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        for arm in expand_arms([], [parse_generator(f"{families[file]}{choice}")]):
            load_generator(arm.reference)


def test_a_resolution_is_for_files_that_hold_more_than_was_trained(families: Families) -> None:
    grown = families["grown"]
    assert describe_generator(str(grown)).resolution == 128
    card = describe_generator(f"{grown}@16")
    assert (card.name, card.family, card.resolution) == ("grown", "stylegan1", 16)


def test_pictures_are_shrunk_to_a_resolution_below_the_networks_own(families: Families) -> None:
    whole, small = (
        load_generator(str(families["skip64"])),
        load_generator(f"{families['skip64']}@16"),
    )
    assert (small.card.name, small.card.resolution) == ("skip64@16", 16)
    assert small.card.frame is None and small.card.n_latents == whole.card.n_latents
    assert any("shrunk to 16 px" in caveat for caveat in small.caveats)
    source = torch.Generator().manual_seed(1)
    latents = torch.randn(2, whole.card.n_latents, whole.card.latent_dim, generator=source)
    noise = [torch.randn(2, 1, *shape, generator=source) for shape in whole.noise_shapes]
    pictures = whole.synthesize(latents, noise)
    expected = resize(pictures, 16, "bicubic")
    torch.testing.assert_close(small.synthesize(latents, noise), expected, atol=0, rtol=0)
    # Seen through a frame it is a part of the whole, cut once and not twice.
    frame = Frame(0.25, 0.25, 0.5)
    parts = [FramedGenerator(g, frame, 8, "as-is", cut_to_frame) for g in (small, whole)]
    found, direct = (part.synthesize(latents, noise) for part in parts)
    assert torch.equal(found, direct)


def test_upsample_takes_one_class(families: Families, tmp_path: Path, capsys: Capture) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "small.png")
    given = ["upsample", str(tmp_path / "small.png"), "--is-lr", "--generator"]
    assert "choose one class" in refused([*given, f"{families['cond32']}#each"], capsys)


def test_the_catalogue_says_family_and_latent(capsys: Capture) -> None:
    assert outcome(["list", "generators", "--json"]) == DONE
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    small, three = rows["stylegan2-ffhq-256"], rows["stylegan3-t-ffhq-1024"]
    assert (small["family"], small["latent"], small["crop"]) == ("stylegan2", "14 x 512", "ffhq")
    assert (three["family"], three["latent"]) == ("stylegan3-t", "16 x 512")
    assert rows["stylegan1-ffhq-1024"]["latent"] == "18 x 512"


def test_a_factory_takes_no_class(tiny_generator: str) -> None:
    with pytest.raises(InputError, match="for files, not factories"):
        load_generator(f"{tiny_generator}#3")


def test_the_card_of_a_file_is_listed(families: Families, capsys: Capture) -> None:
    files = [str(families["own"]), f"{families['cond32']}#3", str(families["program"])]
    assert outcome(["list", "generators", *files, "--json"]) == DONE
    ours, conditional, program = json.loads(capsys.readouterr().out)
    assert ours == {
        "name": "ours", "family": "stylegan2", "resolution": "32", "crop": "celeba",
        "latent": "8 x 64", "classes": "-", "parameters": ours["parameters"],
        "training data": "nobody", "licence": "CC0-1.0",
        "sha256": sha256(families["own"].read_bytes()),
    }  # fmt: skip
    assert (conditional["name"], conditional["licence"]) == ("cond32", "unknown")
    assert conditional["classes"] == "7"
    assert (program["latent"], program["parameters"]) == ("1 x 100", "310,272")
    assert outcome(["list", "arms", *files]) == BAD_INPUT


def test_a_card_is_of_one_class(families: Families, capsys: Capture) -> None:
    line = refused(["list", "generators", f"{families['cond32']}#each"], capsys)
    assert "choose one class, #0 to #6, not #each" in line


def refused(arguments: list[str], capture: Capture) -> str:
    """Run, and return the one line of a refusal."""
    code = outcome(arguments)
    printed = capture.readouterr().err
    assert code == BAD_INPUT, printed
    assert len(printed.strip().splitlines()) == 1 and "Traceback" not in printed
    return printed


class Attack:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"import pathlib; pathlib.Path({str(self.marker)!r}).touch()",)


@pytest.mark.parametrize("suffix", ["pkl", "pt", "pt2"])
def test_malicious_files_end_in_one_line_and_run_nothing(
    families: Families, fairface_root: Path, tmp_path: Path, capsys: Capture,
    add_member: AddMember, suffix: str,
) -> None:  # fmt: skip
    path, marker, out = tmp_path / f"evil.{suffix}", tmp_path / "marker", tmp_path / "out"
    attack = pickle.dumps({"g_ema": Attack(marker)})
    if suffix == "pkl":
        path.write_bytes(attack)
    elif suffix == "pt":
        torch.save({"g_ema": Attack(marker)}, path)
    else:
        shutil.copy(families["program"], path)
        add_member(path, "data/sample_inputs/model.pt", attack)
    photo = str(fairface_root / "val" / "1.jpg")
    given = ["--generator", str(path), "--quiet", "--out", str(out)]
    root = ["--dataset", "fairface", "--data-root", str(fairface_root), "--per-group", "1"]
    for command in (["run", *root], ["upsample", photo]):
        assert str(path) in refused([*command, *given], capsys)
    assert str(path) in refused(["list", "generators", str(path)], capsys)
    assert not marker.exists()
    assert not (out / "manifest.json").exists() and not list(out.glob("*.png"))


@pytest.fixture
def unusual(families: Families, tmp_path: Path, add_member: AddMember) -> Path:
    """A harmless program with a member that no plain export has."""
    path = Path(shutil.copy(families["program"], tmp_path / "unusual.pt2"))
    add_member(path, "extra/notes.txt", b"by hand")
    return path


def test_a_trusted_file_is_the_one_of_that_digest(unusual: Path, capsys: Capture) -> None:
    digest = sha256(unusual.read_bytes())
    line = refused(["list", "generators", str(unusual)], capsys)
    assert f"--trust-file {digest}" in line
    wrong = ["--trust-file", "0" * 64]
    assert digest in refused(["list", "generators", str(unusual), *wrong], capsys)
    right = [*wrong, "--trust-file", digest.upper()]
    assert outcome(["list", "generators", str(unusual), *right, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)[0]["sha256"] == digest


def test_trust_reaches_upsample_and_run(
    unusual: Path, fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    Image.new("RGB", (4, 4), (150, 120, 100)).save(tmp_path / "small.png")
    trust = ["--trust-file", sha256(unusual.read_bytes()), "--quiet", "--json"]
    given = ["--generator", str(unusual), "--out", str(tmp_path / "up"), *trust]
    assert outcome(["upsample", str(tmp_path / "small.png"), "--is-lr", *given]) == DONE
    given = ["--generator", str(unusual), "--out", str(tmp_path / "run"), *trust]
    root = ["--dataset", "fairface", "--data-root", str(fairface_root), "--per-group", "1"]
    root += ["--metrics", "psnr"]
    assert outcome(["run", *root, *given, "--limit", "1", "--draws", "1"]) == DONE
    asked = store.open_run(tmp_path / "run").manifest.spec
    assert asked.as_dict()["trusted_files"] == [trust[1]]


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64])
def test_a_digest_is_64_hex_digits(digest: str, capsys: Capture) -> None:
    assert "64 hex digits" in refused(["run", "--trust-file", digest], capsys)
    with pytest.raises(InputError, match="trusted_files"):
        make_spec({"dataset": "fairface", "trusted_files": [digest]})
