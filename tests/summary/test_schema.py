import json
from importlib import resources

import pytest
from pydantic import ValidationError

from pulse_audit import store
from pulse_audit.summary import EstimateRow, Finding, Summary, json_schema, read, write
from pulse_audit.types import InputError


def row(**changes):
    values = {
        "arm": "pulse:g",
        "condition": "clean",
        "scale": 8,
        "metric": "psnr",
        "group_by": "race",
        "group": "Black",
        "value": 20.0,
        "low": None,
        "high": None,
        "n_faces": 1,
        "n_draws": 2,
        "method": "no interval: one face",
    }
    return EstimateRow(**{**values, **changes})


def summary(*rows):
    return Summary(
        schema=3, estimates=list(rows), unavailable={"lpips": "why"}, findings=[Finding(text="So.")]
    )


def test_the_committed_json_schema_is_up_to_date():
    shipped = resources.files("pulse_audit") / "assets" / "summary.schema.json"
    assert json.loads(shipped.read_text("utf-8")) == json.loads(json_schema())


def test_the_json_schema_names_every_key_that_is_written():
    document = summary(row()).as_json()
    schema = json.loads(json_schema())
    assert set(document) == set(schema["properties"])
    properties = schema["$defs"]["EstimateRow"]["properties"]
    assert set(document["estimates"][0]) == set(properties)


def test_not_a_number_cannot_enter():
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            row(value=number)


def test_what_is_written_is_read_back(tmp_path):
    run = store.Run(tmp_path, {})
    written = summary(row(), row(value=None, n_faces=0))
    assert write(run, written) == tmp_path / "summary.json"
    assert read(tmp_path) == written == read(tmp_path / "summary.json")


def test_equal_summaries_are_equal_bytes(tmp_path):
    run = store.Run(tmp_path, {})
    first = write(run, summary(row())).read_bytes()
    assert write(run, summary(row())).read_bytes() == first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "unreadable"),
        ("[]", "not a summary"),
        ('{"schema": 1, "estimates": [], "unavailable": {}, "findings": []}', "schema"),
        ('{"schema": 3, "estimates": [{}], "unavailable": {}, "findings": []}', "estimates.0.arm"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(InputError, match=said) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nowhere.json")


def test_select_finds_the_groups_of_one_cell():
    rows = [row(), row(group="White"), row(arm="bicubic"), row(to_group="White", metric="psnr")]
    chosen = summary(*rows).select("psnr", "pulse:g", "clean", 8, "race")
    assert [r.group for r in chosen] == ["Black", "White"]
