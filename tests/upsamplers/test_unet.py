"""Folders in the layout of diffusers: read, refused, and in a run."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models.arms import arm_sha256, find_arm
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import parse_arm
from pulse_audit.types import InputError
from pulse_audit.upsamplers import unet
from pulse_audit.upsamplers.diffusion import DiffusionModel
from pulse_audit.upsamplers.unet import SchedulerConfig, read_model, signal_left

CPU = torch.device("cpu")
SETTINGS = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.42.1", "sample_size": 32,
    "block_out_channels": [32, 32], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 8,
}  # fmt: skip
SCHEDULER = {
    "_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": True,
    "beta_schedule": "linear", "num_train_timesteps": 1000, "trained_betas": None,
    "timestep_values": None, "variance_type": "fixed_small",
}  # fmt: skip
Write = Callable[..., Path]


class Stub(nn.Module):
    """Answers as a U-Net does, of a prior of grey images; two of its parts have an old name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, 3, 1)
        self.attention = nn.ModuleDict({"to_q": nn.Linear(2, 2)})

    def forward(self, noisy: Tensor, level: Tensor, return_dict: bool) -> tuple[Tensor]:
        share = (level.to(noisy) / 999)[:, None, None, None]
        return (share.sqrt() * self.conv_in(noisy),)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the network built without diffusers."""

    def empty(config: unet.UNetConfig, where: Path) -> nn.Module:
        with torch.device("meta"):
            return Stub()

    monkeypatch.setattr(unet, "empty_network", empty)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a folder; ``flat`` as older ones are."""

    def make(
        settings: dict[str, Any] | None = None,
        scheduler: dict[str, Any] | None = None,
        tensors: dict[str, Tensor] | None = None,
        flat: bool = False,
        name: str = "faces",
    ) -> Path:
        folder = tmp_path / name
        parts = [folder] * 2 if flat else [folder / "unet", folder / "scheduler"]
        for part in parts:
            part.mkdir(parents=True, exist_ok=True)
        (parts[0] / "config.json").write_text(json.dumps({**SETTINGS, **(settings or {})}))
        content = json.dumps({**SCHEDULER, **(scheduler or {})})
        (parts[1] / "scheduler_config.json").write_text(content)
        weights = {
            "conv_in.weight": 0.9 * torch.eye(3)[:, :, None, None],
            "conv_in.bias": torch.zeros(3),
            "attention.query.weight": torch.zeros(2, 2),
            "attention.query.bias": torch.zeros(2),
        }
        save_file({**weights, **(tensors or {})}, parts[0] / unet.WEIGHTS)
        return folder

    return make


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_model(folder, CPU, torch.float32)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_is_read_with_what_is_said_of_it(stub: None, write: Write, flat: bool) -> None:
    folder = write(flat=flat)
    (folder.parent / "faces.yaml").write_text("crop: ffhq\nlicence: Apache-2.0\n")
    model = read_model(folder, CPU, torch.float32)
    card = model.card
    assert (card.crop, card.resolution, card.licence) == ("ffhq", 32, "Apache-2.0")
    assert card.parameters == 9 + 3 + 4 + 2
    noisy, level = torch.ones(2, 3, 32, 32), torch.tensor([999, 999])
    torch.testing.assert_close(model.network(noisy, level), 0.9 * noisy)
    # Every file is in the digest.
    arm = parse_arm(f"dps:{folder}")
    assert arm_sha256(arm) == card.sha256
    (folder.parent / "faces.yaml").write_text("crop: celeba\n")
    assert arm_sha256(arm) != card.sha256


