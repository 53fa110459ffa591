from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulse_audit.training.config import read_gan_config
from pulse_audit.training.data import (
    TrainingSet,
    choose,
    even_shares,
    held_out_files,
    load_set,
    luma,
    pack,
    photos,
    read_faces,
    save_set,
    to_range,
    training_set,
)
from pulse_audit.types import InputError

FACES64 = Path(__file__).resolve().parents[3] / "shared" / "faces64" / "train.parquet"


def test_the_same_number_is_held_out_of_each_race_and_gender(faces: pd.DataFrame) -> None:
    apart = faces[faces["file"].isin(held_out_files(faces, 6, seed=1))]
    assert Counter(zip(apart["race"], apart["gender"], strict=True)) == {
        (race, gender): 6 for race in "AB" for gender in ("Female", "Male")
    }


def test_every_age_keeps_half_of_its_faces_for_training(faces: pd.DataFrame) -> None:
    apart = held_out_files(faces, 6, seed=1)
    for _, group in faces.groupby(["race", "gender", "age"]):
        assert 2 * group["file"].isin(apart).sum() <= len(group)


def test_what_is_held_out_does_not_depend_on_the_order_of_the_rows(faces: pd.DataFrame) -> None:
    shuffled = faces.sample(frac=1, random_state=3)
    assert held_out_files(shuffled, 6, seed=1) == held_out_files(faces, 6, seed=1)


def test_too_few_faces_to_hold_out_are_refused(faces: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="too few"):
        held_out_files(faces, 20, seed=1)


@pytest.mark.parametrize(
    ("limits", "total", "shares"),
    [
        ({"a": 9, "b": 9, "c": 9}, 9, [3, 3, 3]),
        ({"a": 9, "b": 1, "c": 9}, 9, [4, 1, 4]),
        ({"a": 9, "b": 9}, 5, [3, 2]),
        ({"a": 1, "b": 2}, 9, [1, 2]),
    ],
)
def test_shares_are_even_up_to_the_limits(
    limits: dict[str, int], total: int, shares: list[int]
) -> None:
    assert list(even_shares(limits, total).values()) == shares


def test_a_composition_is_met_exactly(faces: pd.DataFrame) -> None:
    assert Counter(choose(faces, {"A": 30, "B": 7}, seed=1)["race"]) == {"A": 30, "B": 7}


def test_nearly_black_photos_are_left_out(faces: pd.DataFrame) -> None:
    chosen = choose(faces, {"A": 40, "B": 20}, seed=1)
    assert min(map(luma, photos(chosen))) > 90


def test_a_smaller_share_is_part_of_a_larger_one(faces: pd.DataFrame) -> None:
    small, large = (choose(faces, {"A": n}, seed=1)["file"] for n in (10, 30))
    assert set(small) < set(large)


def test_more_faces_than_there_are_is_refused(faces: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="1000 faces of 'A'"):
        choose(faces, {"A": 1000}, seed=1)


def test_nothing_held_out_is_trained_on(faces: pd.DataFrame, tmp_path: Path) -> None:
    faces.to_parquet(tmp_path / "faces.parquet")
    training = training_set(tmp_path / "faces.parquet", {"A": 30, "B": 8}, 8, 6, seed=1)
    assert training.images.shape == (38, 8, 8, 3)
    assert not set(training.files) & set(held_out_files(faces, 6, seed=1))


def test_photos_are_packed_in_order_with_their_pixels(faces: pd.DataFrame) -> None:
    training = pack(faces[1:4], 8)
    assert training.images[:, 0, 0].tolist() == [[101] * 3, [102] * 3, [103] * 3]


def test_an_unreadable_photo_is_named(faces: pd.DataFrame) -> None:
    faces.at[2, "image"] = b"no photo"
    with pytest.raises(InputError, match=r"^train/2\.jpg: unreadable photo \(.*\)$"):
        pack(faces[1:4], 8)


def test_a_packed_set_is_read_back(training: TrainingSet, tmp_path: Path) -> None:
    save_set(training, tmp_path / "set.npz")
    stored = load_set(tmp_path / "set.npz")
    assert np.array_equal(stored.images, training.images)
    assert (stored.files, stored.races) == (training.files, training.races)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faces.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match="table of faces"):
        read_faces(tmp_path / "faces.parquet")


def test_every_epoch_shows_every_photo_once(training: TrainingSet) -> None:
    stream = np.concatenate([training.rows(start, 8, seed=1) for start in range(0, 40, 8)])
    for epoch in (stream[:20], stream[20:]):
        assert sorted(epoch) == list(range(20))
    assert not np.array_equal(stream[:20], stream[20:])


def test_pixels_map_to_minus_one_and_one() -> None:
    import torch

    images = torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 1, 1, 3)
    assert to_range(images).flatten().tolist() == [-1, 1, -1]


@pytest.mark.skipif(not FACES64.exists(), reason="needs shared/faces64")
def test_faces64_has_enough_faces_for_the_shipped_twins() -> None:
    faces = read_faces(FACES64)
    config = read_gan_config("faces-skewed-32")
    apart = held_out_files(faces, config.held_out_per_cell, config.seed)
    left = Counter(faces[~faces["file"].isin(apart)]["race"])
    assert len(apart) == 4004
    assert left["White"] == 7506 - 572
    for name in ("faces-balanced-32", "faces-skewed-32"):
        assert all(left[race] >= n for race, n in read_gan_config(name).composition.items())
