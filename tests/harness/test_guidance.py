"""Guided searches of a toy whose abilities are known: what it can show, prefers, and cannot."""

import pytest
import torch
import torch.nn.functional as F

import pulse_audit as pa
from pulse_audit.harness.guidance import guided_search
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.sphere import draw_start
from pulse_audit.types import InputError

SIDE, SCALE = 8, 4
CHECKER = (-1.0) ** (torch.arange(SIDE)[:, None] + torch.arange(SIDE)[None])
CONFIG = SearchConfig(steps=100)
A, B = 0, 1


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def toy(amplitude):
    """Flat colours with a chequer that DS removes; the sign of its amplitude is the group."""
    torch.manual_seed(0)
    mix = torch.randn(64, 4) / 8

    def decode(z):
        values = z @ mix.to(z)
        colour = 0.5 + 0.1 * torch.tanh(values[:, :3])
        return colour[..., None, None] + amplitude(values[:, 3])[:, None, None, None] * CHECKER

    return pa.as_generator(decode, name="toy", latent_dim=64, output_range=(0, 1))


def prefers_a(value):
    """Group B for 2 % of the prior."""
    return 0.15 * torch.tanh(value + 2)


def undecided(value):
    return 0.15 * torch.tanh(value)


def only_a(value):
    return 0.15 * torch.sigmoid(value)


def reader(images):
    """Softmax over A and B by the chequer's amplitude."""
    amplitude = (images * CHECKER).mean(dim=(1, 2, 3))
    logits = torch.stack([20 * amplitude, -20 * amplitude], dim=1)
    return {"race": logits.softmax(1)}


def pool(images):
    return F.avg_pool2d(images, SCALE)


def inputs(level, n=6):
    return torch.full((n, 3, SIDE // SCALE, SIDE // SCALE), level)


def guided(amplitude, wanted, level=0.55, read=reader, weight=1.0, n=6):
    generator, lr = toy(amplitude), inputs(level, n)
    start = draw_start(generator, list(range(n)), CONFIG)
    classes, weights = {"race": torch.full((n,), wanted)}, torch.full((n,), weight)
    return guided_search(generator, lr, start, pool, CONFIG, read, classes, weights)


def unguided(amplitude, level=0.55, n=6):
    generator, lr = toy(amplitude), inputs(level, n)
    start = draw_start(generator, list(range(n)), CONFIG)
    results = BatchSearch(generator, lr, start, pool, CONFIG).run()
    shown = [int(reader(r.image[None])["race"].argmax()) for r in results]
    return [r.feasible for r in results], shown


def test_a_preference_is_overcome():
    feasible, shown = unguided(prefers_a)
    assert all(feasible) and shown == [A] * 6
    found = guided(prefers_a, B)
    assert all(f.feasible and f.shown for f in found)
    for f in found:
        assert float(reader(f.image[None])["race"][0, B]) >= 0.8
        assert float((pool(f.image[None]) - inputs(0.55, 1)).square().mean()) <= CONFIG.eps


def test_an_incapacity_is_not():
    """It fits the input, but a B is not in it."""
    found = guided(only_a, B)
    assert all(f.feasible for f in found)
    assert not any(f.shown for f in found)


def test_what_cannot_be_fitted_is_infeasible_and_never_shown():
    """Colours above 0.6 are out of the toy's reach, whatever the group."""
    found = guided(prefers_a, A, level=0.9)
    assert not any(f.feasible or f.shown for f in found)
    assert all(f.image is not None and f.downscale_error > CONFIG.eps for f in found)


def test_the_group_that_is_preferred_anyway_needs_few_steps():
    assert max(f.steps for f in guided(prefers_a, A)) < CONFIG.steps / 2


def test_guidance_of_no_weight_is_no_guidance():
    assert not any(f.shown for f in guided(prefers_a, B, weight=0.0))


def test_a_placebo_beside_guided_searches_is_what_it_is_by_itself():
    """From the same starts; both have as many iterates at most as the arm's own search."""
    generator, lr = toy(prefers_a), inputs(0.55, 4)
    start = draw_start(generator, [0, 0, 1, 1], CONFIG)
    wanted, weights = {"race": torch.full((4,), B)}, torch.tensor([1.0, 0.0, 1.0, 0.0])
    found = guided_search(generator, lr, start, pool, CONFIG, reader, wanted, weights)
    assert [f.shown for f in found] == [True, False, True, False]
    assert [f.steps for f in found[1::2]] == [CONFIG.steps, CONFIG.steps]
    for alone, beside in zip(guided(prefers_a, B, weight=0.0, n=2), found[1::2], strict=True):
        assert torch.allclose(alone.image, beside.image, atol=1e-4)


def test_a_placebo_chooses_the_clearest_of_its_iterates_too():
    """Of the iterates of an unguided search some show a group that its best one does not."""
    feasible, shown = unguided(undecided, n=40)
    assert all(feasible)
    placebo = guided(undecided, B, weight=0.0, n=40)
    found = [f.shown for f in placebo]
    lost = [s == A for s in shown]
    assert all(f or is_lost for f, is_lost in zip(found, lost, strict=True))
    assert sum(f and is_lost for f, is_lost in zip(found, lost, strict=True)) >= 1


def test_the_same_search_alone_finds_the_same():
    alone, (first, *_) = guided(prefers_a, B, n=1)[0], guided(prefers_a, B)
    assert torch.allclose(alone.image, first.image, atol=1e-4)
    assert alone.steps == first.steps


def test_each_image_goes_to_its_own_group():
    generator, lr = toy(prefers_a), inputs(0.55, 4)
    start = draw_start(generator, [0, 1, 2, 3], CONFIG)
    wanted = torch.tensor([A, B, A, B])
    weights = torch.ones(4)
    found = guided_search(generator, lr, start, pool, CONFIG, reader, {"race": wanted}, weights)
    seen = [int(reader(f.image[None])["race"].argmax()) for f in found]
    assert seen == wanted.tolist()


def test_two_attributes_have_to_be_shown_at_once():
    """Light or dark is fixed by the input, so a wanted "dark" cannot be had for a light one."""

    def read(images):
        light = torch.stack([images.mean((1, 2, 3)) - 0.5, 0.5 - images.mean((1, 2, 3))], 1)
        return {**reader(images), "tone": (50 * light).softmax(1)}

    generator, lr = toy(prefers_a), inputs(0.55, 2)
    start = draw_start(generator, [0, 1], CONFIG)
    wanted = {"race": torch.tensor([B, B]), "tone": torch.tensor([0, 1])}
    weights = torch.ones(2)
    found = guided_search(generator, lr, start, pool, CONFIG, read, wanted, weights)
    assert [f.shown for f in found] == [True, False]


def test_a_reader_without_gradients_is_refused():
    with pytest.raises(InputError, match="gives no gradients, so it cannot guide"):
        guided(prefers_a, B, read=lambda images: reader(images.detach()))
