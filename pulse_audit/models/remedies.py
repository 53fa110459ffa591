"""The remedies of where a search starts: ``GENERATOR@strata`` and ``GENERATOR@balanced``.

The attribute model that tells the groups of starts apart is not the one that judges the outputs:
else a remedy would be rewarded for what that model mistakes for a group.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import in_crop_of
from pulse_audit.models.shipped import ATTRIBUTES, CHECK
from pulse_audit.seeding import fingerprint
from pulse_audit.types import Generator, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pulse_audit.search.config import SearchConfig
    from pulse_audit.search.starts import StartBank

#: The attribute whose groups are spread, where the model has it; else its first.
ATTRIBUTE = "race"
#: Largest side in pixels of a sample that is classified.
LARGEST = 256


def with_remedy(
    generator: Generator,
    remedy: str,
    config: SearchConfig,
    device: torch.device,
    *,
    judges: Collection[str | None] = (),
    size: int | None = None,
    progress: Progress = lambda done, total, restored: None,
) -> tuple[Generator, StartBank]:
    """Return the generator that is searched, and where its searches start.

    Parameters
    ----------
    generator : Generator
        On ``device``.
    remedy : {"strata", "balanced"}
        See `pulse_audit.search.starts`.
    config : SearchConfig
        Of the searches: noise, and whether latents are tied.
    device : torch.device
    judges : collection of str, optional
        Attribute models that judge the outputs; where `CHECK` is the first of them, the other
        shipped model tells the starts apart.
    size : int, optional
        Samples of the bank; default `pulse_audit.search.starts.BANK`.
    progress : callable, optional
        Called with the samples classified.

    Raises
    ------
    InputError
        If the attribute model is missing, the prior shows fewer than two groups, or, of
        ``balanced``, the generator has no mapping network.
    """
    import torch

    from pulse_audit.faces.attributes import checked
    from pulse_audit.generators.searchable import prior_images
    from pulse_audit.search.posterior import start_images
    from pulse_audit.search.starts import BANK, StartBank, classified, reweighted

    model = load_attributes(ATTRIBUTES if CHECK in judges else CHECK, device)
    vocabulary = model.card.vocabulary
    attribute = ATTRIBUTE if ATTRIBUTE in vocabulary else next(iter(vocabulary))
    words, n = vocabulary[attribute], size or BANK

    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        return checked(model, images).probabilities[attribute].argmax(1)

    key = f"{model.card.sha256 or model.card.name} {attribute}"
    source = {"attribute": attribute, "attribute_model": model.card.name, "samples": n}
    if remedy == "balanced":
        # The groups of the generator's own samples weight the mean of the Gaussian.
        shown = in_crop_of(generator, model.card.crop, LARGEST)
        seeds = [fingerprint("own samples", index) for index in range(n)]
        classes = classified(
            lambda part: prior_images(shown, part, device), classify, seeds, key, progress
        )
        generator = reweighted(generator, seeds, classes)
        counts = {word: int((classes == place).sum()) for place, word in enumerate(words)}
        source |= {"mean_of": counts}

    seen = in_crop_of(generator, model.card.crop, LARGEST)
    seeds = [fingerprint("start", index) for index in range(n)]
    classes = classified(
        lambda part: start_images(seen, part, config, device), classify, seeds, key, progress
    )
    seeds_of: dict[str, list[int]] = {word: [] for word in words}
    for seed, place in zip(seeds, classes.tolist(), strict=True):
        seeds_of[words[place]].append(seed)
    return generator, StartBank(remedy, seeds_of, source)
