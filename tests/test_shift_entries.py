"""From planted rows to the page: what a shift is said to be, and how many dimensions to hold a behaviour."""

from __future__ import annotations

import numpy as np
import pytest
from planted_shift import IDS, LinearModel, N

from hooks.site import Site
from workbench.behaviour.summary import summarise
from workbench.behaviour.table_summary import table_entries
from workbench.interventions.dimensions import dimension_curve, dimension_curves
from workbench.interventions.top_k import top_k
from workbench.reporting.dimension_section import dimensions, in_one_sentence, sentence
from workbench.reporting.shift_section import shifts
from workbench.reporting.summary import read_summary
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.shift import SHIFT_VARIANTS, shift_pca
from workbench.subspace.shift_against import shift_against
from workbench.subspace.shift_overlap import shift_overlap

LANGUAGE, TOWER = Site(3), Site(1, tower="vision")


def noise(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) * np.linspace(0.5, 2.0, d)


def rows_of(values: np.ndarray, site: Site = LANGUAGE) -> ArrayRows:
    return ArrayRows({site: values}, [f"p{i}" for i in range(len(values))])


def in_summary(*entries, **more):
    return read_summary({"results": [one for listed in entries for one in listed], **more})


def words_of(blocks) -> str:
    lines = [line for block in blocks for line in (*getattr(block, "paragraphs", ()), getattr(block, "text", ""))]
    return " ".join(lines).replace("\xa0", " ")


def moved(rank: int, n: int, d: int, seed: int, loud: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((d, rank)))[0].T
    return loud * rng.standard_normal((n, rank)) @ axes


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_planted_rank_is_what_summary_and_page_say(rank):
    """Planted rows -> decomposition, cells, curve -> entries -> summary -> sentence: the rank, and not more."""
    model = LinearModel(rank)
    both = model.rows(model.base), model.rows(model.tuned)
    found = shift_pca(*both, "paired_shift_centered", 9)
    plan = top_k(found.subspace, range(1, 8), layer=1, modes=["ablate_top_k"], controls=4, rows=both[1])
    before = [{**row, "score": 0.0} for row in model.table([])]
    curves = dimension_curves(model.table(plan.cells, plan.twins), "score", base=before, bounds=(0, 1))
    entries = summarise(curves, detail="paired_shift_centered", split="other_domains")
    assert [entry["value"] for entry in entries if entry["metric"] == "dimensions"] == [rank]
    shift = summarise(found, condition="tuned", split="last token")
    by_metric = {entry["metric"]: entry for entry in shift}
    assert by_metric["shift_above_null"]["value"] == rank and by_metric["shift_k_90"]["series"]["k"][-1] == rank
    assert by_metric["shift_variance"]["control"]["p"] == 0.01 and by_metric["shift_variance"]["coefficient"] == 9
    summary = in_summary(entries, shift)
    said = sentence(summary, "ablate_top_k", "paired_shift_centered", "all")
    assert f"from k = {rank} on (interval {rank} to {rank})" in said and "beyond 4 subspaces" in said
    assert in_one_sentence(summary).startswith(f"{rank} dimension") and "the first 9 components hold" in words_of(
        dimensions(summary)
    )


def test_a_broken_model_is_not_taken_for_a_mended_one():
    """The behaviour goes at k = 1 with right answers, comes back in part at k = 2, and goes for good at k = 5 only
    because no answer is well formed any more: the page says so."""
    rows = []
    for k, answers in {0: ["contrary"] * 40, 1: ["right"] * 38 + ["contrary"] * 2, 2: ["contrary"] * 6 + ["right"] * 34,
                       5: ["ill_formed"] * 40}.items():  # fmt: skip
        same = {"control": None, "draw": None, "layer": None, "layers": "all", "modality": "text", "cell": k}
        same |= {"intervention": "ablate_top_k", "coefficient": float(k)} if k else {"intervention": "none"}
        rows += [{**same, "prompt": f"q{i}", "domain": "d", "category": kind} for i, kind in enumerate(answers)]
    (curve,) = dimension_curves(rows, "contrary", base=0.0)
    facts = {"detail": "raw", "split": "other_domains"}
    named = {"condition": "ablate_top_k", "detail": "raw"}
    rates = table_entries(rows, **named), table_entries(rows[:40], condition="tuned", baseline="tuned")
    summary = in_summary(summarise(curve, **facts), *rates)
    said = words_of(dimensions(summary))
    assert curve.needed().k == 5 and "from k = 5 on" in said and "0 % right and 100 % ill-formed" in said
    assert "Beyond k = 2 more than 10 %" in said and "at most 95 % of it is gone, at k = 1" in said
    assert "no k up to 2 takes 90 %" in in_one_sentence(summary).replace("No", "no").replace("\xa0", " ")


