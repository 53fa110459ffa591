"""What attribute models share: checks, and the data set's words for what they predict."""

import numpy as np
import pandas as pd
import pytest
import torch

from pulse_audit.faces.attributes import (
    check_card,
    checked,
    columns,
    is_attribute_model,
    is_differentiable,
    resized,
)
from pulse_audit.types import AttributeCard, Attributes, InputError

RACES = ("White", "Black", "East Asian", "Southeast Asian")
SHUFFLED = ("East Asian", "White", "Southeast Asian", "Black")
COARSE = {"White": "White", "Black": "Black", "East Asian": "Asian", "Southeast Asian": "Asian"}


class Model:
    """Answers with what it is given."""

    def __init__(self, probabilities, features=None, **said):
        vocabulary = {"race": RACES, "gender": ("Male", "Female")}
        self.card = AttributeCard(
            "mine", **{"vocabulary": vocabulary, **said}, resolution=8, crop="as-is"
        )
        self.answer = Attributes(probabilities, features)

    def __call__(self, images):
        return self.answer

    def to(self, device):
        return self


def softmax(n, k, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(n, k, generator=random), 1)


def card(**changes):
    given = {"vocabulary": {"race": RACES}, "resolution": 8, "crop": "as-is", **changes}
    return AttributeCard("mine", **given)


def refusal(call, *given):
    with pytest.raises(InputError) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only(found, name):
    return next(column for column in found if column.name == name)


def test_a_sound_answer_passes_unchanged():
    model = Model({"race": softmax(3, 4), "gender": softmax(3, 2)})
    assert checked(model, torch.zeros(3, 3, 8, 8)) is model.answer
    assert is_attribute_model(model) and is_differentiable(model)
    assert not is_attribute_model(lambda images: None)


@pytest.mark.parametrize(
    ("race", "said"),
    [
        (torch.full((3, 4), 0.3), "no probabilities"),
        (torch.tensor([[1.5, -0.5, 0, 0]] * 3), "no probabilities"),
        (torch.full((3, 4), float("nan")), "not finite"),
        (softmax(3, 5), r"answers (3, 5) where (3, 4) is due"),
        (softmax(2, 4), r"answers (2, 4) where (3, 4) is due"),
    ],
)
def test_an_unsound_answer_is_refused(race, said):
    model = Model({"race": race, "gender": softmax(3, 2)})
    assert said in refusal(checked, model, torch.zeros(3, 3, 8, 8))


def test_an_attribute_too_few_is_refused():
    said = refusal(checked, Model({"race": softmax(1, 4)}), torch.zeros(1, 3, 8, 8))
    assert said == "attribute model mine: predicts race where its card says race, gender"


