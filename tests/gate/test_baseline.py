"""Faces and arms of two sides, and what has to match."""

import pytest
from pydantic import ValidationError

from pulse_audit.gate.baseline import check_match, pair_arms
from pulse_audit.gate.record import Record, pair_faces
from pulse_audit.types import InputError


def record(names, **more):
    return Record(
        schema=1,
        arms={"pulse:g": "pulse"},
        faces=[(name, "digest") for name in names],
        groupings=[],
        attributes=[],
        settings=[],
        **{"must_match": {"dataset": "x", "scales": "4"}, **more},
    )


def values(**changes):
    return {"metric": "retention", "attribute": "race", "sums": [1.0, 2.0], "draws": 2, **changes}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"sums": [1e200, 0.0]}, "less than or equal to"),
        ({"draws": 2**63}, "less than or equal to"),
        ({"draws": [2, -1]}, "greater than or equal to"),
        ({"draws": True}, "valid integer"),
        ({"draws": [2]}, "not one number a face"),
    ],
)
def test_numbers_that_no_run_writes_are_refused(changes, problem):
    setting = {"arm": "pulse:g", "condition": "clean", "scale": 4, "values": [values(**changes)]}
    content = record("ab").model_dump(by_alias=True) | {"settings": [setting]}
    if not problem:
        assert Record.model_validate(content).settings[0].values[0].draws == 2
        return
    with pytest.raises(ValidationError, match=problem):
        Record.model_validate(content)


def test_a_name_that_occurs_twice_is_refused():
    race = {"name": "race", "groups": ["a", "b"], "of_face": [0, 1]}
    content = record("ab").model_dump(by_alias=True)
    Record.model_validate(content | {"groupings": [race]})
    for groupings in ([race, race], [race | {"groups": ["a", "a"]}]):
        with pytest.raises(ValidationError, match="a name occurs twice"):
            Record.model_validate(content | {"groupings": groupings})
    setting = {"arm": "pulse:g", "condition": "clean", "scale": 4}
    with pytest.raises(ValidationError, match="a name occurs twice"):
        Record.model_validate(
            content | {"settings": [setting | {"values": [values(), values(sums=[0.0, 0.0])]}]}
        )


def test_faces_pair_by_name_and_digest_in_whatever_order():
    pairing = pair_faces(record(["a", "b", "c"]), record(["c", "a", "b"]))
    assert pairing.paired
    assert (pairing.trial.tolist(), pairing.baseline.tolist()) == ([0, 1, 2], [1, 2, 0])
    changed = record(["a", "b", "c"]).model_copy(update={"faces": [("a", "other")]})
    assert not pair_faces(record(["a", "b", "c"]), changed).paired


def test_half_of_the_faces_have_to_be_shared():
    names = [f"{n}" for n in range(10)]
    half = pair_faces(record(names), record([*names[:5], *"abcde"]))
    assert half.paired and half.trial.tolist() == [0, 1, 2, 3, 4]
    fewer = pair_faces(record(names), record([*names[:4], *"abcdef"]))
    assert not fewer.paired and len(fewer.trial) == len(fewer.baseline) == 10
    # of the larger side
    assert not pair_faces(record(names[:4]), record(names)).paired


def test_arms_pair_by_name_else_alone():
    assert pair_arms(["a", "b"], ["b", "a", "c"], None, "x") == {"a": "a", "b": "b"}
    assert pair_arms(["a"], ["b"], None, "x") == {"a": "b"}
    assert pair_arms(["a"], ["a", "b"], "b", "x") == {"a": "b"}
    for trial, baseline, chosen in ((["a", "b"], ["a"], None), (["a", "b"], ["a", "b"], "a")):
        with pytest.raises(InputError, match="--arm"):
            pair_arms(trial, baseline, chosen, "x")


def test_the_first_difference_is_named_with_its_key():
    one = record("ab")
    check_match(one, record("cd"), (), "base")
    other = record("ab", must_match={"dataset": "x", "scales": "8", "metric psnr": "unit dB"})
    with pytest.raises(InputError, match="scales differs: here 4, in the baseline 8"):
        check_match(one, other, (), "base")
    with pytest.raises(InputError, match="metric psnr differs: here not recorded"):
        check_match(one, other, ["scales"], "base")
    check_match(one, other, ["scales", "metric psnr"], "base")
    with pytest.raises(InputError, match="did you mean scales"):
        check_match(one, other, ["scale"], "base")
