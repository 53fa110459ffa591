"""How strong guidance has to be: shares of searches that fit the input and show the wanted group.

    python -m benchmarks.guidance --generator FILE --attributes FILE [--check FILE] [--per-group 5]

FairFace validation faces of a small balanced sample are degraded and searched. Those whose original
is read right and whose output shows another group are searched again from the same start, toward
the face's own group and toward one that neither the face nor the output shows, with every weight of
the term in the loss (0: the placebo). Written to ``benchmarks/results/guidance.csv``: the number of
searches that are feasible, that show the wanted group (by the guiding model), of these confirmed by
the second model, mean steps, and CPU seconds a search of one thread.
"""

import argparse
import csv
import time
from pathlib import Path

import torch

from benchmarks.__main__ import RESULTS
from pulse_audit.datasets.balance import balanced_draw
from pulse_audit.datasets.images import decode
from pulse_audit.datasets.readers import read_faces
from pulse_audit.datasets.registry import load_registry
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.faces.align import centre_square
from pulse_audit.faces.attributes import columns
from pulse_audit.harness.guidance import guided_search
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import PRESETS
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.sphere import Start, draw_start
from pulse_audit.types import Draw

FACES = Path(__file__).resolve().parents[2] / "shared" / "fairface-sample"
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)


def study(generator, guide, check, per_group: int, scale: int, weights) -> list[dict[str, object]]:
    index = read_faces(load_registry(None).get("fairface"), FACES, "val")
    faces = balanced_draw(index.faces, ["race"], per_group, 0, index.vocabulary).chosen
    (column,) = (c for c in columns(guide.card.vocabulary, index.vocabulary)[0] if c.name == "race")
    size, config = generator.card.resolution, PRESETS["official"]
    hr = torch.stack([centre_square(decode(f.source.read()), size) for f in faces])
    degradation = DegradationModel("clean", scale)
    lr = degradation(hr, [0] * len(faces))
    labels = torch.tensor([column.words.index(f.labels["race"]) for f in faces])
    seeds = [Draw(face.id, "clean", scale, 0).seed(0) for face in faces]
    start = draw_start(generator, seeds, config)

    # The draws that are lost: read right, and another group in the output.
    outputs = BatchSearch(generator, lr, start, degradation.downscale, config).run()
    read, apparent = (
        predicted(guide, column, images)
        for images in (hr, torch.stack([result.image for result in outputs]))
    )
    lost = torch.nonzero((read == labels) & (apparent != labels))[:, 0]
    again = Start(start.latents[lost], tuple(m[lost] for m in start.noise))
    numbers, random = range(len(column.words)), torch.Generator().manual_seed(0)
    wrong = []
    for row in lost.tolist():
        others = [n for n in numbers if n not in (int(labels[row]), int(apparent[row]))]
        wrong.append(others[int(torch.randint(len(others), (1,), generator=random))])

    rows = []
    for toward, wanted in (("own", labels[lost]), ("wrong", torch.tensor(wrong))):
        for weight in weights:
            began = time.process_time()
            searches = guided_search(
                generator, lr[lost], again, degradation.downscale, config,
                lambda images: {"race": column.probabilities(guide(images))}, {"race": wanted},
                torch.full((len(lost),), weight),
            )  # fmt: skip
            seconds = (time.process_time() - began) / len(lost)
            shown = [i for i, search in enumerate(searches) if search.shown]
            seen = [searches[i].image for i in shown]
            row = {
                "generator": generator.card.name, "toward": toward, "weight": weight,
                "faces": len(faces), "lost": len(lost),
                "feasible": sum(search.feasible for search in searches), "shown": len(shown),
                "confirmed": confirmed(check, column, seen, wanted[shown]),
                "steps": round(sum(search.steps for search in searches) / len(searches), 1),
                "cpu_seconds": round(seconds, 3),
            }  # fmt: skip
            print(row, flush=True)
            rows.append(row)
    return rows


@torch.no_grad()
def predicted(model, column, images):
    return column.probabilities(model(images)).argmax(1)


def confirmed(check, column, images, wanted) -> int | str:
    if check is None:
        return ""
    if not images:
        return 0
    return int((predicted(check, column, torch.stack(images)) == wanted).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", required=True, nargs="+")
    parser.add_argument("--attributes", required=True)
    parser.add_argument("--check")
    parser.add_argument("--per-group", type=int, default=5)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    guide = load_attributes(arguments.attributes, "cpu")
    check = load_attributes(arguments.check, "cpu") if arguments.check else None
    rows = [
        row
        for reference in arguments.generator
        for row in study(
            load_generator(reference), guide, check, arguments.per_group, arguments.scale,
            arguments.weights,
        )
    ]  # fmt: skip
    with (RESULTS / "guidance.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
