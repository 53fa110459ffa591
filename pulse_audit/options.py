"""Options of the command line: those that several commands share, and those of `run`."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pulse_audit.names import LATENT_FITS, LATENTS, nearest
from pulse_audit.sweeps import parse_sweep
from pulse_audit.types import InputError

Command = Callable[..., Any]
SEED = click.IntRange(-(2**63), 2**63 - 1)


#: What a URL begins with.
URL = re.compile(r"[a-z][a-z0-9+.-]*://")


class RunPlace(click.ParamType):  # type: ignore[type-arg]
    """A path as of `PlainPath`, or a URL."""

    name = "path or URL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """Return a URL as text, anything else as a path."""
        text = str(value)
        return text if URL.match(text) else PlainPath().convert(text, param, ctx)


class PlainPath(click.ParamType):  # type: ignore[type-arg]
    """A path that is not empty and not too long to be one."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or fail with the name of the option."""
        text = str(value)
        if not text:
            self.fail("an empty path; . is the current folder", param, ctx)
        if len(os.fsencode(text)) > 4095:
            self.fail(f"a path of {len(text):,} characters", param, ctx)
        return Path(text)


def _digests(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """Check that every value is a SHA-256."""
    for value in values:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            raise InputError(f"--trust-file {value}: wanted a SHA-256, 64 hex digits")
    return [value.lower() for value in values]


def _url(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Check that a value is a URL."""
    if text is not None and not URL.match(text):
        raise InputError(f"--copy-to {text}: wanted a URL, such as s3://bucket/run")
    return text


def _names(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    """Split a list at its commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _settings(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> dict[str, Any] | None:
    """Read the settings of a sweep."""
    return parse_sweep(texts) if texts else None


def out_folder(default: str) -> Callable[[Command], Command]:
    """``--out DIR`` with a default."""
    return click.option(
        "--out", type=PlainPath(), default=default, show_default=True, metavar="DIR"
    )


data_root = click.option(
    "--data-root",
    type=PlainPath(),
    envvar="PULSE_AUDIT_DATA",
    help="Folder of the data set [env: PULSE_AUDIT_DATA].",
)
own_datasets = click.option(
    "--datasets",
    "datasets_file",
    type=PlainPath(),
    metavar="FILE",
    help="Your own datasets.yaml, read over the built-in one.",
)
outcome_as_json = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
verbose_option = click.option(
    "--verbose", is_flag=True, help="Print every arm by group, with more metrics."
)
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")
trust_file = click.option(
    "--trust-file",
    "trusted_files",
    multiple=True,
    metavar="SHA256",
    callback=_digests,
    help="Load the .pt2 file of this SHA-256 although it could run code (repeatable).",
)

FIT_HELP = (
    "Latents of the search are drawn from a Gaussian of independent entries or of the full "
    "covariance of the mapped latents"
)
COARSE_HELP = (
    "The first steps of a search on smaller pictures, such as 20@16, of generators that have them "
    "(StyleGAN 2); saves 7 % of the time and makes draws of a face more alike"
)
LATENTS_HELP = "One latent for each layer, or one for all"
hand_labels = click.option(
    "--hand-labels",
    type=PlainPath(),
    metavar="FILE.csv",
    help="People's labels of outputs: the column image, as in the samples, and race, gender, ... "
    "They show whether the attribute model errs otherwise on outputs. Kept in the run; needs "
    "--keep-images all.",
)

ratings = click.option(
    "--ratings",
    type=PlainPath(),
    multiple=True,
    metavar="FILE.csv",
    help="Answers that raters saved from a kit of `pulse-audit rate` (repeatable: all raters of a "
    "kit at once). Kept in the run, in place of earlier ones.",
)


#: Experiment trackers that ``--log`` knows, by the name of their package.
TRACKERS = ("mlflow", "trackio", "wandb")


def _installed(
    ctx: click.Context, param: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Check that every tracker is known and installed, before any work."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--log {name} is unknown{nearest(name, TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--log {name}: {name} is not installed; pip install {name}")
    return tuple(dict.fromkeys(names))


log_option = click.option(
    "--log",
    "loggers",
    multiple=True,
    metavar="|".join(TRACKERS),
    callback=_installed,
    help="Hand estimates, specification and summary.json to this tracker, never a face "
    "(repeatable).",
)


def _shard(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Read ``I/N``."""
    if text is None:
        return None
    index, of = map(int, found.groups()) if (found := re.fullmatch(SHARD, text)) else (0, 0)
    if not 1 <= index <= of:
        raise InputError(f"--shard {text}: wanted I/N, such as 2/8; I counts from 1 to N")
    return index, of


option = click.option
#: A part of a plan: two numbers of at most five digits.
SHARD = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")
#: How the work of a run is shared out; none of it is part of the specification.
_SHARED_OUT: tuple[Callable[[Command], Command], ...] = (
    option(
        "--shard", metavar="I/N", callback=_shard, help="Only part I of N of the audit, for job "
        "arrays; `merge` joins the parts.",
    ),
    option(
        "--workers", type=click.IntRange(1, 10_000), metavar="N", help="Processes that carry out "
        "the audit, of this machine or of Ray  [default: this one]",
    ),
    option(
        "--gpus-per-worker", type=click.FloatRange(0.01, 8), metavar="X", help="GPUs of each "
        "worker; 0.25: four share one  [default: 1]",
    ),
    option(
        "--executor", type=click.Choice(["local", "ray"]), help="Whose processes the --workers "
        "are: this machine's, or Ray's  [default: local]",
    ),
    option(
        "--ray-address", metavar="HOST:PORT|auto", help="A Ray cluster that is running  [default: "
        "a node on this machine, for this run alone]",
    ),
    option(
        "--copy-to", metavar="URL", callback=_url, help="Copy the run's files there as they are "
        "made (s3://BUCKET/RUN); where --out holds no run yet, begin with the one that is there.",
    ),
)  # fmt: skip
#: What lets rules decide the number of faces.
_UNTIL_DECIDED: tuple[Callable[[Command], Command], ...] = (
    option(
        "--until-decided", "rules", type=PlainPath(), metavar="RULES.yaml", help="Add rounds of "
        "--per-group faces of each group until every rule is decided; exit code as of `check`.",
    ),
    option(
        "--budget", type=click.IntRange(1, 1_000_000), metavar="N",
        help="Of --until-decided: faces of each group, at most.",
    ),
    option(
        "--baseline", type=PlainPath(), metavar="RUN|FILE",
        help="Of --until-decided, for rules against one; holds all faces of the budget.",
    ),
    option(
        "--looks", type=click.IntRange(2, 100), metavar="N", help="Of --until-decided: judge N "
        "times, at equal parts of the budget (O'Brien-Fleming)  [default: after every round]",
    ),
)  # fmt: skip
_OUT_OF_A_RUN = option(
    "--out",
    type=PlainPath(),
    metavar="DIR",
    help="[default: runs/<dataset>-<fingerprint>; of a shard that and -shard-I-of-N]",
)
#: In the order of `pulse-audit run --help`.
_OF_A_RUN: tuple[Callable[[Command], Command], ...] = (
    # The data.
    option(
        "--dataset", metavar="NAME", help="A data set of datasets.yaml, or samples:GENERATOR, "
        "faces drawn from a generator's own prior.",
    ),
    option(
        "--truncation", type=float, metavar="PSI", help="Of samples:GENERATOR, above 0 and at most "
        "1; narrows the groups  [default: 1, the whole prior]",
    ),
    data_root,
    own_datasets,
    option("--split", metavar="val|train|all", help="[default: val]"),
    # The upsamplers.
    option(
        "--arm", "arms", multiple=True, metavar="ARM", help="pulse | nearest | bicubic | lanczos | "
        "posterior:GENERATOR | posterior-pulse:GENERATOR | dps:MODEL | ddnm:MODEL | "
        "planted:MATRIX.csv | onnx:FILE | "
        'folder:DIR | command:"PROG {input} {output}" | FILE.py:FACTORY (repeatable).',
    ),
    option(
        "--skip-unfit", is_flag=True, default=None, help="Leave out, with a note, arms that are "
        "not available and scales that do not fit.",
    ),
    option(
        "--time-limit", type=float, metavar="SECONDS", help="Of a command: arm for one input "
        "[default: 600]",
    ),
    option(
        "--diffusion-steps", type=int, metavar="N", help="Noise levels that dps: and ddnm: arms "
        "visit [default: all of the model's]",
    ),
    option(
        "--dps-step", type=float, metavar="X", help="Size of a step of dps: arms, whose norm is "
        "not squared [default: 0.3]",
    ),
    option(
        "--generator", "generators", multiple=True, metavar="GEN", help="A name, a checkpoint file "
        "or FILE.py:FACTORY; each makes a pulse arm (repeatable). In full "
        "SOURCE[@RESOLUTION][@UPSAMPLING][@full][@tied][@strata|@balanced][#CLASS]. GEN@256: its "
        "pictures shrunk to 256 px; of a file that does not state its resolution, that. StyleGAN 1 "
        "files of genforce need FILE@auto, FILE@fused or FILE@separate. GEN@full and GEN@tied: see "
        "--latent-fit. GEN@strata starts the draws of a face at each apparent group in turn, "
        "GEN@balanced from a prior reweighted toward equal groups. "
        "Conditional networks: FILE#3 fixes class 3, FILE#each makes an arm of every class, else "
        "classes are drawn uniformly.",
    ),
    trust_file,
    option(
        "--search", metavar="official|paper|fast", help="100 steps to eps 2e-3 or 1e-3; fast: each "
        "image stops when feasible [default: official]",
    ),
    option(
        "--eps", type=float, metavar="MSE", help="Largest error of a feasible output, of all arms "
        "[default: the search's]",
    ),
    option("--coarse", metavar="STEPS@RESOLUTION", help=COARSE_HELP),
    option(
        "--latent-fit", metavar="|".join(LATENT_FITS), help=f"{FIT_HELP}; GEN@full: of one arm "
        f"[default: {LATENT_FITS[0]}]",
    ),
    option(
        "--latents", metavar="|".join(LATENTS), help=f"{LATENTS_HELP}; GEN@tied: of one arm "
        f"[default: {LATENTS[0]}]",
    ),
    option(
        "--sweep", multiple=True, metavar="SETTING=V,V", callback=_settings, help="A grid: each "
        "combination of values is a variant of every arm that has the setting, such as "
        "--sweep eps=0.001,0.002 --sweep steps=50,100 (repeatable; `list settings`).",
    ),
    option(
        "--bank", type=int, metavar="N", help="Samples from which posterior:GENERATOR draws "
        "[default: 60000]",
    ),
    # The inputs.
    option(
        "--scale", "scales", multiple=True, type=int, metavar="N",
        help="Downscaling factor (repeatable) [default: 8, or less where the input would fall "
        "under 8 px]",
    ),
    option(
        "--condition", "conditions", multiple=True, metavar="C",
        help="clean | gaussian:SIGMA | saltpepper:P | motion:LENGTH | jpeg:Q, or several joined by "
        "+ and applied in that order (repeatable).",
    ),
    option(
        "--kernel", metavar="NAME",
        help="Downscaling operator: pulse | bicubic | lanczos | bilinear | area | nearest.",
    ),
    option(
        "--resolution", type=int, metavar="R",
        help="Where outputs are compared [default: the smallest generator's].",
    ),
    option(
        "--crop", metavar="CROP",
        help="as-is | ffhq | fairface-0.25 | fairface-1.25 | celeba | celeba-108",
    ),
    # The sample.
    option(
        "--group-by", multiple=True, metavar="A[,B]",
        help="race | gender | age | any label | skin_tone | monk; A,B = the intersection.",
    ),
    option("--per-group", type=int, metavar="N", help="Faces in each group [default: 10]"),
    option("--draws", type=int, metavar="N", help="Seeds for each face [default: 2]"),
    option("--limit", type=int, metavar="N", help="Stop after N faces (a trial run)."),
    option("--seed", type=int, metavar="N", help="[default: 0]"),
    *_UNTIL_DECIDED,
    # The measurements.
    option(
        "--sources", is_flag=True, default=None,
        help="Analyse the sources of shifts: prior, guided searches, uninformative inputs.",
    ),
    option(
        "--attributes", multiple=True, metavar="NAME|FILE", help="Model of apparent attributes: a "
        "name, an .onnx file or FILE.py:FACTORY; none. Given twice, the second checks the first "
        "[default: the shipped ones].",
    ),
    option(
        "--metrics", metavar="LIST", callback=_names,
        help="psnr,ssim,lpips,... or FILE.py:FACTORY [default: all that can be measured here].",
    ),
    option(
        "--second-attributes", metavar="NAME|FILE",
        help="The same as a second --attributes.",
    ),
    option("--keep-images", metavar="all|sample|none", help="[default: sample]"),
    hand_labels,
    # The execution.
    option("--device", metavar="auto|cpu|cuda[:i]", help="[default: auto]"),
    option("--precision", metavar="auto|fp32|bf16", help="Of the generators [default: auto]"),
    option("--batch", type=int, metavar="N", help="Draws in a work unit."),
    option("--threads", type=int, metavar="N", help="CPU threads; results depend on them."),
    *_SHARED_OUT,
    _OUT_OF_A_RUN,
)  # fmt: skip


_OF_A_KIT: tuple[Callable[[Command], Command], ...] = (
    option(
        "--tasks", metavar="LIST", callback=_names, help="mos: quality from 1 to 5; group: the "
        "apparent group; choice: which of two is closer to the original [default: mos,group,"
        "choice, as far as they can be].",
    ),
    option(
        "--items", type=click.IntRange(1, 10_000), default=60, show_default=True, metavar="N",
        help="Questions of each task, at most.",
    ),
    option(
        "--raters", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N",
        help="Named rater-1 to rater-N.",
    ),
    option(
        "--rater", "names", multiple=True, metavar="NAME",
        help="A rater's name, in place of --raters (repeatable).",
    ),
    option("--seed", type=SEED, default=0, show_default=True),
    option("--arm", "arms", multiple=True, metavar="ARM", help="Of the run (repeatable)."),
    option(
        "--condition", "conditions", multiple=True, metavar="C", help="Of the run (repeatable)."
    ),
    option(
        "--out", type=PlainPath(), metavar="FILE.html", help="[default: RUN/rating/kit-....html]"
    ),
)  # fmt: skip

#: In the order of `pulse-audit upsample --help`.
_OF_PHOTOS: tuple[Callable[[Command], Command], ...] = (
    click.argument("images", nargs=-1, required=True, metavar="PHOTO|FOLDER...", type=PlainPath()),
    option(
        "--generator", default="faces-balanced", show_default=True, metavar="GEN", help="A name, "
        "a checkpoint or FILE.py:FACTORY: "
        "SOURCE[@RESOLUTION][@UPSAMPLING][@full][@tied][@strata|@balanced][#CLASS]. GEN@256: its "
        "pictures shrunk to 256 px; FILE#3: class 3; StyleGAN 1 files of genforce need FILE@auto, "
        "FILE@fused or FILE@separate.",
    ),
    trust_file,
    option(
        "--scale", type=click.IntRange(1, 1024), metavar="N", help="Downscaling factor.  "
        "[default: 8, or less where the input would fall under 8 px]",
    ),
    option("--draws", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="N"),
    option(
        "--seed", type=SEED, default=0, show_default=True, metavar="N",
        help="Of a face's first draw; the next has N + 1.",
    ),
    option("--search", default="official", show_default=True, metavar="official|paper|fast"),
    option("--coarse", metavar="STEPS@RESOLUTION", help=COARSE_HELP),
    option("--latent-fit", default=LATENT_FITS[0], metavar="|".join(LATENT_FITS), help=FIT_HELP),
    option("--latents", default=LATENTS[0], metavar="|".join(LATENTS), help=LATENTS_HELP),
    option(
        "--align/--no-align", default=None, help="Find the faces and align each to the "
        "generator's crop; else the photo's centre is taken.  [default: where its crop is known]",
    ),
    option("--is-lr", is_flag=True, help="The photos are low-resolution inputs already."),
    option("--paste", is_flag=True, help="Set the outputs into the photo, too."),
    option("--gif", is_flag=True, help="Draw each search, every fourth step of it, too."),
    option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]"),
    out_folder("upsampled"),
    outcome_as_json,
    quiet_option,
)  # fmt: skip


def options_of_a_run(command: Command) -> Command:
    """Add the options that make a specification to a command."""
    for add in reversed(_OF_A_RUN):
        command = add(command)
    return command


def options_of_inputs(command: Command) -> Command:
    """Add the options that make a specification to a command that makes no run."""
    out = option("--out", type=PlainPath(), required=True, metavar="DIR")
    of_runs_alone = (hand_labels, _OUT_OF_A_RUN, *_UNTIL_DECIDED, *_SHARED_OUT)
    for add in reversed([each for each in _OF_A_RUN if each not in of_runs_alone]):
        command = add(command)
    return out(command)


def options_of_photos(command: Command) -> Command:
    """Add the options of `pulse-audit upsample` to a command."""
    for add in reversed(_OF_PHOTOS):
        command = add(command)
    return command


def options_of_a_kit(command: Command) -> Command:
    """Add the options of a rating kit to a command."""
    for add in reversed(_OF_A_KIT):
        command = add(command)
    return command


#: In the order of `pulse-audit check --help`.
_OF_A_CHECK: tuple[Callable[[Command], Command], ...] = (
    click.argument("run", metavar="RUN", type=PlainPath()),
    option("--rules", type=PlainPath(), required=True, metavar="RULES.yaml"),
    option(
        "--baseline", type=PlainPath(), metavar="RUN|FILE",
        help="A run, or a file that --write-baseline wrote.",
    ),
    option("--arm", metavar="ARM", help="Judge this arm alone."),
    option("--baseline-arm", metavar="ARM", help="Compare it with this arm of the baseline."),
    option(
        "--accept-difference", "accept_differences", multiple=True, metavar="KEY",
        help="Compare although the baseline differs in KEY (repeatable).",
    ),
    option(
        "--write-baseline", "new_baseline", type=PlainPath(), metavar="FILE",
        help="Write what the rules need of RUN into a small file, to be committed.",
    ),
    option("--junit", type=PlainPath(), metavar="FILE", help="RUN/gate/junit.xml, here too."),
    option(
        "--github", is_flag=True,
        help="Annotations, and the step summary of a GitHub workflow.",
    ),
    outcome_as_json,
)  # fmt: skip


def options_of_a_check(command: Command) -> Command:
    """Add the options of `pulse-audit check` to a command."""
    for add in reversed(_OF_A_CHECK):
        command = add(command)
    return command
