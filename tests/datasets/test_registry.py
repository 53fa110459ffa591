from pathlib import Path
from typing import get_args

import pytest
import yaml

from pulse_audit.datasets.layouts import LAYOUTS
from pulse_audit.datasets.registry import LayoutName, Registry, builtin_file, load_registry
from pulse_audit.types import CROPS, InputError

MINIMAL = {
    "title": "Mine",
    "layout": "folder",
    "vocabulary": {"race": ["A", "B"]},
    "labels_from": "people",
    "group_by": ["race"],
    "crop": "as-is",
    "licence": "mine",
    "terms": "mine",
    "may_publish_images": False,
    "citation": "none",
    "obtain": "ask me",
}


def user_file(tmp_path: Path, entries: object) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    return path


def refusal(tmp_path: Path, entries: object) -> str:
    with pytest.raises(InputError) as caught:
        load_registry(user_file(tmp_path, entries))
    line = str(caught.value)
    assert "\n" not in line and "mine.yaml" in line
    return line


def test_every_promised_data_set_is_there(registry: Registry) -> None:
    assert set(registry.names()) >= {
        "fairface", "fairface-1.25", "fairface-hf", "utkface", "celeba", "celeba-hq", "ffhq",
        "rfw", "bupt-balancedface", "lfw", "folder", "skimage-faces",
    }  # fmt: skip


def test_every_layout_has_a_reader() -> None:
    assert set(get_args(LayoutName)) == set(LAYOUTS)


def test_every_card_is_one_line_each(registry: Registry) -> None:
    for card in registry:
        for text in (card.title, card.licence, card.terms, card.citation, card.obtain):
            assert text.strip() and "\n" not in text
        assert card.crop in CROPS
        assert (card.labels_from == "none") == (not card.vocabulary and card.name != "folder")


def test_the_groups_of_fairface_add_up_to_its_size(registry: Registry) -> None:
    for expected in registry.get("fairface").expected.values():
        assert all(sum(words.values()) == expected.count for words in expected.groups.values())


def test_a_whole_copy_is_the_sum_of_its_splits(registry: Registry) -> None:
    whole = registry.get("fairface").expected_for("all")
    assert whole is not None and whole.count == 86744 + 10954
    assert whole.groups["race"]["White"] == 16527 + 2085
    assert set(whole.groups) == {"race"}  # the ages of the training split are not known


def test_race_ids_of_the_hub_are_not_in_the_order_of_the_classifier(registry: Registry) -> None:
    card = registry.get("fairface-hf")
    assert card.class_ids["race"].index("East Asian") == 0
    assert card.class_ids["race"].index("Black") == 2
    assert card.class_ids["race"].index("White") == 3
    assert card.vocabulary["race"][0] == "White"


def test_forty_attributes_of_celeba(registry: Registry) -> None:
    vocabulary = registry.get("celeba").vocabulary
    assert len(vocabulary) == 40 and set(vocabulary.values()) == {("-1", "1")}


def test_unknown_name_is_answered_with_the_nearest(registry: Registry) -> None:
    with pytest.raises(InputError, match=r"'fairfcae'.*fairface"):
        registry.get("fairfcae")


def test_iterates_over_cards_in_the_order_of_the_file(registry: Registry) -> None:
    assert [card.name for card in registry] == registry.names()


def test_the_file_is_found_beside_the_package() -> None:
    assert builtin_file().is_file()


def test_a_users_data_set_is_added(tmp_path: Path) -> None:
    card = load_registry(user_file(tmp_path, {"mine": MINIMAL})).get("mine")
    assert card.vocabulary == {"race": ("A", "B")}


def test_a_users_entry_replaces_just_the_keys_it_gives(tmp_path: Path) -> None:
    changed = load_registry(user_file(tmp_path, {"fairface": {"licence": "other"}}))
    card, before = changed.get("fairface"), load_registry().get("fairface")
    assert card.licence == "other"
    assert card.model_copy(update={"licence": before.licence}) == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"licenze": "x"}, ["'mine'", "licenze", "licence"]),
        ({"crop": "tight"}, ["'mine'", "'crop'", "ffhq"]),
        ({"layout": "magic"}, ["'mine'", "'layout'"]),
        ({"vocabulary": {"race": ["A", 3]}}, ["vocabulary.race.1", "quotes"]),
        ({"vocabulary": {"race": ["A", "A"]}}, ["race", "twice"]),
        ({"labels_from": "god"}, ["labels_from"]),
        ({"expected": {"all": {"count": 0}}}, ["expected.all.count"]),
        ({"expected": {"val": {"count": 3}}}, ["'val'", "splits"]),
        ({"expected": {"all": {"count": 3, "groups": {"race": {"C": 3}}}}}, ["race"]),
        ({"splits": {"dev": "dev"}}, ["splits.dev"]),
        ({"layout": "lfw", "group_by": ["colour"]}, ["group_by", "colour"]),
        ({"class_ids": {"race": ["A", "C"]}}, ["class_ids", "race"]),
        ({"files": [{"name": "x", "confirmed": True, "source": "y"}]}, ["md5", "sha256"]),
        ({"name": "other"}, ["'name'"]),
        ({"folder": "../elsewhere"}, ["'folder'"]),
        ({"folder": "/etc"}, ["'folder'"]),
        ({"splits": {"val": "../v.csv"}}, ["splits.val"]),
        ({"layout": "ffhq-aging", "splits": {"val": "last"}}, ["splits", "00000-59999"]),
        ({"layout": "utkface"}, ["class_ids", "race"]),
    ],
)
def test_a_bad_entry_costs_one_line(
    tmp_path: Path, change: dict[str, object], expected: list[str]
) -> None:
    line = refusal(tmp_path, {"mine": {**MINIMAL, **change}})
    assert all(word in line for word in expected), line


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    entry = {key: value for key, value in MINIMAL.items() if key != "licence"}
    assert "'licence'" in refusal(tmp_path, {"mine": entry})


