"""Measuring a generator, and the cards people read."""

from pathlib import Path

import numpy as np
import pytest

from pulse_audit.training import cards, evaluate
from pulse_audit.training.gan import export


def test_composition_counts_the_most_probable_and_averages_the_rest() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    found = evaluate.composition(p, ("A", "B"))
    assert (found["A"]["share"], found["A"]["mean_probability"]) == (0.75, 0.6)
    assert found["A"]["low"] < 0.75 < found["A"]["high"]


def test_a_copy_has_distance_nothing_and_its_mirror_image_too(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    trained = source.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    fresh = source.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    drawn = np.concatenate([trained[3:4], trained[5:6, :, ::-1], fresh[:22]])
    found = evaluate.nearest(drawn, fresh, trained, tmp_path / "sheet.png")
    assert found["samples"]["least"] == 0
    literal = np.sqrt(
        np.min(
            [
                [np.mean((a.astype(float) - b) ** 2) for b in (*trained, *trained[:, :, ::-1])]
                for a in fresh
            ],
            axis=1,
        )
    )
    assert found["held_out"]["least"] == pytest.approx(literal.min(), abs=0.01)
    assert found["held_out"]["median"] == pytest.approx(np.median(literal), abs=0.01)
    assert (tmp_path / "sheet.png").exists()


def test_the_same_set_is_at_no_distance_and_another_one_is() -> None:
    source = np.random.default_rng(1)
    one, same = source.normal(size=(2, 300, 4))
    near = evaluate.distances(one, same, "net")
    far = evaluate.distances(one, same + 1, "net")
    assert near["kid_low"] < 0 < near["kid_high"] < far["kid_low"]
    assert near["fid"] < 0.3 < 3.5 < far["fid"] < 5


def test_a_table_and_a_confusion_matrix_in_markdown() -> None:
    assert cards.table(("a", "b"), [(1, 2)]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |\n"
    assert "| A | 3 | 1 |" in cards.confusion(("A", "B"), [[3, 1], [0, 4]])


def test_an_interim_model_says_so_in_its_card(config, training, tmp_path: Path) -> None:
    import torch

    from pulse_audit.files import read_card
    from pulse_audit.generators.native_format import KIND
    from pulse_audit.training.data import save_set
    from pulse_audit.training.trainer import GeneratorTrainer

    save_set(training, tmp_path / "images.npz")
    GeneratorTrainer(config, training, torch.device("cpu")).save(tmp_path)
    path = export(config, tmp_path, tmp_path / "out", "twin")
    text = cards.generator_card("twin", read_card(path, KIND))
    assert "interim model, 8 px" in text and "trains it at 64 px" in text
    assert "| A | 16 |" in text