@pytest.mark.parametrize("features", [None, torch.zeros(1, 5), torch.full((1, 6), float("inf"))])
def test_features_are_those_of_the_card(features):
    probabilities = {"race": softmax(1, 4), "gender": softmax(1, 2)}
    model = Model(probabilities, features, feature_dim=6)
    assert "features" in refusal(checked, model, torch.zeros(1, 3, 8, 8))
    sound = Model(probabilities, torch.zeros(1, 6), feature_dim=6)
    assert checked(sound, torch.zeros(1, 3, 8, 8)).features.shape == (1, 6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocabulary": {}}, "vocabulary is empty"),
        ({"vocabulary": {"race": ("A", "B", "A")}}, "names the word 'A' twice"),
        ({"vocabulary": {"race": ("A",)}}, "at least two words"),
        ({"vocabulary": {"race": "AB"}}, "list of texts"),
        ({"vocabulary": {"race": ("A", " ")}}, "none of them empty"),
        ({"vocabulary": {"a/b": ("A", "B")}}, "plain name"),
        ({"crop": "fhq"}, "did you mean ffhq"),
        ({"resolution": 0}, "at least 1"),
        ({"confusion": {"race": ((1, 2), (3, 4))}}, "4 x 4 counts"),
        ({"confusion": {"race": ((1, 2, 3, 0.5),) * 4}}, "4 x 4 counts"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(changes, said):
    assert said in refusal(check_card, card(**changes))
    check_card(card())


def test_resizing_is_the_mean_of_what_a_pixel_covers():
    # Bilinear with antialiasing weighs by a triangle: constant images and means stay.
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert resized(images, 64) is images
    small = resized(images, 16)
    assert small.shape == (2, 3, 16, 16)
    torch.testing.assert_close(small.mean((2, 3)), images.mean((2, 3)), atol=0.01, rtol=0)
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1
    assert float((resized(stripes, 8)[..., 1:-1] - 0.5).abs().max()) < 0.01


def test_resizing_hands_gradients_back():
    images = torch.rand(1, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resized(x, 5), images)


def test_the_same_words_in_another_order_are_reordered():
    found, unavailable = columns({"race": SHUFFLED}, {"race": RACES})
    race = only(found, "race")
    assert (race.words, race.labelled, unavailable) == (RACES, True, {})
    given = torch.arange(4.0)[None]
    answer = race.probabilities(Attributes({"race": given}, None))
    assert answer.tolist() == [[1.0, 3.0, 0.0, 2.0]]


def test_upper_and_lower_case_are_one_word_in_the_data_set_s_spelling():
    found, _ = columns({"gender": ("Male", "Female")}, {"gender": ("female", "male")})
    assert found[0].words == ("female", "male")
    assert found[0].members == ((1,), (0,))


def test_words_that_the_data_set_lacks_come_last():
    found, _ = columns({"race": RACES}, {"race": ("Southeast Asian", "Black")})
    assert found[0].words == ("Southeast Asian", "Black", "White", "East Asian")
    assert found[0].labelled


def test_other_words_fill_no_column_and_say_so():
    found, unavailable = columns({"race": RACES}, {"race": ("White", "Black", "Others")})
    assert found == []
    assert unavailable == {
        "race": f"the attribute model has no word for Others (its words: {', '.join(RACES)}) "
        "and datasets.yaml maps none (model_words)"
    }


#: A data set with fewer words than the model, and one that no model can predict.
FEWER = {"race": ("White", "Asian", "Others")}
MAPPED = {"race": {"Asian": ("East Asian", "Southeast Asian"), "Others": ()}}


def test_words_that_are_mapped_to_the_models_are_sums():
    found, unavailable = columns({"race": SHUFFLED}, FEWER, model_words=MAPPED)
    race = only(found, "race")
    # "Others" is left out, and what the data set does not label stays a word of its own
    assert (race.words, unavailable) == (("White", "Asian", "Black"), {})
    assert race.labelled and race.derived
    given = softmax(5, 4)
    answer = race.probabilities(Attributes({"race": given}, None))
    expected = torch.stack([given[:, 1], given[:, 0] + given[:, 2], given[:, 3]], 1)
    torch.testing.assert_close(answer, expected, atol=0, rtol=0)


def test_a_model_with_the_data_sets_own_words_needs_no_mapping():
    found, _ = columns({"race": ("asian", "White", "Black")}, FEWER, model_words=MAPPED)
    assert [c.members for c in found] == [((1,), (0,), (2,))]


def test_a_mapping_to_words_that_the_model_lacks_or_to_one_word_twice_fills_no_column():
    for words in ({"Asian": ("East Asian", "Thai")}, {"Asian": ("White",)}):
        mapped = {"race": {"Others": (), **words}}
        found, unavailable = columns({"race": RACES}, FEWER, model_words=mapped)
        assert found == [] and "no word for Asian, Others" in unavailable["race"]


def test_groupings_of_a_mapped_column_are_sums_too_unless_a_word_in_them_is_not_predicted():
    labels = {**FEWER, "light": ("Light", "Others"), "rest": ("White", "Rest")}
    of_light = {"White": "Light", "Asian": "Light", "Others": "Others"}
    of_rest = {"White": "White", "Asian": "Rest", "Others": "Rest"}
    derived = {"light": ("race", of_light), "rest": ("race", of_rest)}
    found, unavailable = columns({"race": RACES}, labels, derived, MAPPED)
    light = only(found, "light")
    assert (light.words, light.members) == (("Light", "Black"), ((0, 2, 3), (1,)))
    assert unavailable == {"rest": "Rest has a word of race that the model does not predict"}


def test_classes_of_words_without_a_group_stay_words_of_their_own():
    labels = {"race": RACES, "two": ("Asian", "White")}
    of_word = {"East Asian": "Asian", "Southeast Asian": "Asian", "White": "White"}
    found, unavailable = columns({"race": SHUFFLED}, labels, {"two": ("race", of_word)})
    two = only(found, "two")
    assert (two.words, unavailable) == (("Asian", "White", "Black"), {})
    assert [sorted(SHUFFLED[i] for i in classes) for classes in two.members] == [
        ["East Asian", "Southeast Asian"], ["White"], ["Black"],
    ]  # fmt: skip


def test_the_confusion_of_mapped_words_is_the_cards_grouping_of_the_same_words():
    counts = ((5, 1, 2), (0, 9, 1), (3, 0, 8))
    grouping = {"Black": ("Black",), "EA": ("Southeast Asian", "East Asian"), "W": ("White",)}
    said = card(confusion={"merged": counts}, groupings={"merged": grouping})
    race = only(columns(said.vocabulary, FEWER, model_words=MAPPED)[0], "race")
    frame = pd.DataFrame(counts, index=list(grouping), columns=list(grouping))
    order = ["W", "EA", "Black"]
    np.testing.assert_array_equal(race.confusion(said), frame.loc[order, order].to_numpy())
    # counts of single words are those of another rule than the largest summed probability
    fine = card(confusion={"race": tuple(map(tuple, np.eye(4, dtype=int).tolist()))})
    assert race.confusion(fine) is None


@pytest.mark.parametrize("groups", [{"W": ("White",)}, {"W": RACES[:2], "EA": RACES[1:]}])
def test_groupings_that_do_not_share_out_the_words_are_refused(groups):
    said = card(confusion={"merged": ((1, 0), (0, 1))}, groupings={"merged": groups})
    assert "grouping 'merged'" in refusal(check_card, said)


def test_what_the_data_set_does_not_label_keeps_the_model_s_words():
    found, _ = columns({"race": SHUFFLED}, {"hat": ("yes", "no")})
    assert (found[0].name, found[0].words, found[0].labelled) == ("race", SHUFFLED, False)


def test_a_label_column_of_another_name_with_the_same_words_is_found():
    labels = {"age": ("1", "2", "3"), "age_group": ("0-2", "3-9")}
    found, unavailable = columns({"age": ("3-9", "0-2")}, labels)
    assert [(c.name, c.attribute, c.words) for c in found] == [("age_group", "age", ("0-2", "3-9"))]
    assert unavailable == {}


def test_derived_groups_are_sums():
    labels = {"race": RACES, "coarse": ("White", "Black", "Asian")}
    found, _ = columns({"race": SHUFFLED}, labels, {"coarse": ("race", COARSE)})
    coarse = only(found, "coarse")
    assert coarse.derived and coarse.labelled and not only(found, "race").derived
    given = softmax(5, 4)
    answer = coarse.probabilities(Attributes({"race": given}, None))
    expected = torch.stack([given[:, 1], given[:, 3], given[:, 0] + given[:, 2]], 1)
    torch.testing.assert_close(answer, expected, atol=0, rtol=0)


def test_derived_groups_keep_what_the_data_set_lacks():
    labels = {"race": RACES[:3], "coarse": ("White", "Others")}
    group_of = {"White": "White", "Black": "Others", "East Asian": "Others"}
    found, _ = columns({"race": RACES}, labels, {"coarse": ("race", group_of)})
    coarse = only(found, "coarse")
    assert coarse.words == ("White", "Others", "Southeast Asian")
    answer = coarse.probabilities(Attributes({"race": softmax(3, 4)}, None))
    torch.testing.assert_close(answer.sum(1), torch.ones(3))


def test_a_model_that_predicts_the_derived_groups_is_asked_itself():
    labels = {"race": RACES, "coarse": ("White", "Black", "Asian")}
    vocabulary = {"race": RACES, "coarse": ("Asian", "Black", "White")}
    found, _ = columns(vocabulary, labels, {"coarse": ("race", COARSE)})
    assert [c.attribute for c in found if c.name == "coarse"] == ["coarse"]


def test_the_card_s_confusion_follows_the_words_and_never_covers_derived_groups():
    counts = np.arange(16).reshape(4, 4)
    said = card(
        vocabulary={"race": SHUFFLED}, confusion={"race": tuple(map(tuple, counts.tolist()))}
    )
    labels = {"race": RACES, "coarse": ("White", "Black", "Asian")}
    found, _ = columns(said.vocabulary, labels, {"coarse": ("race", COARSE)})
    frame = pd.DataFrame(counts, index=SHUFFLED, columns=SHUFFLED)
    expected = frame.loc[list(RACES), list(RACES)].to_numpy()
    np.testing.assert_array_equal(only(found, "race").confusion(said), expected)
    assert only(found, "coarse").confusion(said) is None
    assert only(found, "race").confusion(card()) is None
