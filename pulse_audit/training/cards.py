"""Write the cards in Markdown: ``python -m pulse_audit.training.cards --help``.

``<name>.md`` presents the content of ``<name>.json``; ``<data set>.md`` describes evaluation faces
and what they can show.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pulse_audit.datasets.registry import DatasetCard, load_registry
from pulse_audit.documents import read_json
from pulse_audit.files import atomic_write
from pulse_audit.training import command

#: What is measured of upsamplers, in the order of their table.
METRICS = ("psnr", "ssim", "sharpness")
LIMITS = (
    "Groups are apparent, in FairFace's own words: what crowd workers saw in a photo, not who "
    "people are. Not for identifying anyone, and not for deciding anything about anyone."
)


def generator_card(name: str, content: Mapping[str, Any]) -> str:
    """Card of a generator, in Markdown."""
    card = content["card"]
    parts = [
        f"# {name}\n",
        f"StyleGAN 2 (skip), unconditional, {card['resolution']} px: {card['title']}.",
        *([f"\n**{card['caveat']}**"] if card.get("caveat") else []),
        f"\n![96 samples, untruncated]({name}.png)\n",
        "## Training data\n",
        f"{card['training_data']}. {card['selection']}. {card['attribution']}.\n",
        table(("apparent race", "photos"), sorted(card["composition"].items())),
        f"Trained on {1000 * card['kimg']:,.0f} images; `{name}-images.txt.gz` lists the photos "
        "by SHA-256. The configuration is in the JSON card; that of the other twin differs in the "
        "composition alone.\n",
    ]
    # Measurements are added to the JSON card after the export, by `evaluate`.
    if card.get("measured"):
        parts += _measurements(card["measured"])
    parts += ["## Use and limits\n", f"For auditing upsamplers. {LIMITS}\n"]
    return "\n".join(parts)


def _measurements(measured: Mapping[str, Any]) -> list[str]:
    """Paragraphs and tables of what was measured on a generator's samples."""
    distances, nearest = measured["distances"], measured["nearest_training_photo"]
    feasible = measured["feasible_on_own_samples"]
    statistics = ("least", "first_percentile", "median")
    return [
        f"## Measured on {measured['samples']:,} samples\n",
        f"Composition as predicted by {measured['attribute_net']['name']} (most probable class, "
        "95 % Wilson intervals; not corrected for its errors):\n",
        table(
            ("apparent race", "share, %", "interval"),
            [
                (race, _percent(share["share"]), _interval(share))
                for race, share in measured["composition"]["race"].items()
            ],
        ),
        f"Against {distances['held_out_faces']:,} held-out faces, on the features of "
        f"{distances['features']} (not comparable with numbers on other features): FID "
        f"{distances['fid']:.2f} (two samples of one distribution would score "
        f"{distances['fid_of_equal_sets']:.2f}), KID {distances['kid']:.4f} "
        f"[{distances['kid_low']:.4f}, {distances['kid_high']:.4f}].\n",
        "Distance to the nearest training photo or its mirror image (root mean square, levels of "
        "255). Held-out faces, which cannot have been copied, give the scale:\n",
        table(
            ("images", "least", "1st percentile", "median"),
            [
                (images.replace("_", " "), *(levels[key] for key in statistics))
                for images, levels in nearest.items()
            ],
        ),
        f"Its search finds a feasible image for {_percent(feasible['share'])} % "
        f"{_interval(feasible)} of {feasible['samples']} of its own samples at scale "
        f"{feasible['scale']}, in {feasible['mean_steps']} steps on average.\n",
    ]


