import json
from dataclasses import replace

import pytest
import torch

from pulse_audit.frames import Frame
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.pulse import Pulse
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import InputError, Request, Status, Upsampled

SHORT = SearchConfig(steps=5)


class Pooling:
    """A degradation that remembers the scales it was asked for."""

    condition, scale = "clean", 2

    def __init__(self, pool):
        self.pool, self.scales = pool, set()

    def downscale(self, images, scale=None):
        self.scales.add(scale)
        return self.pool(scale or self.scale)(images)


@pytest.fixture
def degradation(pool):
    return Pooling(pool)


@pytest.fixture
def arm(style_generator):
    return PulseUpsampler(style_generator, SHORT)


def requests(lr, seeds):
    return [Request(x, f"face-{i}", {}, s) for i, (x, s) in enumerate(zip(lr, seeds, strict=True))]


def test_the_arm_is_named_after_its_generator(style_generator):
    assert PulseUpsampler(style_generator).name == "pulse:tiny"
    assert PulseUpsampler(style_generator, name="pulse:other").name == "pulse:other"
    assert PulseUpsampler(style_generator).promises_feasibility
    assert PulseUpsampler(style_generator).resolution == 16


def test_a_cpu_searches_no_more_images_at_once_than_memory_holds(
    arm, inputs, degradation, monkeypatch
):
    asked = requests(inputs(5, 4), range(5))
    wanted = arm(asked, degradation)
    monkeypatch.setattr("pulse_audit.search.upsampler.images_at_once", lambda *of: 2)
    assert [places for _, places in arm.batches(asked)] == [[0, 1], [2, 3], [4]]
    for found, whole in zip(arm(asked, degradation), wanted, strict=True):
        assert torch.allclose(found.image, whole.image, atol=1e-4)


def runs_out_above(monkeypatch, most):
    """Let a search of more images than that find no memory; return the sizes that were tried."""
    tried, search = [], PulseUpsampler._search

    def limited(self, requests, degradation):
        tried.append(len(requests))
        if len(requests) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return search(self, requests, degradation)

    monkeypatch.setattr(PulseUpsampler, "_search", limited)
    return tried


def test_where_memory_runs_out_half_as_many_are_searched_at_once(
    arm, inputs, degradation, monkeypatch
):
    asked = requests(inputs(9, 4), range(9))
    wanted = arm(asked, degradation)
    assert arm.at_once is None
    tried = runs_out_above(monkeypatch, 3)
    for _ in range(2):
        for found, whole in zip(arm(asked, degradation), wanted, strict=True):
            assert torch.allclose(found.image, whole.image, atol=1e-4)
    # Once found, the number stays.
    assert tried == [9, 4, *[2] * 4, 1, *[2] * 4, 1] and arm.at_once == 2


def test_memory_that_does_not_hold_one_search_is_an_error(arm, inputs, degradation, monkeypatch):
    tried = runs_out_above(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        arm(requests(inputs(5, 4), range(5)), degradation)
    assert tried == [5, 2, 1]


def test_answers_are_those_of_the_search(arm, style_generator, inputs, degradation):
    lr = inputs(3, 4)
    answers = arm(requests(lr, [5, 0, 9]), degradation)
    search = Pulse(style_generator, scale=4, kernel="area", search=SHORT)
    for row, seed in enumerate([5, 0, 9]):
        (wanted,) = search.upsample(lr[row], seeds=[seed])
        assert isinstance(answers[row], Upsampled)
        assert torch.allclose(answers[row].image, wanted.image, atol=1e-4)
        assert answers[row].status == Status.INFEASIBLE


def test_the_factor_is_the_generator_s_not_the_run_s(arm, inputs, degradation):
    """A run at scale 2 hands a 16 px generator inputs of 4 px, made from another native size."""
    arm(requests(inputs(1, 4), [0]), degradation)
    assert degradation.scales == {4}


def test_no_requests_are_no_answers(arm, degradation):
    assert arm([], degradation) == []


def test_inputs_of_different_sizes_are_refused(arm, inputs, degradation):
    mixed = requests([inputs(1, 4)[0], inputs(1, 8)[0]], [0, 1])
    with pytest.raises(InputError, match="differ in size"):
        arm(mixed, degradation)


@pytest.mark.parametrize("shape", [(3, 5, 5), (3, 4, 8)])
def test_a_side_that_does_not_divide_is_refused(arm, degradation, shape):
    with pytest.raises(InputError, match="pulse:tiny: inputs of"):
        arm([Request(torch.zeros(shape), "face", {}, 0)], degradation)


def test_the_description_is_plain_json(arm):
    described = json.loads(json.dumps(arm.describe()))
    assert described["kind"] == "pulse"
    assert described["generator"]["name"] == "tiny"
    assert described["search"]["steps"] == 5
    assert described["caveats"] == []


def test_caveats_of_the_generator_are_the_arm_s(linear):
    linear.caveats = ("mind the gap",)
    assert PulseUpsampler(linear).caveats == ("mind the gap",)
    assert PulseUpsampler(linear).describe()["caveats"] == ["mind the gap"]


FRAMES = [Frame(0.1, 0.2, 0.6), None, Frame(0.0, 0.3, 0.7), Frame(0.1, 0.2, 0.6)]


def test_every_request_is_answered_within_its_own_frame(style_generator, inputs, degradation):
    style_generator.card = replace(style_generator.card, crop="ffhq")
    arm, lr = PulseUpsampler(style_generator, SHORT), inputs(4, 4)
    mixed = [
        replace(request, frame=frame)
        for request, frame in zip(requests(lr, [5, 6, 7, 8]), FRAMES, strict=True)
    ]
    answers = arm(mixed, degradation)
    for answer, request in zip(answers, mixed, strict=True):
        assert answer.image.shape == (3, 16, 16)
        (alone,) = arm.for_frame(request.frame)([replace(request, frame=None)], degradation)
        assert torch.allclose(answer.image, alone.image, atol=1e-4)
    assert arm.for_frame(FRAMES[0]).generator.frame == FRAMES[0]


def test_a_frame_within_a_frame_is_one_of_the_whole(style_generator):
    style_generator.card = replace(style_generator.card, crop="ffhq")
    arm = PulseUpsampler(style_generator).framed(Frame(0.2, 0.1, 0.5), 12, "fairface-0.25")
    inner = arm.for_frame(Frame(0.5, 0.0, 0.5)).generator
    assert inner.whole is style_generator
    assert inner.frame == inner.card.frame == Frame(0.45, 0.1, 0.25)
    assert (inner.card.resolution, inner.card.crop) == (12, "fairface-0.25")


def test_a_generator_of_no_known_crop_takes_photos_as_they_are(arm):
    assert arm.for_frame(FRAMES[0]) is arm
