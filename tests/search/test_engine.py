import dataclasses

import pytest
import torch

from pulse_audit.search.config import PRESETS, SearchConfig
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.sphere import draw_start
from pulse_audit.types import InputError, Status

OFFICIAL = PRESETS["official"]
SEEDS = (11, 0, 5, 42, 7, 8, 99)


def search(generator, lr, seeds, downscale, config=OFFICIAL, **options):
    start = draw_start(generator, seeds, config)
    return BatchSearch(generator, lr, start, downscale, config, **options).run()


def difference(results, others) -> float:
    """Largest difference over pixels and latents."""
    return max(
        float((getattr(a, name) - getattr(b, name)).abs().max())
        for a, b in zip(results, others, strict=True)
        for name in ("image", "latents")
    )


class Log(list):
    """All iterates; ``of(row, name)`` is the course of one image."""

    def of(self, row: int, name: str) -> list[float]:
        places = [(i, i.rows.tolist()) for i in self]
        return [float(getattr(i, name)[rows.index(row)]) for i, rows in places if row in rows]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(params=[(torch.float64, 100, 1e-5), (torch.float32, 10, 1e-4)], ids=["64", "32"])
def batch_of_seven(request, style_generator, inputs, pool):
    """Seven searches at once, a way to search some of them, and how close they have to be."""
    dtype, steps, tolerance = request.param
    generator, lr = style_generator.to("cpu", dtype), inputs(7, 4).to(dtype)
    config = SearchConfig(steps=steps)

    def some(rows):
        return search(generator, lr[rows], [SEEDS[i] for i in rows], pool(4), config)

    return some(list(range(7))), some, tolerance


def test_an_image_alone_is_that_image_in_a_batch(batch_of_seven):
    together, some, tolerance = batch_of_seven
    assert difference(some([3]), together[3:4]) < tolerance


def test_the_order_of_a_batch_does_not_matter(batch_of_seven):
    together, some, tolerance = batch_of_seven
    order = [4, 2, 6, 0, 5, 1, 3]
    assert difference(some(order), [together[i] for i in order]) < tolerance


def test_a_short_last_batch_is_fine(batch_of_seven):
    together, some, tolerance = batch_of_seven
    assert difference(some([5, 6]), together[5:]) < tolerance


def best_of(log: Log, row: int, eps: float) -> int:
    """The rule in plain words: feasible first, then the lower loss; else the lower error."""
    total, error = log.of(row, "total"), log.of(row, "downscale_error")
    feasible = [i for i, e in enumerate(error) if e <= eps]
    return min(feasible, key=total.__getitem__) if feasible else error.index(min(error))


@pytest.mark.parametrize(("eps", "statuses"), [(1e-9, {"infeasible"}), (0.05, {"ok"})])
def test_the_best_iterate_is_returned_with_its_own_error(
    style_generator, inputs, pool, log, eps, statuses
):
    config = SearchConfig(eps=eps, steps=30)
    results = search(style_generator, inputs(3, 4), [0, 1, 2], pool(4), config, observe=log.append)
    assert {result.status.value for result in results} == statuses
    for row, result in enumerate(results):
        best = best_of(log, row, eps)
        assert result.loss == pytest.approx(log.of(row, "total")[best])
        assert result.downscale_error == log.of(row, "downscale_error")[best]
        assert torch.equal(result.image, log[best].images[row].clamp(0, 1))
        assert torch.equal(result.latents, log[best].latents[row])
        assert result.feasible == (result.downscale_error <= eps)
        assert result.steps == 30


def test_a_feasible_iterate_beats_a_later_one_of_lower_loss(linear, inputs, pool, log):
    """From iterate 30 on an extra loss drags the image away, to a lower total."""

    def drag(images, latents):
        return (1e3 * (images - 3).square().mean((1, 2, 3)) - 1e5) * (len(log) >= 30)

    config = SearchConfig(eps=1e-2, steps=60, prior="none", schedule="fixed")
    (result,) = search(
        linear, inputs(1, 1), [0], pool(4), config, extra_losses=[drag], observe=log.append
    )
    total, errors = log.of(0, "total"), log.of(0, "downscale_error")
    assert errors[total.index(min(total))] > 1e-2
    assert result.feasible
    assert result.downscale_error == errors[best_of(log, 0, 1e-2)] <= 1e-2


def test_the_error_reported_is_that_of_the_image_returned(linear, inputs, pool):
    lr, config = inputs(3, 1), SearchConfig(steps=20)
    for row, result in enumerate(search(linear, lr, [0, 1, 2], pool(4), config)):
        assert (result.image.min(), result.image.max()) == (0, 1)  # clamped, and it had to be
        again = float((pool(4)(result.image[None]) - lr[row]).square().mean())
        assert result.downscale_error == pytest.approx(again, rel=1e-5)


def test_norms_stay_at_the_initial_radius_through_the_search(recording, inputs, pool):
    search(recording, inputs(2, 4), [0, 1], pool(4), SearchConfig(steps=50))
    for norms in (recording.latent_norms, recording.noise_norms):
        for later in norms[1:]:
            assert torch.allclose(later, norms[0], rtol=1e-6, atol=0)