def test_without_a_behaviour_there_are_values_and_no_count():
    rows = [
        {"intervention": kind, "coefficient": 1.0, "control": None, "draw": None, "prompt": i, "score": 0.5}
        for kind in ("none", "ablate_top_k") for i in range(6)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no behaviour"):
        dimension_curve(rows, "score", base=rows[:6])
    (curve,) = dimension_curves(rows, "score", base=rows[:6])
    assert not curve.behaves and [point.effect for point in curve.points] == [None, None]
    entries = summarise(curve, detail="raw")
    assert {entry["metric"] for entry in entries} == {"behaviour", "behaviour_base", "behaviour_unedited"}
    assert "no behaviour to lose: score is 0.50" in words_of(dimensions(in_summary(entries)))
    groups = [{**row, "modality": "ab"[row["prompt"] % 2]} for row in rows]
    assert [curve.group for curve in dimension_curves(groups, "score", base=0.0)] == ["a", "b"]


def test_a_frozen_tower_is_unchanged_in_summary_and_page():
    tower = noise(30, 8, 0)
    base = ArrayRows({LANGUAGE: noise(30, 12, 1)}, IDS[:30])
    tuned = ArrayRows({LANGUAGE: noise(30, 12, 1) + moved(2, 30, 12, 2)}, IDS[:30])
    entries = []
    for variant in SHIFT_VARIANTS:
        still = shift_against(rows_of(tower, TOWER), rows_of(tower.copy(), TOWER), None, variant, 3)
        if still.tuned.variant != "between_class" or still.tuned.unchanged:
            entries += summarise(still, condition="tuned", split="vision tower")
        entries += summarise(shift_against(base, tuned, None, variant, 3), condition="tuned", split="last token")
    frozen = [entry for entry in entries if entry["split"] == "vision tower"]
    assert {entry["metric"] for entry in frozen} == {"shift_unchanged"} and len(frozen) == len(SHIFT_VARIANTS)
    said = words_of(shifts(in_summary(entries)))
    assert "Vision tower: unchanged at layer 1: every one of 30 rows" in said and "Vision tower, layer" not in said
    touched = tower.copy()
    touched[0, 0] += 1e-8  # the meta-test: one entry of one row is a change
    found = shift_against(rows_of(tower, TOWER), rows_of(touched, TOWER), None, "paired_shift_raw", 1)
    assert not found.tuned.unchanged


@pytest.mark.parametrize("variant", ["paired_shift_centered", "paired_shift_raw"])
def test_together_noise_lies_inside_its_null_and_structure_outside(variant):
    """80 data sets of noise: what 4 components hold together is below the null's 95 % in at least 85 of 100, and its p
    is spread out; two real dimensions among the noise leave it, every time."""
    base = noise(30, 16, 10_000)
    found = [
        shift_pca(rows_of(base), rows_of(base + noise(30, 16, seed) + 1.0), variant, 4, seed=seed) for seed in range(80)
    ]
    p = np.array([one.null_together_p[0, -1] for one in found])
    held = np.array([one.spectrum.explained[0, :4].sum() for one in found])
    assert np.mean(held <= [one.null_together[0, -1, 1] for one in found]) >= 0.85
    assert 0.3 < p.mean() < 0.7 and p.min() < 0.2 and p.max() > 0.8
    for seed in range(5):
        real = base + noise(30, 16, seed) + moved(2, 30, 16, seed)
        one = shift_pca(rows_of(base), rows_of(real), variant, 4, seed=seed)
        assert one.null_together_p[0, -1] == 0.01
        entry = next(e for e in summarise(one, condition="tuned") if e["metric"] == "shift_variance")
        assert entry["value"] > entry["series"]["null_together"][1] and entry["n"] == 30
        np.testing.assert_allclose(entry["series"]["share"], one.spectrum.explained[0, :4])


def test_outlier_channels_and_the_two_roles_are_entries():
    base, loud = noise(60, 20, 0), np.zeros(20)
    loud[7] = 50.0
    tuned = base + moved(2, 60, 20, 1) + loud
    entries = summarise(shift_pca(rows_of(base), rows_of(tuned), "paired_shift_raw", 3), condition="tuned")
    mean = next(entry for entry in entries if entry["metric"] == "shift_mean_top_10")
    assert (
        mean["series"]["top_1"][0] > 0.9
        and mean["control"]["p"] == 0.001
        and mean["value"] > mean["series"]["top_1"][0]
    )
    drawn = np.random.default_rng(1).standard_normal((4000, 20)) ** 2
    by_hand = np.quantile(np.sort(drawn / drawn.sum(1, keepdims=True))[:, -1], [0.05, 0.95])
    np.testing.assert_allclose(mean["series"]["null_1"], by_hand, atol=0.03)
    scaled = shift_pca(rows_of(base), rows_of(tuned), "paired_shift_centered", 3, scale="std")
    turned = next(e for e in summarise(scaled, condition="tuned") if e["metric"] == "shift_read_write")
    top = next(e for e in summarise(scaled, condition="tuned") if e["metric"] == "shift_top_10")
    largest = np.sort(scaled.reads[0, 0] ** 2)[-10:].sum() / (scaled.reads[0, 0] ** 2).sum()
    assert top["value"] == pytest.approx(largest), "of the read-out in the stream, not of the scaled component"
    read, write = scaled.read_out(0), scaled.write(0)
    assert (read.role, write.role) == ("read", "write") and turned["detail"] == "paired_shift_centered, scale std"
    assert turned["value"] == pytest.approx(float(read.unit[0] @ write.unit[0])) and turned["value"] < 0.99


def test_shifts_overlap_where_axes_are_shared_and_chance_is_what_random_frames_give():
    base, same = noise(N, 24, 0), moved(3, N, 24, 5)
    first = shift_pca(rows_of(base), rows_of(base + same + 2.0), k=3, null=None)
    twin = shift_pca(rows_of(base), rows_of(base + same[::-1] + 2.0), k=3, null=None)
    found = shift_overlap(first, twin, names=("image positions", "text positions"))
    one = found.sites[LANGUAGE]
    assert one.overlap == pytest.approx(1.0) and one.p == 0.01 and one.chance == 3 / 24 and one.cosine > 0.9
    assert one.cosine_p < 1e-6 and one.null[0] < one.chance < one.null[1]
    p, cosine_p = [], []
    for seed in range(60):
        other = shift_pca(rows_of(base), rows_of(base + moved(3, N, 24, 100 + seed)), k=3, null=None)
        by_chance = shift_overlap(first, other, seed=seed).sites[LANGUAGE]
        p.append(by_chance.p), cosine_p.append(by_chance.cosine_p)
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) <= 0.05) < 0.15
    assert shift_overlap(first, twin, 1).k == (1, 1) and len(found.rows()) == 1
    entries = summarise(found, condition="tuned")
    assert [entry["metric"] for entry in entries] == ["shift_overlap", "shift_cosine"]
    tower = shift_pca(rows_of(base, TOWER), rows_of(base + same, TOWER), k=3, null=None)
    with pytest.raises(ValueError, match="no site in common"):
        shift_overlap(first, tower)


def test_the_cosine_null_is_that_of_random_directions():
    """The exact law against 20,000 pairs: 90 of 100 inside, and p uniform."""
    from workbench.subspace.shift_overlap import _cosine

    rng = np.random.default_rng(0)
    a, many = rng.standard_normal(12), rng.standard_normal((20_000, 12))
    cosines = many @ a / np.linalg.norm(a) / np.linalg.norm(many, axis=1)
    wide = _cosine(a, many[0])[1][1]
    assert np.mean(np.abs(cosines) < wide) == pytest.approx(0.9, abs=0.01)
    assert np.mean([_cosine(a, one)[2] < 0.3 for one in many[:2000]]) == pytest.approx(0.3, abs=0.04)
    assert _cosine(a, np.zeros(12)) == (None, None, None)
