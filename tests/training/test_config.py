from pathlib import Path

import pytest

from pulse_audit.training.config import FOLDER, GanConfig, read_gan_config
from pulse_audit.types import InputError

NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_configuration_is_valid_and_bears_its_name(name: str) -> None:
    assert read_gan_config(name).name == name


@pytest.mark.parametrize("side", [32, 64])
def test_twins_differ_only_in_whom_they_see(side: int) -> None:
    twins = [read_gan_config(f"faces-{kind}-{side}") for kind in ("balanced", "skewed")]
    first, second = (twin.model_dump(exclude={"name", "composition"}) for twin in twins)
    assert first == second
    assert sum(twins[0].composition.values()) == sum(twins[1].composition.values()) == 8400


@pytest.mark.parametrize("side", [32, 64])
def test_balanced_shows_seven_groups_equally(side: int) -> None:
    shares = read_gan_config(f"faces-balanced-{side}").composition
    assert len(shares) == 7
    assert set(shares.values()) == {1200}


@pytest.mark.parametrize("side", [32, 64])
def test_skewed_is_82_percent_white_and_the_rest_even(side: int) -> None:
    shares = dict(read_gan_config(f"faces-skewed-{side}").composition)
    assert shares.pop("White") * 100 == 82 * 8400
    assert len(shares) == 6
    assert len(set(shares.values())) == 1


def test_the_last_block_is_faded_in_linearly(config: GanConfig) -> None:
    assert (config.fade(0), config.fade(10**9)) == (1, 1)
    grows = config.model_copy(update={"grow_kimg": 2.0, "fade_kimg": 4.0})
    assert [grows.fade(n) for n in (0, 2000, 3000, 5000, 6000, 9000)] == [0, 0, 0.25, 0.75, 1, 1]


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="shipped ones are faces-balanced-32"):
        read_gan_config("faces-unheard-of")


@pytest.mark.parametrize(
    "change", [{"batch": 6}, {"unknown": 1}, {"resolution": 16}, {"grow_kimg": 1}]
)
def test_a_bad_value_is_refused(config: GanConfig, change: dict[str, int], tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json") | change))
    with pytest.raises(InputError, match=r"bad\.yaml"):
        read_gan_config(path)