def moved_layers(recording) -> list[bool]:
    first, last = recording.noise[0], recording.noise[-1]
    return [not torch.equal(a, b) for a, b in zip(first, last, strict=True)]


@pytest.mark.parametrize(
    ("settings", "moved"),
    [
        ({}, [True, True, True, True, True]),
        ({"trainable_noise_layers": 2}, [True, True, False, False, False]),
        ({"bad_noise_layers": "0.2"}, [False, True, False, True, True]),
        ({"noise": "fixed"}, [False] * 5),
        ({"noise": "zero"}, [False] * 5),
    ],
)
def test_noise_layers_move_as_the_settings_say(recording, inputs, pool, settings, moved):
    search(recording, inputs(1, 4), [0], pool(4), SearchConfig(steps=3, **settings))
    assert moved_layers(recording) == moved


@pytest.mark.parametrize(
    ("settings", "zero"),
    [
        ({}, [False] * 5),
        ({"bad_noise_layers": "1.4"}, [False, True, False, False, True]),
        ({"noise": "fixed", "bad_noise_layers": "1"}, [False, True, False, False, False]),
        ({"noise": "zero"}, [True] * 5),
    ],
)
def test_bad_layers_have_no_noise(recording, inputs, pool, settings, zero):
    search(recording, inputs(1, 4), [0], pool(4), SearchConfig(steps=2, **settings))
    assert [not noise.any() for noise in recording.noise[-1]] == zero


def test_a_tied_latent_serves_every_layer(style_generator, inputs, pool, log):
    config = SearchConfig(tied_latent=True, steps=5)
    search(style_generator, inputs(2, 4), [0, 1], pool(4), config, observe=log.append)
    latents = log[-1].latents
    assert torch.equal(latents, latents[:, :1].expand_as(latents))
    assert not torch.equal(latents[0], latents[1])
    assert max(log.of(0, "total")) < 1e3  # geocross of equal vectors adds nothing to it
    assert log[-1].terms["GEOCROSS"].max() < 1e-6


def test_without_the_sphere_norms_are_free(recording, inputs, pool):
    search(recording, inputs(1, 4), [0], pool(4), SearchConfig(prior="none", steps=20))
    assert not torch.allclose(recording.latent_norms[-1], recording.latent_norms[0], rtol=1e-3)


def test_the_negative_log_likelihood_pulls_latents_to_zero(recording, inputs, pool):
    config = SearchConfig(prior="nll", nll_weight=1.0, steps=50)
    search(recording, inputs(1, 4), [0], pool(4), config)
    assert (recording.latent_norms[-1] < 0.5 * recording.latent_norms[0]).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgdm"},
        {"optimizer": "adamax"},
        {"loss": "100*L1+0.05*GEOCROSS"},
        {"loss": "100*L1.5"},
        {"schedule": "linear1cycle"},
        {"schedule": "fixed"},
    ],
)
def test_every_choice_brings_the_loss_down(linear, inputs, pool, log, settings):
    config = SearchConfig(steps=30, **settings)
    search(linear, inputs(2, 2), [0, 1], pool(2), config, observe=log.append)
    for row in range(2):
        assert min(log.of(row, "total")) < 0.8 * log.of(row, "total")[0]


class Poisoned:
    """A generator that gives NaN for latents whose first value exceeds a bound."""

    def __init__(self, inner, bound: float):
        self.inner, self.bound = inner, bound
        self.card, self.noise_shapes = inner.card, inner.noise_shapes

    def styles(self, latents):
        return self.inner.styles(latents)

    def images(self, styles, noise):
        sick = (styles[:, 0, 0] > self.bound)[:, None, None, None]
        return torch.where(sick, torch.nan, 1.0) * self.inner.images(styles, noise)


def test_an_image_of_nan_does_not_poison_its_mates(style_generator, inputs, pool):
    generator, lr = style_generator.to("cpu", torch.float64), inputs(7, 4).double()
    config, firsts = SearchConfig(steps=20), []
    healthy = search(
        generator, lr, SEEDS, pool(4), config, observe=lambda i: firsts.append(i.styles[:, 0, 0])
    )
    reach = torch.stack(firsts).max(0).values  # the largest first value of each search
    bound = float(reach.sort().values[-3:-1].mean())
    results = search(Poisoned(generator, bound), lr, SEEDS, pool(4), config)
    assert [r.status == Status.ERROR for r in results] == (reach > bound).tolist()
    assert sum(r.status == Status.ERROR for r in results) == 2
    for sick, well in zip(results, healthy, strict=True):
        if sick.status == Status.ERROR:
            assert (sick.image, sick.downscale_error, sick.feasible) == (None, None, False)
            assert "non-finite" in (sick.reason or "")
        else:
            assert difference([sick], [well]) < 1e-9


def test_a_generator_of_nan_is_refused_at_the_first_step(linear, inputs, pool):
    with pytest.raises(InputError, match="linear: no image is finite at the first step"):
        search(Poisoned(linear, -torch.inf), inputs(2, 1), [0, 1], pool(4))


