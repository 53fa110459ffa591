import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_audit.datasets.balance import (
    BalancedDraw,
    Skipped,
    balanced_draw,
    cell_of,
    replace_unusable,
)
from pulse_audit.datasets.copies import Copies
from pulse_audit.datasets.images import FileImage, UnreadableImage
from pulse_audit.datasets.readers import read_faces
from pulse_audit.datasets.registry import Registry
from pulse_audit.types import Face, InputError


@dataclass(frozen=True)
class Nothing:
    def read(self) -> bytes:
        raise OSError("nothing here")


def crowd(per_cell: int = 20, races: str = "ABC", genders: str = "MF") -> list[Face]:
    return [
        Face(f"{race}{gender}{i}.jpg", Nothing(), {"race": race, "gender": gender})
        for race, gender in product(races, genders)
        for i in range(per_cell)
    ]


def ids(draw: BalancedDraw) -> list[str]:
    return [face.id for face in draw.chosen]


@pytest.mark.parametrize("group_by", [("race",), ("gender",), ("race", "gender")])
def test_every_cell_gives_the_same_number(group_by: tuple[str, ...]) -> None:
    draw = balanced_draw(crowd(), group_by, 7, seed=0)
    cells = Counter(cell_of(face, group_by) for face in draw.chosen)
    assert set(cells.values()) == {7}
    assert len(set(ids(draw))) == len(draw.chosen)


def test_no_grouping_is_one_cell() -> None:
    draw = balanced_draw(crowd(), (), 7, seed=0)
    assert len(draw.chosen) == 7 and set(draw.reserve) == {()}


def test_chosen_and_reserve_are_all_faces() -> None:
    faces = crowd()
    draw = balanced_draw(faces, ["race"], 7, seed=0)
    rest = [face.id for members in draw.reserve.values() for face in members]
    assert sorted(ids(draw) + rest) == sorted(face.id for face in faces)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), few=st.integers(1, 10), shuffle=st.randoms())
def test_a_draw_is_the_beginning_of_a_larger_one(seed: int, few: int, shuffle: object) -> None:
    faces = crowd()
    small = balanced_draw(faces, ["race"], few, seed)
    shuffle.shuffle(faces)  # type: ignore[attr-defined]
    large = balanced_draw(faces, ["race"], 20, seed)
    assert ids(large)[: len(small.chosen)] == ids(small)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), limit=st.integers(0, 60))
def test_any_beginning_is_balanced_to_within_one(seed: int, limit: int) -> None:
    draw = balanced_draw(crowd(10, genders="M"), ["race"], 10, seed)
    counts = Counter(face.labels["race"] for face in draw.chosen[:limit])
    sizes = [counts[race] for race in "ABC"]
    assert max(sizes) - min(sizes) <= 1


def test_faces_added_to_another_cell_change_nothing() -> None:
    faces = crowd()
    before = balanced_draw(faces, ["race"], 5, seed=1)
    more = [Face(f"new{i}", Nothing(), {"race": "C", "gender": "M"}) for i in range(50)]
    after = balanced_draw([*more, *faces], ["race"], 5, seed=1)
    for race in "AB":
        kept = [face.id for face in before.chosen if face.labels["race"] == race]
        assert kept == [face.id for face in after.chosen if face.labels["race"] == race]


def test_another_seed_draws_other_faces() -> None:
    draws = {tuple(ids(balanced_draw(crowd(), ["race"], 5, seed))) for seed in range(20)}
    assert len(draws) == 20


def by_hand(face: Face) -> str:
    """The order of a cell, without the package: SHA-256 of [seed, "draw", id] as JSON."""
    return hashlib.sha256(
        json.dumps([3, "draw", face.id], separators=(",", ":")).encode()
    ).hexdigest()


def test_the_draw_of_a_seed_never_changes() -> None:
    draw = balanced_draw(crowd(), ["race"], 4, seed=3)
    for race in "ABC":
        cell = sorted((f for f in crowd() if f.labels["race"] == race), key=by_hand)
        assert [f for f in draw.chosen if f.labels["race"] == race] == cell[:4]


