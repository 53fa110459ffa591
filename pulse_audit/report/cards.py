"""What ecosystems read about a run: model card, evaluation results, Croissant, bias examination.

Formats: ``model-index`` in the front matter of a model card (Hugging Face);
``.eval_results/*.yaml`` (huggingface.co/docs/hub/eval-results); Croissant 1.1
with the RAI vocabulary 1.0 (MLCommons).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from pulse_audit.report.methods import (
    labelled_by,
    labels_sentence,
    markdown,
    per_face,
    text_templates,
)
from pulse_audit.report.tables import EstimateTable, paper_table, rows_csv
from pulse_audit.seeding import sha256
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import ALL, EstimateRow, Summary

#: Metrics of the whole sample that a card gives, and the comparison of groups beside them.
METRICS = {
    "retention": "Retention of the apparent group",
    "feasible_rate": "Feasible draws",
    "no_face_rate": "Draws without a face",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "lightness_shift": "Shift of skin lightness, L*",
}
#: Metrics of ``.eval_results``: those that an audit is made for.
RESULTS = ("retention", "feasible_rate", "no_face_rate")

#: A licence of Creative Commons by its name, of which Croissant wants the address.
_CREATIVE_COMMONS = re.compile(r"CC (BY(?:-[A-Z]{2})*) (\d\.\d)")

#: The JSON-LD context that mlcroissant takes as standard for Croissant 1.1, and W3C's PROV.
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{
        term: f"cr:{term}"
        for term in (
            "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract",
            "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray",
            "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
            "references", "regex", "repeated", "replace", "samplingRate", "separator", "source",
            "subField", "transform",
        )
    },
}  # fmt: skip


def whole_sample(
    summary: Summary, arm: str, metrics: Sequence[str]
) -> Iterator[tuple[str, EstimateRow]]:
    """Estimates of an arm over all faces, and the largest gap of retention: (name, row)."""
    for row in summary.estimates:
        if row.arm != arm or row.metric not in metrics or row.value is None or not row.scale:
            continue
        if row.group_by == ALL and row.statistic == "value" and row.to_group is None:
            if row.correction != "original_baseline":
                yield row.column, row
        elif row.metric == "retention" and row.statistic == "max_gap" and row.correction == "raw":
            yield f"retention_max_gap_{row.group_by.replace(',', '_')}", row


def model_card(manifest: Manifest, samples: pd.DataFrame, summary: Summary) -> str:
    """Make the card of the arms on trial, their results in its front matter (``model-index``)."""
    dataset = manifest.dataset
    trial = on_trial(manifest, list(manifest.arms))
    index = []
    for arm in trial:
        results = []
        for (condition, scale), metrics in _by_setting(summary, arm):
            results.append(
                {
                    "task": {"type": "image-to-image", "name": "Face upsampling"},
                    "dataset": {
                        "name": f"{dataset.title or dataset.name}, {condition}, {scale}x",
                        "type": dataset.name,
                        "config": f"{condition}-x{scale}",
                        "split": str(manifest.spec.as_dict().get("split", "all")),
                    },
                    "metrics": metrics,
                }
            )
        if results:
            index.append({"name": arm, "results": results})
    front = {
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "fairness", "bias", "faces", "audit"],
        "model-index": index,
    }
    return (
        text_templates()
        .get_template("model-card.md.j2")
        .render(
            front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000),
            **_common(manifest, samples, summary),
        )
    )


def _by_setting(
    summary: Summary, arm: str
) -> Iterator[tuple[tuple[str, int], list[dict[str, Any]]]]:
    """Metrics of a ``model-index`` by condition and scale."""
    settings: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for name, row in whole_sample(summary, arm, list(METRICS)):
        title = METRICS[row.metric] + (", corrected" if row.correction == "corrected" else "")
        if row.statistic == "max_gap":
            title = f"Largest gap of retention by {row.group_by}"
        settings.setdefault((row.condition, row.scale), []).append(
            {
                "type": name,
                "name": f"{title}{_interval(row)}",
                "value": row.value,
                "verified": False,
            }
        )
    yield from settings.items()


def _interval(row: EstimateRow) -> str:
    """End of a text: the interval of an estimate, if it has one."""
    return "" if row.low is None else f", 95 % interval [{row.low:.4g}, {row.high:.4g}]"


def eval_results(manifest: Manifest, summary: Summary) -> dict[str, str]:
    """Make ``.eval_results/*.yaml`` of the arms on trial: file name -> text, one an arm."""
    dataset, files = manifest.dataset, {}
    head = (
        "# The Hub reads results of data sets that are registered there as benchmarks. None\n"
        "# is recorded for this one: put its id in place of OWNER, and the ids of the tasks in\n"
        "# its eval.yaml in place of these.\n"
    )
    for number, arm in enumerate(on_trial(manifest, list(manifest.arms)), start=1):
        entries = []
        for name, row in whole_sample(summary, arm, RESULTS):
            entry: dict[str, Any] = {
                "dataset": {
                    "id": f"OWNER/{dataset.name or 'faces'}",
                    "task_id": f"{name}-{row.condition}-x{row.scale}".replace(":", "-"),
                },
                "value": row.value,
            }
            if manifest.finished:
                entry["date"] = manifest.finished[:10]
            entry["notes"] = (
                f"{arm}; {row.n_faces} faces, {row.n_draws} draws{_interval(row)}; pulse-audit "
                f"{manifest.package_version}, specification {manifest.fingerprint[:12]}"
            )
            entries.append(entry)
        if entries:
            text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1000)
            files[f"pulse_audit_{number}.yaml"] = head + text
    return files


def faces_csv(manifest: Manifest, labelled: bool = True) -> str:
    """Write the evaluation set: one line a face, its labels if wanted, SHA-256 of its photo."""
    columns = _label_columns(manifest) if labelled else []
    lines: list[list[Any]] = [["face_id", *columns, "sha256"]]
    for face in manifest.faces:
        lines.append([face.id, *(face.labels.get(c) for c in columns), face.sha256])
    return rows_csv(lines)


def _label_columns(manifest: Manifest) -> list[str]:
    return list(dict.fromkeys(name for face in manifest.faces for name in face.labels))


def croissant(manifest: Manifest, faces: str, labelled: bool = True) -> str:
    """Describe the evaluation set in Croissant 1.1, with RAI fields; ``faces`` is `faces_csv`."""
    dataset = manifest.dataset.as_dict()
    title, name = dataset.get("title") or dataset.get("name") or "faces", dataset.get("name")
    url = dataset.get("url")
    columns = ["face_id", *(_label_columns(manifest) if labelled else []), "sha256"]
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"faces/{column}",
            "name": column,
            "description": {
                "face_id": "The data set's own file name.",
                "sha256": "Of the bytes of the photo.",
            }.get(column, f"The label {column}, in the data set's own words."),
            "dataType": "sc:Text",
            "source": {"fileObject": {"@id": "faces.csv"}, "extract": {"column": column}},
        }
        for column in columns
    ]
    counts = "; ".join(
        f"{column}: " + ", ".join(f"{n} {word}" for word, n in counted.most_common())
        for column in manifest.dataset.vocabulary
        if 1
        < len(counted := Counter(str(f.labels.get(column, "no label")) for f in manifest.faces))
        <= 20
    )
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": f"{name or 'faces'}-evaluation-set",
        "description": f"The {len(manifest.faces)} faces of {title} that an audit by pulse-audit "
        f"used: file names, labels, SHA-256. The photos are not part of it.",
        "version": "1.0.0",
        **({"datePublished": dated[:10]} if (dated := manifest.finished) else {}),
        **({"url": url, "prov:wasDerivedFrom": {"@id": url}} if url else {}),
        "license": _licence_address(dataset.get("licence") or manifest.dataset.terms),
        "citeAs": str(dataset.get("citation") or title),
        "creator": {"@type": "Organization", "name": "the makers of " + str(title)},
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "faces.csv",
                "name": "faces.csv",
                "contentUrl": "data/faces.csv",
                "encodingFormat": "text/csv",
                "sha256": sha256(faces.encode()),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "faces",
                "name": "faces",
                "key": {"@id": "faces/face_id"},
                "field": fields,
            }
        ],
        "rai:dataCollection": f"Drawn from {title} with the run seed {manifest.spec.seed}; "
        f"{len(manifest.skipped)} photos were left out (unreadable, duplicate or contradictory).",
        "rai:dataCollectionType": "Secondary Data analysis",
        "rai:dataPreprocessingProtocol": f"Prepared at {manifest.prepared.resolution} px in the "
        f"crop {manifest.prepared.crop}; faces "
        f"{'were' if manifest.prepared.aligned else 'were not'} aligned.",
        "rai:dataAnnotationProtocol": labels_sentence(manifest),
        "rai:dataBiases": f"Composition: {counts or 'not labelled'}. The sample stands for no "
        "population.",
        "rai:dataLimitations": "Labels are the data set's own words and no identities; small "
        "groups have wide intervals.",
        "rai:dataUseCases": "Measuring how a face upsampler treats apparent groups. Not for "
        "training, and not for identifying anyone.",
        "rai:dataSocialImpact": "Shows whom an upsampler turns into someone of another apparent "
        "group; labels of apparent race can themselves be taken for facts about persons.",
        "rai:personalSensitiveInformation": "File names of photos of faces"
        + (f", with labels of {', '.join(columns[1:-1])}." if columns[1:-1] else "."),
        "rai:dataReleaseMaintenancePlan": "Faces whose consent is withdrawn are dropped by "
        "`pulse-audit withdraw`, and this file is written again.",
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _licence_address(licence: object) -> str:
    """Return the address of a licence of Creative Commons, any other as it is recorded."""
    text = str(licence or "not recorded")
    match = _CREATIVE_COMMONS.fullmatch(text)
    if match is None:
        return text
    return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/"


def bias_examination(manifest: Manifest, samples: pd.DataFrame, summary: Summary) -> str:
    """Put the numbers of a run under the headings of the EU AI Act and IEEE 7003-2024."""
    columns = next(iter(manifest.spec.groupings), [])
    groups = Counter(
        " × ".join(str(face.labels.get(c) or "no label") for c in columns) or ALL
        for face in manifest.faces
    )
    # What this sample could have shown.
    gaps = [
        row
        for row in summary.estimates
        if row.metric == "retention" and row.statistic == "max_gap" and row.detail
    ]
    sizes = [float(s) for row in gaps if (s := (row.detail or {}).get("detectable")) is not None]
    detectable = (
        f"A sample of this size could show, with 90 % power, a gap of retention of "
        f"{100 * max(sizes):.0f} points."
        if sizes
        else "Which gap this sample could show is unavailable, because no gap of retention was "
        "estimated."
    )
    training = []
    for name, arm in manifest.arms.items():
        generator = arm.as_dict().get("generator")
        if isinstance(generator, Mapping) and (counts := generator.get("training_composition")):
            words = ", ".join(f"{n} {group}" for group, n in dict(counts).items())
            training.append((name, f"{generator.get('training_data', 'training data')}: {words}"))
    return (
        text_templates()
        .get_template("bias-examination.md.j2")
        .render(
            groups=groups,
            detectable=detectable,
            training=training,
            dataset=manifest.dataset.as_dict(),
            labels=labels_sentence(manifest),
            seen_by=labelled_by(manifest),
            draws=per_face(samples),
            conditions=manifest.spec.conditions,
            scales=manifest.spec.scales,
            balanced=manifest.spec.limit is None and len(set(groups.values())) == 1,
            **_common(manifest, samples, summary),
        )
    )


def _common(manifest: Manifest, samples: pd.DataFrame, summary: Summary) -> dict[str, Any]:
    """Gather what model card and bias examination both hold."""
    arms = list(manifest.arms)
    trial = on_trial(manifest, arms)
    facts, caveats = [], dict[str, None]()
    for name, arm in manifest.arms.items():
        recorded, words = arm.as_dict(), [arm.kind or "upsampler"]
        if isinstance(generator := recorded.get("generator"), Mapping):
            words += [
                f"{key.replace('_', ' ')} {generator[key]}"
                for key in ("family", "resolution", "training_data", "licence", "sha256")
                if generator.get(key)
            ]
        facts.append((name, words))
        caveats |= dict.fromkeys(f"{name}: {each}" for each in (arm.caveats or []))
    tables = [
        markdown_table(table)
        for condition, scale in summary.settings
        for columns in manifest.spec.groupings[:1]
        for table in paper_table(summary, trial, condition, scale, ",".join(columns))
    ]
    return {
        "manifest": manifest,
        "title": manifest.dataset.title or manifest.dataset.name or "faces",
        "trial": trial,
        "arms": facts,
        "caveats": list(caveats),
        "tables": tables,
        "findings": [f.text for f in summary.findings if f.screen == "first"],
        "n_faces": samples["face_id"].nunique(),
        "n_draws": f"{len(samples):,}",
        "unavailable": list(summary.unavailable.items()),
    }


def markdown_table(table: EstimateTable) -> str:
    """Write a table as Markdown, intervals behind their values."""
    heads = [f"{m.title}{f' ({m.unit})' if m.unit else ''}" for m in table.columns]
    lines = [
        f"{markdown(table.caption)}:",
        "",
        "| " + " | ".join(map(markdown, [table.head, "faces", "draws", *heads])) + " |",
        "|---|" + "---:|" * (len(heads) + 2),
    ]
    for row in table.rows:
        cells = [f"{c.value} {c.interval}".strip() for c in row.cells]
        texts = [row.label, str(row.n_faces), str(row.n_draws), *cells]
        lines.append("| " + " | ".join(map(markdown, texts)) + " |")
    return "\n".join([*lines, ""])