def test_an_extra_loss_steers_the_search(linear, inputs, pool):
    red = [lambda images, latents: 10 * (images[:, 0] - 0.9).square().mean((1, 2))]
    settings = SearchConfig(steps=60, loss="L2", prior="none")
    (plain,) = search(linear, inputs(1, 1), [0], pool(4), settings)
    (guided,) = search(linear, inputs(1, 1), [0], pool(4), settings, extra_losses=red)
    assert abs(guided.image[0].mean() - 0.9) < abs(plain.image[0].mean() - 0.9)


def test_an_extra_loss_of_one_value_a_batch_is_refused(linear, inputs, pool):
    mean = [lambda images, latents: images.mean()]
    with pytest.raises(InputError, match="one value an image"):
        search(linear, inputs(2, 1), [0, 1], pool(4), extra_losses=mean)


def test_frames_are_the_best_so_far(style_generator, inputs, pool, log):
    config = SearchConfig(steps=25, eps=1e-9)
    (result,) = search(
        style_generator, inputs(1, 4), [0], pool(4), config, frames_every=10, observe=log.append
    )
    assert [frame.steps for frame in result.frames] == [10, 20]
    for frame in result.frames:
        errors = log.of(0, "downscale_error")[: frame.steps]
        best = log[errors.index(min(errors))].images[0].clamp(0, 1)
        assert torch.equal(frame.image, best)
        assert torch.allclose(frame.lr, pool(4)(best[None])[0])


def test_frames_every_zero_steps_are_refused(linear, inputs, pool):
    with pytest.raises(InputError, match="frames_every is 0"):
        search(linear, inputs(1, 1), [0], pool(4), frames_every=0)


def test_each_image_stops_at_its_first_feasible_iterate(style_generator, inputs, pool, log):
    generator, lr = style_generator.to("cpu", torch.float64), inputs(7, 4).double()
    config = SearchConfig(eps=0.03, steps=60)
    search(generator, lr, SEEDS, pool(4), config, observe=log.append)
    first = [
        next((i + 1 for i, e in enumerate(log.of(row, "downscale_error")) if e <= config.eps), 60)
        for row in range(7)
    ]
    assert len(set(first)) > 2  # or the test shows nothing
    fast = dataclasses.replace(config, stop_at_feasibility=True)
    batches = Log()
    results = search(generator, lr, SEEDS, pool(4), fast, observe=batches.append)
    assert [result.steps for result in results] == first
    assert [len(i.rows) for i in batches] == [
        sum(f > step for f in first) for step in range(max(first))
    ]
    for row, result in enumerate(results):
        if result.feasible:
            image = log[first[row] - 1].images[row].clamp(0, 1).float()
            assert torch.allclose(result.image, image, atol=1e-6)


def test_images_leave_when_the_caller_has_enough(style_generator, inputs, pool, log):
    """Stopping at feasibility, asked for from outside, is stopping at feasibility."""
    generator, lr = style_generator.to("cpu", torch.float64), inputs(7, 4).double()
    config = SearchConfig(eps=0.03, steps=60)
    fast = dataclasses.replace(config, stop_at_feasibility=True)
    wanted = search(generator, lr, SEEDS, pool(4), fast)

    def feasible(iterate):
        return iterate.downscale_error <= config.eps

    given = search(generator, lr, SEEDS, pool(4), config, should_stop=feasible, observe=log.append)
    assert [r.steps for r in given] == [r.steps for r in wanted]
    assert difference(given, wanted) == 0
    assert len(log) == max(r.steps for r in wanted)  # what leaves is still shown once


def test_the_wall_time_is_shared_out_among_those_at_work(linear, inputs, pool, monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr("pulse_audit.search.engine.time.perf_counter", lambda: float(next(ticks)))
    results = search(linear, inputs(2, 1), [0, 1], pool(4), SearchConfig(steps=4))
    assert results[0].seconds > 0
    assert all(result.seconds > 0 for result in results)


def test_a_generator_without_gradients_is_refused(linear, inputs, pool):
    with pytest.raises(InputError, match="linear: its images have no gradient"):
        search(linear, inputs(1, 1), [0], lambda images: pool(4)(images).detach())


def test_a_scale_that_does_not_fit_is_refused(linear, inputs, pool):
    with pytest.raises(InputError, match="the scale does not fit"):
        search(linear, inputs(1, 2), [0], pool(4))


def test_an_explicit_start_is_left_as_it_was(style_generator, inputs, pool):
    start = draw_start(style_generator, [3], OFFICIAL)
    before = start.latents.clone(), [m.clone() for m in start.noise]
    config = SearchConfig(steps=3, bad_noise_layers="0")
    BatchSearch(style_generator, inputs(1, 4), start, pool(4), config).run()
    assert torch.equal(start.latents, before[0])
    assert all(torch.equal(a, b) for a, b in zip(start.noise, before[1], strict=True))


def test_the_search_works_under_no_grad(linear, inputs, pool, log):
    with torch.no_grad():
        search(linear, inputs(1, 1), [0], pool(4), SearchConfig(steps=20), observe=log.append)
    assert log.of(0, "total")[-1] < log.of(0, "total")[0]
