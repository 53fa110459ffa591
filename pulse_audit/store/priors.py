"""Samples of the priors of a run's generators, as counts: ``sources/priors.json``."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulse_audit.types import InputError

#: Name of the file in ``sources/``.
NAME = "priors.json"
#: Largest such file that is read, in bytes.
MAX_BYTES = 2**26

_Word = Annotated[str, Field(max_length=200)]
_Counts = dict[_Word, Annotated[int, Field(ge=0, le=2**40)]]
_Squares = list[Annotated[float, Field(ge=0, le=1)]]


class PriorTable(BaseModel):
    """Samples of the priors of the generator of an arm.

    ``counts`` are by attribute, prior and word of the attribute model, ``pairs`` by prior, as of
    `pulse_audit.fairness.prior.PriorSample`. ``unavailable`` says why a prior has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    counts: dict[str, dict[str, _Counts]]
    pairs: dict[str, _Squares]
    unavailable: dict[str, str]


def read_prior_tables(content: Any, where: Path, arms: Container[str]) -> dict[str, PriorTable]:
    """Check what a run keeps, by one of its arms: priors of an attribute count the same words.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    damaged = f"{where}: is damaged; delete it, and the same run command makes it again"
    if not isinstance(content, dict) or any(arm not in arms for arm in content):
        raise InputError(damaged)
    tables = {}
    for arm, table in content.items():
        try:
            tables[str(arm)] = checked = PriorTable.model_validate(table)
        except ValidationError:
            raise InputError(damaged) from None
        for of_priors in checked.counts.values():
            words = list(next(iter(of_priors.values()), {}))
            for prior, counts in of_priors.items():
                n = 2 * len(checked.pairs.get(prior, []))
                if list(counts) != words or sum(counts.values()) != n or n < 4:
                    raise InputError(damaged)
    return tables
