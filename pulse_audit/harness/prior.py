"""``pulse-audit prior``: what a search's prior shows before any input, of any generator.

Samples of five priors (`pulse_audit.fairness.prior`) are rendered, cut to the crop that the
attribute model was made for, and classified. Parts of them are kept as they are finished, so that
the same command goes on after an interruption; no sample depends on the batch it is rendered in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pulse_audit import store
from pulse_audit.degrade.resample import resize
from pulse_audit.documents import read_json
from pulse_audit.faces.attributes import checked
from pulse_audit.fairness.prior import OWN, PRIORS, PriorSample
from pulse_audit.files import atomic_write
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.searchable import drawn_from, prior_images
from pulse_audit.harness.photos import encode_png, synthetic_marks, to_bytes
from pulse_audit.harness.plan import Plan, check_device
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import find_generator, in_crop_of, load_generator
from pulse_audit.names import GeneratorReference, parse_generator
from pulse_audit.report import prior as text
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.posterior import start_images
from pulse_audit.seeding import fingerprint, hexdigest
from pulse_audit.store.priors import PriorTable
from pulse_audit.summary.priors import prior_sentence
from pulse_audit.types import (
    AttributeModel,
    Generator,
    GeneratorCard,
    InputError,
    Progress,
    Unavailable,
)

#: Bump where the samples of a seed change.
VERSION = 1
#: Samples of a part; even, since the variance is of pairs.
PART = 500
#: Pixels rendered at once, per device, and images at most.
BATCH_PIXELS, MAX_BATCH = {"cpu": 4 * 1024**2, "cuda": 32 * 1024**2}, 250
#: Samples of a prior in a run with ``--sources``.
STARTS = 1_000
#: Side in pixels at which pictures are compared, and at which their variance is measured.
COMPARED, VARIANCE_SIDE = 256, 32
#: Samples of a prior that are shown, and the side in pixels of each.
SHOWN, TILE = 10, 96


@dataclass(frozen=True)
class Variant:
    """One of `PRIORS` of a generator: the generator, and whether one latent serves all layers."""

    prior: str
    generator: Generator
    tied: bool

    def images(self, seeds: Sequence[int], device: torch.device) -> Tensor:
        """Draw one picture a seed, (n, 3, R, R) in [0, 1]."""
        if self.prior == OWN:
            return prior_images(self.generator, seeds, device)
        return start_images(self.generator, seeds, SearchConfig(tied_latent=self.tied), device)


@dataclass(frozen=True)
class PriorSamples:
    """Samples of the priors of a generator.

    ``samples`` are by attribute and prior, ``unavailable`` says why a prior has none, ``shown`` are
    the first pictures of each, (m, 3, s, s).
    """

    card: GeneratorCard
    words: Mapping[str, tuple[str, ...]]
    samples: Mapping[str, Mapping[str, PriorSample]]
    unavailable: Mapping[str, str]
    shown: Mapping[str, Tensor]


def variants_of(
    reference: GeneratorReference, trusted: Sequence[str] = ()
) -> tuple[list[Variant], dict[str, str]]:
    """Load a generator with both of its fits; also why priors are unavailable.

    Raises
    ------
    InputError
        If the generator cannot be loaded.
    """
    unavailable: dict[str, str] = {}
    found: list[Variant] = []
    diagonal = load_generator(reference, trusted)
    if drawn_from(diagonal) == "mapping" or diagonal.card.n_latents == 1:
        found.append(Variant(OWN, diagonal, False))
    else:
        unavailable[OWN] = "the generator came without its mapping network, or has classes"
    if diagonal.card.n_latents == 1:
        for prior in PRIORS:
            if prior != OWN:
                unavailable[prior] = "one latent, drawn from the generator's own prior"
        return found, unavailable
    fits: dict[str, Generator | Unavailable] = {"diagonal": diagonal}
    try:
        fits["full"] = load_generator(replace(reference, full=True), trusted)
    except InputError as error:
        fits["full"] = Unavailable(str(error))
    for prior in (name for name in PRIORS if name != OWN):
        fit, _, layers = prior.partition(", ")
        generator = fits[fit]
        if isinstance(generator, Unavailable):
            unavailable[prior] = generator.reason
        else:
            found.append(Variant(prior, generator, layers == "tied"))
    return found, unavailable


def sample_priors(
    reference: GeneratorReference,
    model: AttributeModel,
    *,
    samples: int,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: Progress,
    trusted: Sequence[str] = (),
) -> PriorSamples:
    """Draw and classify samples of every prior of a generator, or go on with what is there.

    Parameters
    ----------
    reference : GeneratorReference
        Of a generator that is no variant.
    model : AttributeModel
        On ``device``.
    samples : int
        Of each prior; an odd number is one more.
    seed : int
    device : torch.device
    folder : Path
        Where finished parts are kept.
    progress : callable
        Called with the samples drawn.
    trusted : sequence of str
        See `load_generator`.
    """
    found, unavailable = variants_of(reference, trusted)
    framed = [
        replace(
            variant,
            generator=in_crop_of(
                variant.generator.to(device, torch.float32), model.card.crop, COMPARED
            ),
        )
        for variant in found
    ]
    card = found[0].generator.card
    # What the samples follow from, but for device and versions of libraries.
    source = card.sha256 or find_generator(reference).sha256
    key = hexdigest(VERSION, source, str(replace(reference, source="")), model.card.as_dict(), seed)
    samples += samples % 2
    starts, total = range(0, samples, PART), samples * len(framed)
    paths = {
        (variant.prior, start): folder / "parts" / f"{key[:16]}-{place}-{start}.json"
        for place, variant in enumerate(framed)
        for start in starts
    }
    parts = {which: _read_part(path, model) for which, path in paths.items()}
    sizes = {start: min(PART, samples - start) for start in starts}
    restored = sum(sizes[start] for (_, start), p in parts.items() if _fits(p, sizes[start]))
    done = restored
    progress(done, total, restored)
    for variant in framed:
        for start in starts:
            which, size = (variant.prior, start), sizes[start]
            if _fits(parts[which], size):
                continue
            counts = {attribute: np.zeros(len(w), int) for attribute, w in _words(model).items()}
            pairs: list[float] = []
            for images in _batches(variant, range(start, start + size), seed, device):
                _classify(model, images, counts)
                pairs += _pairs(images)
                done += len(images)
                progress(done, total, restored)
            content = {"counts": {a: c.tolist() for a, c in counts.items()}, "pairs": pairs}
            atomic_write(paths[which], json.dumps(content).encode())
            parts[which] = content
    return PriorSamples(
        card=card,
        words=_words(model),
        samples={
            attribute: {
                variant.prior: PriorSample(
                    np.sum([parts[variant.prior, s]["counts"][attribute] for s in starts], axis=0),
                    np.concatenate([parts[variant.prior, s]["pairs"] for s in starts]),
                )
                for variant in framed
            }
            for attribute in _words(model)
        },
        unavailable=unavailable,
        shown={
            variant.prior: resize(
                next(_batches(variant, range(SHOWN), seed, device, SHOWN)), TILE
            ).cpu()
            for variant in framed
        },
    )


def measure_priors(
    generators: Sequence[str],
    *,
    samples: int,
    seed: int,
    attributes: str | None,
    device: str,
    out: Path,
    progress: Progress,
    trusted_files: Sequence[str] = (),
) -> dict[str, Any]:
    """Sample the priors of generators and write their tables and pictures.

    Returns
    -------
    dict
        ``sentences``, ``table`` (the Markdown file), and by generator and attribute the rows.
    """
    on, numbers = check_device(device), {}
    texts, sentences = list[str](), list[str]()
    model = load_attributes(attributes, on)
    for place, reference in enumerate(map(parse_generator, generators)):
        stem = reference.stem

        def counted(done: int, total: int, restored: int, place: int = place) -> None:
            progress(done + place * total, total * len(generators), restored + place * total)

        of = sample_priors(
            reference,
            model,
            samples=samples,
            seed=seed,
            device=on,
            folder=out / stem,
            progress=counted,
            trusted=trusted_files,
        )
        rows = text.tables(of.samples, seed)
        numbers[stem] = (of.words, rows)
        texts.append(text.markdown(stem, of.words, of.samples, of.unavailable, rows))
        for attribute, words in of.words.items():
            if said := prior_sentence(stem, words, of.samples[attribute]):
                sentences.append(said)
        title = f"{stem}: samples of what a search can start from, seed {seed}; nobody's faces"
        atomic_write(out / f"{stem}.png", picture(of, title))
    parts = [text.heading(samples, model.card.name, seed), *texts]
    atomic_write(out / "prior.md", "\n".join(parts).encode())
    atomic_write(out / "prior.csv", text.as_csv(numbers).encode())
    return {
        "sentences": sentences,
        "table": str(out / "prior.md"),
        "generators": {
            stem: {a: [asdict(row) for row in table] for a, table in rows.items()}
            for stem, (_, rows) in numbers.items()
        },
    }


def run_priors(
    run: store.Run,
    plan: Plan,
    model: AttributeModel,
    progress: Progress,
    trusted: Sequence[str] = (),
    samples: int | None = None,
) -> None:
    """Sample the priors of every searched generator of a run, for ``--sources``.

    Arms of one generator, such as its variants, share the samples, under the name of the first.
    """
    if run.read_priors() is not None:
        return
    manifest, tables = plan.manifest, dict[str, Any]()
    folder, seen = run.path / "sources" / "starts", set[GeneratorReference]()
    for arm, reference in plan.generators.items():
        plain = replace(reference, full=False, tied=False, remedy=None)
        if plain in seen:
            continue
        seen.add(plain)
        found = sample_priors(
            plain,
            model,
            samples=samples or STARTS,
            seed=manifest.spec.seed,
            device=torch.device(manifest.execution.device),
            folder=folder,
            progress=progress,
            trusted=trusted,
        )
        tables[arm] = PriorTable(
            counts={
                attribute: {
                    prior: dict(zip(found.words[attribute], sample.counts.tolist(), strict=True))
                    for prior, sample in of.items()
                }
                for attribute, of in found.samples.items()
            },
            pairs={
                prior: sample.pairs.tolist()
                for prior, sample in next(iter(found.samples.values())).items()
            },
            unavailable=dict(found.unavailable),
        )
    run.write_priors(tables)
    shutil.rmtree(folder, ignore_errors=True)


def _words(model: AttributeModel) -> dict[str, tuple[str, ...]]:
    return {attribute: tuple(words) for attribute, words in model.card.vocabulary.items()}


def _batches(
    variant: Variant, indices: range, seed: int, device: torch.device, most: int = MAX_BATCH
) -> Iterator[Tensor]:
    """Render samples in batches of an even number."""
    shown = variant.generator
    whole = shown.whole if isinstance(shown, FramedGenerator) else shown
    side = whole.card.resolution
    fit = BATCH_PIXELS[device.type if device.type in BATCH_PIXELS else "cpu"] // side**2
    size = max(2, min(most, fit) // 2 * 2)
    for first in range(indices.start, indices.stop, size):
        batch = range(first, min(first + size, indices.stop))
        seeds = [fingerprint(seed, "prior table", variant.prior, index) for index in batch]
        yield variant.images(seeds, device)


@torch.no_grad()
def _classify(model: AttributeModel, images: Tensor, counts: Mapping[str, Any]) -> None:
    """Count the most probable class of every picture."""
    answer = checked(model, images)
    for attribute, of_words in counts.items():
        classes = answer.probabilities[attribute].argmax(1).cpu().numpy()
        of_words += np.bincount(classes, minlength=len(of_words))


def _pairs(images: Tensor) -> list[float]:
    """Half the mean squared difference of the first and second picture, the third and fourth..."""
    small = resize(images, min(VARIANCE_SIDE, images.shape[-1])).double()
    halves: list[float] = ((small[0::2] - small[1::2]).square().mean((1, 2, 3)) / 2).tolist()
    return halves


def _fits(part: Any, size: int) -> bool:
    return part is not None and len(part["pairs"]) == size // 2


def _read_part(path: Path, model: AttributeModel) -> Any:
    """Read a finished part; None where there is none that is whole."""
    try:
        content = read_json(path)
        pairs = np.asarray(content["pairs"], dtype=np.float64)
        whole = pairs.ndim == 1 and bool(np.isfinite(pairs).all())
        for attribute, words in _words(model).items():
            counts = np.asarray(content["counts"][attribute])
            whole = whole and counts.shape == (len(words),) and counts.dtype.kind == "i"
            whole = whole and int(counts.sum()) == 2 * len(pairs) and int(counts.min()) >= 0
        return content if whole else None
    except (InputError, OSError, LookupError, TypeError, ValueError):
        return None


def picture(found: PriorSamples, title: str) -> bytes:
    """Draw the first samples of every prior, a row each, as a PNG marked synthetic."""
    line, gap = 22, 6
    height = line + len(found.shown) * (TILE + line + gap)
    sheet = Image.new("RGB", (SHOWN * TILE + 2 * gap, height + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((gap, 4), title, "black", font)
    for row, (prior, images) in enumerate(found.shown.items()):
        top = line + row * (TILE + line + gap)
        draw.text((gap, top + 4), f"{prior}: {PRIORS[prior]}", "black", font)
        for place, image in enumerate(images):
            tile = Image.fromarray(to_bytes(image.clamp(0, 1)))
            sheet.paste(tile, (gap + place * TILE, top + line))
    return encode_png(sheet, synthetic_marks(found.card.name, 0))