def test_noise_levels_are_those_that_the_scheduler_says() -> None:
    def levels(**how: Any) -> Tensor:
        return signal_left(SchedulerConfig(**how))

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(levels(), (1 - betas).log().cumsum(0).exp())
    # Stable Diffusion's: the roots of the betas are evenly spaced.
    scaled = levels(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    first = 1 - scaled[0]
    second = 1 - scaled[1] / scaled[0]
    step = (0.012**0.5 - 0.00085**0.5) / 999
    assert float(first) == pytest.approx(0.00085)
    assert float(second.sqrt() - first.sqrt()) == pytest.approx(step)
    # The cosine is 1/2 near the middle, but for its offset.
    cosine = levels(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100)
    assert float(cosine[49]) == pytest.approx(0.4938, abs=1e-4)
    own = levels(trained_betas=[0.5, 0.5, 0.2])
    torch.testing.assert_close(own, torch.tensor([0.5, 0.25, 0.2], dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "scheduler", "reason"),
    [
        ({"_class_name": "UNet2DConditionModel"}, {}, "of 'UNet2DConditionModel'; UNet2DModel can"),
        ({"shortcut": 1}, {}, "key 'shortcut'"),
        ({"time_embedding_type": "fourier"}, {}, "key 'time_embedding_type'"),
        ({"in_channels": 4}, {}, "key 'in_channels'"),
        ({"num_class_embeds": 10}, {}, "key 'num_class_embeds'"),
        ({"block_out_channels": [32, 2**40]}, {}, "key 'block_out_channels.1'"),
        ({"block_out_channels": [32]}, {}, "down_block_types, up_block_types and block_out"),
        ({"block_out_channels": [32, 33]}, {}, "norm_num_groups does not divide"),
        ({"sample_size": 33}, {}, "sample_size cannot be halved 1 times"),
        ({"out_channels": 6}, {}, "out_channels is 6, and the scheduler's variance_type"),
        ({}, {"variance_type": "learned_range"}, "out_channels is 3, and the scheduler's"),
        ({}, {"_class_name": "ScoreSdeVeScheduler"}, "of 'ScoreSdeVeScheduler'; DDPMScheduler and"),
        ({}, {"beta_schedule": "sigmoid"}, "key 'beta_schedule'"),
        ({}, {"thresholding": True}, "key 'thresholding'"),
        ({}, {"rescale_betas_zero_snr": True}, "key 'rescale_betas_zero_snr'"),
        ({}, {"num_train_timesteps": 10**9}, "key 'num_train_timesteps'"),
        ({}, {"beta_end": 1.5}, "key 'beta_end'"),
    ],
)
def test_what_is_not_known_costs_one_line(
    stub: None, write: Write, settings: dict[str, Any], scheduler: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(write(settings, scheduler))


def test_weights_that_are_not_the_networks_are_refused(stub: None, write: Write) -> None:
    assert "'extra.weight' is of no part of the network" in refusal(
        write(tensors={"extra.weight": torch.zeros(1)})
    )
    assert "'conv_in.bias' is F32 (4,), where the network has floats (3,)" in refusal(
        write(tensors={"conv_in.bias": torch.zeros(4)}, name="longer")
    )
    assert "'conv_in.bias' is I64 (3,)" in refusal(
        write(tensors={"conv_in.bias": torch.zeros(3, dtype=torch.int64)}, name="whole")
    )
    folder = write(name="short")
    save_file({"conv_in.bias": torch.zeros(3)}, folder / "unet" / unet.WEIGHTS)
    assert "lacks 'attention.to_q.bias' and 2 more of the network" in refusal(folder)
    (folder / "unet" / unet.WEIGHTS).write_bytes(b"\xff" * 64)
    assert "damaged safetensors" in refusal(folder)


def test_folders_that_are_none_are_refused(stub: None, write: Write, tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        find_arm(parse_arm(f"ddnm:{tmp_path / 'none'}"))
    folder = write()
    (folder / "unet" / unet.WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "its .bin files are pickles, which are not read" in refusal(folder)
    latent = write(name="latent")
    content = {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"], "unet": []}
    (latent / "model_index.json").write_text(json.dumps(content))
    assert "has vqvae; only unconditional models of pixels can be read" in refusal(latent)
    (folder / "unet" / "config.json").write_text("[" * 1000)
    (folder / "unet" / "diffusion_pytorch_model.bin").rename(folder / "unet" / unet.WEIGHTS)
    assert "unreadable" in refusal(folder)
    # Beside the folder.
    other = write(name="other")
    (tmp_path / "other.yaml").write_text("crop: passport\n")
    with pytest.raises(InputError, match="other.yaml: key 'crop'"):
        read_model(other, CPU, torch.float32)


def test_a_missing_package_is_said(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet, "find_spec", lambda name: None)
    assert refusal(write()).endswith("needs diffusers: install pulse-audit[diffusers]")


def test_names() -> None:
    arm = parse_arm("dps:models/ddpm-celebahq-256/")
    assert (arm.name, arm.kind) == ("dps:ddpm-celebahq-256", "dps")
    with pytest.raises(InputError, match="unknown arm 'dps:'; did you mean"):
        parse_arm("dps:")


@pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here")
def test_both_arms_give_rows_in_a_run(
    stub: None, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "home"))
    folder = write()
    values = {
        "dataset": "synthetic-faces", "arms": [f"dps:{folder}", f"ddnm:{folder}"],
        "diffusion_steps": 20, "sweep": {"dps_step": [0.3, 3.0]}, "scales": [4], "limit": 1,
        "draws": 2,
        "per_group": 1, "metrics": ["psnr"], "threads": 1, "attributes": "none",
    }  # fmt: skip
    run = run_audit(make_spec(values), tmp_path / "run")
    rows = run.samples()
    assert rows.groupby("arm").size().to_dict() == {
        "dps:faces~dps_step=0.3": 2, "dps:faces~dps_step=3": 2, "ddnm:faces": 2,
    }  # fmt: skip
    assert set(rows["status"]) <= {"ok", "no_face"} and set(rows["steps"]) == {20}
    assert (rows["feasible"] == (rows["downscale_error"] <= 2e-3)).all()
    assert rows[rows["arm"] == "ddnm:faces"]["feasible"].all()
    # Arms share their seeds.
    assert (rows.groupby("draw")["seed"].nunique() == 1).all() and rows["seed"].nunique() == 2
    entry = run.manifest.arms["dps:faces~dps_step=3"].as_dict()
    assert (entry["kind"], entry["steps"], entry["step_size"]) == ("dps", 20, 3.0)
    assert entry["file_sha256"] == entry["generator"]["sha256"]
    assert any("an approximation of the posterior" in note for note in entry["notes"])


def test_options_are_in_the_fingerprint_only_where_they_are_set() -> None:
    plain = make_spec({"dataset": "synthetic-faces", "arms": ["dps:faces"]})
    assert not {"diffusion_steps", "dps_step"} & set(plain.requested())
    set_ = make_spec({**plain.requested(), "diffusion_steps": 100, "dps_step": 1.0})
    assert set_.fingerprint != plain.fingerprint
    with pytest.raises(InputError, match="diffusion_steps"):
        make_spec({"dataset": "synthetic-faces", "diffusion_steps": 1})


# With the package itself.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tiny U-Net, and the folder that diffusers writes it into."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers", reason="the extra diffusers is not installed")
        torch.manual_seed(0)
        plain = {key: value for key, value in SETTINGS.items() if not key.startswith("_")}
        network = diffusers.UNet2DModel(**plain).eval()
        folder = tmp_path_factory.mktemp("models") / "tiny"
        scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder)
    return folder, network


def read_saved(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_model(folder, CPU, dtype)


def test_a_folder_that_diffusers_wrote_answers_as_there(saved: tuple[Path, Any]) -> None:
    folder, network = saved
    model = read_saved(folder)
    noisy = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(noisy, torch.tensor([700, 700])).sample
        torch.testing.assert_close(model.network(noisy, torch.tensor([700, 700])), expected)
        half = read_saved(folder, torch.bfloat16).network(noisy, torch.tensor([700, 700]))
    assert half.dtype == torch.float32
    assert 0 < float((half - expected).abs().max()) < 0.1
    # Names of attention layers before version 0.15.
    import safetensors.torch

    path = folder / "unet" / unet.WEIGHTS
    state = safetensors.torch.load_file(path)
    old = {new: name for name, new in unet.RENAMED.items()}

    def before(key: str) -> str:
        for new, name in old.items():
            key = key.replace(f".{new}.", f".{name}.") if "attentions" in key else key
        return key

    save_file({before(key): value for key, value in state.items()}, path)
    with torch.no_grad():
        found = read_saved(folder).network(noisy, torch.tensor([700, 700]))
    torch.testing.assert_close(found, expected)
    save_file(state, path)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_step_is_that_of_its_scheduler(
    saved: tuple[Path, Any], prediction: str, variance: str
) -> None:
    import diffusers

    how = {
        "beta_schedule": "scaled_linear", "prediction_type": prediction, "variance_type": variance,
        "clip_sample_range": 2.0,
    }  # fmt: skip
    reference = diffusers.DDPMScheduler(**how)
    reference.set_timesteps(1000)
    schedule = SchedulerConfig(**how).schedule()
    random = torch.Generator().manual_seed(0)
    noisy, answer = torch.randn(2, 1, 3, 8, 8, generator=random, dtype=torch.float64)
    for level in (999, 500, 1, 0):
        expected = reference.step(answer, level, noisy, generator=torch.Generator().manual_seed(1))
        image = schedule.image(level, noisy, answer)
        torch.testing.assert_close(image, expected.pred_original_sample, atol=1e-4, rtol=1e-4)
        below = level - 1 if level else None
        mean, deviation = schedule.step(level, below, noisy, image, None)
        random = torch.Generator().manual_seed(1)
        drawn = torch.randn(noisy.shape, generator=random, dtype=torch.float64)
        torch.testing.assert_close(
            mean + deviation * drawn, expected.prev_sample, atol=5e-4, rtol=1e-3
        )
