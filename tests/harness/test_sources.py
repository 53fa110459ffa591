"""``--sources`` on a toy of which is known what it can show, what it prefers, and whom it saw."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pulse_audit import store
from pulse_audit.harness import sources
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.source_models import resolve_sources
from pulse_audit.harness.sources import SourcesConfig, run_sources
from pulse_audit.harness.spec import make_spec
from pulse_audit.report import html
from pulse_audit.summary.estimates import summarise_run
from pulse_audit.summary.priors import prior_rows
from pulse_audit.summary.sources import source_rows
from pulse_audit.types import InputError

SIDE, SCALE, FACES = 16, 4, 9
QUICK = SourcesConfig(prior_samples=200, uninformative_draws=2)
FEW = SourcesConfig(prior_samples=2, uninformative_draws=1)
CHECKER = (-1.0) ** (np.arange(SIDE)[:, None] + np.arange(SIDE)[None])
STRIPES = (-1.0) ** (np.arange(SIDE)[:, None] + 0 * np.arange(SIDE)[None])

#: Groups A and B are the sign of a chequer, C is stripes; DS removes both. `prefers` shows B for
#: 2 % of its prior and C for less, `cannot` shows A only.
TOY = """
import torch
import torch.nn.functional as F
import pulse_audit as pa
from pulse_audit.types import AttributeCard, Attributes

SIDE = 16
CHECKER = (-1.0) ** (torch.arange(SIDE)[:, None] + torch.arange(SIDE)[None])
STRIPES = (-1.0) ** (torch.arange(SIDE)[:, None] + 0 * torch.arange(SIDE)[None])


def make(name, amplitude, stripes, seen):
    mix = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)) / 8

    def decode(z):
        values = z @ mix.to(z)
        colour = torch.tensor([0.6, 0.5, 0.45]) + 0.1 * torch.tanh(values[:, :3])
        chequer = amplitude(values[:, 3])[:, None, None, None] * CHECKER
        lines = stripes * torch.sigmoid(values[:, 4] - 3)[:, None, None, None] * STRIPES
        return colour[..., None, None] + chequer + lines

    return pa.as_generator(
        decode, name=name, latent_dim=64, output_range=(0, 1), training_composition=seen
    )


def prefers():
    return make("prefers", lambda v: 0.15 * torch.tanh(v + 2), 0.3, {"A": 90, "B": 9, "C": 1})


def cannot():
    return make("cannot", lambda v: 0.15 * torch.sigmoid(v), 0.0, None)


class Net:
    def __init__(self, name, slope=20.0, words=("B", "A", "C"), sha256=None):
        self.card = AttributeCard(name, {"group": words}, SIDE, "as-is", sha256=sha256)
        self.slope = slope
        self.differentiable = True

    def __call__(self, images):
        amplitude = (images * CHECKER.to(images)).mean(dim=(1, 2, 3))
        lines = (images * STRIPES.to(images)).mean(dim=(1, 2, 3))
        logits = self.slope * torch.stack([-amplitude, amplitude, 2 * lines - 0.1], dim=1)
        return Attributes({"group": logits.softmax(1)}, None)

    def to(self, device):
        return self


def guide():
    return Net("guide")


def check():
    return Net("check", 15.0)


def blind():
    "Sees A in everything."
    net = Net("blind")
    net.slope = 0.0
    net.__class__ = type("Blind", (Net,), {"__call__": lambda self, images: Attributes(
        {"group": torch.tensor([[0.2, 0.6, 0.2]]).expand(len(images), 3)}, None)})
    return net


def flat():
    net = guide()
    net.differentiable = False
    return net