def test_all_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    wrong = {**MINIMAL, "crop": "tight", "colour": "red"}
    line = refusal(tmp_path, {"one": wrong, "two": {**MINIMAL, "licence": 3}})
    for part in ("'one', key 'crop'", "'one', key 'colour'", "'two', key 'licence'"):
        assert part in line


def test_a_bad_name_is_refused(tmp_path: Path) -> None:
    assert "../mine" in refusal(tmp_path, {"../mine": MINIMAL})


@pytest.mark.parametrize("entries", [[], ["a"], "text", None, {"mine": 3}, {"mine": {3: 4}}])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, entries: object) -> None:
    refusal(tmp_path, entries)


@pytest.mark.parametrize(
    "data", [b"a: [1, 2", b"\xff\xfe\x00", b"a: !!python/object/apply:os.getcwd []", b"\x00"]
)
def test_a_file_that_is_no_plain_yaml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"^[^\n]*mine\.yaml[^\n]*$"):
        load_registry(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.yaml"):
        load_registry(tmp_path / "nowhere.yaml")


def test_an_alias_bomb_ends_in_one_short_line(tmp_path: Path) -> None:
    levels = "\n".join(f"  k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    path = tmp_path / "bomb.yaml"
    path.write_text(f"bomb:\n  k0: &a0 [x, x]\n{levels}\n")
    with pytest.raises(InputError) as caught:
        load_registry(path)
    assert len(str(caught.value)) < 400


def derived(**groups: list[str]) -> dict[str, object]:
    vocabulary = {"race": ["A", "B", "C"], "free": []}
    return {"vocabulary": vocabulary, "derived": {"wide": {"from": "race", "groups": groups}}}


def without(words: list[str], **groups: list[str]) -> dict[str, object]:
    grouping = {"from": "race", "groups": groups, "no_group": words}
    return {**derived(**groups), "derived": {"wide": grouping}}


def test_words_in_no_group_stay_as_they_are(tmp_path: Path) -> None:
    entry = {**MINIMAL, **derived(AC=["C", "A"]), "group_by": ["wide"]}
    card = load_registry(user_file(tmp_path, {"mine": entry})).get("mine")
    group_of = card.derived["wide"].group_of(card.vocabulary["race"])
    assert list(group_of.items()) == [("A", "AC"), ("B", "B"), ("C", "AC")]


def test_words_of_no_group_have_none(tmp_path: Path) -> None:
    entry = {**MINIMAL, **without(["B"], A=["A"])}
    card = load_registry(user_file(tmp_path, {"mine": entry})).get("mine")
    assert card.derived["wide"].group_of(card.vocabulary["race"]) == {"A": "A", "C": "C"}


def test_utkface_says_what_models_call_its_groups(registry: Registry) -> None:
    mapped = registry.get("utkface").model_words["race"]
    assert mapped == {"Asian": ("East Asian", "Southeast Asian"), "Others": ()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"hair": {"A": ["a"]}}, "'hair', which is no label column"),
        ({"race": {"Z": ["a"]}}, "model_words of 'race' names 'Z'"),
        ({"race": {"A": ["a"], "B": ["b", "a"]}}, "names 'a' twice"),
        ({"race": {"A": "a"}}, "model_words.race.A"),
    ],
)
def test_words_of_models_that_do_not_fit_are_refused(
    tmp_path: Path, words: dict[str, object], said: str
) -> None:
    vocabulary = {"vocabulary": {"race": ["A", "B"]}, "layout": "fairface", "group_by": ["race"]}
    entry = {**MINIMAL, **vocabulary, "model_words": words}
    assert said in refusal(tmp_path, {"mine": entry})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (derived(X=["A", "Z"]), "derived 'wide' names 'Z'"),
        (derived(X=["A", "B"], Y=["B"]), "derived 'wide' names 'B' twice"),
        (derived(X=[], Y=["A"]), "group 'X' is made of no word"),
        (derived(A=["B", "C"]), "'A' is a word outside the group of that name"),
        (derived(X=["A", "B", "C"]), "leaves one group alone"),
        (derived(), "derived.wide.groups"),
        (without(["Z"], X=["A"]), "derived 'wide' names 'Z'"),
        (without(["A"], X=["A"]), "derived 'wide' names 'A' twice"),
        (without(["B", "C"], X=["A"]), "leaves one group alone"),
        ({"derived": {"race": {"from": "race", "groups": {"X": ["A"]}}}}, "another grouping"),
        ({"derived": {"monk": {"from": "race", "groups": {"X": ["A"]}}}}, "another grouping"),
        ({"derived": {"wide": {"from": "hair", "groups": {"X": ["A"]}}}}, "no words in vocabulary"),
        ({"derived": {"wide": {"of": "race", "groups": {"X": ["A"]}}}}, "derived.wide"),
    ],
)
def test_groupings_that_share_no_words_out_are_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    assert said in refusal(tmp_path, {"mine": {**MINIMAL, **change}})
