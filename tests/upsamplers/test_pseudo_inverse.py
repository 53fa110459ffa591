"""The pseudo-inverse of DS, against that of its whole matrix."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pulse_audit.degrade.resample import KERNELS, cut_to_frame, downscale
from pulse_audit.frames import Frame
from pulse_audit.upsamplers.pseudo_inverse import SeparableOperator

SIDE = 8
Operator = Callable[[Tensor], Tensor]


def operators() -> dict[str, Operator]:
    frame = Frame(0.1, 0.2, 0.7)
    plain: dict[str, Operator] = {
        kernel: lambda images, kernel=kernel: downscale(images, 2, kernel) for kernel in KERNELS
    }
    return {**plain, "framed": lambda images: downscale(cut_to_frame(images, frame, 6), 2, "area")}


@pytest.mark.parametrize("name", operators())
def test_it_is_the_pseudo_inverse_of_the_whole_matrix(name: str) -> None:
    operator = operators()[name]
    found = SeparableOperator.of(operator, SIDE, torch.device("cpu"))
    units = torch.eye(3 * SIDE**2, dtype=torch.float64).view(-1, 3, SIDE, SIDE)
    whole = operator(units).flatten(1).T
    small = torch.eye(len(whole), dtype=torch.float64)
    side = round((len(whole) / 3) ** 0.5)
    inverse = found.inverse(small.view(-1, 3, side, side)).flatten(1).T
    torch.testing.assert_close(inverse, torch.linalg.pinv(whole), atol=1e-9, rtol=0)


def test_values_that_ds_hardly_sees_are_left_alone() -> None:
    # The second row repeats the first but for rounding: its inverse would be of the order 1e12.
    rows = torch.tensor([[0.5, 0.5, 0, 0], [0.5 + 1e-12, 0.5 - 1e-12, 0, 0]], dtype=torch.float64)

    def operator(images: Tensor) -> Tensor:
        return rows.to(images) @ images @ rows.to(images).T

    found = SeparableOperator.of(operator, 4, torch.device("cpu"))
    inverse = found.inverse(torch.ones(1, 3, 2, 2, dtype=torch.float64))
    assert float(inverse.abs().max()) == pytest.approx(1.0, abs=1e-6)
