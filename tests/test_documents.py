"""YAML and JSON from outside: plain values within limits, or one line."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_audit import documents
from pulse_audit.documents import parse_json, parse_yaml, read_file, read_yaml
from pulse_audit.types import InputError

ROOT = Path(__file__).resolve().parents[1]
BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 30_000, "32 deep"),
        ("{a: " * 30_000, "32 deep"),
        ("- " * 30_000, "32 deep"),
        ("? " * 30_000, "32 deep"),
        (BOMB, "more than 100,000 values"),
        ("a: &a [*a]", "repeats nothing that is complete"),
        ("a: *b", "repeats nothing"),
        ("a: !!int abc", "tags"),
        ("a: !!python/object/apply:os.getcwd []", "tags"),
        ("a: " + "9" * 5000, "more than 20 digits"),
        ('a: "b\\0c"', "NUL"),
        ("a: .nan", "not a number"),
        ("a: 1.0e+999", "infinite"),
        ("a: 0x_", "not valid YAML"),
        ("a: =", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: 1\n---\nb: 1", "not valid YAML"),
        ("a: 1\nb: {a: 1, c: [a, a], a: 2}", "line 2: the key 'a' occurs twice"),
        ("a: 1\nb: [{a: 1}, {a: 1}]\na: 2", "line 3: the key 'a' occurs twice"),
    ],
    ids=range(20),
)
def test_hostile_yaml_costs_one_short_line(text: str, problem: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=problem) as error:
        parse_yaml(text.encode(), "mine.yaml")
    assert time.monotonic() - began < 5
    assert str(error.value).startswith("mine.yaml: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_dates_stay_text_and_aliases_are_spelled_out() -> None:
    text = b"a: 2001-99-99\nb: 2001-01-01\nc: &c {d: [1, 0x10, 2.5]}\ne: {<<: *c, f: yes}\n"
    values = {"d": [1, 16, 2.5]}
    expected = {"a": "2001-99-99", "b": "2001-01-01", "c": values, "e": {**values, "f": True}}
    assert parse_yaml(text, "mine.yaml") == expected


@pytest.mark.parametrize("path", sorted(ROOT.glob("pulse_audit/**/*.yaml")), ids=lambda p: p.stem)
def test_shipped_files_are_read_as_any_reader_does(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text())


def test_the_shipped_data_sets_are_read_as_any_reader_does() -> None:
    assert read_yaml(ROOT / "datasets.yaml") == yaml.safe_load((ROOT / "datasets.yaml").read_text())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "32 deep"),
        ("[" * 900 + "]" * 900, "32 deep"),
        ('{"a": NaN}', "not a number"),
        ("[-Infinity]", "infinite"),
        ("1e999", "infinite"),
        ("9" * 5000, "20 digits"),
        ('"\\u0000"', "NUL"),
        ('{"\\ud800": 1}', "half a character"),
        ("{", "unreadable"),
        ("", "unreadable"),
        ("[" + "[]," * 5_000_001, "values"),
    ],
    ids=range(11),
)
def test_hostile_json_costs_one_short_line(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        parse_json(text.encode(), "mine.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_only_regular_files_of_bounded_length_are_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="longer than 10 bytes"):
        read_file(tmp_path / "long", 10)
    for path in (tmp_path, Path("/dev/zero"), tmp_path / ("x" * 5000), tmp_path / "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            read_file(path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20) + 1, 10**20 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_what_json_can_hold_comes_back(content: Any) -> None:
    assert parse_json(json.dumps(content).encode(), "x") == content


@settings(max_examples=150, deadline=None)
@given(st.text("[]{}&*!<:- ?|>'\"#,\n\\0189ax.", max_size=60) | st.binary(max_size=60))
def test_any_text_is_plain_values_or_one_line(text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    for parse in (parse_yaml, parse_json):
        try:
            documents._check_values(parse(data, "x"), texts=True)
        except InputError as error:
            assert "\n" not in str(error)
