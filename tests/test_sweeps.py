"""Sweeps: what settings take, their combinations, and the names of the arms."""

import pytest

from pulse_audit.sweeps import (
    MAX_POINTS,
    SETTINGS,
    parse_sweep,
    points,
    read_sweep,
    variant_name,
)
from pulse_audit.types import InputError


def test_a_sweep_is_the_grid_of_its_values() -> None:
    sweep = read_sweep({"eps": [1e-3, "0.002"], "steps": [50, 100.0], "prior": "none"})
    assert sweep == {"eps": [0.001, 0.002], "steps": [50, 100], "prior": ["none"]}
    names = [variant_name("pulse:g", point) for point in points(sweep, "pulse")]
    assert names == [
        "pulse:g~eps=0.001,steps=50,prior=none",
        "pulse:g~eps=0.001,steps=100,prior=none",
        "pulse:g~eps=0.002,steps=50,prior=none",
        "pulse:g~eps=0.002,steps=100,prior=none",
    ]


def test_an_arm_is_varied_in_the_settings_that_it_has() -> None:
    sweep = read_sweep({"eps": [0.001, 0.01], "steps": [5]})
    assert points(sweep, "posterior") == [(("eps", 0.001),), (("eps", 0.01),)]
    assert points(sweep, "interpolation") == [()]
    assert variant_name("bicubic", ()) == "bicubic"


@pytest.mark.parametrize("text", ["nll", "nll:0.001", "nll:1e-4", "sphere", "none"])
def test_a_prior_may_have_a_weight(text: str) -> None:
    assert SETTINGS["prior"].read(text) == text


def test_the_command_line_reads_what_a_file_does() -> None:
    given = parse_sweep(["eps=0.001, 0.002", "prior=sphere,nll:0.01"])
    assert given == {"eps": [0.001, 0.002], "prior": ["sphere", "nll:0.01"]}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["eps"], "--sweep eps: give SETTING=VALUE,VALUE, each setting once"),
        (["eps=0.1", "eps=0.2"], "--sweep eps=0.2: give SETTING=VALUE,VALUE, each setting once"),
        (["eps="], "--sweep eps: give at least one value"),
        (["eps=0.1,1e-1"], "--sweep eps: a value is given twice"),
        (["eps=nan"], "--sweep eps: nan is not a number above 0 to 1"),
        (["eps=2"], "--sweep eps: 2 is not a number above 0 to 1"),
        (["steps=0"], "--sweep steps: 0 is not a whole number from 1 to 10000"),
        (["steps=1.5"], "--sweep steps: 1.5 is not a whole number from 1 to 10000"),
        (["truncation=0"], "--sweep truncation: 0 is not a number above 0 to 2"),
        (["prior=nll:0"], "--sweep prior: nll:0 is not one of sphere, none, nll, nll:WEIGHT"),
        (["prior=nll:inf"], "--sweep prior: nll:inf is not one of"),
        (["vary=latents"], "--sweep vary: latents is not one of start, noise"),
        (["step=5"], "--sweep unknown setting 'step'; did you mean steps"),
    ],
)
def test_nonsense_is_refused_in_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_sweep(texts)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_a_grid_has_an_end() -> None:
    with pytest.raises(InputError, match=f"65 combinations of settings, at most {MAX_POINTS}"):
        read_sweep({"steps": list(range(1, 66))})
