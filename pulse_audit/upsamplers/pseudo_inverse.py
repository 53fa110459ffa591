"""The pseudo-inverse of a downscaling operator that is one matrix an axis.

Every DS here, and DS of what a frame shows, maps an image X to ``rows X columns^T``. Both matrices
are found by what the operator does to stripes, and their pseudo-inverses, by singular values, make
that of the operator: the pseudo-inverse of a Kronecker product is the product of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_audit.types import InputError

#: Singular values below this share of the largest count as 0.
SMALLEST = 1e-6
#: Largest difference, in float64, of an operator from its two matrices.
TOLERANCE = 1e-6
#: Pixels of the stripes that are downscaled at once.
PIXELS = 2**20


@dataclass(frozen=True)
class SeparableOperator:
    """A linear operator on images (n, c, R, R), with its pseudo-inverse.

    Attributes
    ----------
    rows, columns : Tensor, (r, R)
        float64.
    """

    rows: Tensor
    columns: Tensor
    _inverses: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, operator: Callable[[Tensor], Tensor], side: int, device: torch.device
    ) -> SeparableOperator:
        """Find the matrices of an operator on (n, 3, side, side) that keeps flat images flat.

        Raises
        ------
        InputError
            If it is no such operator.
        """
        # Stripe i is 1 in row i, three stripes an image.
        stripes = torch.zeros(-(-side // 3) * 3, side, dtype=torch.float64, device=device)
        stripes[:side] = torch.eye(side)
        images = stripes.view(-1, 3, side, 1).expand(-1, 3, side, side)
        with torch.no_grad():
            # What comes out of a stripe is column i of the matrix of the rows.
            found = []
            for part in torch.split(images, max(1, PIXELS // side**2)):
                down = operator(part)[..., :, 0].flatten(0, 1)
                across = operator(part.mT)[..., 0, :].flatten(0, 1)
                found.append(torch.stack([down, across]))
            rows, columns = torch.cat(found, dim=1)[:, :side].mT
            # A random image tells whether these are the whole operator.
            random = torch.Generator().manual_seed(0)
            image = torch.rand(1, 3, side, side, generator=random, dtype=torch.float64).to(device)
            error = float((operator(image) - rows @ image @ columns.mT).abs().max())
        if not error <= TOLERANCE:
            raise InputError(
                "DDNM needs a downscaling that is linear, one matrix for rows and one for columns, "
                f"and keeps flat images flat; this one differs by {error:.2g}"
            )
        inverses = [torch.linalg.pinv(matrix, rtol=SMALLEST) for matrix in (rows, columns)]
        return cls(rows, columns, (inverses[0], inverses[1]))

    def inverse(self, lr: Tensor) -> Tensor:
        """Return the shortest image (n, c, R, R) that comes nearest to (n, c, r, r)."""
        rows, columns = (matrix.to(lr) for matrix in self._inverses)
        return rows @ lr @ columns.mT
