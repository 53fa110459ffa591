"""References to generators."""

from pathlib import Path

import pytest

from pulse_audit.names import GeneratorReference, parse_generator


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("net.pth", GeneratorReference("net.pth")),
        ("net.pth@256", GeneratorReference("net.pth", 256)),
        ("net.pth@auto#each", GeneratorReference("net.pth", None, "each", "auto")),
        ("net.pth@128@fused#3", GeneratorReference("net.pth", 128, "3", "fused")),
        ("net@home.pth@separate", GeneratorReference("net@home.pth", None, None, "separate")),
        ("net.pth@nearest", GeneratorReference("net.pth@nearest")),
        ("net@full", GeneratorReference("net", full=True)),
        ("net@256@tied", GeneratorReference("net", 256, tied=True)),
        ("net@tied@strata", GeneratorReference("net", tied=True, remedy="strata")),
        ("net@balanced#each", GeneratorReference("net", label="each", remedy="balanced")),
        ("net@64@auto@full@tied#2", GeneratorReference("net", 64, "2", "auto", True, True)),
    ],
)
def test_references_are_taken_apart(reference: str, parsed: GeneratorReference) -> None:
    assert parse_generator(reference) == parsed
    assert str(parsed) == reference


def test_a_file_of_that_name_is_the_whole_reference(tmp_path: Path) -> None:
    path = tmp_path / "net@auto"
    path.touch()
    assert parse_generator(str(path)) == GeneratorReference(str(path))


@pytest.mark.parametrize(
    ("reference", "stem"),
    [
        ("mobilestylegan-ffhq@256", "mobilestylegan-ffhq@256"),
        ("mobilestylegan-ffhq", "mobilestylegan-ffhq"),
        ("nets/net.pth@256", "net"),
        ("net.pth@128#3", "net#3"),
        ("net.pth@128@full@tied#3", "net@full@tied#3"),
        ("faces-balanced@tied", "faces-balanced@tied"),
        ("faces-skewed@full@strata", "faces-skewed@full@strata"),
    ],
)
def test_a_named_generator_is_another_arm_at_each_size(reference: str, stem: str) -> None:
    assert parse_generator(reference).stem == stem
