"""Write the model cards people read: ``python -m pulse_audit.training.cards --help``.

``<name>.md`` says in words and tables what ``<name>.json`` holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pulse_audit.files import write_whole
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
        f"Trained on {card['kimg']:,.0f} thousand images; `{name}-images.txt.gz` lists the photos "
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


def attribute_card(name: str, content: Mapping[str, Any]) -> str:
    """Card of an attribute net, in Markdown."""
    card = content["card"]
    sizes = list(card["accuracy"])
    native = sizes[-1]
    held_out, by_race = card["held_out"][native], card["accuracy_by_race"][native]
    parts = [
        f"# {name}\n",
        "Apparent race, gender and age of a face: a small residual network at 64 px, averaged over "
        "the image and its mirror image, its probabilities calibrated by a temperature each.\n",
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
def main(assets: Path) -> None:
    """Write a card in Markdown for every model of a folder."""
    for path in sorted(assets.glob("*.safetensors")):
        place = path.with_suffix(".json")
        if not place.is_file():
            continue
        content = json.loads(place.read_text())
        made = generator_card if "family" in content else attribute_card
        write_whole(path.with_suffix(".md"), made(path.stem, content).encode())
        print(path.with_suffix(".md"))


if __name__ == "__main__":
    run(main)