def test_every_face_is_drawn_equally_often() -> None:
    faces = crowd(6, genders="M")
    drawn = Counter(i for seed in range(400) for i in ids(balanced_draw(faces, ["race"], 2, seed)))
    expected = 400 * 2 / 6
    statistic = sum((drawn[face.id] - expected) ** 2 / expected for face in faces)
    assert statistic < 37.7  # chi-squared, 15 degrees of freedom, p = 0.001


def test_every_cell_comes_first_equally_often() -> None:
    firsts = Counter(
        balanced_draw(crowd(1, genders="M"), ["race"], 1, seed).chosen[0].labels["race"]
        for seed in range(600)
    )
    assert all(abs(firsts[race] - 200) < 60 for race in "ABC")  # five standard deviations


def refusal(*args: object, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        balanced_draw(*args, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_short_cell_is_named_with_its_count() -> None:
    faces = [*crowd(5, "AB", "M"), *crowd(3, "C", "M")]
    line = refusal(faces, ["race"], 5, 0)
    assert "race=C" in line and "3 faces" in line and "5 are needed" in line
    assert "--per-group to 3" in line


def test_a_group_of_the_vocabulary_without_faces_is_an_error() -> None:
    line = refusal(crowd(5), ["race"], 5, 0, vocabulary={"race": ("A", "B", "C", "D")})
    assert "race=D" in line and "0 faces" in line


def test_an_empty_intersection_is_an_error() -> None:
    faces = [*crowd(5, "AB", "MF"), *crowd(5, "C", "M")]
    line = refusal(faces, ["race", "gender"], 5, 0)
    assert "race=C, gender=F" in line


def test_further_short_cells_are_counted() -> None:
    assert "2 more cells" in refusal(crowd(2, "ABC", "M"), ["race"], 5, 0)


@pytest.mark.parametrize(
    ("group_by", "per_group", "expected"),
    [
        (["rcae"], 2, "race"),
        (["race", "race"], 2, "twice"),
        (["race"], 0, "at least 1"),
        (["race"], -3, "at least 1"),
    ],
)
def test_what_cannot_be_drawn_costs_one_line(
    group_by: list[str], per_group: int, expected: str
) -> None:
    assert expected in refusal(crowd(), group_by, per_group, 0)


def test_faces_without_labels_cannot_be_grouped() -> None:
    faces = [Face(f"{i}.jpg", Nothing(), {}) for i in range(5)]
    assert "no labels" in refusal(faces, ["race"], 2, 0)


def test_a_face_without_the_label_is_named() -> None:
    faces = [*crowd(), Face("bare.jpg", Nothing(), {"gender": "M"})]
    assert "bare.jpg" in refusal(faces, ["race"], 2, 0)


# -- Unreadable photos -----------------------------------------------------------------------


def failing(*bad: str, error: type[Exception] = UnreadableImage) -> object:
    def verify(face: Face) -> None:
        if face.id in bad:
            raise error("truncated")

    return verify


def test_nothing_is_skipped_where_all_can_be_read() -> None:
    draw = balanced_draw(crowd(), ["race"], 5, 0)
    assert replace_unusable(draw, failing()) == (draw.chosen, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [UnreadableImage, OSError])
def test_an_unreadable_face_is_replaced_from_its_own_cell(error: type[Exception]) -> None:
    draw = balanced_draw(crowd(), ["race", "gender"], 5, 0)
    victim = draw.chosen[8]
    cell = cell_of(victim, draw.group_by)
    chosen, skipped = replace_unusable(draw, failing(victim.id, error=error))  # type: ignore[arg-type]
    assert [(skip.face, skip.cell, skip.reason) for skip in skipped] == [
        (victim, cell, "truncated")
    ]
    assert {face.id for face in chosen} - set(ids(draw)) == {draw.reserve[cell][0].id}
    assert set(Counter(cell_of(face, draw.group_by) for face in chosen).values()) == {5}


def test_replacement_keeps_draws_nested() -> None:
    bad = {face.id for face in balanced_draw(crowd(), ["race"], 20, 0).chosen[::3]}
    verify = failing(*bad)
    few, _ = replace_unusable(balanced_draw(crowd(), ["race"], 5, 0), verify)  # type: ignore[arg-type]
    more, _ = replace_unusable(balanced_draw(crowd(), ["race"], 9, 0), verify)  # type: ignore[arg-type]
    assert more[: len(few)] == few


def test_faces_that_are_not_needed_are_not_opened() -> None:
    seen: list[str] = []
    draw = balanced_draw(crowd(), ["race"], 5, 0)
    replace_unusable(draw, lambda face: seen.append(face.id))
    assert sorted(seen) == sorted(ids(draw))


def test_a_cell_that_runs_out_is_named() -> None:
    faces = crowd(6)
    bad = [face.id for face in faces if face.labels["race"] == "B"][:-3]
    with pytest.raises(InputError, match=r"race=B: 3 usable.*5 are needed.*9 are unreadable"):
        replace_unusable(balanced_draw(faces, ["race"], 5, 0), failing(*bad))  # type: ignore[arg-type]


def test_photos_are_decoded_by_default(registry: Registry) -> None:
    faces = read_faces(registry.get("skimage-faces"), None).faces
    broken = [Face(f"{i}", Nothing(), {}) for i in range(100)]
    chosen, skipped = replace_unusable(balanced_draw([*faces, *broken], (), 20, 0))
    assert len(chosen) == 20 and skipped
    assert {skip.reason for skip in skipped} == {"nothing here"}


# -- Faces with the same photo ---------------------------------------------------------------


@dataclass(frozen=True)
class Bytes:
    """A photo of a few bytes."""

    data: bytes

    def read(self) -> bytes:
        return self.data


def album(**photos: tuple[str, bytes]) -> list[Face]:
    """Faces by name, each with its race and its photo."""
    return [
        Face(name, Bytes(data), {"race": race, "age": name[-1]})
        for name, (race, data) in photos.items()
    ]


def usable(
    faces: list[Face], per_group: int, columns: tuple[str, ...] = ()
) -> tuple[list[Face], list[Skipped]]:
    draw = balanced_draw(faces, ["race"], per_group, 0)
    return replace_unusable(draw, lambda face: None, Copies(faces), columns)


def test_of_faces_with_one_photo_the_first_by_name_stays() -> None:
    twins = {name: ("A", b"same") for name in ("c1", "a2", "b3")}
    faces = album(**twins, d1=("A", b"more"), e1=("A", b"diff"))
    chosen, skipped = usable(faces, 3)
    assert {face.id for face in chosen} == {"a2", "d1", "e1"}
    assert {(s.face.id, s.reason, s.kind) for s in skipped} == {
        ("b3", "the same photo as a2", "duplicate"),
        ("c1", "the same photo as a2", "duplicate"),
    }


def test_a_photo_under_two_labels_is_left_out_entirely() -> None:
    faces = album(
        a1=("A", b"same"), b1=("B", b"same"), c1=("A", b"1"), d1=("B", b"2"), e1=("A", b"3"),
        f1=("B", b"4"),
    )  # fmt: skip
    chosen, skipped = usable(faces, 2)
    assert {face.id for face in chosen} == {"c1", "d1", "e1", "f1"}
    assert {(s.face.id, s.cell, s.kind) for s in skipped} == {
        ("a1", ("A",), "contradictory"), ("b1", ("B",), "contradictory"),
    }  # fmt: skip


def test_labels_contradict_each_other_only_in_what_the_run_groups_by() -> None:
    faces = album(a1=("A", b"same"), b2=("A", b"same"), c1=("A", b"1"), d1=("A", b"2"))
    assert {s.kind for s in usable(faces, 3)[1]} == {"duplicate"}
    chosen, skipped = usable(faces, 2, ("age",))
    assert {face.id for face in chosen} == {"c1", "d1"}
    assert {s.kind for s in skipped} == {"contradictory"}


def test_a_cell_that_runs_out_of_distinct_photos_is_named() -> None:
    faces = album(a1=("A", b"same"), b1=("A", b"same"), c1=("A", b"1"))
    with pytest.raises(InputError, match="2 usable faces where 3 are needed.*1 have another's"):
        usable(faces, 3)


def test_files_of_other_sizes_are_not_read(tmp_path: Path) -> None:
    faces = []
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * (10 + number // 2))
        faces.append(Face(f"{number}.jpg", FileImage(str(tmp_path), f"{number}.jpg"), {}))
    copies = Copies(faces)
    assert [face.id for face in copies.of(faces[2])] == ["2.jpg", "3.jpg"]
    assert set(copies._digests) == {"2.jpg", "3.jpg"}
