"""Coarse-to-fine search: the first steps on a smaller picture, the last on the whole."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pulse_audit.degrade.resample import cut_to_frame, downscale
from pulse_audit.frames import Frame
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.searchable import StyleGenerator
from pulse_audit.search.config import PRESETS, SearchConfig, check_coarse, preset
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.pulse import Pulse
from pulse_audit.search.sphere import draw_start
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import Generator, InputError, smaller

SETTINGS = SearchConfig(steps=6, coarse_steps=4, coarse_resolution=8)


def by_size(images: Tensor) -> Tensor:
    return downscale(images, images.shape[-1] // 4)


def run(generator, config, **watch):
    lr = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    start = draw_start(generator, [5, 6], config)
    return lr, BatchSearch(generator, lr, start, by_size, config, **watch).run()


def test_coarse_pictures_are_those_of_the_network_cut_off(style_generator: StyleGenerator) -> None:
    coarse = smaller(style_generator, 8)
    start = draw_start(style_generator, [0, 1], SETTINGS)
    styles = style_generator.styles(start.latents)
    layers, maps = coarse.card.n_latents, start.noise[: len(coarse.noise_shapes)]
    wanted = (style_generator.network.at_resolution(8).synthesis(styles[:, :layers], maps) + 1) / 2
    assert layers < style_generator.card.n_latents
    torch.testing.assert_close(coarse.images(styles[:, :layers], maps), wanted, atol=0, rtol=0)
    # The same part of smaller pictures, as much smaller as the part is.
    frame = Frame(0.25, 0.25, 0.5)
    framed = FramedGenerator(
        style_generator, frame, style_generator.card.resolution, "ffhq", cut_to_frame
    )
    shown = smaller(framed, 8).images(styles[:, :layers], maps)
    torch.testing.assert_close(shown, cut_to_frame(wanted, frame, 8), atol=0, rtol=0)


def test_coarse_steps_render_no_whole_picture_and_are_not_judged(
    style_generator: StyleGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, sides = [], []
    images: Callable[..., Tensor] = StyleGenerator.images

    def recorded(self, styles, noise):
        rendered = images(self, styles, noise)
        sides.append(rendered.shape[-1])
        return rendered

    monkeypatch.setattr(StyleGenerator, "images", recorded)
    lr, results = run(style_generator, SETTINGS, observe=seen.append)
    assert sides == [8, 8, 8, 8, style_generator.card.resolution, style_generator.card.resolution]
    # Only the whole pictures are shown, returned, and held against eps.
    assert [iterate.step for iterate in seen] == [4, 5]
    for row, (small, result) in enumerate(zip(lr, results, strict=True)):
        assert result.steps == 6
        error = (by_size(result.image[None])[0] - small).double().square().mean()
        assert result.downscale_error == pytest.approx(float(error))
        assert result.downscale_error in [float(i.downscale_error[row]) for i in seen]


def test_coarse_steps_bring_the_coarse_picture_to_the_input(
    style_generator: StyleGenerator,
) -> None:
    config = SearchConfig(steps=41, coarse_steps=40, coarse_resolution=8, schedule="fixed")
    config = replace(config, learning_rate=0.1)
    coarse, latents = smaller(style_generator, 8), []
    lr, _ = run(style_generator, config, observe=lambda iterate: latents.append(iterate.latents))

    def error(at: Tensor) -> float:
        styles = style_generator.styles(at)[:, : coarse.card.n_latents]
        # Without the noise maps that were optimised, too: they are small beside the latents.
        maps = [torch.zeros(2, 1, *shape) for shape in coarse.noise_shapes]
        return float((by_size(coarse.images(styles, maps)) - lr).square().mean())

    assert error(latents[0]) < 0.7 * error(draw_start(style_generator, [5, 6], config).latents)


def test_without_coarse_steps_nothing_is_recorded_of_them() -> None:
    assert "coarse_steps" not in PRESETS["official"].as_dict()
    chosen = preset("fast", coarse="20@16")
    assert chosen.as_dict()["coarse_steps"] == 20 and chosen.stop_at_feasibility


@pytest.mark.parametrize("text", ["20", "@16", "20@", "0@16", "20@16@8", "a@16", "100@16"])
def test_what_coarse_steps_cannot_be_costs_one_line(text: str) -> None:
    with pytest.raises(InputError, match="coarse"):
        preset("official", coarse=text)


def test_settings_that_do_not_fit_are_refused_before_a_search(
    style_generator: StyleGenerator, linear: Generator
) -> None:
    with pytest.raises(InputError, match="a resolution with them"):
        SearchConfig(coarse_steps=5)
    with pytest.raises(InputError, match="no whole multiple"):
        check_coarse(SETTINGS, 3)
    with pytest.raises(InputError, match="no smaller pictures"):
        PulseUpsampler(linear, SETTINGS)
    for side in (style_generator.card.resolution, 6):
        with pytest.raises(InputError, match=f"{side} px"):
            PulseUpsampler(style_generator, replace(SETTINGS, coarse_resolution=side))
    with pytest.raises(InputError, match="no whole multiple"):
        Pulse(style_generator, scale=1, search=SETTINGS)
    note = "the first 4 of 6 steps are on pictures of 8 px"
    assert any(note in caveat for caveat in PulseUpsampler(style_generator, SETTINGS).caveats)
