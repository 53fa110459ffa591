"""The planted arm: the matrix it is given is the matrix it plays."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.types import InputError, Request, Status
from pulse_audit.upsamplers.planted import Planted, read_matrix

GROUPS = ("White", "Black", "Indian")
MATRIX = np.array([[0.88, 0.0, 0.12], [0.52, 0.38, 0.1], [0.25, 0.25, 0.5]])
POOL = {group: [f"{group}-{i}" for i in range(5)] for group in GROUPS}


def written(folder: Path, text: str) -> Path:
    path = folder / "M.csv"
    path.write_text(text)
    return path


def as_csv(matrix: np.ndarray, groups: tuple[str, ...] = GROUPS) -> str:
    rows = [",".join([g, *(f"{v:g}" for v in row)]) for g, row in zip(groups, matrix, strict=True)]
    return "\n".join([",".join(["", *groups]), *rows]) + "\n"


def face(face_id: str) -> torch.Tensor:
    """A flat picture that tells which face it is."""
    group, number = face_id.split("-")
    return torch.full((3, 8, 8), (GROUPS.index(group) * 10 + int(number)) / 100)


@pytest.fixture
def arm(tmp_path: Path) -> Planted:
    matrix = read_matrix(written(tmp_path, as_csv(MATRIX)), GROUPS)
    return Planted("planted:M", matrix, lambda labels: labels["race"], POOL, face)


def request(group: str, seed: int, face_id: str = "x") -> Request:
    return Request(torch.zeros(3, 2, 2), face_id, {"race": group}, seed)


def shown(images: list[torch.Tensor]) -> list[str]:
    codes = [round(float(image.mean()) * 100) for image in images]
    return [f"{GROUPS[code // 10]}-{code % 10}" for code in codes]


@pytest.mark.parametrize("row", range(3))
def test_groups_come_with_the_planted_frequencies(arm: Planted, row: int) -> None:
    n = 3000
    drawn = Counter(
        arm.candidates(request(GROUPS[row], seed))[0].split("-")[0] for seed in range(n)
    )
    wanted = {g: p for g, p in zip(GROUPS, MATRIX[row], strict=True) if p}
    assert set(drawn) == set(wanted)
    assert chisquare([drawn[g] for g in wanted], [n * p for p in wanted.values()]).pvalue > 0.01


def test_faces_of_a_group_are_drawn_evenly(arm: Planted) -> None:
    drawn = Counter(arm.candidates(request("Indian", seed))[0] for seed in range(3000))
    whites = [count for name, count in drawn.items() if name.startswith("White")]
    assert len(whites) == 5 and chisquare(whites).pvalue > 0.01


def test_a_face_is_never_answered_with_itself(arm: Planted) -> None:
    for seed in range(300):
        assert "White-2" not in arm.candidates(request("White", seed, "White-2"))


def test_answers_keep_the_contract_and_follow_the_seed_alone(arm: Planted) -> None:
    degradation = DegradationModel("clean", 4, "area")
    requests = [request("White", seed) for seed in (5, 6, 5)]
    first, _, again = arm(requests, degradation)
    assert torch.equal(first.image, again.image) and first.image.shape == (3, 8, 8)
    assert first.status is Status.OK and first.feasible is None and not arm.promises_feasibility
    assert first.downscale_error == pytest.approx(float(first.image.mean()) ** 2, rel=1e-5)
    alone = arm([requests[1]], degradation)[0]
    assert shown([alone.image]) == [arm.candidates(requests[1])[0]]


def test_arms_share_their_random_numbers(arm: Planted, tmp_path: Path) -> None:
    """One seed, two matrices: whoever is kept at 0.38 is kept at 0.5 too."""
    other = MATRIX[:, [1, 0, 2]][[1, 0, 2]]  # Black first, so that its share starts at 0
    more = other.copy()
    more[0] = [0.5, 0.4, 0.1]
    order = ("Black", "White", "Indian")
    arms = [
        Planted("p", read_matrix(written(tmp_path, as_csv(m, order)), order),
                lambda labels: labels["race"], POOL, face)
        for m in (other, more)
    ]  # fmt: skip
    kept = [
        {s for s in range(400) if a.candidates(request("Black", s))[0].startswith("Black")}
        for a in arms
    ]
    assert kept[0] < kept[1]


def test_an_unreadable_photo_is_replaced_by_the_next_of_its_group(tmp_path: Path) -> None:
    matrix = read_matrix(written(tmp_path, as_csv(np.eye(3))), GROUPS)

    def prepare(face_id: str) -> torch.Tensor | None:
        return face(face_id) if face_id == "White-3" else None

    arm = Planted("p", matrix, lambda labels: labels["race"], POOL, prepare)
    degradation = DegradationModel("clean", 4, "area")
    read, unread = arm([request("White", 1), request("Black", 1)], degradation)
    assert shown([read.image]) == ["White-3"]
    assert (read.planted_from, read.planted_group) == ("White-3", "White")
    assert unread.planted_from is None
    assert unread.status is Status.ERROR and unread.image is None and unread.reason


def test_a_group_without_a_face_to_return_is_refused(tmp_path: Path) -> None:
    matrix = read_matrix(written(tmp_path, as_csv(MATRIX)), GROUPS)
    with pytest.raises(InputError, match="no face of 'Black' is left"):
        Planted("p", matrix, lambda labels: "", POOL | {"Black": []}, face)


def test_rows_and_columns_are_put_into_the_order_of_the_groups(tmp_path: Path) -> None:
    order = [2, 0, 1]
    text = as_csv(MATRIX[order][:, order], tuple(GROUPS[i] for i in order))
    read = read_matrix(written(tmp_path, text), GROUPS)
    np.testing.assert_allclose(read.probabilities, MATRIX, atol=1e-12)


GOOD = as_csv(MATRIX)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no matrix"),
        (GOOD.replace("0.52", "0.42"), "row 'Black' sums to 0.9, not 1"),
        (GOOD.replace("0.52", "-0.52"), "row 'Black', column 'White': -0.52 is no probability"),
        (GOOD.replace("0.52", "nan"), "column 'White': nan is no probability"),
        (GOOD.replace("0.52", "=cmd()"), r"'=cmd\(\)' is no number"),
        (GOOD.replace("Indian", "Indan"), "header: unknown group 'Indan'; did you mean Indian"),
        (GOOD.replace("\nIndian", "\nWhite"), "first column: names 'White' twice"),
        ("\n".join(GOOD.splitlines()[:3]), "first column: has no 'Indian'"),
        (GOOD.replace(",0.1\n", "\n"), "row 'Black': 2 numbers where the header has 3"),
        (GOOD + "x" * 1_000_000, "more than 1,000,000 bytes"),
        ('"', "not a CSV in UTF-8"),
    ],
)
def test_a_bad_matrix_gets_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_matrix(written(tmp_path, text), GROUPS)
    assert "\n" not in str(caught.value) and "M.csv" in str(caught.value)


def test_a_matrix_that_is_not_there_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_matrix(tmp_path / "none.csv", GROUPS)


def test_the_manifest_names_matrix_and_folds(arm: Planted, tmp_path: Path) -> None:
    described = arm.describe()
    assert described["matrix"] == MATRIX.tolist() and len(described["matrix_sha256"]) == 64
    assert described["folds"]["outputs"] == {group: 5 for group in GROUPS}


def test_a_small_pool_is_a_caveat(arm: Planted) -> None:
    assert "as few as 5 faces a group" in arm.caveats[0]