def upsampler_card(name: str, content: Mapping[str, Any]) -> str:
    """Card of FSRNet or FSRGAN, in Markdown."""
    card, measured = content["card"], content["card"]["measured"]
    low, high = measured["gain_interval"]
    rows = [
        (method.replace("network", name), *(_three(measured.get(f"{method}_{m}")) for m in METRICS))
        for method in ("bicubic", "network", "original")
    ]
    parts = [
        f"# {name}\n",
        f"{card['title']}.\n",
        "\n".join(f"**{caveat[0].upper()}{caveat[1:]}.**\n" for caveat in card["caveats"]),
        "## How it differs from the paper\n",
        "\n".join(f"- {line}" for line in card["differs_from_the_paper"]) + "\n",
        "## Training data\n",
        f"{card['training_data']} (`faces-balanced-images.txt.gz` lists them). Landmarks were "
        f"found in {_percent(card['landmarks_found'])} % of them; the maps of the others count "
        f"nothing. {card['attribution']}.\n",
        f"## Measured on {measured['faces']} held-out faces\n",
        f"As many of each race and gender; {card['held_out']}. Means:\n",
        table(("", "PSNR, dB", "SSIM", "sharpness"), rows),
        f"Gain in PSNR over bicubic interpolation: {measured['gain']:.2f} dB "
        f"[{low:.2f}, {high:.2f}]. By apparent race:\n",
        table(
            ("apparent race", "gain, dB"),
            [(race, f"{gain:.2f}") for race, gain in measured["gain_by_race"].items()],
        ),
        "The paper reports 26.31 dB against 23.75 of bicubic interpolation on CelebA, 16 to 128 "
        "px: other faces, size and alignment.\n",
        "## Use and limits\n",
        f"For auditing upsamplers. {LIMITS}\n",
    ]
    return "\n".join(parts)


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def attribute_card(name: str, content: Mapping[str, Any]) -> str:
    """Card of an attribute net, in Markdown."""
    card, races = content["card"], content["vocabulary"]["race"]
    # Sizes are in ascending order; the last is the net's own.
    sizes = list(card["accuracy"])
    native = sizes[-1]
    by_race = card["accuracy_by_race"][native]
    summary = (
        "Apparent race, gender and age of a face: a small residual network at 64 px, averaged over "
        "the image and its mirror image, its probabilities calibrated by one temperature for each "
        "attribute."
    )
    # Two options of training change what the weights are.
    cycles, equal = card.get("cycles", 1), card["configuration"].get("equal_prior")
    if cycles > 1:
        summary += f" Its weights are the mean over the ends of {cycles} cycles of training."
    if equal:
        summary += (
            f" Its probabilities of {' and '.join(equal)} are those under equally frequent words, "
            "so that frequent training classes are not over-predicted."
        )
    accuracies = [
        (
            attribute,
            *(_percent(card["accuracy"][size][attribute]) for size in sizes),
            f"{error:.3f}",
        )
        for attribute, error in card["calibration_error"].items()
    ]
    at_training_ages = [f"{k} {_percent(v)}" for k, v in card["accuracy_at_training_ages"].items()]
    parts = [
        f"# {name}\n",
        f"{summary}\n",
        "## Training data\n",
        f"{card['training_data']}: {card['selection']}. {card['attribution']}. "
        f"`{name}-images.txt.gz` lists the photos by SHA-256.\n",
        "## Accuracy on the held-out faces, %\n",
        table(("attribute", *(f"{size} px" for size in sizes), "calibration error"), accuracies),
        "The held-out faces are spread evenly over the ages, the youngest and the oldest included. "
        f"Weighted by the ages of the training photos, at {native} px: "
        f"{', '.join(at_training_ages)}.\n",
        f"By apparent race, at {native} px:\n",
        table(
            ("apparent race", *card["calibration_error"]),
            [(race, *(_percent(share[race]) for share in by_race.values())) for race in races],
        ),
        f"## Confusion of race at {native} px (rows: as labelled by people)\n",
        confusion(races, card["held_out"][native]["race"]),
        "Those of every attribute and size are in the JSON card.\n",
        "## Use and limits\n",
        f"For counting apparent groups, and correcting the counts for its errors. {LIMITS} "
        + " ".join(f"{note[0].upper()}{note[1:]}." for note in card["notes"])
        + "\n",
    ]
    return "\n".join(parts)


