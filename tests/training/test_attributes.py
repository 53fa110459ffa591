"""Training an attribute net: data held apart, steps that resume, a card that tells the truth."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from click.testing import CliRunner
from PIL import Image

from pulse_audit.faces.attribute_net import AttributeNet, load_attribute_net
from pulse_audit.training import attributes
from pulse_audit.training.attribute_trainer import (
    AttributeTrainer,
    LabelledFaces,
    labelled_faces,
)
from pulse_audit.training.attributes import (
    age_weights,
    calibration_error,
    confusion,
    confusions,
    equal_priors,
    export,
    fairface_columns,
    temperature,
)
from pulse_audit.training.augment import augment_photos
from pulse_audit.training.cards import attribute_card
from pulse_audit.training.config import AttributeConfig, read_attribute_config
from pulse_audit.types import InputError

COLOURS = {"A": (200, 60, 60), "B": (60, 60, 200)}


@pytest.fixture
def config() -> AttributeConfig:
    tiny = {
        "name": "tiny",
        "held_out_per_cell": 8,
        "vocabulary": {"race": ["B", "A"], "gender": ["F", "M"], "age": ["0-2", "20-29"]},
        "widths": [4, 8],
        "blocks": [1, 1],
        "epochs": [[1, 32], [2, 64]],
        "batch": 8,
        "ema_steps": 4,
        "precision": "float32",
        "learning_rate": 0.02,
        "restarts": [],
        "mixup": 0.0,
    }
    return AttributeConfig(**{**read_attribute_config("faces-attributes").model_dump(), **tiny})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Photos whose colour tells the race; gender and age follow from nothing in them."""
    source, rows = np.random.default_rng(0), []
    for number in range(96):
        race = "AB"[number % 2]
        noise = source.integers(-40, 40, (20, 20, 3))
        pixels = np.clip(np.array(COLOURS[race]) + noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        rows.append(
            {
                "file": f"train/{number}.png",
                "image": file.getvalue(),
                "race": race,
                "gender": "FM"[number // 2 % 2],
                "age": ["0-2", "20-29"][number // 4 % 2],
            }
        )
    pd.DataFrame(rows).to_parquet(tmp_path / "faces.parquet")
    return tmp_path / "faces.parquet"


def test_held_out_faces_are_not_trained_on(config: AttributeConfig, table: Path) -> None:
    faces, apart = labelled_faces(config, table)
    assert (len(faces), len(apart)) == (64, 32)
    assert not set(faces.files) & set(apart.files)
    assert set(np.bincount(2 * apart.labels["race"] + apart.labels["gender"])) == {8}


def test_an_unknown_label_is_refused(config: AttributeConfig, table: Path) -> None:
    without = {**config.vocabulary, "age": ("0-2",)}
    with pytest.raises(InputError, match="age: '20-29' is not in the vocabulary"):
        labelled_faces(config.model_copy(update={"vocabulary": without}), table)


def test_a_resumed_run_is_the_undisturbed_one(
    config: AttributeConfig, table: Path, tmp_path: Path
) -> None:
    faces, _ = labelled_faces(config, table)
    whole = AttributeTrainer(config, faces, torch.device("cpu"))
    for _ in range(6):
        whole.advance()
    first = AttributeTrainer(config, faces, torch.device("cpu"))
    for _ in range(3):
        first.advance()
    first.save(tmp_path / "state")
    second = AttributeTrainer(config, faces, torch.device("cpu"))
    assert second.resume(tmp_path / "state") and second.step == 3
    for _ in range(3):
        second.advance()
    for name, value in whole.average.items():
        torch.testing.assert_close(second.average[name], value, rtol=0, atol=0)


def test_a_state_of_another_run_is_refused(
    config: AttributeConfig, table: Path, tmp_path: Path
) -> None:
    faces, _ = labelled_faces(config, table)
    AttributeTrainer(config, faces, torch.device("cpu")).save(tmp_path)
    other = AttributeTrainer(config.model_copy(update={"seed": 1}), faces, torch.device("cpu"))
    with pytest.raises(InputError, match="another configuration"):
        other.resume(tmp_path)
    (tmp_path / "state.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged state"):
        other.resume(tmp_path)


@pytest.mark.parametrize("lost", ["network", "ends", "step"])
def test_a_state_that_lacks_a_part_is_refused(
    config: AttributeConfig, table: Path, tmp_path: Path, lost: str
) -> None:
    faces, _ = labelled_faces(config, table)
    trainer = AttributeTrainer(config, faces, torch.device("cpu"))
    trainer.save(tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state[lost]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"state\.pt: damaged state"):
        trainer.resume(tmp_path)


def test_an_unknown_configuration_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="shipped ones are faces-attributes"):
        read_attribute_config("faces-unheard-of")


@pytest.mark.parametrize(("ended", "told"), [(0, False), (1, False), (2, True)])
def test_a_card_tells_of_the_cycles_that_have_ended_and_no_others(
    config: AttributeConfig, table: Path, tmp_path: Path, ended: int, told: bool
) -> None:
    again = config.model_copy(update={"restarts": ((1, 64, 0.01), (1, 64, 0.01))})
    faces, apart = labelled_faces(again, table)
    trainer = AttributeTrainer(again, faces, torch.device("cpu"))
    trainer.ends = [trainer.average] * ended
    export(trainer, apart, tmp_path)
    content = json.loads((tmp_path / "tiny.json").read_text())
    said = f"the mean over the ends of {ended} cycles" in attribute_card("tiny", content)
    assert said == told


def test_trained_and_exported_it_tells_what_can_be_told(
    config: AttributeConfig, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    asked = ["--config", str(tmp_path / "tiny.yaml"), "--state", str(tmp_path / "state")]
    asked += ["--data", str(table)]
    run = CliRunner().invoke
    run(attributes.main, ["train", *asked, "--device", "cpu"], catch_exceptions=False)
    out = ["--out", str(tmp_path / "out")]
    run(attributes.main, ["export", *asked, *out], catch_exceptions=False)
    card = json.loads((tmp_path / "out" / "tiny.json").read_text())["card"]
    assert card["accuracy"]["64"]["race"] > 0.9
    assert card["accuracy"]["64"]["gender"] < 0.8
    counts = np.array(card["held_out"]["64"]["race"])
    assert counts.sum() == 32 and counts.trace() / 32 == card["accuracy"]["64"]["race"]
    assert card["accuracy_at_training_ages"]["race"] > 0.9
    listed = gzip.decompress((tmp_path / "out" / "tiny-images.txt.gz").read_bytes())
    assert len(listed.splitlines()) == 64
    red = torch.tensor(COLOURS["A"]).view(1, 3, 1, 1).expand(1, 3, 30, 30) / 255
    model = load_attribute_net(tmp_path / "out" / "tiny.safetensors")
    assert float(model(red).probabilities["race"][0, 1]) > 0.5


def test_equal_priors_turn_one_posterior_into_the_other(config: AttributeConfig) -> None:
    """Logits of the exact posterior under shares of 3 : 1 become those of even shares."""
    network = AttributeNet(config.vocabulary, config.widths, config.blocks)
    head, gender = network.heads["race"], network.heads["gender"].bias.detach().clone()
    likelihood = torch.tensor([0.2, 0.5])
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_((likelihood * torch.tensor([0.75, 0.25])).log())
    labels = {"race": np.array([0, 0, 1, 0]), "gender": np.array([0, 0, 0, 1])}
    equal_priors(network, labels, ["race"])
    answered = head(torch.zeros(1, network.feature_dim)).softmax(1)[0]
    torch.testing.assert_close(answered, likelihood / likelihood.sum())
    torch.testing.assert_close(network.heads["gender"].bias, gender)


@pytest.mark.parametrize("field", ["attribute_weights", "equal_prior"])
def test_attributes_without_words_are_refused(config: AttributeConfig, field: str) -> None:
    values = config.model_dump() | {field: {"hair": 1.0} if "weights" in field else ["hair"]}
    with pytest.raises(ValueError, match="'hair' is not in the vocabulary"):
        AttributeConfig.model_validate(values)


def test_epochs_have_their_sizes_and_the_rate_its_shape(config: AttributeConfig) -> None:
    assert [config.image_size(epoch) for epoch in range(4)] == [32, 64, 64, 64]
    peak = config.learning_rate
    rates = [config.rate(3 * progress) for progress in (0.05, config.warmup, 1.0)]
    assert rates == pytest.approx([peak / 2, peak, 0.0])


def test_a_restart_is_a_cycle_of_its_own_after_the_first(config: AttributeConfig) -> None:
    again = config.model_copy(update={"restarts": ((2, 48, 0.01),)})
    assert [again.image_size(epoch) for epoch in range(5)] == [32, 64, 64, 48, 48]
    assert again.rate(2.9) == config.rate(2.9)
    rates = [again.rate(3 + 2 * progress) for progress in (0.05, config.warmup, 1.0)]
    assert rates == pytest.approx([0.005, 0.01, 0.0])


def test_the_ends_of_the_cycles_are_averaged(
    config: AttributeConfig, table: Path, tmp_path: Path
) -> None:
    twice = config.model_copy(update={"restarts": ((1, 64, 0.01),)})
    faces, apart = labelled_faces(twice, table)
    trainer = AttributeTrainer(twice, faces, torch.device("cpu"))
    middle = None
    while trainer.step < trainer.steps:
        trainer.advance()
        if trainer.step == 3 * trainer.per_epoch:
            middle = {name: value.clone() for name, value in trainer.average.items()}
    assert middle is not None and len(trainer.ends) == 2
    trainer.save(tmp_path)
    again = AttributeTrainer(twice, faces, torch.device("cpu"))
    assert again.resume(tmp_path)
    made = again.averaged()
    for name, value in made.named_parameters():
        torch.testing.assert_close(value, (middle[name] + trainer.average[name]) / 2)
    statistics = made.norm.running_mean
    assert not torch.equal(statistics, trainer.average["norm.running_mean"])
    torch.testing.assert_close(statistics, trainer.averaged().norm.running_mean)
    red, blue = (torch.tensor(COLOURS[race]).view(1, 3, 1, 1) / 255 for race in "AB")
    told = made(torch.cat([red, blue]).expand(2, 3, 64, 64))["race"].argmax(1)
    assert told.tolist() == [1, 0]


def test_augmentation_keeps_range_and_leaves_hue_alone() -> None:
    source = torch.Generator().manual_seed(0)
    grey = torch.full((16, 3, 32, 32), 0.5)
    shown = augment_photos(grey, 24, 0.0, source)
    assert shown.shape == (16, 3, 24, 24)
    assert torch.equal(shown, shown.clamp(0, 1))
    torch.testing.assert_close(shown[:, 0], shown[:, 1])
    assert float(shown.mean((1, 2, 3)).std()) > 0.02


def test_temperature_is_recovered() -> None:
    source = np.random.default_rng(0)
    logits = torch.from_numpy(source.normal(size=(20_000, 4)))
    labels = np.array([source.choice(4, p=p) for p in F.softmax(logits, 1).numpy()])
    assert temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)


def test_calibration_error_of_a_known_case() -> None:
    # Confidence 0.8, right in 6 of 10: the one bin is off by 0.2.
    probabilities = np.tile(np.float32([0.8, 0.2]), (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert calibration_error(probabilities, labels) == pytest.approx(0.2, abs=1e-4)


def test_confusion_counts_rows_of_labels() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert confusion(np.array([0, 0, 1]), logits).tolist() == [[1, 1], [1, 0]]


def test_shipped_configurations_hold_the_same_faces_out_and_differ_in_their_seed() -> None:
    one, other = (
        read_attribute_config(n).model_dump()
        for n in ("faces-attributes", "faces-attributes-check")
    )
    shared = ("vocabulary", "held_out_seed", "held_out_per_cell", "widths", "blocks")
    assert {key: one[key] for key in shared} == {key: other[key] for key in shared}
    assert one["seed"] != other["seed"]


def test_derived_groupings_are_counted_by_summed_probabilities() -> None:
    words = read_attribute_config("faces-attributes").vocabulary
    source = np.random.default_rng(0)
    logits = {
        name: torch.from_numpy(source.normal(size=(200, len(w)))) for name, w in words.items()
    }
    labels = {name: source.integers(0, len(w), 200) for name, w in words.items()}
    faces = LabelledFaces(np.zeros((200, 1, 1, 3), np.uint8), labels, ("",) * 200, ("",) * 200)
    found = confusions(logits, dict.fromkeys(words, 2.0), faces, words)
    column = next(c for c in fairface_columns(words) if c.name == "race6")
    p = F.softmax(logits["race"] / 2, 1).numpy()
    asian = [words["race"].index(w) for w in ("East Asian", "Southeast Asian")]
    merged = column.words.index(next(w for w in column.words if w not in words["race"]))
    summed = {
        word: p[:, words["race"].index(word)] for word in words["race"] if word in column.words
    }
    table = np.stack(
        [p[:, asian].sum(1) if i == merged else summed[w] for i, w in enumerate(column.words)], 1
    )
    of_asian = np.isin(labels["race"], asian)
    assert found["race6"][merged] == np.bincount(table[of_asian].argmax(1), minlength=6).tolist()
    assert np.sum(found["race6"]) == 200


def test_held_out_faces_are_weighed_by_the_training_ages() -> None:
    def aged(ages: list[int]) -> LabelledFaces:
        images, blank = np.zeros((len(ages), 1, 1, 3), np.uint8), ("",) * len(ages)
        return LabelledFaces(images, {"age": np.array(ages)}, blank, blank)

    weights = age_weights(aged([0, 1, 1, 1]), aged([0, 0, 1, 1]))
    assert weights.tolist() == [0.5, 0.5, 1.5, 1.5]