def other_words():
    return Net("foreign", words=("x", "y", "z"))
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A data set of squares, a third of each group, and the file of the toy."""
    root = tmp_path_factory.mktemp("toy")
    for name in ("toy", "prefers", "cannot"):  # an arm is named after its file
        (root / f"{name}.py").write_text(TOY)
    data = root / "faces"
    data.mkdir()
    rows = ["file,group"]
    for number in range(FACES):
        group, pattern = (("A", CHECKER), ("B", -CHECKER), ("C", STRIPES))[number % 3]
        colour = np.array([0.6, 0.5, 0.45]) + 0.01 * number - 0.03
        image = colour[None, None] + 0.12 * pattern[..., None]
        Image.fromarray((255 * image).round().astype(np.uint8)).save(data / f"{number}.png")
        rows.append(f"{number}.png,{group}")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def spec(toy: Path, **changes):
    values = {
        "dataset": "folder", "data_root": toy / "faces", "split": "all",
        "generators": [f"{toy}/prefers.py:prefers", f"{toy}/cannot.py:cannot"], "arms": ["bicubic"],
        "attributes": f"{toy}/toy.py:guide", "second_attributes": f"{toy}/toy.py:check",
        "scales": [SCALE], "group_by": ["group"], "per_group": FACES // 3, "draws": 2,
        "threads": 1, "device": "cpu", "sources": True, "metrics": ["psnr"], "batch": 4,
    }  # fmt: skip
    return make_spec(values | changes)


@pytest.fixture(scope="module")
def finished(toy):
    """The toy's run with its sources; quick ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_sources, "__defaults__", (QUICK,))
        patch.setattr("pulse_audit.harness.run.html.publish", lambda *given: None)
        return run_audit(spec(toy), toy / "out")


@pytest.fixture(scope="module")
def tables(finished):
    found = finished.source_tables()
    assert found is not None
    return found


def as_frame(rows):
    return pd.DataFrame([row.model_dump() for row in rows])


@pytest.fixture(scope="module")
def rows(finished, tables):
    return as_frame(source_rows(tables, finished.samples(), finished.manifest))


def value(rows, metric, arm, group="B"):
    chosen = rows[(rows.metric == metric) & (rows.arm == arm) & (rows.group == group)]
    (found,) = chosen[chosen.correction == "raw"].value
    return found


def interval(rows, metric, arm, group="all"):
    (row,) = rows[(rows.metric == metric) & (rows.arm == arm) & (rows.group == group)].itertuples()
    return row.low, row.high


def test_preference_and_incapacity_are_told_apart(rows):
    """Neither toy shows a B or a C of its own accord; the one could have."""
    for arm in ("pulse:prefers", "pulse:cannot"):
        assert value(rows, "source_retained", arm, "A") >= 5 / 6
        assert value(rows, "source_retained", arm, "B") == 0
    assert value(rows, "source_preference", "pulse:prefers") >= 5 / 6
    assert interval(rows, "source_preference", "pulse:prefers")[0] > 0.1
    assert value(rows, "source_preference", "pulse:cannot", "all") == 0
    assert value(rows, "source_incapacity", "pulse:cannot") == 1
    assert value(rows, "source_incapacity_faces", "pulse:cannot") == 1
    assert value(rows, "source_incapacity_faces", "pulse:prefers") == 0


def test_guidance_toward_a_wrong_group_shows_what_the_generator_can_show(rows):
    assert value(rows, "wrong_shown", "pulse:prefers", "all") >= 5 / 6
    assert value(rows, "wrong_shown", "pulse:cannot", "all") == 0


def test_the_time_of_a_run_includes_its_sources(finished, tables):
    spent = finished.samples()["seconds"].sum() + tables["guided"]["seconds"].sum()
    assert finished.manifest.seconds > spent


def test_an_honest_second_model_confirms(rows):
    assert value(rows, "guided_confirmed", "pulse:prefers") == 1
    assert value(rows, "source_adversarial", "pulse:prefers") == 0


def test_the_searches_are_those_of_the_lost_draws(finished, tables):
    """One of each kind, from the seed of the draw, in the group that is told."""
    samples, guided = finished.samples(), tables["guided"]
    lost = samples[(samples.arm != "bicubic") & (samples.sr_group != samples.label_group)]
    key = ["face_id", "arm", "condition", "scale", "draw", "seed"]
    assert len(lost) > 15
    for kind, of_kind in guided.groupby("search"):
        pairs = of_kind.merge(lost, on=key, suffixes=("", "_out"), validate="1:1")
        assert len(pairs) == len(of_kind) == len(lost), kind
        if kind == "wrong":
            assert not (
                (pairs.toward == pairs.label_group) | (pairs.toward == pairs.sr_group_out)
            ).any()
        else:
            assert (pairs.toward == pairs.label_group).all()
    assert set(guided.search) == set(store.SEARCHES)
    assert (guided.weight[guided.search == "placebo"] == 0).all()
    assert (guided.weight[guided.search != "placebo"] > 0).all()


