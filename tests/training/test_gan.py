import gzip
import hashlib
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from pulse_audit.generators.adapt import as_generator
from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.training import gan
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import TrainingSet, save_set
from pulse_audit.training.synthetic import sample
from pulse_audit.training.trainer import (
    GeneratorTrainer,
    StepLosses,
    newest_checkpoint,
    prepare,
    read_numbers,
)
from pulse_audit.types import InputError


@pytest.fixture
def run(config: GanConfig, faces: pd.DataFrame, tmp_path: Path) -> list[str]:
    """Options of a small run."""
    faces.to_parquet(tmp_path / "faces.parquet")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return ["--config", str(tmp_path / "tiny.yaml"), "--state", str(tmp_path / "state")]


def invoke(*arguments: str) -> str:
    return CliRunner().invoke(gan.main, arguments, catch_exceptions=False).output


def test_a_run_resumes_and_its_export_is_a_generator(run: list[str], tmp_path: Path) -> None:
    data = ["--data", str(tmp_path / "faces.parquet"), "--device", "cpu", "--sheet-kimg", "0.04"]
    assert "begun at 0.0 kimg" in invoke("train", *run, *data, "--until-kimg", "0.04")
    assert "resumed at 0.0 kimg" in invoke("train", *run, *data, "--until-kimg", "0.08")
    invoke("export", *run, "--out", str(tmp_path / "out"))
    card = json.loads((tmp_path / "out" / "tiny-8.json").read_text())["card"]
    assert (card["composition"], card["kimg"]) == ({"A": 16, "B": 4}, 0.08)
    photos = (tmp_path / "out" / "tiny-8-images.txt.gz").read_bytes()
    assert len(gzip.decompress(photos).splitlines()) == 20
    assert hashlib.sha256(photos).hexdigest() == card["photos_sha256"]
    with Image.open(tmp_path / "state" / "samples" / "000000.png") as sheet:
        assert sheet.size == (192, 128)
    fit = tmp_path / "out" / "tiny-8-fit.safetensors"
    network = read_checkpoint(tmp_path / "out" / "tiny-8.safetensors")
    with pytest.warns(UserWarning, match="latent values"):
        generator = as_generator(network, gaussian_fit=fit, crop=card["crop"])
    noise = [torch.zeros(1, 1, *shape) for shape in generator.noise_shapes]
    latents = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    assert generator.synthesize(latents, noise).shape == (2, 3, 8, 8)


def test_sigterm_saves_and_ends(config: GanConfig, faces: pd.DataFrame, tmp_path: Path) -> None:
    faces.to_parquet(tmp_path / "faces.parquet")
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    trainer = gan.train(
        config.model_copy(update={"budget_kimg": 1e6}),
        tmp_path / "state",
        tmp_path / "faces.parquet",
        torch.device("cpu"),
        until_kimg=1e6,
        sheet_kimg=1e6,
    )
    assert trainer.step > 0
    assert read_numbers(newest_checkpoint(tmp_path / "state"))["step"] == trainer.step


def test_a_state_of_another_configuration_is_refused(
    config: GanConfig, faces: pd.DataFrame, tmp_path: Path
) -> None:
    faces.to_parquet(tmp_path / "faces.parquet")
    prepare(config, tmp_path / "state", tmp_path / "faces.parquet")
    other = config.model_copy(update={"seed": 5, "budget_kimg": 9.0})
    with pytest.raises(InputError, match="another seed;"):
        prepare(other, tmp_path / "state", tmp_path / "faces.parquet")


def test_a_state_from_before_a_field_was_there_is_accepted(
    config: GanConfig, faces: pd.DataFrame, tmp_path: Path
) -> None:
    faces.to_parquet(tmp_path / "faces.parquet")
    prepare(config, tmp_path / "state", tmp_path / "faces.parquet")
    stored = json.loads((tmp_path / "state" / "config.json").read_text())
    del stored["grow_kimg"], stored["fade_kimg"]
    (tmp_path / "state" / "config.json").write_text(json.dumps(stored))
    prepare(config, tmp_path / "state", tmp_path / "faces.parquet")
    grows = config.model_copy(update={"grow_kimg": 1.0, "fade_kimg": 1.0})
    with pytest.raises(InputError, match="another fade_kimg, grow_kimg;"):
        prepare(grows, tmp_path / "state", tmp_path / "faces.parquet")


def test_what_is_exported_during_the_fade_is_the_faded_picture(
    config: GanConfig, training: TrainingSet, tmp_path: Path
) -> None:
    config = config.model_copy(update={"grow_kimg": 0.016, "fade_kimg": 0.032})
    trainer = GeneratorTrainer(config, training, torch.device("cpu"))
    save_set(training, tmp_path / "images.npz")
    # two steps at half the size, then one that sets the share to a quarter
    for step in range(3):
        trainer.advance()
        trainer.save(tmp_path)
        if step == 1:
            with pytest.raises(InputError, match=r"not grown to 8 px yet; .* 0.016 kimg"):
                gan.export(config, tmp_path, tmp_path / "out")
            assert not (tmp_path / "out").exists()
    shown = sample(trainer.grown(trainer.average), 8, seed=1)
    exported = read_checkpoint(gan.export(config, tmp_path, tmp_path / "out"))
    assert isinstance(exported, StyleGAN2)
    assert np.abs(sample(exported, 8, seed=1).astype(int) - shown).max() <= 1
    trainer.average.syn.blocks["b8"].torgb.share = 1.0
    assert np.abs(sample(trainer.average, 8, seed=1).astype(int) - shown).max() > 1


def test_exporting_nothing_is_refused(run: list[str], config: GanConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        newest_checkpoint(tmp_path)


def test_the_log_averages_what_was_measured() -> None:
    steps = [
        StepLosses(*torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5]), None),
        StepLosses(*torch.tensor([3.0, 2.0, 3.0, 4.0, 0.5, 7.0])),
    ]
    assert gan.means(steps)["loss_d"] == 2.0
    assert gan.means(steps)["r1"] == 7.0
