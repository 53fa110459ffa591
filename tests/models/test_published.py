"""The catalogue of weights: what every entry has to say, and what no entry may say."""

import re

import pytest
from pydantic import ValidationError

from pulse_audit.models.published import WeightCard, cards, get
from pulse_audit.types import InputError

ENTRY = get("stylegan2-ffhq-256").model_dump()


@pytest.mark.parametrize(
    "name",
    [
        "pulse-stylegan1-ffhq-1024",
        "stylegan1-ffhq-1024",
        *(f"stylegan2-ffhq-{side}" for side in (256, 512, 1024)),
        "stylegan2-ada-ffhq-1024",
        *(f"stylegan3-{config}-ffhq-1024" for config in "tr"),
        *(f"stylegan3-{config}-ffhqu-{side}" for config in "tr" for side in (256, 1024)),
        "mobilestylegan-ffhq",
        "lpips-alexnet",
        "lpips-vgg16",
        "lpips-squeezenet",
        "facenet-vggface2",
        "fairface-race7",
        "fairface-race4",
    ],
)
def test_the_weights_people_ask_for_are_known(name: str) -> None:
    assert get(name).name == name


def test_files_keep_apart_in_one_folder() -> None:
    names = [card.file_name.lower() for card in cards().values()]
    assert len(set(names)) == len(names)


def test_a_link_ends_in_its_file_name() -> None:
    for card in cards().values():
        assert card.url is None or card.url.rsplit("/", 1)[1] == card.file_name


def test_a_resolution_in_a_name_is_the_generators() -> None:
    generators = [card for card in cards().values() if card.kind == "generator"]
    for card in generators:
        # A network of which there is one resolution only needs none in its name.
        single = card.family == "mobilestylegan"
        assert single or re.search(rf"-{card.resolution}\b", card.name), card.name


def test_torchvisions_digits_in_a_name_are_checked() -> None:
    for card in cards().values():
        if card.url and "pytorch.org" in card.url:
            assert card.file_name.endswith(f"-{card.sha256_prefix}.pth")


def test_google_drive_is_explained_and_not_scraped() -> None:
    by_hand = [card for card in cards().values() if card.obtain is not None]
    assert {"pulse-stylegan1-ffhq-1024", "fairface-race7"} <= {card.name for card in by_hand}
    assert all("browser" in (card.obtain or "") for card in by_hand)
    assert not any("drive.google" in (card.url or "") for card in cards().values())


def test_non_commercial_terms_have_to_be_accepted() -> None:
    for card in cards().values():
        restricted = "NC" in card.licence.name or "non-commercial" in card.licence.name
        assert card.licence.accept == restricted, card.name


def test_gaussian_fits_are_entries() -> None:
    for card in cards().values():
        assert card.gaussian_fit is None or card.gaussian_fit in cards()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"stylegan3-t-fhq-1024.*stylegan3-t-ffhq-1024"):
        get("stylegan3-t-fhq-1024")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://example.org/x.pkl"}, "pattern"),
        ({"url": None}, "give a url"),
        ({"file_name": "../x.pkl"}, "pattern"),
        ({"name": "Upper"}, "pattern"),
        ({"sha256": "0" * 64}, "belong to"),
        ({"sha256_status": "claimed"}, "belong to"),
        ({"crop": None}, "a generator has"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_an_entry_that_does_not_hold_together(change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WeightCard(**{**ENTRY, **change})


def test_a_hash_has_to_begin_with_the_digits_of_the_name() -> None:
    entry = {**get("lpips-alexnet").model_dump(), "sha256_prefix": "12345678"}
    with pytest.raises(ValidationError, match="does not begin"):
        WeightCard(**entry)