def test_without_weight_guidance_gives_no_preference(toy, finished, tmp_path, monkeypatch):
    """The whole of it is then chance: what the placebo finds too."""
    shutil.copytree(finished.path, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "sources")
    again(toy, tmp_path / "out", replace(FEW, weight=0.0))
    run = store.open_run(tmp_path / "out")
    found = as_frame(source_rows(run.source_tables(), run.samples(), run.manifest))
    for arm in ("pulse:prefers", "pulse:cannot"):
        low, high = interval(found, "source_preference", arm)
        assert value(found, "source_preference", arm, "all") == 0
        assert low < 0 < high


def test_what_is_shown_is_feasible_and_seen(tables):
    guided = tables["guided"]
    shown = guided[guided.shown]
    assert len(shown) > 10
    assert shown.feasible.all() and (shown.downscale_error <= 2e-3).all()
    assert (shown.sr_group == shown.toward).all()


def test_the_prior_is_as_skewed_as_the_toy(tables):
    """P(N(0, 1) < -2) = 2.3 %; the standard deviation of a share of 200 is 1.1 %."""
    prior = tables["prior"]
    shares = (prior.sr_group == "B").groupby(prior.arm).mean()
    assert shares["pulse:cannot"] == 0
    assert 0 <= shares["pulse:prefers"] < 0.06
    assert set(prior.drawn) == {"gaussian"}
    assert prior.groupby("arm").seed.nunique().eq(200).all()
    twins = prior.groupby("arm").seed.apply(list)
    assert twins.iloc[0] == twins.iloc[1]  # arms share their random numbers


def test_the_report_says_what_preference_is_and_what_it_cannot_say(finished):
    html.publish(finished)
    page = (finished.path / "report" / "index.html").read_text("utf-8")
    assert "without guidance (placebo), and guided toward a wrong group" in page
    assert "a sampler that is fair in the sense of CPR would have some, too" in page
    assert "the preference that a sampler fair in the sense of CPR would score needs" in page


def test_training_composition_comes_from_the_card(finished, rows):
    assert finished.manifest.sources.training == {
        "pulse:prefers": {"group": {"A": 90, "B": 9, "C": 1}}
    }
    assert value(rows, "training_share", "pulse:prefers") == 0.09
    assert not ((rows.metric == "training_share") & (rows.arm == "pulse:cannot")).any()
    assert value(rows, "evaluation_share", "pulse:cannot") == pytest.approx(1 / 3)


def test_uninformative_inputs_become_what_the_prior_prefers(tables, rows):
    table = tables["uninformative"]
    counts = table.groupby(["arm", "kind"]).size()
    assert (counts[:, "group_mean"] == 6).all() and (counts[:, "grey"] == 6).all()
    assert value(rows, "ucpr_share_group_mean", "pulse:cannot") == 0
    noisy = table[table.kind == "noisy_mean"]
    assert noisy.downscale_error.nunique() == len(noisy)


def test_the_manifest_says_who_guided_and_who_checked(finished):
    about = finished.manifest.sources.as_dict()
    assert (about["guided_by"], about["guide"]) == (["group"], "guide")
    assert about["check"]["name"] == "check"
    assert about["settings"]["prior_samples"] == 200


def again(toy, out, config=QUICK):
    """Plan the toy's run anew and make its sources in the directory that is there."""
    plan = plan_audit(spec(toy))
    run = store.open_run(out)
    calls = []
    run_sources(run, plan, resolve_sources(plan),
                lambda *now: calls.append(now), config)  # fmt: skip
    return calls


def contents(out):
    drop = {"guided": ["seconds"]}
    tables = store.open_run(out).source_tables()
    return {name: t.drop(columns=drop.get(name, [])) for name, t in tables.items()}


