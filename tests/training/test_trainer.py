from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
def test_a_resumed_run_equals_an_undisturbed_one(
    config: GanConfig, training: TrainingSet, tmp_path: Path, precision: str
) -> None:
    config = config.model_copy(update={"precision": precision})
    straight, before, after = (GeneratorTrainer(config, training, CPU) for _ in range(3))
    straight.ada.p = before.ada.p = 0.5
    for _ in range(10):
        straight.advance()
    for _ in range(6):  # not a multiple of the interval of p, so pending signs are carried too
        before.advance()
    before.save(tmp_path)
    assert after.resume(tmp_path)
    for _ in range(4):
        after.advance()
    assert after.numbers() == straight.numbers()
    assert 0 < straight.ada.p != 0.5
    for part, tensors in straight.tensors().items():
        for key, value in tensors.items():
            assert torch.equal(value, after.tensors()[part][key]), (part, key)


def test_all_weights_are_trained(config: GanConfig, training: TrainingSet) -> None:
    trainer = GeneratorTrainer(config, training, CPU)
    before = {k: v.clone() for k, v in trainer.generator.named_parameters()}
    # the noise strength starts at zero, so the gradient of all else is there at once
    for _ in range(2):
        trainer.advance()
    still = [k for k, v in trainer.generator.named_parameters() if torch.equal(v, before[k])]
    assert still == []


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
