"""The command line: parse, call, exit code."""

from __future__ import annotations

import errno
import json
import os
import select
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

import pulse_audit
from pulse_audit.names import SAMPLES, nearest, parse_generator, varied
from pulse_audit.options import (
    SEED,
    PlainPath,
    RunPlace,
    data_root,
    hand_labels,
    log_option,
    options_of_a_check,
    options_of_a_kit,
    options_of_a_run,
    options_of_inputs,
    options_of_photos,
    out_folder,
    outcome_as_json,
    own_datasets,
    quiet_option,
    ratings,
    trust_file,
    verbose_option,
)
from pulse_audit.types import InputError, UnfinishedRun

if TYPE_CHECKING:
    import pandas as pd

    from pulse_audit.gate.check import GateResult
    from pulse_audit.harness.spec import AuditSpec
    from pulse_audit.store import Run

#: Exit codes.
DONE, RULE_FAILED, BAD_INPUT, INCOMPLETE = 0, 1, 2, 3

# Commands import what they need when they run, so that --help stays quick.


class SuggestingGroup(click.Group):
    """A group of commands whose unknown names answer with the nearest known ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest one."""
        if self.get_command(ctx, args[0]) is None:
            hint = nearest(args[0], self.list_commands(ctx))
            raise InputError(f"unknown command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pulse_audit.__version__, prog_name="pulse-audit")
def commands() -> None:
    """Audit face upsamplers: how often they change a face's apparent group, with intervals."""


@commands.command()
@click.argument("spec", required=False, metavar="[SPEC.yaml | NAME]")
@options_of_a_run
@log_option
@outcome_as_json
@verbose_option
@quiet_option
def run(
    spec: str | None,
    out: Path | None,
    hand_labels: Path | None,
    loggers: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Run an audit, or resume it: the same command continues where it was interrupted."""
    from pulse_audit import terminal
    from pulse_audit.harness.executors import requested_workers
    from pulse_audit.harness.inputs import find_inputs
    from pulse_audit.harness.rounds import until_decided

    decided_by = [flags.pop(name) for name in ("rules", "budget", "baseline", "looks")]
    shard = flags.pop("shard")
    shared_by = [flags.pop(n) for n in ("workers", "gpus_per_worker", "executor", "ray_address")]
    workers = requested_workers(*shared_by)
    url = flags.pop("copy_to")
    audit = _specification(spec, flags)
    until = until_decided(audit, *decided_by)
    # Wrong names are answered here, before torch is loaded.
    with terminal.progress("drawing faces", "samples", quiet) as drawing:
        inputs = find_inputs(audit, drawing)
    from pulse_audit.harness.run import run_audit
    from pulse_audit.harness.storage import begin_copy

    # With --sources or banks of samples, what is counted is no longer draws alone.
    further = audit.sources or any(arm.kind == "posterior" for arm in inputs.arms)
    work = ("auditing", "pieces of work") if further else ("upsampling", "draws")
    with terminal.progress(*work, quiet) as progress:
        announce = None if quiet else terminal.note
        where = out or audit.default_out_of(shard)
        copy = begin_copy(url, where) if url else None
        finished = run_audit(
            audit, where, progress, inputs, announce, hand_labels, until, shard, workers, copy
        )
    gate = until.result if until else None
    if shard is not None:
        _show_shard(finished, as_json)
    else:
        _show_run(finished, finished.path / "report" / "index.html", as_json, verbose, gate=gate)
        _log(finished, loggers)
    if copy is not None and copy.problem:
        click.echo(f"pulse-audit: {copy.problem}; the same command tries again", err=True)
        return INCOMPLETE
    return gate.exit_code if gate else DONE


def _specification(spec: str | None, flags: Mapping[str, Any]) -> AuditSpec:
    """Make a specification of a file or a name and the flags, which overrule it.

    Without a spec and a data set it is the default one.
    """
    from pulse_audit.harness.spec import make_spec, read_spec

    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flags.items()
        if value not in (None, (), [])
    }
    # The second --attributes checks the first.
    if models := values.pop("attributes", None):
        if len(models) + ("second_attributes" in values) > 2:
            raise InputError("--attributes: at most two models, the second checks the first")
        values |= dict(zip(("attributes", "second_attributes"), models, strict=False))
    name = spec or (None if "dataset" in values else "default")
    return make_spec({**(read_spec(name) if name else {}), **values}, name or "run")


def _log(run: Run, loggers: tuple[str, ...]) -> None:
    """Hand a run to experiment trackers."""
    if loggers:
        from pulse_audit import summary
        from pulse_audit.loggers import log_run

        for name in loggers:
            log_run(name, run, summary.read(run.path))


def _show_run(
    run: Run,
    page: Path,
    as_json: bool,
    verbose: bool = False,
    samples: pd.DataFrame | None = None,
    gate: GateResult | None = None,
) -> None:
    """Print a run's summary and what became of its draws, as tables or as JSON.

    ``samples`` are those of the run, where they are at hand.
    """
    from pulse_audit import terminal
    from pulse_audit.documents import read_json

    # The stored summary is shown as it is, so that both forms agree with the report.
    summary = read_json(run.path / "summary.json")
    if as_json:
        summary |= {"gate": gate.as_dict()} if gate else {}
        click.echo(json.dumps({"run": str(run.path), "report": str(page), **summary}, indent=1))
        return
    terminal.show_summary(summary, verbose)
    rows = run.samples(["status", "reason"]) if samples is None else samples
    reasons = rows.loc[rows["status"] == "error", "reason"].dropna().tolist()
    outcomes = rows["status"].tolist()
    click.echo(terminal.closing_line(outcomes, run.manifest.seconds, page, reasons))
    if gate:
        terminal.show_verdicts(gate.as_dict())


def _show_shard(run: Run, as_json: bool) -> None:
    """Print what a finished shard holds."""
    units = run.manifest.own_units
    draws = sum(len(unit.draws) for unit in units)
    shard = str(run.manifest.shard)
    if as_json:
        content = {"run": str(run.path), "shard": shard, "units": len(units), "draws": draws}
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(
        f"shard {shard}: all {draws:,} draws of its {len(units):,} work units are in {run.path}\n"
        "then, when all shards are done: pulse-audit merge SHARD... --out DIR"
    )


@commands.command()
@click.argument("shards", nargs=-1, required=True, metavar="RUN...", type=RunPlace())
@click.option("--out", type=PlainPath(), required=True, metavar="DIR")
@log_option
@outcome_as_json
@verbose_option
@quiet_option
def merge(
    shards: tuple[Path | str, ...],
    out: Path,
    loggers: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Join the shards of an audit (run --shard I/N) into one run, and summarise it.

    Shards are folders, or URLs of their copies (run --copy-to); they are left as they are. Where
    work is missing the exit code is 3: the same command joins what is finished later, and the
    audit's own run command, with this --out and without --shard, makes the rest.
    """
    from pulse_audit import terminal
    from pulse_audit.harness.merge import merge_runs
    from pulse_audit.harness.storage import brought

    with brought(shards) as runs, terminal.progress("joining", "work units", quiet) as progress:
        merged = merge_runs(runs, out, progress, None if quiet else terminal.note)
    if merged.problem is not None:
        click.echo(f"pulse-audit: {merged.run.path} is unfinished: {merged.problem}", err=True)
        return INCOMPLETE
    _show_run(merged.run, merged.run.path / "report" / "index.html", as_json, verbose)
    _log(merged.run, loggers)
    return DONE


@commands.command("export-inputs")
@click.argument("spec", required=False, metavar="[SPEC.yaml | NAME]")
@options_of_inputs
@outcome_as_json
@quiet_option
def export_inputs(spec: str | None, out: Path, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Write the degraded inputs of an audit, for outputs made elsewhere (--arm folder:DIR).

    The same command goes on where it was interrupted.
    """
    from pulse_audit import terminal
    from pulse_audit.harness.inputs import find_inputs
    from pulse_audit.harness.spec import without_folders

    audit = without_folders(_specification(spec, flags))
    # Wrong names are answered here, before torch is loaded.
    with terminal.progress("drawing faces", "samples", quiet) as drawing:
        inputs = find_inputs(audit, drawing)
    from pulse_audit.harness import export

    with terminal.progress("degrading", "draws", quiet) as progress:
        made = export.export_inputs(audit, out, inputs, progress)
    if as_json:
        click.echo(json.dumps(made.as_dict(), indent=1))
        return DONE
    for note in made.notes:
        terminal.note(note)
    sides = ", ".join(f"{side} px at scale {scale}" for scale, side in made.input_sides.items())
    click.echo(f"inputs: {out} ({made.files} files for {made.draws} draws; {sides})")
    click.echo(f"outputs have {made.resolution} px and the names of column output in {made.index}")
    places = (("--datasets", audit.datasets_file), ("--data-root", audit.data_root))
    options = [word for name, path in places if path is not None for word in (name, str(path))]
    click.echo(
        f"then: {shlex.join(['pulse-audit', 'run', str(made.spec), *options])} --arm folder:OUTPUTS"
    )
    return DONE


@commands.command()
@options_of_photos
def upsample(images: tuple[Path, ...], as_json: bool, quiet: bool, **options: Any) -> int:
    """Upsample every face of photos, and of folders of photos, with PULSE.

    The outputs cannot identify the person in the photo. A photo without a face is named, and the
    others go on; the exit code is 2 where no photo can be used.
    """
    from pulse_audit import terminal
    from pulse_audit.harness.inputs import check_search, listed_photos

    # Wrong names are answered here, before torch is loaded.
    variants = options.pop("latent_fit"), options.pop("latents")
    options["generator"] = str(varied(parse_generator(options["generator"]), *variants))
    photos = listed_photos(images, options["out"])
    check_search(photos, *(options[n] for n in ("generator", "search", "coarse", "device")))
    from pulse_audit.harness.single import upsample_photos

    with (
        terminal.progress(
            "reading photos" if options["is_lr"] else "finding faces", "photos", quiet
        ) as reading,
        terminal.progress("searching", "steps", quiet) as progress,
    ):
        rows = upsample_photos(
            photos, progress=progress, reading=reading, announce=terminal.note, **options
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        terminal.show_upsampled(rows)
    return DONE


@commands.command()
@click.argument("run_dir", metavar="RUN", type=PlainPath())
@click.option(
    "--public",
    is_flag=True,
    help="Without photos of a data set whose terms do not allow publishing them; goes to "
    "RUN/report-public, unless --out is given.",
)
@click.option("--out", type=PlainPath(), metavar="DIR", help="[default: RUN/report]")
@hand_labels
@ratings
@log_option
@outcome_as_json
@verbose_option
def report(
    run_dir: Path,
    public: bool,
    out: Path | None,
    hand_labels: Path | None,
    ratings: tuple[Path, ...],
    loggers: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> int:
    """Summarise and render a run again from its stored samples; needs no torch."""
    from pulse_audit import store
    from pulse_audit.harness.hand_labels import keep_hand_labels
    from pulse_audit.harness.ratings import keep_ratings
    from pulse_audit.report import html
    from pulse_audit.report.content import missing_work

    # A folder that holds a report with photos is not the one to publish.
    folder = out or run_dir / ("report-public" if public else "report")
    with store.locked(run_dir, make=False) as stored:
        assert stored is not None
        samples = stored.samples()
        if hand_labels is not None:
            keep_hand_labels(hand_labels, stored, samples)
        if ratings:
            kept = keep_ratings(ratings, stored)
            click.echo(f"{kept}: see Human judgement in the report", err=True)
        page = html.publish(stored, samples, out_dir=folder, public=public)
    _show_run(stored, page, as_json, verbose, samples)
    _log(stored, loggers)
    if stored.complete:
        return DONE
    missing = missing_work(stored.manifest, samples) or "all draws are there, what follows is not"
    what = f"{missing}; the numbers are of what is there, and the same run command makes the rest"
    click.echo(f"pulse-audit: {run_dir} is unfinished: {what}", err=True)
    return INCOMPLETE


@commands.command()
@click.argument("run_dir", metavar="RUN", type=PlainPath())
@click.option(
    "--public", is_flag=True, help="Show RUN/report-public, as `report --public` wrote it."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="[default: a free one]")
@click.option("--browser/--no-browser", default=True, help="Open the address in the browser.")
def view(run_dir: Path, public: bool, port: int, browser: bool) -> int:
    """Show the report's face viewer in the browser: read-only, to this machine alone."""
    import webbrowser

    from pulse_audit.report.server import ReportServer

    with ReportServer(run_dir / ("report-public" if public else "report"), port) as server:
        click.echo(f"{server.address}\n(Ctrl-C ends)")
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return DONE
    return DONE


@commands.command()
@click.argument("run_dir", metavar="RUN", type=PlainPath())
@options_of_a_kit
@outcome_as_json
def rate(run_dir: Path, as_json: bool, **options: Any) -> int:
    """Write a blinded rating kit: one page for raters; `report --ratings` reads answers back."""
    from pulse_audit.harness.ratings import write_rating_kit

    written = write_rating_kit(run_dir, **options)
    if as_json:
        click.echo(json.dumps(written, indent=1))
        return DONE
    counts = ", ".join(f"{count} {task}" for task, count in written["items"].items())
    click.echo(f"for raters: {written['page']} ({counts}; {len(written['raters'])} raters)")
    click.echo(f"not for raters: {written['key']}, the key with which `report --ratings` reads")
    return DONE


@commands.command()
@click.argument("first", metavar="RUN_A", type=PlainPath())
@click.argument("second", metavar="[RUN_B]", type=PlainPath(), required=False)
@click.option("--arm", metavar="ARM", help="Compare this arm of RUN_A alone.")
@click.option(
    "--baseline-arm",
    metavar="ARM",
    help="Compare it with this arm of RUN_B, or of RUN_A where no RUN_B is given.",
)
@click.option(
    "--out", type=PlainPath(), metavar="FILE.html", help="[default: RUN_A/report/compare_....html]"
)
@outcome_as_json
def compare(
    first: Path,
    second: Path | None,
    arm: str | None,
    baseline_arm: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Compare two runs, or two arms of one, on the faces they share; show what changed."""
    from pulse_audit import store, terminal
    from pulse_audit.report.compare import comparison_rows, write_page
    from pulse_audit.summary.compare import compare_runs

    if second is None and (arm is None or baseline_arm is None):
        raise InputError("compare: give RUN_B, or --arm and --baseline-arm of RUN_A")
    runs = store.open_run(first), store.open_run(second or first)
    found = compare_runs(*runs, arm, baseline_arm)
    page = write_page(*runs, found, out)
    if as_json:
        click.echo(json.dumps({"report": str(page), **found.as_json()}, indent=1))
        return DONE
    for title, header, rows in comparison_rows(found):
        terminal.table(title, header, rows)
    click.echo(f"report: {page}")
    return DONE


@commands.command()
@options_of_a_check
def check(as_json: bool, junit: Path | None, github: bool, **options: Any) -> int:
    """Judge a run by rules: 0 all pass, 1 one failed, 3 inconclusive; results in RUN/gate."""
    from pulse_audit import terminal
    from pulse_audit.gate import check as gate

    result = gate.check(**options)
    if result.missing_draws:
        advice = "the same run command makes the rest"
        click.echo(f"pulse-audit: {result.run} is unfinished and not judged; {advice}", err=True)
        return INCOMPLETE
    annotations = gate.publish(result, junit, github)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=1))
    else:
        terminal.show_verdicts(result.as_dict())
    # GitHub reads them from either stream; stdout is one JSON document where it was asked for
    for line in annotations:
        click.echo(line, err=as_json)
    return result.exit_code


@commands.command()
@click.argument("run_dir", metavar="RUN", type=PlainPath())
@click.option(
    "--ids",
    type=PlainPath(),
    required=True,
    metavar="FILE",
    help="One face id a line, or a folder of them, such as that of a person.",
)
@outcome_as_json
def withdraw(run_dir: Path, ids: Path, as_json: bool) -> int:
    """Drop faces whose consent was withdrawn, with all draws and images, and summarise again."""
    from pulse_audit import store
    from pulse_audit.report import html

    # The run without them is made beside it, and takes its place when it is whole.
    with store.withdrawn(run_dir, store.read_ids(ids)) as staged:
        samples = staged.samples()
        html.publish(staged, samples)
    page = run_dir / "report" / "index.html"
    _show_run(store.open_run(run_dir), page, as_json, samples=samples)
    return DONE


@commands.command()
@click.argument("dataset")
@data_root
@own_datasets
@click.option("--split", metavar="val|train|all", default="all", show_default=True)
@click.option("--subset", is_flag=True, help="A deliberate subset: fewer faces are no defect.")
@click.option("--repair", is_flag=True, help="Repair spreadsheet-damaged labels (keeps a .bak).")
@outcome_as_json
@quiet_option
def validate(dataset: str, as_json: bool, quiet: bool, **options: Any) -> int:
    """Check a data set: counts, vocabulary, unreadable files, duplicates, damaged labels."""
    from pulse_audit import terminal
    from pulse_audit.datasets.registry import load_registry
    from pulse_audit.datasets.validate import validate as check

    if dataset.startswith(SAMPLES):
        raise InputError(
            f"{dataset}: samples are drawn, labelled and checked by `run --dataset {dataset}`; "
            "there is nothing to validate before"
        )
    # The user's own datasets.yaml may name the data set.
    card = load_registry(options.pop("datasets_file")).get(dataset)
    root = options.pop("data_root")
    with terminal.progress("reading", "photos", quiet) as progress:
        result = check(card, root, progress=progress, **options)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=1))
    else:
        terminal.show_validation(result.as_dict())
    return DONE if result.ok else BAD_INPUT


@commands.command()
@click.argument("generators", nargs=-1, required=True, metavar="GENERATOR...")
@click.option("--samples", type=click.IntRange(20, 10_000_000), default=10_000, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--attributes", metavar="NAME|FILE", help="Attribute model.  [default: the shipped]")
@trust_file
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]")
@out_folder("runs/prior")
@outcome_as_json
@quiet_option
def prior(generators: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> int:
    """Measure whom a search's prior shows before any input: five priors of each generator.

    Writes prior.md, prior.csv and a picture for each generator; the same command continues where it
    was interrupted.
    """
    from pulse_audit import terminal
    from pulse_audit.harness.inputs import check_prior

    check_prior(generators, options["attributes"], options["device"])
    from pulse_audit.harness.prior import measure_priors

    with terminal.progress("sampling priors", "samples", quiet) as progress:
        found = measure_priors(generators, progress=progress, **options)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for said in found["sentences"]:
            click.echo(f"- {said}")
        click.echo(f"tables: {found['table']}")
    return DONE


@commands.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--accept-licence", is_flag=True, help="Accept the licences shown, without asking.")
@outcome_as_json
@quiet_option
def fetch(names: tuple[str, ...], accept_licence: bool, as_json: bool, quiet: bool) -> int:
    """Fetch weights by name: resumable, checked by SHA-256, licence shown first.

    PULSE_AUDIT_MIRROR, a folder or an address, is used in place of the publishers' sites.
    """
    from pulse_audit import listing, terminal
    from pulse_audit.models.fetch import fetch_showing_terms, to_fetch

    # Only a person at a terminal can be asked to accept a licence.
    question = partial(click.confirm, "accept this licence?", err=True)
    ask = question if sys.stdin.isatty() else None
    rows = []
    for card in to_fetch(names):
        with terminal.progress(f"fetching {card.name}", "MB", quiet) as progress:
            fetch_showing_terms(card, accept_licence, ask, terminal.say, progress)
        rows.append(listing.fetched_row(card))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            click.echo(f"{row['name']}: {row['file']}")
    return DONE


@commands.command()
@click.option("--quick", is_flag=True, help="Fewer replicates: done in under three minutes.")
@out_folder("runs/calibration")
@click.option("--seed", type=SEED, default=0, show_default=True)
@outcome_as_json
@quiet_option
def calibrate(quick: bool, out: Path, seed: int, as_json: bool, quiet: bool) -> int:
    """Test the audit's own statistics on planted bias: coverage, power, false-alarm rate.

    Writes calibration.csv, .md and .svg; the same command continues where it was interrupted.
    """
    from pulse_audit import terminal
    from pulse_audit.calibration import publish, study

    # Finished cells are read back from the folder.
    replicates = study.QUICK if quick else study.FULL
    with terminal.progress("calibrating", "scenarios", quiet) as progress:
        results = study.run_study(study.all_scenarios(), replicates, seed, out, progress)
    written = publish.publish(results, out)
    if as_json:
        content = {"replicates": replicates, "seed": seed, "cells": publish.as_dicts(results)}
        click.echo(json.dumps(content, indent=1))
    else:
        terminal.table(publish.headline(results), publish.OVERVIEW, publish.overview(results))
        click.echo(f"table and figure: {', '.join(map(str, written))}")
    return RULE_FAILED if any(result.verdict == "missed" for result in results) else DONE


@commands.command("list")
@click.argument(
    "name",
    metavar="datasets|generators|weights|arms|metrics|attributes|conditions|settings|specs|rules",
)
@click.argument("files", nargs=-1, metavar="[FILE...]")
@own_datasets
@trust_file
@outcome_as_json
def list_(name: str, files: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """List what is known by name; FILE checks a model (generators, attributes), shows its card."""
    from pulse_audit import listing, terminal

    if files:
        rows = listing.model_cards(name, files, options["trusted_files"])
    else:
        rows = listing.rows_of(name, options["datasets_file"])
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif files:
        terminal.cards(rows)
    else:
        terminal.listing(name, rows, without=listing.ONLY_IN_JSON.get(name, ()))
    return DONE


@commands.command()
@outcome_as_json
def doctor(as_json: bool) -> int:
    """Show versions, the device, and what is missing and what that costs."""
    from pulse_audit import listing, terminal

    rows = listing.doctor()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        header = ("part", "state", "what it means")
        terminal.table("pulse-audit doctor", header, [list(row.values()) for row in rows])
    return DONE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    sys.exit(outcome(arguments))


def outcome(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; every failure is one line on stderr."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Read when torch is loaded: threads that wait sleep. Those that spin stall where another
    # process runs, and a small network waits for its threads thousands of times a second.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # SIGTERM ends a run as Ctrl-C does: in order, resumable.
    signal.signal(signal.SIGTERM, interrupt)
    try:
        code = commands.main(arguments, prog_name="pulse-audit", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except (InputError, click.ClickException) as error:
        problem, code = str(error), BAD_INPUT
        if isinstance(error, click.ClickException):
            problem = error.format_message()
    except UnfinishedRun as error:
        problem, code = str(error), INCOMPLETE
    except (KeyboardInterrupt, click.Abort):
        problem, code = "interrupted; the same command resumes", INCOMPLETE
    except (BrokenPipeError, SystemExit) as end:
        # The reader of stdout has gone, as `head` does; nothing is wrong. Click exits when it meets
        # that, and so does rich, which has put the null device into the place of stdout before.
        known = isinstance(end, BrokenPipeError) or isinstance(end.__context__, BrokenPipeError)
        if not (known or reader_gone()):
            raise
        sys.stderr.close()
        # Whatever is left to be written goes nowhere, the flush at the end of the process too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        # A disk that is full, read-only or broken: what is finished stays, and the run goes on.
        place = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; free space there, then the same command goes on" if full else ""
        problem, code = f"{place}{error.strerror or error}{advice}", BAD_INPUT
    except Exception as error:
        from pulse_audit import terminal

        problem, code = terminal.crash_line(error, arguments), BAD_INPUT
    # One line, in which no path from outside is longer than a line can be.
    words = [w if len(w) <= 500 else f"{w[:100]}...{w[-100:]}" for w in problem.split()]
    # Nothing in it moves the cursor or paints the terminal.
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(words))
    click.echo(f"pulse-audit: {line}", err=True)
    return code


def reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