def test_interrupted_sources_go_on_and_end_the_same(toy, finished, tables, monkeypatch):
    """Stopped in the middle of the guided searches, then made by the same call."""
    before = contents(finished.path)
    for name in tables:
        (finished.path / "sources" / f"{name}.parquet").unlink()
    search, done = sources.guided_search, []

    def stops(*args, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return search(*args, **options)

    monkeypatch.setattr(sources, "guided_search", stops)
    with pytest.raises(KeyboardInterrupt):
        again(toy, finished.path)
    assert finished.source_tables() is None
    monkeypatch.setattr(sources, "guided_search", search)
    calls = again(toy, finished.path)
    assert calls[0][0] == calls[0][2] > 0  # what was finished is restored
    assert calls[-1][0] == calls[-1][1]
    after = contents(finished.path)
    for name, table in before.items():
        pd.testing.assert_frame_equal(after[name], table)
    assert not (finished.path / "sources" / "parts").exists()


def test_finished_sources_are_left_alone(toy, finished, tables):
    assert again(toy, finished.path) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"generators": [], "resolution": 16}, "add a pulse arm"),
        ({"attributes": "none"}, "needs an attribute model"),
        ({"attributes": "{}/toy.py:flat"}, "guide is not differentiable, so it cannot guide"),
        ({"attributes": "{}/toy.py:other_words"}, "add --group-by"),
        ({"second_attributes": "{}/toy.py:nothing"}, "has no function 'nothing'"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_leaves_nothing(toy, tmp_path, changes, line):
    given = {k: v.format(toy) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(InputError, match=line):
        run_audit(spec(toy, **given), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_second_model_that_sees_no_b_calls_its_guided_draws_fooled(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(run_sources, "__defaults__", (FEW,))
    monkeypatch.setattr("pulse_audit.harness.run.html.publish", lambda *given: None)
    changes = {"second_attributes": f"{toy}/toy.py:blind", "arms": [], "draws": 1}
    changes["generators"] = [f"{toy}/prefers.py:prefers"]
    run = run_audit(spec(toy, **changes), tmp_path / "out")
    found = as_frame(source_rows(run.source_tables(), run.samples(), run.manifest))
    assert value(found, "source_adversarial", "pulse:prefers") >= 2 / 3
    assert value(found, "source_preference", "pulse:prefers") == 0
    assert value(found, "guided_confirmed", "pulse:prefers") == 0


def test_without_a_second_model_the_manifest_says_why(toy):
    plan = plan_audit(spec(toy, second_attributes="none"))
    assert "none" in resolve_sources(plan).unchecked
    plan = plan_audit(spec(toy, second_attributes=f"{toy}/toy.py:other_words"))
    assert resolve_sources(plan).unchecked == ("foreign does not predict group in the same words")


def test_the_priors_of_the_searches_are_kept_and_summarised(finished, toy):
    """A decoder's one latent is drawn from its own prior: B in 2 % of samples, C in fewer."""
    kept = finished.read_priors()
    assert list(kept) == ["pulse:prefers", "pulse:cannot"]
    assert {tuple(table.counts["group"]) for table in kept.values()} == {("z",)}
    rows = as_frame(list(prior_rows(kept, finished.manifest)))
    assert value(rows, "start_share_z", "pulse:prefers", "A") > 0.9
    assert value(rows, "start_share_z", "pulse:cannot", "A") > 0.95
    assert not (finished.path / "sources" / "starts").exists()
    page = html.page_text(
        finished.manifest,
        finished.samples(),
        summarise_run(finished),
        pages=[],
        made=[],
        shown=[],
        varied=[],
        images_shown=False,
    )
    assert "Priors: whom a search shows before any input" in page


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"pulse:cannot": {}}',
        '{"a": {"counts": {"g": {"z": {"A": 3}}}, "pairs": {"z": [0.1, 0]}, "unavailable": {}}}',
        '{"a": {"counts": {"g": {"z": {"A": 4}}}, "pairs": {"z": [2, 0.1]}, "unavailable": {}}}',
    ],
)
def test_damaged_priors_are_named(finished, content, tmp_path):
    run = store.Run(tmp_path, finished.manifest)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "priors.json").write_text(content)
    with pytest.raises(InputError, match=r"priors\.json: is damaged; delete it"):
        run.read_priors()
