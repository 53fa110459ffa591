"""DPS and DDNM: against exact posteriors, the public code of DPS, and as arms."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import AvgPool2d

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.frames import Frame
from pulse_audit.types import GeneratorCard, InputError, Request, Status
from pulse_audit.upsamplers.diffusion import (
    DiffusionModel,
    DiffusionUpsampler,
    Schedule,
    draws,
    seeded_noise,
)
from pulse_audit.upsamplers.pseudo_inverse import SeparableOperator


def module(name: str) -> ModuleType:
    """A file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


gaussians = module("gaussians")
COUNT = 600


@pytest.fixture(scope="module")
def lr() -> Tensor:
    """The input of an image of the prior, without noise."""
    random = torch.Generator().manual_seed(0)
    standard = torch.randn(gaussians.PIXELS, dtype=torch.float64, generator=random)
    image = gaussians.MEAN + torch.linalg.cholesky(gaussians.COVARIANCE) @ standard
    return gaussians.downscale(image.view(1, 3, gaussians.SIDE, gaussians.SIDE))[0]


def drawn(lr: Tensor, count: int = COUNT, **how: object) -> Tensor:
    """Draws (count, pixels) for one input."""
    schedule = gaussians.schedule(variance=how.pop("variance", "fixed_small"))
    inputs = lr[None].expand(count, -1, -1, -1)
    return draws(
        gaussians.network, schedule, inputs, gaussians.noise(count), gaussians.downscale, **how
    ).flatten(1)


