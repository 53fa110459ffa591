"""What all readers share: spellings of labels."""

import pytest

from pulse_audit.datasets.scan import spellings


@pytest.mark.parametrize("vocabulary", [("True", "False"), ("false", "true"), ("0", "1")])
def test_spellings_of_true_and_false_are_one_word(vocabulary: tuple[str, ...]) -> None:
    false, true = sorted(vocabulary, key=lambda word: word.lower() in ("true", "1"))
    assert spellings(vocabulary) == {
        **dict.fromkeys(("True", "TRUE", "true", "1"), true),
        **dict.fromkeys(("False", "FALSE", "false", "0"), false),
    }


@pytest.mark.parametrize(
    "vocabulary", [(), ("-1", "1"), ("True", "False", "unknown"), ("True", "1"), ("Male", "Female")]
)
def test_other_vocabularies_keep_their_words(vocabulary: tuple[str, ...]) -> None:
    assert spellings(vocabulary) == {}