def dataset_card(
    dataset: DatasetCard, rows: Sequence[Mapping[str, str]], attributes: Mapping[str, Any]
) -> str:
    """Card of evaluation faces, in Markdown.

    Parameters
    ----------
    dataset : DatasetCard
        Their entry in the registry.
    rows : sequence of mapping
        Their labels, as ``labels.csv`` holds them.
    attributes : mapping
        JSON card of the attribute net that labelled them.
    """
    races, origins = attributes["vocabulary"]["race"], dataset.vocabulary["generator"]
    # Faces by race and generator, as the labels name them.
    tally = Counter((row["race"], row["generator"]) for row in rows)
    held_out = attributes["card"]["held_out"]
    # Precision: of the photos predicted to be of a race (a column), the share so labelled.
    precisions = []
    for number, race in enumerate(races):
        shares = []
        for counts in (matrices["race"] for matrices in held_out.values()):
            predicted = sum(row[number] for row in counts)
            share = counts[number][number] / predicted if predicted else float("nan")
            shares.append(_percent(share))
        precisions.append((race, *shares))
    parts = [
        f"# {dataset.name}\n",
        f"{dataset.title}: {len(rows)} faces, labelled by a model.\n",
        "## Origin\n",
        f"{dataset.labels_note}\n",
        table(
            ("apparent race", *origins),
            [(race, *(tally[race, origin] for origin in origins)) for race in races],
        ),
        "`labels.csv` gives every face its labels, the generator it comes from and the number of "
        "its sample, from which `python -m pulse_audit.training.synthetic` draws it again.\n",
        "## Precision of the labels\n",
        "Share of the held-out photos predicted to be of a race that people labelled so, %. "
        "The synthetic faces themselves have no labels by people:\n",
        table(("apparent race", *(f"{size} px" for size in held_out)), precisions),
        "## What they can show\n",
        "Whether a method changes the apparent group of faces that a small generator can make, how "
        "methods differ on the same faces, and that the audit works from end to end without a "
        "download. Half come from each twin, so neither audits only its own faces.\n",
        "## What they cannot show\n",
        "How a method treats people in photos: faces made by a generator vary less, and a "
        "generator finds them again more easily. Original and output are labelled by the same net, "
        "so an error that it repeats on both counts as retention; the correction uses error rates "
        "that were measured on photos. For claims about people, audit photos.\n",
        "## Terms\n",
        f"{dataset.licence}. {dataset.terms} {dataset.citation}.\n",
    ]
    return "\n".join(parts)


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


def _interval(share: Mapping[str, float]) -> str:
    return f"[{_percent(share['low'])}, {_percent(share['high'])}]"


@click.command()
@command.assets_option
@command.attributes_option
def main(assets: Path, attributes: str) -> None:
    """Write a card in Markdown for every model and every set of evaluation faces of a folder."""
    cards = {}
    # Weights with a JSON card; the Gaussian fits of generators have none.
    for path in sorted(assets.glob("*.safetensors")):
        if path.with_suffix(".json").is_file():
            content = read_json(path.with_suffix(".json"))
            write = upsampler_card if "network" in content else attribute_card
            write = generator_card if "family" in content else write
            cards[path.with_suffix(".md")] = write(path.stem, content)
    # The data sets whose faces are in the folder.
    for dataset in load_registry():
        if dataset.shipped is None or not (assets / dataset.shipped).is_dir():
            continue
        with (assets / dataset.shipped / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        net = read_json(assets / f"{attributes}.json")
        cards[assets / f"{dataset.shipped}.md"] = dataset_card(dataset, rows, net)
    for path, text in cards.items():
        atomic_write(path, text.encode())
        print(path)


if __name__ == "__main__":
    command.run(main)