def moments(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.mean(0), images.T.cov()


def sampling_error(exact: tuple[Tensor, Tensor]) -> float:
    """Distance of as many exact draws from their own distribution."""
    random = torch.Generator().manual_seed(2)
    standard = torch.randn(COUNT, len(exact[0]), dtype=torch.float64, generator=random)
    return gaussians.distance(moments(exact[0] + standard @ gaussians.root(exact[1])), exact)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_without_an_input_draws_are_those_of_the_prior(lr: Tensor, variance: str) -> None:
    prior = (gaussians.MEAN, gaussians.COVARIANCE)
    found = moments(drawn(lr, steps=250, step_size=None, variance=variance))
    # Deviation of a pixel: .5. The error of 250 steps shows beside that of the sample.
    assert gaussians.distance(found, prior) < sampling_error(prior) + 0.02


def test_ddnm_against_the_exact_posterior(lr: Tensor) -> None:
    exact = gaussians.posterior(lr)
    inverse = SeparableOperator.of(gaussians.downscale, gaussians.SIDE, torch.device("cpu")).inverse
    images = drawn(lr, steps=250, inverse=inverse)
    small = gaussians.downscale(images.view(-1, 3, gaussians.SIDE, gaussians.SIDE))
    torch.testing.assert_close(small, lr.expand_as(small), atol=1e-12, rtol=0)
    # Of a posterior deviation of .27: the mean is off by a tenth of it, the whole by less than 3.
    mean, covariance = moments(images)
    assert float((mean - exact[0]).square().mean().sqrt()) < 0.04
    assert gaussians.distance((mean, covariance), exact) < sampling_error(exact) + 0.03
    ratio = float(covariance.trace() / exact[1].trace())
    assert 0.85 < ratio < 1.05


def test_dps_against_the_exact_posterior_by_steps_and_step_size(lr: Tensor) -> None:
    exact = gaussians.posterior(lr)
    floor = sampling_error(exact)
    prior = gaussians.distance((gaussians.MEAN, gaussians.COVARIANCE), exact)
    found = {
        (steps, size): gaussians.distance(moments(drawn(lr, steps=steps, step_size=size)), exact)
        for steps, size in ((250, 0.3), (100, 1.0), (100, 0.1), (20, 0.3))
    }
    # An approximation, near where steps are many, or long: a posterior deviation is .27.
    assert found[250, 0.3] < floor + 0.05
    assert found[100, 1.0] < floor + 0.05
    # Guidance is a sum over steps: a few short ones leave the draws near the prior.
    assert prior == pytest.approx(0.84, abs=0.1)
    assert 0.4 < found[100, 0.1] < found[20, 0.3] < prior


def test_an_input_does_not_depend_on_its_batch_mates(lr: Tensor) -> None:
    random = torch.Generator().manual_seed(5)
    inputs = torch.cat([lr[None], torch.rand(2, 3, 2, 2, generator=random).double() * 4 - 2])

    def of(rows: list[int]) -> Tensor:
        noise = seeded_noise([11 + row for row in rows], gaussians.SIDE, inputs)
        return draws(
            gaussians.network, gaussians.schedule(), inputs[rows], noise, gaussians.downscale,
            steps=100, step_size=1.0,
        )  # fmt: skip

    together = of([0, 1, 2])
    # In the public code the norm is over the batch, which turns far rows into short steps here.
    for row in range(3):
        torch.testing.assert_close(of([row])[0], together[row], atol=1e-9, rtol=0)
    torch.testing.assert_close(of([2, 0]), together[[2, 0]], atol=1e-9, rtol=0)


#: Every fourth row and second column of the draws of the public code
#: (DPS2022/diffusion-posterior-sampling, commit effbde7), run in batch 1 in float64 with `answer`
#: below as its network, averages over 4 x 4 pixels as its operator, and the noise of seed 3.
PUBLIC = {
    ("learned_range", True, 100, 0.3): (
        0.740391, 0.848228, -0.074464, 0.488356, -0.008201, 0.591562, -0.462047, 0.156765,
        -0.271176, -0.379549, 0.128746, 0.194086, 0.930417, -0.230744, 0.427575, 0.08096,
        1.000582, -0.498025, 0.582521, 0.552904, 0.32597, 0.785926, -0.370917, 0.983482,
    ),
    ("fixed_large", False, 25, 1.0): (
        -0.385779, 0.050656, 0.002985, 0.164791, -0.16564, 0.206709, -0.27962, 0.292921,
        0.072221, 0.348979, -0.200127, 0.106551, -0.312734, -0.132388, 0.023442, -0.15187,
        0.101448, -0.122444, 0.156683, 0.78602, -0.91458, -0.363133, 0.123993, -0.047991,
    ),
    ("fixed_small", True, 1000, 0.3): (
        -0.195474, -0.217806, -0.079008, -0.045044, -0.005116, -0.999997, -0.972523, 0.338295,
        -0.999998, -0.860371, -0.881216, -0.751343, 0.237814, 1.000009, 0.247359, 1.000006,
        0.319621, 0.215916, 0.417109, 0.795942, -0.812261, -0.635899, -1.000346, -0.067074,
    ),
}  # fmt: skip


def answer(noisy: Tensor, level: Tensor) -> Tensor:
    """The exact answer for a Gaussian of variance 1/4, and a term that is not linear."""
    random = np.random.default_rng(7)
    weights = torch.from_numpy(random.normal(0, 0.3, (6, 3, 3, 3))).to(noisy)
    signal = gaussians.SIGNAL[level][:, None, None, None]
    features = torch.tanh(torch.conv2d(noisy, weights, padding=1))
    linear = (1 - signal).sqrt() / (1 - 0.75 * signal) * noisy
    return torch.cat([linear + 0.2 * features[:, :3], features[:, 3:]], dim=1)


@pytest.mark.parametrize("case", PUBLIC)
def test_it_agrees_with_the_public_code_in_batch_one(case: tuple[str, bool, int, float]) -> None:
    variance, clipped, steps, size = case
    schedule = Schedule(gaussians.SIGNAL, "epsilon", variance, 1.0 if clipped else None)
    lr = 2 * torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(4)).double() - 1
    found = draws(
        answer, schedule, lr, seeded_noise([3], 8, lr), AvgPool2d(4), steps=steps, step_size=size
    )
    expected = torch.tensor(PUBLIC[case], dtype=torch.float64)
    torch.testing.assert_close(found[0, :, ::4, ::2].flatten(), expected, atol=1e-5, rtol=0)


def test_what_a_network_predicts_is_one_image() -> None:
    random = torch.Generator().manual_seed(0)
    image, noise = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64, generator=random)
    share = gaussians.SIGNAL[300]
    noisy = share.sqrt() * image + (1 - share).sqrt() * noise
    velocity = share.sqrt() * noise - (1 - share).sqrt() * image
    for kind, said in (("epsilon", noise), ("v_prediction", velocity), ("sample", image)):
        found = gaussians.schedule(prediction=kind).image(300, noisy, said)
        torch.testing.assert_close(found, image)
    clipped = Schedule(gaussians.SIGNAL, clip=0.5).image(300, noisy, noise)
    torch.testing.assert_close(clipped, image.clamp(-0.5, 0.5))


def test_levels_run_from_the_last_to_the_first() -> None:
    schedule = gaussians.schedule()
    assert schedule.levels() == list(range(999, -1, -1))
    assert schedule.levels(4) == [999, 666, 333, 0]
    with pytest.raises(InputError, match="1 diffusion steps: the model has 1000 noise levels"):
        schedule.levels(1)
    with pytest.raises(InputError, match="choose 2 to 1000"):
        schedule.levels(1001)


# The arm.

RESOLUTION = 16


