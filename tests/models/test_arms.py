"""Names to arms: the defaults of the contract, and names that stay distinct."""

from pathlib import Path

import pytest

from pulse_audit.models import shipped
from pulse_audit.models.arms import arm_sha256, expand_arms
from pulse_audit.names import ArmReference, parse_arm, parse_generator
from pulse_audit.types import InputError


def references(arms: list[str], generators: list[str]) -> list[ArmReference]:
    return expand_arms([*map(parse_arm, arms)], [*map(parse_generator, generators)])


def names(arms: list[str], generators: list[str]) -> list[str]:
    return [arm.name for arm in references(arms, generators)]


def test_without_the_twins_the_interpolating_arms_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    assert names([], []) == ["nearest", "bicubic", "lanczos"]


def test_a_generator_alone_makes_its_pulse_arm_alone() -> None:
    assert names([], ["examples/gan.py:build"]) == ["pulse:gan"]


def test_arms_without_pulse_are_without_pulse() -> None:
    assert names(["bicubic"], []) == ["bicubic"]


def test_every_generator_makes_an_arm_beside_those_listed() -> None:
    assert names(["pulse", "nearest"], ["a.py:f", "b.py:f"]) == ["pulse:a", "pulse:b", "nearest"]


def test_a_factory_arm_is_called_after_its_file() -> None:
    assert names(["methods/mine.py:Mine"], []) == ["mine"]


def test_equal_stems_get_their_file_s_digest(tmp_path: Path) -> None:
    for folder, text in (("x", "1"), ("y", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "gan.py").write_text(text)
    given = [f"{tmp_path}/{folder}/gan.py:build" for folder in "xy"]
    found = names([], given)
    assert len(set(found)) == 2
    assert all(len(name) == len("pulse:gan-") + 8 for name in found)


def test_two_factories_of_one_file_stay_distinct(tmp_path: Path) -> None:
    (tmp_path / "gan.py").write_text("1")
    assert len(set(names([], [f"{tmp_path}/gan.py:a", f"{tmp_path}/gan.py:b"]))) == 2


@pytest.mark.parametrize(
    ("arm", "name"),
    [
        ("onnx:nets/x4.v2.onnx", "onnx:x4.v2"),
        ("folder:made/out/", "folder:out"),
        ("command:realesrgan -i {input} -o {output} -s {scale}", "command:realesrgan"),
        ("command:/usr/bin/python3.12 -u 'my tools/restore.py' {input} {output}",
         "command:restore"),
        ("command:python -m gfpgan.main {input} {output}", "command:gfpgan"),
        ("command:sh {input} {output}", "command:sh"),
    ],
)  # fmt: skip
def test_arms_of_others_are_called_after_their_file(arm: str, name: str) -> None:
    assert names([arm], []) == [name]


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("onnx:", "wants more: onnx:FILE"),
        ("command:prog {input}", r"has no \{output\}"),
        ("command:prog '{input} {output}", "no closing quotation"),
    ],
)
def test_half_an_arm_is_refused(arm: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        references([arm], [])


def test_an_arm_is_known_by_what_makes_its_outputs(tmp_path: Path) -> None:
    script, pictures = tmp_path / "run.py", tmp_path / "out"
    script.write_text("1")
    pictures.mkdir()
    (pictures / "a.png").write_text("1")
    arms = [
        parse_arm(f"command:python {script} {{input}} {{output}}"),
        parse_arm(f"folder:{pictures}"),
    ]
    before = [arm_sha256(arm) for arm in arms]
    assert before == [arm_sha256(arm) for arm in arms]
    script.write_text("2")
    (pictures / "a.png").write_text("2")
    after = [arm_sha256(arm) for arm in arms]
    assert before[0] != after[0] and before[1] != after[1]
    # Two commands of one program are two arms.
    twice = [f"command:python {script} {{input}} {{output}} {k}" for k in (1, 2)]
    assert len(set(names(twice, []))) == 2


def test_an_unknown_arm_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean bicubic"):
        references(["bicubik"], [])


def test_pulse_without_a_generator_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    with pytest.raises(InputError, match="--generator"):
        references(["pulse"], [])
