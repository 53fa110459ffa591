"""The specification: defaults, validation, fingerprints."""

from pathlib import Path

import pytest

from pulse_audit.harness.spec import AuditSpec, make_spec, read_spec, shipped_specs
from pulse_audit.types import InputError


def test_the_defaults_of_the_contract() -> None:
    spec = AuditSpec(dataset="fairface")
    assert (spec.scales, spec.per_group, spec.draws, spec.seed) == (None, 10, 2, 0)
    assert (spec.split, spec.search, spec.conditions) == ("val", "official", ["clean"])


def test_the_fingerprint_is_of_what_is_asked_not_of_where_it_lies() -> None:
    here = AuditSpec(dataset="fairface", data_root=Path("/here"))
    there = AuditSpec(dataset="fairface", data_root=Path("/there"))
    other = AuditSpec(dataset="fairface", seed=1)
    assert here.fingerprint == there.fingerprint != other.fingerprint
    assert here.default_out == Path("runs") / f"fairface-{here.fingerprint[:8]}"


def test_the_fingerprint_never_changes_between_versions_unnoticed() -> None:
    assert AuditSpec(dataset="x", seed=0).requested().keys() == {
        "dataset", "split", "arms", "generators", "search", "scales", "conditions", "kernel",
        "resolution", "crop", "group_by", "per_group", "draws", "limit", "seed", "keep_images",
        "device", "precision", "threads", "batch", "trusted_files", "attributes", "metrics",
        "sources", "second_attributes",
    }  # fmt: skip


def test_what_came_later_is_in_the_fingerprint_only_where_it_is_set() -> None:
    plain = AuditSpec(dataset="x")
    later = {
        "truncation": 0.5,
        "eps": 0.01,
        "bank": 9,
        "latent_fit": "full",
        "latents": "tied",
        "coarse": "9@8",
        "sweep": {"steps": [5, 9]},
        "skip_unfit": True,
        "published": ["menon2020"],
    }
    for name, value in later.items():
        assert name not in plain.requested()
        changed = plain.model_copy(update={name: value})
        assert changed.requested() == plain.requested() | {name: value}
        assert changed.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"dataset": "x", "draws": 0}, "draws"),
        ({"dataset": "x", "scales": []}, "scales"),
        ({"dataset": "x", "scale": 8}, "scale"),
        ({}, "dataset"),
        ({"dataset": "x", "draws": 10**12}, "draws"),
        ({"dataset": "x", "per_group": 10**9}, "per_group"),
        ({"dataset": "x", "limit": 10**9}, "limit"),
        ({"dataset": "x", "resolution": 100_000}, "resolution"),
        ({"dataset": "x", "threads": 10**6}, "threads"),
        ({"dataset": "x", "batch": 10**9}, "batch"),
        ({"dataset": "x", "seed": 2**63}, "seed"),
        ({"dataset": "x", "seed": "2001-99-99"}, "seed"),
        ({"dataset": "x", "scales": [8, 10**6]}, "scales.1"),
        ({"dataset": "x", "scales": list(range(1, 1100))}, "scales"),
        ({"dataset": "x", "arms": ["a\0b"]}, "arms: text with a NUL"),
        ({"dataset": "x", "generators": ["x" * 5000]}, "generators: text of more than 4,096"),
        ({"dataset": "x", "generators": ["\udcff.pt"]}, "generators: text that is not UTF-8"),
        ({"dataset": "x", "data_root": "x" * 5000}, "data_root"),
        ({"dataset": "x", "data_root": Path("a\0b")}, "data_root"),
        ({"dataset": "x", "datasets_file": ""}, "datasets_file"),
        ({"dataset": "x" * 5000}, "dataset"),
        ({"dataset": "x", "sweep": {"stepz": [5]}}, "sweep: unknown setting 'stepz'; did you mean"),
        ({"dataset": "x", "sweep": {"eps": [0]}}, "sweep: eps: 0 is not a number above 0 to 1"),
        ({"dataset": "x", "sweep": {"steps": [True]}}, "sweep: steps: True is not a whole number"),
        ({"dataset": "x", "published": ["menon"]}, "unknown paper 'menon'; did you mean menon2020"),
        ({"dataset": "x", "sweep": ["eps"]}, "sweep: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_spec(values)


def test_a_spec_file_is_read_and_flags_would_win(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("dataset: fairface\nscales: [4, 8]\ndraws: 3\n")
    values = read_spec(str(tmp_path / "mine.yaml")) | {"draws": 1}
    assert make_spec(values).scales == [4, 8]
    assert make_spec(values).draws == 1


@pytest.mark.parametrize(
    "text",
    ["- a list", "a: [", "!!python/object/apply:os.getcwd []", "seed: !!int abc", "[" * 30_000],
)
def test_what_is_no_spec_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match="mine.yaml"):
        read_spec(str(tmp_path / "mine.yaml"))


def test_every_shipped_spec_is_valid() -> None:
    assert "default" in shipped_specs()
    for name in shipped_specs():
        make_spec(read_spec(name))
