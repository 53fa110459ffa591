"""Write the cards people read: ``python -m pulse_audit.training.cards --help``.

``<name>.md`` says in words and tables what ``<name>.json`` holds; ``<data set>.md`` what evaluation
faces are and what they can show.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pulse_audit.datasets.registry import DatasetCard, load_registry
from pulse_audit.files import atomic_write
from pulse_audit.training.command import run

LIMITS = (
    "Groups are apparent, in FairFace's own words: what crowd workers saw in a photo, not who "
    "people are. Not for identifying anyone, and not for deciding anything about anyone."
)


def generator_card(name: str, content: Mapping[str, Any]) -> str:
    """Card of a generator, in Markdown."""
    card, measured = content["card"], content["card"].get("measured")
    parts = [
        f"# {name}\n",
        f"StyleGAN 2 (skip), unconditional, {card['resolution']} px: {card['title']}.",
        *([f"\n**{card['caveat']}**"] if card.get("caveat") else []),
        f"\n![96 samples, untruncated]({name}.png)\n",
        "## Made from\n",
        f"{card['training_data']}. {card['selection']}. {card['attribution']}.\n",
        table(("apparent race", "photos"), sorted(card["composition"].items())),
        f"Trained on {1000 * card['kimg']:,.0f} images; `{name}-images.txt.gz` lists the photos "
        "by SHA-256. The configuration is in the JSON card; the twin differs in the composition "
        "alone.\n",
    ]
    if measured:
        parts += list(_measured(measured))
    parts += ["## Use and limits\n", f"For auditing upsamplers. {LIMITS}\n"]
    return "\n".join(parts)


def _measured(measured: Mapping[str, Any]) -> Iterator[str]:
    away, near = measured["distances"], measured["nearest_training_photo"]
    own = measured["feasible_on_own_samples"]
    yield f"## Measured on {measured['samples']:,} samples\n"
    yield (
        f"Composition as {measured['attribute_net']['name']} sees it (most probable class, 95 % "
        "Wilson intervals; not corrected for its errors):\n"
    )
    races = measured["composition"]["race"].items()
    yield table(
        ("apparent race", "share, %", "interval"),
        [(k, _percent(v["share"]), _between(v["low"], v["high"])) for k, v in races],
    )
    yield (
        f"Against {away['held_out_faces']:,} held-out faces, on the features of "
        f"{away['features']} (never to be compared with numbers on other features): FID "
        f"{away['fid']:.2f} (two samples of one distribution would score "
        f"{away['fid_of_equal_sets']:.2f}), KID {away['kid']:.4f} [{away['kid_low']:.4f}, "
        f"{away['kid_high']:.4f}].\n"
    )
    yield (
        "Distance to the nearest training photo or its mirror image (root mean square, levels of "
        "255). Held-out faces, which nobody can have copied, give the scale:\n"
    )
    names = ("least", "first_percentile", "median")
    yield table(
        ("images", "least", "1st percentile", "median"),
        [(what.replace("_", " "), *(near[what][n] for n in names)) for what in near],
    )
    yield (
        f"Its search finds a feasible image for {_percent(own['share'])} % "
        f"{_between(own['low'], own['high'])} of {own['samples']} of its own samples at scale "
        f"{own['scale']}, in {own['mean_steps']} steps on average.\n"
    )


def _of_cycles(ended: int) -> str:
    if ended < 2:
        return ""
    return f" Its weights are the mean over the ends of {ended} cycles of training."


def _of_priors(attributes: Sequence[str] | None) -> str:
    if not attributes:
        return ""
    return (
        f" Of {' and '.join(attributes)} it answers as if every word had been equally frequent "
        "among the photos it was trained on, so that none is seen more for having been there more."
    )


def attribute_card(name: str, content: Mapping[str, Any]) -> str:
    """Card of an attribute net, in Markdown."""
    card = content["card"]
    sizes = list(card["accuracy"])
    native = sizes[-1]
    held_out, by_race = card["held_out"][native], card["accuracy_by_race"][native]
    parts = [
        f"# {name}\n",
        "Apparent race, gender and age of a face: a small residual network at 64 px, averaged over "
        "the image and its mirror image, its probabilities calibrated by a temperature each."
        f"{_of_cycles(card.get('cycles', 1))}"
        f"{_of_priors(card['configuration'].get('equal_prior'))}\n",
        "## Made from\n",
        f"{card['training_data']}: {card['selection']}. {card['attribution']}. "
        f"`{name}-images.txt.gz` lists the photos by SHA-256.\n",
        "## Accuracy on the held-out faces, %\n",
        table(
            ("attribute", *(f"{size} px" for size in sizes), "calibration error"),
            [
                (
                    attribute,
                    *(_percent(card["accuracy"][size][attribute]) for size in sizes),
                    f"{card['calibration_error'][attribute]:.3f}",
                )
                for attribute in card["calibration_error"]
            ],
        ),
        "These are spread evenly over the ages, the very young and the very old among them. At the "
        f"mix of ages of the training photos, at {native} px: "
        + ", ".join(f"{k} {_percent(v)}" for k, v in card["accuracy_at_training_ages"].items())
        + ".\n",
        f"By apparent race, at {native} px:\n",
        table(
            ("apparent race", *card["calibration_error"]),
            [
                (
                    race,
                    *(_percent(found[race]) for found in by_race.values()),
                )
                for race in content["vocabulary"]["race"]
            ],
        ),
        f"## Confusion of race at {native} px (rows: as people saw it)\n",
        confusion(content["vocabulary"]["race"], held_out["race"]),
        "Those of every attribute and size are in the JSON card.\n",
        "## Use and limits\n",
        f"For counting apparent groups, and correcting the counts for its errors. {LIMITS} "
        + " ".join(f"{note[0].upper()}{note[1:]}." for note in card["notes"])
        + "\n",
    ]
    return "\n".join(parts)


def dataset_card(
    known: DatasetCard, rows: Sequence[Mapping[str, str]], attributes: Mapping[str, Any]
) -> str:
    """Card of evaluation faces, in Markdown.

    Parameters
    ----------
    known : DatasetCard
        What the registry says of them.
    rows : sequence of mapping
        Their labels, as ``labels.csv`` holds them.
    attributes : mapping
        JSON card of the attribute net that labelled them.
    """
    races, origins = attributes["vocabulary"]["race"], known.vocabulary["generator"]
    tally = Counter((row["race"], row["generator"]) for row in rows)
    held_out = attributes["card"]["held_out"]
    parts = [
        f"# {known.name}\n",
        f"{known.title}: {len(rows)} faces, labelled by a model.\n",
        "## Made from\n",
        f"{known.labels_note}\n",
        table(
            ("apparent race", *origins),
            [(race, *(tally[race, origin] for origin in origins)) for race in races],
        ),
        "`labels.csv` gives every face its labels, the generator it comes from and the number of "
        "its sample, from which `python -m pulse_audit.training.synthetic` draws it again.\n",
        "## How far the labels can be trusted\n",
        "Of the held-out photos that the attribute net calls so, this share was called so by "
        "people, %. On faces of nobody there is no one to ask:\n",
        table(
            ("apparent race", *(f"{size} px" for size in held_out)),
            [
                (
                    race,
                    *(_percent(_borne_out(found["race"], number)) for found in held_out.values()),
                )
                for number, race in enumerate(races)
            ],
        ),
        "## What they can show\n",
        "Whether a method changes the apparent group of faces that a small generator can make, how "
        "methods differ on the same faces, and that the audit works from end to end without a "
        "download. Half come from each twin, so neither audits its own faces alone.\n",
        "## What they cannot show\n",
        "How a method treats people in photos: faces a generator makes are easier for a generator "
        "to find again, and vary less. Original and output are named by the same net, so an error "
        "it repeats on both looks like retention; correction carries over error rates that were "
        "measured on photos. For claims about people, audit photos.\n",
        "## Terms\n",
        f"{known.licence}. {known.terms} {known.citation}.\n",
    ]
    return "\n".join(parts)


def _borne_out(counts: Sequence[Sequence[int]], word: int) -> float:
    """Share of the faces called a word whose label it is."""
    called = sum(row[word] for row in counts)
    return counts[word][word] / called if called else float("nan")


def confusion(words: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Table of a confusion matrix."""
    rows = [(word, *line) for word, line in zip(words, counts, strict=True)]
    return table(("", *words), rows)


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Table in Markdown."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _between(low: float, high: float) -> str:
    return f"[{_percent(low)}, {_percent(high)}]"


@click.command()
@click.option("--assets", type=Path, required=True, help="Folder of the shipped models.")
@click.option("--attributes", default="faces-attributes", show_default=True)
def main(assets: Path, attributes: str) -> None:
    """Write a card in Markdown for every model and every set of evaluation faces of a folder."""
    for path in sorted(assets.glob("*.safetensors")):
        place = path.with_suffix(".json")
        if not place.is_file():
            continue
        content = json.loads(place.read_text())
        made = generator_card if "family" in content else attribute_card
        _write(path.with_suffix(".md"), made(path.stem, content))
    for known in load_registry().cards.values():
        if known.shipped is None or not (assets / known.shipped).is_dir():
            continue
        with (assets / known.shipped / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        labelled_by = json.loads((assets / f"{attributes}.json").read_text())
        _write(assets / f"{known.shipped}.md", dataset_card(known, rows, labelled_by))


def _write(path: Path, text: str) -> None:
    atomic_write(path, text.encode())
    print(path)


if __name__ == "__main__":
    run(main)