def model(crop: str = "ffhq") -> DiffusionModel:
    """A prior of independent pixels of variance 1/4, at 16 px."""
    card = GeneratorCard(
        "grey", "test", RESOLUTION, crop, 1, 3 * RESOLUTION**2, "gaussian", 0, licence="MIT"
    )
    return DiffusionModel(
        lambda x, level: answer(x, level)[:, :3], Schedule(gaussians.SIGNAL), card
    )


def arm(method: str, crop: str = "ffhq", steps: int = 30) -> DiffusionUpsampler:
    return DiffusionUpsampler(model(crop), method, cut_to_frame, steps=steps, step_size=3.0)


def requests(count: int, size: int = 4, frame: Frame | None = None) -> list[Request]:
    random = torch.Generator().manual_seed(0)
    inputs = 0.3 + 0.4 * torch.rand(count, 3, size, size, generator=random)
    return [Request(lr, f"val/{i}.jpg", {}, 2**62 + i, frame) for i, lr in enumerate(inputs)]


@pytest.mark.parametrize("kernel", ["pulse", "bicubic", "lanczos", "nearest"])
def test_ddnm_answers_are_feasible_under_every_downscaling(kernel: str) -> None:
    degradation = DegradationModel("clean", 4, kernel)
    for request, found in zip(requests(2), arm("ddnm")(requests(2), degradation), strict=True):
        assert found.status is Status.OK and found.feasible is None and found.steps == 30
        small = degradation.downscale(found.image[None])[0]
        error = float((small - request.lr).square().mean())
        assert found.downscale_error == pytest.approx(error, rel=1e-3, abs=1e-9)
        # Clamping costs what noise of a prior without a face leaves beyond [0, 1].
        assert error < 2e-3


@pytest.mark.parametrize("method", ["dps", "ddnm"])
def test_answers_follow_from_their_own_seed_alone(method: str) -> None:
    degradation, asked = DegradationModel("clean", 4), requests(3)
    together = arm(method)(asked, degradation)
    for request, found in zip(asked, together, strict=True):
        alone = arm(method)([request], degradation)[0]
        torch.testing.assert_close(alone.image, found.image, atol=1e-5, rtol=0)
    other = Request(asked[0].lr, asked[0].face_id, {}, 7)
    assert float((arm(method)([other], degradation)[0].image - together[0].image).abs().max()) > 0.1


@pytest.mark.parametrize("method", ["dps", "ddnm"])
def test_a_frame_is_cut_before_downscaling(method: str) -> None:
    frame = Frame(0.125, 0.25, 0.5)
    degradation = DegradationModel("clean", 2)
    whole = arm(method, steps=60)
    part = whole.framed(frame, 8, "fairface-0.25")
    assert (part.resolution, part.crop, whole.resolution) == (8, "fairface-0.25", RESOLUTION)
    assert (part.card.frame, part.whole.card.resolution) == (frame, RESOLUTION)
    # The output is what is compared, and it fits.
    found = part(requests(1), degradation)[0]
    assert found.image.shape == (3, 8, 8)
    bound = 2e-3 if method == "ddnm" else 0.02
    assert found.downscale_error < bound
    # A photo of its own frame, at the model's own size; one of no known crop is taken as it is.
    asked = [*requests(1, frame=frame), *requests(2)]
    shown = whole(asked, DegradationModel("clean", 4))
    assert [tuple(answer.image.shape) for answer in shown] == [(3, 16, 16)] * 3
    alone = whole.framed(frame, 16, "ffhq")(requests(1), DegradationModel("clean", 4))[0]
    torch.testing.assert_close(shown[0].image, alone.image, atol=1e-5, rtol=0)
    plain = arm(method, "as-is", 60)(requests(1, frame=frame), DegradationModel("clean", 4))[0]
    torch.testing.assert_close(plain.image, shown[1].image, atol=1e-5, rtol=0)


def test_descriptions_say_what_was_done() -> None:
    described = arm("dps").describe()
    assert (described["kind"], described["steps"], described["step_size"]) == ("dps", 30, 3.0)
    assert described["levels"] == 1000 and described["generator"]["licence"] == "MIT"
    assert described["caveats"] == [
        "DPS in 30 steps, 30 of the model's 1000, step size 3: an approximation of the posterior "
        "that depends on both"
    ]
    assert "step_size" not in arm("ddnm").describe()


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="inputs of 5 x 5 px; the side has to divide"):
        arm("dps")(requests(1, size=5), DegradationModel("clean", 4))

    class Squared(DegradationModel):
        def downscale(self, images: Tensor, scale: int | None = None) -> Tensor:
            return super().downscale(images, scale) ** 2

    with pytest.raises(InputError, match="DDNM needs a downscaling that is linear"):
        arm("ddnm")(requests(1), Squared("clean", 4))
