from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pulse_audit.generators.native_format import save_generator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import upsample2d
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import TrainingSet
from pulse_audit.training.synthetic import sample
from pulse_audit.training.trainer import (
    GeneratorTrainer,
    ema_decay,
    gradient_penalty,
    update_average,
)
from pulse_audit.types import InputError

CPU = torch.device("cpu")


class Quadratic(nn.Module):
    """0.5 * a * |x|^2, whose gradient is a * x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.a * x.square().sum(dim=(1, 2, 3))


def test_the_penalty_is_the_mean_squared_gradient() -> None:
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert float(gradient_penalty(Quadratic(), x).detach()) == 9 * float(x.square().sum()) / 2


def test_the_penalty_has_the_gradient_of_its_closed_form() -> None:
    network, x = Quadratic(), torch.arange(24.0).view(2, 3, 2, 2)
    torch.autograd.backward(gradient_penalty(network, x))
    assert network.a.grad is not None
    assert float(network.a.grad) == 2 * 3 * float(x.square().sum()) / 2


def test_the_average_is_the_geometric_sum() -> None:
    average, network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(average.weight)
    nn.init.ones_(network.weight)
    for _ in range(10):
        update_average(average, network, 0.9)
    assert float(average.weight.detach()) == pytest.approx(1 - 0.9**10)


def test_half_of_a_weight_is_left_after_the_half_life(config: GanConfig) -> None:
    late = ema_decay(config, images_seen=10**9)
    assert late ** (config.ema_kimg * 1000 / config.batch) == pytest.approx(0.5)
    early = ema_decay(config, images_seen=1000)
    assert early ** (1000 * config.ema_rampup / config.batch) == pytest.approx(0.5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("interrupted", [6, 11, 14])
@pytest.mark.parametrize("grow_kimg", [0.0, 0.064])
def test_a_resumed_run_equals_an_undisturbed_one(
    config: GanConfig,
    training: TrainingSet,
    tmp_path: Path,
    precision: str,
    grow_kimg: float,
    interrupted: int,
) -> None:
    # where it grows, its last block is there from the tenth step and whole from the thirteenth on
    growth = {"grow_kimg": grow_kimg, "fade_kimg": grow_kimg / 2}
    config = config.model_copy(update={"precision": precision, **growth})
    straight, before, after = (GeneratorTrainer(config, training, CPU) for _ in range(3))
    straight.ada.p = before.ada.p = 0.5
    for _ in range(18):
        straight.advance()
    # none is a multiple of the interval of p, so pending signs are carried too
    for _ in range(interrupted):
        before.advance()
    before.save(tmp_path)
    assert after.resume(tmp_path)
    for _ in range(18 - interrupted):
        after.advance()
    assert after.numbers() == straight.numbers()
    assert 0 < straight.ada.p != 0.5
    for part, tensors in straight.tensors().items():
        for key, value in tensors.items():
            assert torch.equal(value, after.tensors()[part][key]), (part, key)


def finetuned(config: GanConfig, folder: Path, **more: object) -> GanConfig:
    """A configuration that begins with a generator that was saved there."""
    network = StyleGAN2.fresh(config.generator_config(), seed=11)
    save_generator(network, folder / "before.safetensors", {"name": "before"})
    update = {"begin_with": str(folder / "before.safetensors"), "freeze_kimg": 0.032, **more}
    return config.model_copy(update=update)


def test_fine_tuning_begins_with_the_weights_and_waits_for_the_discriminator(
    config: GanConfig, training: TrainingSet, tmp_path: Path
) -> None:
    trainer = GeneratorTrainer(finetuned(config, tmp_path), training, CPU)
    before = StyleGAN2.fresh(config.generator_config(), seed=11).state_dict()
    critic = [p.clone() for p in trainer.discriminator.parameters()]
    # 8 images a step: the generator is trained from the fifth step on
    for _ in range(4):
        trainer.advance()
    for network in (trainer.generator, trainer.average):
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not all(map(torch.equal, critic, trainer.discriminator.parameters()))
    trainer.advance()
    assert not all(torch.equal(v, before[k]) for k, v in trainer.generator.state_dict().items())


@pytest.mark.parametrize("interrupted", [3, 7])
def test_fine_tuning_resumes_bit_for_bit(
    config: GanConfig, training: TrainingSet, tmp_path: Path, interrupted: int
) -> None:
    config = finetuned(config, tmp_path)
    straight, before, after = (GeneratorTrainer(config, training, CPU) for _ in range(3))
    for _ in range(10):
        straight.advance()
    for _ in range(interrupted):
        before.advance()
    before.save(tmp_path / "state")
    assert after.resume(tmp_path / "state")
    for _ in range(10 - interrupted):
        after.advance()
    for part, tensors in straight.tensors().items():
        for key, value in tensors.items():
            assert torch.equal(value, after.tensors()[part][key]), (part, key)


def test_fine_tuning_needs_weights_of_its_shape(
    config: GanConfig, training: TrainingSet, tmp_path: Path
) -> None:
    other = finetuned(config, tmp_path, channels=(8, 4))
    with pytest.raises(InputError, match="before.safetensors: its network is not of the conf"):
        GeneratorTrainer(other, training, CPU)
    with pytest.raises(InputError, match="unknown generator 'faces-missing'"):
        GeneratorTrainer(config.model_copy(update={"begin_with": "faces-missing"}), training, CPU)
    for wrong, line in (
        ({"begin_with": "x", "grow_kimg": 1.0, "fade_kimg": 1.0}, "does not grow"),
        ({"freeze_kimg": 1.0}, "freeze_kimg is of a run that has begin_with"),
    ):
        with pytest.raises(ValidationError, match=line):
            GanConfig(**{**config.model_dump(), **wrong})


def test_all_weights_are_trained(config: GanConfig, training: TrainingSet) -> None:
    trainer = GeneratorTrainer(config, training, CPU)
    before = {k: v.clone() for k, v in trainer.generator.named_parameters()}
    # the noise strength starts at zero, so the gradient of all else is there at once
    for _ in range(2):
        trainer.advance()
    still = [k for k, v in trainer.generator.named_parameters() if torch.equal(v, before[k])]
    assert still == []


def test_the_last_block_adds_its_share_to_the_doubled_picture(config: GanConfig) -> None:
    network = StyleGAN2.fresh(config.generator_config(), seed=3)
    w = network.mapping(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)))
    half = network.at_resolution(4)
    doubled = upsample2d(half.synthesis(w[:, : half.num_ws]), network.syn.resample_filter)
    whole, torgb = network.synthesis(w), network.syn.blocks["b8"].torgb
    assert float((whole - doubled).abs().max().detach()) > 0.1
    for torgb.share in (0.0, 0.25, 1.0):
        torch.testing.assert_close(network.synthesis(w), torch.lerp(doubled, whole, torgb.share))
    torgb.share = 0.0
    assert torch.equal(network.synthesis(w), doubled)


def test_the_last_blocks_are_trained_from_growth_on(
    config: GanConfig, training: TrainingSet
) -> None:
    config = config.model_copy(update={"grow_kimg": 0.016, "fade_kimg": 0.024})
    trainer = GeneratorTrainer(config, training, CPU)
    networks = {"G": trainer.generator, "D": trainer.discriminator}
    late = {"G.syn.b8", "D.colours", "D.blocks"}

    def advance() -> set[str]:
        """Take a step and name the parts that it changed."""
        before = {k: v.clone() for n in networks.values() for k, v in n.named_parameters()}
        sides.append(trainer._generate().shape[-1])
        trainer.advance()
        return {
            f"{letter}.{'.'.join(key.split('.')[: 2 if key.startswith('syn') else 1])}"
            for letter, network in networks.items()
            for key, value in network.named_parameters()
            if not torch.equal(value, before[key])
        }

    sides: list[int] = []
    changed = [advance() for _ in range(7)]
    assert sides == [4, 4, 4, 8, 8, 8, 8]
    # at 0, 8 and 16 images without the block; at 24 and 32 both; from 40 on without the half's
    assert not any(late & parts for parts in changed[:3])
    assert all(late | {"D.half_colours"} <= parts for parts in changed[3:5])
    assert all("D.half_colours" not in parts and late <= parts for parts in changed[5:])


def test_samples_take_on_the_colour_of_the_photos(config: GanConfig) -> None:
    images = np.empty((20, 8, 8, 3), dtype=np.uint8)
    images[:] = (200, 60, 120)
    trainer = GeneratorTrainer(config, TrainingSet(images, (), (), ()), CPU)
    for _ in range(150):
        trainer.advance()
    colour = sample(trainer.average, 32, seed=1).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(colour, (200, 60, 120), atol=40)


def test_a_checkpoint_keeps_only_the_one_before(
    config: GanConfig, training: TrainingSet, tmp_path: Path
) -> None:
    trainer = GeneratorTrainer(config, training, CPU)
    for _ in range(3):
        trainer.advance()
        trainer.save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00000002", "checkpoint-00000003"]


def test_a_damaged_checkpoint_is_refused(
    config: GanConfig, training: TrainingSet, tmp_path: Path
) -> None:
    trainer = GeneratorTrainer(config, training, CPU)
    trainer.advance()
    part = trainer.save(tmp_path) / "generator.safetensors"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        trainer.resume(tmp_path)
