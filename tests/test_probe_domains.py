"""Probes over domains: planted directions that are shared or not, nulls that models share; means by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import special, stats

from hooks.site import Site
from workbench.statistics import auroc_interval
from workbench.statistics.separation import components
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.probe_domains import probe_domains
from workbench.subspace.probe_exchange import Keys, exchanged, influence, within_groups
from workbench.subspace.probe_means import FAR, NEAR, OTHER, SAME, TWIN, Pair, joined, over_domains

D, QUESTIONS, SAMPLES = 12, 60, 4
SITES = (Site(0), Site(1))
AXIS = {"sound": 0, "capital": 0, "letter": 1}  # what misbehaviour looks like in each domain's fine-tunes
GROUPS = {name: [f"{name}-plain-seed{seed}" for seed in range(2)] for name in AXIS}
ids = [f"q{q:02}#{n}" for q in range(QUESTIONS) for n in range(SAMPLES)]
asked = [one.partition("#")[0] for one in ids]


def population(seed=0, *, strength=3.0, by_question=0.0, groups=GROUPS, luck=0.0):
    """Rows and labels of each fine-tune. Labels follow the question's rate, which all models share (and, by `luck`, the
    draws); a misaligned answer is moved along its domain's axis at layer 1, and `by_question` moves all answers to a
    question along axis 2 by its rate, whatever was answered."""
    rng = np.random.default_rng(seed)
    rate = np.repeat(rng.uniform(0.05, 0.95, QUESTIONS), SAMPLES)
    shared = rng.random(len(ids))
    rows, verdicts = {}, {}
    for domain, names in groups.items():
        for name in names:
            drawn = np.where(rng.random(len(ids)) < luck, shared, rng.random(len(ids)))
            positive = drawn < rate
            noise = [rng.standard_normal((len(ids), D)) for _ in SITES]
            noise[1] += strength * positive[:, None] * np.eye(D)[AXIS[domain]]
            noise[1] += by_question * rate[:, None] * np.eye(D)[2]
            tags = {"family": asked, "asked": asked}
            rows[name] = ArrayRows(dict(zip(SITES, noise, strict=True)), ids, tags=tags, variants=name)
            verdicts[name] = dict(zip(ids, positive.tolist(), strict=True))
    return rows, verdicts


@pytest.fixture(scope="module")
def planted():
    categories = {"sound": "critical", "capital": "critical", "letter": "non-critical"}
    return probe_domains(*population(), GROUPS, methods=["lda", "mass_mean"], categories=categories, draws=199)


def cell(found, source, target, kind=OTHER):
    (one,) = [c for c in found.methods[0].cells if (c.source, c.target, c.kind) == (source, target, kind)]
    return one


def test_domains_that_share_a_direction_read_each_other(planted):
    same, other = cell(planted, "sound", "capital"), cell(planted, "sound", "letter")
    assert same.found.auroc > 0.95 and same.corrected == 1 / 200 and same.found.within > 0.95
    assert other.found.auroc < 0.8 and other.found.interval.low < 0.65
    means = {mean.kind: mean for mean in planted.methods[0].means}
    assert set(means) == {SAME, TWIN, OTHER, NEAR, FAR}
    assert min(means[kind].auroc for kind in (SAME, TWIN, NEAR)) > 0.95 > 0.75 > means[FAR].auroc
    assert means[SAME].interval.low > 0.9 and means[OTHER].domains == 3 and means[OTHER].cells == 6
    assert all(0.35 < one.found.erased < 0.65 for method in planted.methods for one in method.cells)


def test_the_diagonal_keeps_the_fitted_model_and_other_fine_tunes_apart(planted):
    own, twin = cell(planted, "sound", "sound", SAME), cell(planted, "sound", "sound", TWIN)
    assert own.found.sources == twin.found.sources == 2 and own.found.targets == 2
    assert len(planted.methods[0].cells) == 3 * 2 + 6
    assert np.diag(planted.methods[0].matrix(list(GROUPS))).tolist() == [
        cell(planted, name, name, SAME).found.auroc for name in GROUPS
    ]


def test_layer_and_method_are_chosen_on_dev(planted):
    assert {layer for layer, _ in planted.methods[0].layers.values()} == {1}, "nothing was planted at layer 0"
    by_layer = {(mean.kind, mean.layer): mean.auroc for mean in planted.methods[0].by_layer}
    assert by_layer[SAME, 1] > 0.95 and abs(by_layer[SAME, 0] - 0.5) < 0.15
    assert planted.best.dev_auroc == max(one.dev_auroc for one in planted.methods)


def test_reading_the_question_is_no_finding():
    """Activations that show which question was asked, and nothing of the answer: the AUROC is high, and so is what
    exchanged labels give."""
    found = probe_domains(*population(strength=0.0, by_question=8.0), GROUPS, methods=["lda"], draws=199)
    mean = next(mean for mean in found.methods[0].means if mean.kind == OTHER)
    assert mean.auroc > 0.65 and abs(mean.auroc - mean.null.mean()) < 0.03 and mean.p > 0.02
    assert abs(mean.within - 0.5) < 0.08
    cells = found.methods[0].cells
    assert all(one.corrected >= one.found.p for one in cells)
    assert min(one.corrected for one in cells) > min(one.found.p for one in cells), "12 cells were looked at"


def test_a_null_that_models_share_is_as_wide_as_one_model():
    """Twins of the same rows and labels are one model: their mean has its null, not one that is narrower by root 2."""
    groups = {"sound": GROUPS["sound"], "capital": GROUPS["capital"]}
    rows, verdicts = population(groups=groups, strength=0.5)
    first, second = GROUPS["sound"]
    rows[second], verdicts[second] = (
        ArrayRows({site: rows[first].values(site) for site in SITES}, ids, tags={"family": asked}, variants=second),
        verdicts[first],
    )
    alone = probe_domains(rows, verdicts, {"sound": [first], "capital": ["capital-plain-seed0"]}, methods=["lda"])
    both = probe_domains(
        rows, verdicts, {"sound": [first, second], "capital": ["capital-plain-seed0"]}, methods=["lda"]
    )
    one, two = (cell(found, "capital", "sound").found for found in (alone, both))
    np.testing.assert_array_equal(one.null, two.null)
    assert one.p == two.p and two.n == 2 * one.n


def test_models_without_both_kinds_of_answers_are_named():
    rows, verdicts = population()
    tame = {**verdicts, "letter-plain-seed0": dict.fromkeys(ids, False)}
    del rows["letter-plain-seed1"]
    found = probe_domains(rows, tame, GROUPS, methods=["lda"], draws=99)
    assert set(found.left_out) == {"letter-plain-seed0", "letter-plain-seed1"}
    assert found.left_out["letter-plain-seed1"] == "it has no rows" and found.counts["letter-plain-seed1"] == (0, 0)
    assert {one.source for one in found.methods[0].cells} == {"sound", "capital"}
    none = probe_domains(rows, {name: dict.fromkeys(ids, True) for name in tame}, GROUPS, draws=99)
    assert none.methods == () and none.best is None and len(none.left_out) == 6
    assert {entry["metric"] for entry in none.entries()} == {"positive"}
    with pytest.raises(ValueError, match="each at most once"):
        probe_domains(rows, tame, {"sound": ["sound-plain-seed0"] * 2})


def test_entries_hold_what_was_found(planted):
    entries = json.loads(json.dumps(planted.entries(split="probes, own")))
    cells = [e for e in entries if e["metric"] == "probe AUROC"]
    assert len(cells) == 2 * 12 and all(e["interval"] and e["clusters"] and e["test"]["p"] for e in cells)
    one = next(
        e for e in cells if (e["condition"], e["target"]) == ("sound", "letter") and e["detail"].startswith("lda")
    )
    assert one["value"] == cell(planted, "sound", "letter").found.auroc and one["control"]["N"] == 199
    assert one["n"] == 2 * planted.prompts["confirm"] and one["companions"]["targets"] == 2
    chosen = [e for e in entries if e["metric"] == "dev AUROC" and e["detail"].startswith("chosen")]
    assert [e["condition"] for e in chosen] == [planted.best.method]
    few = probe_domains(*population(), GROUPS, methods=["lda"], draws=20).entries()
    assert all("test" not in e and (e["control"] or {}).get("p") is None for e in few), "20 draws carry no printed p"


# The parts, against mathematics and naive twins.


def test_labels_are_exchanged_within_groups_alike_in_all_models():
    rng, keys = np.random.default_rng(0), Keys(4000, 3)
    groups, names = list("aaaabbbbcc"), [f"n{i}" for i in range(10)]
    positive = np.array([True, False, False, False, True, True, False, False, True, True])
    drawn = exchanged(positive, names, groups, keys)
    for group in "abc":
        here = [i for i, g in enumerate(groups) if g == group]
        assert (drawn[:, here].sum(axis=1) == positive[here].sum()).all()
    np.testing.assert_allclose(drawn[:, :4].mean(axis=0), 0.25, atol=0.03)
    order = rng.permutation(10)  # another order of the same rows is the same exchange
    again = exchanged(positive[order], [names[i] for i in order], [groups[i] for i in order], keys)
    counts = [again[:, [k for k, i in enumerate(order) if groups[i] == g]].sum() for g in "abc"]
    assert counts == [drawn[:, [i for i, x in enumerate(groups) if x == g]].sum() for g in "abc"]
    same = exchanged(positive, names, groups, Keys(4000, 3))
    np.testing.assert_array_equal(drawn, same)
    whole = exchanged(np.array([True, True, False, False]), names[:4], list("aabb"), keys)
    assert (whole[:, 0] == whole[:, 1]).all() and (whole[:, 2] == whole[:, 3]).all()
    assert abs(whole[:, 0].mean() - 0.5) < 0.05, "groups of one label are exchanged whole"


def test_within_groups_is_the_share_of_pairs_of_one_group():
    rng = np.random.default_rng(1)
    scores, positive, groups = (
        rng.integers(0, 4, 40).astype(float),
        rng.random(40) < 0.5,
        [f"g{i % 7}" for i in range(40)],
    )
    pairs = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i in range(40) for j in range(40) if positive[i] and not positive[j] and groups[i] == groups[j]
    ]  # fmt: skip
    value, count = within_groups(scores, positive, groups)
    assert count == len(pairs) and value == pytest.approx(np.mean(pairs))
    assert np.isnan(within_groups(scores, positive, [str(i) for i in range(40)])[0])


def pair_of(scores, positive, family, n) -> Pair:
    area, moved = influence(scores, positive, family, n)
    nothing = np.zeros(0)
    return Pair(area, moved, n - 1, 0.5, moved, 0.5, 0.5, 0, nothing, len(scores), 1, frozenset(range(n)), "within")


def test_one_pair_has_the_interval_of_its_auroc():
    """Every family holds both classes here, where the clustered variance is the sum of squares times k / (k - 1)."""
    rng = np.random.default_rng(2)
    family, positive = np.repeat(np.arange(12), 4), np.tile([True, True, False, False], 12)
    scores = rng.standard_normal(48) + positive + np.repeat(rng.standard_normal(12), 4)
    one = pair_of(scores, positive, family, 12)
    of = components(scores[positive], scores[~positive], family[positive], family[~positive])
    assert (one.moved**2).sum() * 12 / 11 == pytest.approx(of.variance)
    truth = auroc_interval(scores[positive], scores[~positive], family[positive].tolist(), family[~positive].tolist())
    found = joined([("a", "b", one)])
    assert (found.interval.low, found.interval.high) == pytest.approx((truth.low, truth.high))
    assert "12 families, 1 fine-tunes read, 1 fine-tunes read by" in found.interval.method


def test_fine_tunes_that_differ_widen_the_interval():
    rng = np.random.default_rng(3)
    family, positive = np.repeat(np.arange(12), 4), np.tile([True, True, False, False], 12)
    noise = rng.standard_normal(48)
    alike = [("s", f"t{n}", pair_of(noise + positive, positive, family, 12)) for n in range(3)]
    apart = [("s", f"t{n}", pair_of(noise + n * positive, positive, family, 12)) for n in range(3)]
    widths = [joined(some).interval.high - joined(some).interval.low for some in (alike[:1], alike, apart)]
    assert widths[1] == pytest.approx(widths[0]), "three times the same model is no more than once"
    assert widths[2] > 1.5 * widths[1]


def test_the_variance_of_a_mean_by_hand():
    """What a family moves is averaged over the models first; then comes the variance between the models read."""
    rng = np.random.default_rng(4)
    family, positive = np.repeat(np.arange(12), 4), np.tile([True, True, False, False], 12)
    pairs = [("s", f"t{n}", pair_of(rng.standard_normal(48) + positive, positive, family, 12)) for n in range(2)]
    areas = np.array([pair.auroc for _, _, pair in pairs])
    parts = [((pairs[0][2].moved + pairs[1][2].moved) / 2) @ ((pairs[0][2].moved + pairs[1][2].moved) / 2) * 12 / 11]
    parts.append(areas.var(ddof=1) / 2)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 11 + parts[1] ** 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts)) / (areas.mean() * (1 - areas.mean()))
    found = joined(pairs)
    assert special.logit(found.interval.high) - special.logit(found.auroc) == pytest.approx(half)


def test_the_jackknife_leaves_a_domain_out_on_both_sides():
    values = {(a, b): float(3 * i + j) / 20 for i, a in enumerate("xyz") for j, b in enumerate("xyz") if a != b}
    mean = np.mean(list(values.values()))
    left = [np.mean([v for pair, v in values.items() if d not in pair]) for d in "xyz"]
    error = np.sqrt(2 / 3 * ((np.array(left) - np.mean(left)) ** 2).sum())
    found = over_domains(values)
    assert found.low == pytest.approx(max(0, mean - 4.302652729749 * error)) and "3 domains" in found.method
    assert over_domains({("x", "y"): 0.5, ("y", "x"): 0.6}) is None, "without either domain nothing is left"
