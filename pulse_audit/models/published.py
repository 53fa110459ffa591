"""Published weights by name: which there are, and the files of those that were fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.names import parse_generator
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from pulse_audit.models.registry import WeightCard


def generator_names() -> list[str]:
    """Return the names under which generators can be fetched."""
    from pulse_audit.models.registry import cards

    return [card.name for card in cards().values() if card.kind == "generator"]


def generator_card(reference: str) -> WeightCard | None:
    """Return the card behind a reference that is the name of a generator's weights, else None."""
    from pulse_audit.models.registry import cards

    name = parse_generator(reference).source
    return cards()[name] if name in generator_names() else None


def fetched(card: WeightCard) -> tuple[Path, str]:
    """Return the file of a card, and its SHA-256.

    Raises
    ------
    InputError
        If it is not there, or no longer what was fetched; the line names the command that helps.
    """
    from pulse_audit.models import cache

    path, seen = cache.located(card.name), cache.seen(card)
    if path is None or seen is None:
        found = cache.state(card)
        state = "not fetched" if found == "missing" else f"its file is {found}"
        raise InputError(f"{card.name} is known but {state}: pulse-audit fetch {card.name}")
    return path, seen.sha256


def to_fetch(names: Sequence[str]) -> list[WeightCard]:
    """Return the cards of weights by name, each followed by the Gaussian fit it needs, if any.

    Raises
    ------
    InputError
        If a name is unknown, or is a data set, which has to be obtained by hand.
    """
    from pulse_audit.datasets.registry import load_registry
    from pulse_audit.models.registry import get

    datasets = load_registry().cards
    for name in names:
        if name in datasets:
            raise InputError(f"{name} is a data set without a direct link: {datasets[name].obtain}")
    wanted = [also for name in names for also in (name, get(name).gaussian_fit) if also]
    return [get(name) for name in dict.fromkeys(wanted)]
