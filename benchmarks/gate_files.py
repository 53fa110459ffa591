"""Rules, baselines and verdicts that nobody writes by accident, or that a careless hand has edited.

``RULES`` and ``BASELINES`` map what a file says to a function that writes it: `check` has to refuse
each. ``VERDICTS`` are not shown by a report, which goes on without them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.damage import ALIAS_BOMB

Change = Callable[[dict[str, Any]], object]


def text(content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def rules(*lines: str, head: str = "") -> Callable[[Path], object]:
    return text(f"{head}rules:\n" + "".join(f"  - {{{line}}}\n" for line in lines))


GAP = "metric: retention, group_by: race, statistic: max_gap"
MEAN = "metric: feasible_rate, statistic: mean"
RULES: dict[str, Callable[[Path], object]] = {
    "nothing": text(""),
    "a word": text("pass"),
    "a list": text("- 1\n"),
    "no rule": text("rules: []\n"),
    "rules that are null": text("rules:\n"),
    "rules that are one rule": text(f"rules: {{{GAP}, at_most: 0.2}}\n"),
    "a rule that is a list": text("rules: [[1, 2]]\n"),
    "an alias bomb": text(ALIAS_BOMB + b"rules: *j\n"),
    "an alias bomb as a limit": text(ALIAS_BOMB + b"rules: [{metric: a, at_most: *j}]\n"),
    "a rule that holds itself": text("rules: &a [*a]\n"),
    "code to run": rules(GAP + ", at_most: !!python/object/apply:os.system [touch executed]"),
    "a depth of 10,000": text("rules: " + "[" * 10_000),
    "a value of 500 kB": rules(GAP + f", at_most: {'9' * 500_000}"),
    "2 MB": text("#" * 2**21 + "\nrules: []\n"),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "a NUL byte": rules(GAP + ', at_most: 0.2, arm: "\\0"'),
    "two documents": text("rules: []\n---\nrules: []\n"),
    "201 rules": rules(*(f"{MEAN}, at_least: 0.{number:04d}" for number in range(1, 202))),
    "no limit": rules(GAP),
    "two limits": rules(GAP + ", at_most: 0.2, at_least: 0.1"),
    "one key twice": rules(GAP + ", at_most: 0.1, at_most: 0.9"),
    "the rules twice": text(f"rules: [{{{GAP}, at_most: 0.1}}]\nrules: [{{{MEAN}, at_most: 1}}]\n"),
    "one rule twice": rules(GAP + ", at_most: 0.1", GAP + ", at_most: 0.9"),
    "rules that contradict each other": rules(MEAN + ", at_least: 0.9", MEAN + ", at_most: 0.1"),
    "a limit of NaN": rules(GAP + ", at_most: .nan"),
    "an infinite limit": rules(GAP + ", at_most: .inf"),
    "a limit of 1e999": rules(GAP + ", at_most: 1e999"),
    "a limit that is true": rules(GAP + ", at_most: true"),
    "a limit that is text": rules(GAP + ', at_most: "0.2"'),
    "a limit in percent": rules(GAP + ", at_most: 20"),
    "a limit below 0": rules(GAP + ", at_most: -0.1"),
    "a ratio above 1": rules(GAP.replace("max_gap", "min_ratio") + ", at_least: 1.2"),
    "a gap of at least something": rules(GAP + ", at_least: 0.2"),
    "an alpha of 0": rules(GAP + ", at_most: 0.2", head="alpha: 0\n"),
    "an alpha of 1": rules(GAP + ", at_most: 0.2", head="alpha: 1.0\n"),
    "an alpha that is text": rules(GAP + ", at_most: 0.2", head='alpha: "0.05"\n'),
    "an alpha of 1e-300": rules(GAP + ", at_most: 0.2", head="alpha: 1.0e-300\n"),
    "an unknown key": rules(GAP + ", at_mots: 0.2"),
    "an unknown key of the file": rules(GAP + ", at_most: 0.2", head="alhpa: 0.05\n"),
    "an unknown statistic": rules(GAP.replace("max", "least") + ", at_most: 0.2"),
    "an unknown metric": rules(GAP.replace("retention", "retentoin") + ", at_most: 0.2"),
    "an unknown grouping": rules(GAP.replace("race", "rcae") + ", at_most: 0.2"),
    "an unknown group": rules(MEAN + ", group_by: race, group: Whit, at_least: 0.5"),
    "an unknown arm": rules(GAP + ', at_most: 0.2, arm: "pulse:b*"'),
    "an arm of one bracket": rules(GAP + ', at_most: 0.2, arm: "["'),
    "an arm of 100 stars": rules(GAP + f', at_most: 0.2, arm: "{"*a" * 99}b"'),
    "an arm of 201 letters": rules(GAP + f', at_most: 0.2, arm: "{"a" * 201}"'),
    "an unknown condition": rules(GAP + ", at_most: 0.2, condition: claen"),
    "an unknown scale": rules(GAP + ", at_most: 0.2, scale: 3"),
    "a scale that is true": rules(GAP + ", at_most: 0.2, scale: true"),
    "a metric of two lines": rules(GAP.replace("retention", '"a\\nb"') + ", at_most: 0.2"),
    "a metric with escapes": rules(GAP.replace("retention", '"\\e[2Ja"') + ", at_most: 0.2"),
    "a key of two lines": rules(GAP + ', at_most: 0.2, "a\\nb": 1'),
    "a key that is a number": rules(GAP + ", at_most: 0.2, 7: 1"),
    "a key that is null": text("~: 1\nrules: []\n"),
    "a grouping of commas": rules(GAP.replace("race", '",,"') + ", at_most: 0.2"),
    "a grouping twice": rules(GAP.replace("race", '"race,race"') + ", at_most: 0.2"),
    "a group without a grouping": rules(MEAN + ", group: White, at_least: 0.5"),
    "a gap of one mean": rules("metric: feasible_rate, statistic: max_gap, at_most: 0.2"),
    "a number without rules": rules("metric: fid_bias, statistic: mean, at_most: 0.2"),
}  # fmt: skip


def edited(change: Change) -> Callable[[Path], object]:
    """Change the tree of the sound baseline."""

    def write(path: Path) -> None:
        tree = json.loads(path.read_bytes())
        change(tree)
        path.write_text(json.dumps(tree))

    return write


def values(tree: dict[str, Any], metric: str) -> dict[str, Any]:
    every: list[dict[str, Any]] = tree["settings"][0]["values"]
    return next(each for each in every if each["metric"] == metric)


def of(metric: str, **changes: Any) -> Callable[[Path], object]:
    """Other sums or draws of a metric."""
    return edited(lambda tree: values(tree, metric).update(changes))


def first_sum(metric: str, number: Any) -> Callable[[Path], object]:
    return edited(lambda tree: values(tree, metric)["sums"].__setitem__(0, number))


N = 60  # faces of the sound run
BASELINES: dict[str, Callable[[Path], object]] = {
    "nothing": text(""),
    "an empty object": text("{}"),
    "a list": text("[]"),
    "null": text("null"),
    "not JSON": text("rules: []"),
    "a depth of 10,000": text('{"must_match": ' + "[" * 10_000),
    "10 million values": text('{"must_match": [' + "0," * 10_000_000 + "0]}"),
    "a key with half a character": text('{"must_match": {"\\ud800": "x"}}'),
    "code to run": text('{"must_match": {"py/object/apply": "os.system"}}'),
    "a schema of the future": edited(lambda tree: tree.update(schema=2)),
    "a schema that is text": edited(lambda tree: tree.update(schema="1")),
    "a schema that is true": edited(lambda tree: tree.update(schema=True)),
    "a schema of two lines": edited(lambda tree: tree.update(schema="1\n2")),
    "no face": edited(lambda tree: tree.update(faces=[])),
    "no arm": edited(lambda tree: tree.update(settings=[])),
    "an unknown key": edited(lambda tree: tree.update(verdict="pass")),
    "an unknown key of two lines": edited(lambda tree: tree.update({"a\nb": 1})),
    "a face twice": edited(lambda tree: tree["faces"].__setitem__(1, tree["faces"][0])),
    "a face too many": edited(lambda tree: tree["faces"].append(["x", "y"])),
    "a face without a digest": edited(lambda tree: tree["faces"].__setitem__(0, ["x"])),
    "an arm twice": edited(lambda tree: tree["settings"].append(tree["settings"][0])),
    "an arm that is not listed": edited(lambda tree: tree.update(arms={})),
    "another arm beside": edited(lambda tree: tree.update(
        arms={"a\nb": "pulse", "c": "pulse"},
        settings=[{**tree["settings"][0], "arm": arm} for arm in ("a\nb", "c")])),
    "another data set": edited(lambda tree: tree["must_match"].update(dataset="y")),
    "another data set in two lines": edited(lambda tree: tree["must_match"].update(dataset="x\ny")),
    "a further thing to match": edited(lambda tree: tree["must_match"].update({"a\nb": "c"})),
    "nothing to match": edited(lambda tree: tree.update(must_match={})),
    "an arm under no condition": edited(lambda tree: tree["settings"][0].update(condition="x")),
    "a scale of 10**19": edited(lambda tree: tree["settings"][0].update(scale=10**19)),
    "no values": edited(lambda tree: tree["settings"][0].update(values=[])),
    "no outputs": edited(lambda tree: tree["settings"][0].update(outputs=[])),
    "sums of one face": of("retention", sums=[1.0]),
    "more outcomes than draws": first_sum("retention", 3.0),
    "half an outcome": first_sum("retention", 0.5),
    "outcomes below 0": first_sum("retention", -1.0),
    "a flip rate of 2": first_sum("flip_rate", 2.0),
    "a sum of NaN": first_sum("lightness_shift", float("nan")),
    "a sum of 1e308": of("lightness_shift", sums=[1e308] * N),
    "a sum of 1e200": first_sum("lightness_shift", 1e200),
    "a sum that is text": first_sum("lightness_shift", "0.1x"),
    "a negative number of draws": of("retention", draws=-1),
    "no draw": of("retention", draws=[0] * (N - 1) + [-1]),
    "2**62 draws": of("retention", draws=2**62),
    "2**63 draws": of("retention", draws=2**63),
    "10**19 draws of a face": of("retention", draws=[2] * (N - 1) + [10**19]),
    "2**40 draws": of("retention", draws=2**40),
    "draws of one face": of("retention", draws=[2]),
    "draws that are a fraction": of("retention", draws=1.5),
    "draws that are true": of("retention", draws=True),
    "a metric twice": edited(
        lambda tree: tree["settings"][0]["values"].append(values(tree, "retention"))),
    "a group out of range": edited(lambda tree: tree["groupings"][1]["of_face"].__setitem__(0, 9)),
    "a group of -2": edited(lambda tree: tree["groupings"][1]["of_face"].__setitem__(0, -2)),
    "a group of 2**63": edited(lambda tree: tree["groupings"][1]["of_face"].__setitem__(0, 2**63)),
    "a grouping twice": edited(lambda tree: tree["groupings"].append(tree["groupings"][1])),
    "a group named twice": edited(
        lambda tree: tree["groupings"][1].update(groups=[tree["groupings"][1]["groups"][0]] * 3)),
    "no grouping": edited(lambda tree: tree.update(groupings=[])),
    "labels of robots": edited(lambda tree: tree["attributes"][0].update(labels_from="robots")),
    "another attribute": edited(lambda tree: tree["attributes"][0].update(name="age")),
    "other groups of an attribute": edited(
        lambda tree: tree["attributes"][0].update(groups=["a", "b", "c"])),
    "an attribute twice": edited(lambda tree: tree["attributes"].append(tree["attributes"][0])),
    "a label out of range": edited(lambda tree: tree["attributes"][0]["truth"].__setitem__(0, 3)),
    "an output out of range": edited(
        lambda tree: tree["settings"][0]["outputs"][0]["predicted"].__setitem__(0, [7])),
    "outputs of one face": edited(
        lambda tree: tree["settings"][0]["outputs"][0].update(predicted=[[0]])),
    "a reason that is no text": edited(lambda tree: tree.update(unavailable={"kid": 1})),
}  # fmt: skip


VERDICTS: dict[str, Callable[[Path], object]] = {
    "nothing": text(""),
    "a list": text("[]"),
    "no verdict": edited(lambda tree: tree.update(verdicts=[])),
    "verdicts that are null": edited(lambda tree: tree.update(verdicts=None)),
    "other samples": edited(lambda tree: tree.update(samples_sha256="0" * 64)),
    "samples that are a list": edited(lambda tree: tree.update(samples_sha256=[])),
    "an unknown outcome": edited(lambda tree: tree["verdicts"][0].update(outcome="passed")),
    "a fail that is called a pass": edited(lambda tree: tree["verdicts"][0].update(
        outcome="pass", value=0.6, pass_bound=0.7, fail_bound=0.5)),
    "a pass without a bound": edited(lambda tree: tree["verdicts"][0].update(
        outcome="pass", value=None, pass_bound=None, fail_bound=None)),
    "a pass that was not judged": edited(lambda tree: tree["verdicts"][0].update(
        outcome="pass", judged=False)),
    "an infinite alpha": edited(lambda tree: tree.update(alpha=1e308)),
    "an alpha that is a list": edited(lambda tree: tree.update(alpha=[])),
    "an alpha below 0": edited(lambda tree: tree.update(alpha=-0.05)),
    "a verdict without a rule": edited(lambda tree: tree["verdicts"][0].pop("rule")),
    "a schema of the future": edited(lambda tree: tree.update(schema=2)),
    "a million verdicts": edited(
        lambda tree: tree.update(verdicts=tree["verdicts"][:1] * 1_000_000)),
    "a depth of 10,000": text('{"verdicts": ' + "[" * 10_000),
}  # fmt: skip
