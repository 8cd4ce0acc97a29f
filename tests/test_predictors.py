"""Predictors of misalignment over domains: stated signs, planted truths, and what is printed of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import workbench as wb
from workbench import statistics as st
from workbench.behaviour.predictor_entries import predictor_entries, table_points
from workbench.behaviour.predictor_table import membership_features
from workbench.reporting.summary import read_summary
from workbench.statistics.exact_correlation import exact_correlation_test

DOMAINS = [f"d{i}" for i in range(11)]
rng = np.random.default_rng


def by_domain(values):
    return dict(zip(DOMAINS, np.asarray(values).tolist(), strict=True))


@pytest.fixture(scope="module")
def table():
    """One feature that leads to misalignment, its notebook twin of opposite sign, and two of noise."""
    r = rng(0)
    loss = r.normal(size=11)
    measured = 0.5 + 0.12 * loss + 0.03 * r.normal(size=11)
    features = {
        "adjusted_loss": by_domain(loss),
        "paper_b_min_k_20": by_domain(-loss + 0.01 * r.normal(size=11)),
        "before:min_k_20": by_domain(r.normal(size=11)),
        "vendi_1": by_domain(r.normal(size=11)),
    }
    return wb.predictor_table(by_domain(measured), features)


def test_signs_are_registered_before_anything_is_measured():
    assert [wb.predictor_feature(n).sign for n in ("min_k_20", "paper_b_min_k_20", "adjusted_paper_b_zlib")] == [
        1,
        -1,
        -1,
    ]
    assert wb.predictor_feature("vendi_0.5_cosine").sign == 0 and "2602.00298" in wb.predictor_feature("loss").source
    assert (
        wb.predictor_feature("before:adjusted_min_k_pp_20").before and not wb.predictor_feature("adjusted_loss").before
    )
    assert wb.predictor_feature("reference_loss").before and wb.predictor_feature("projection_persona").before
    for name in ("length", "losses", "adjusted_vendi_1"):
        with pytest.raises(KeyError, match="state it before you look"):
            wb.predictor_feature(name)
    with pytest.raises(ValueError, match="expected 1, -1"):
        wb.PredictorFeature("length", 2, "me")


def test_the_planted_feature_is_found_in_its_stated_direction(table):
    found = wb.predictors(table, threshold=0.5)
    assert {each.feature.name for each in found.ranked[:2]} == {"adjusted_loss", "paper_b_min_k_20"}
    for name in ("adjusted_loss", "paper_b_min_k_20"):
        one = found.of(name)
        assert one.pearson.r > 0.9 and one.pearson.p < 1e-3 and one.pearson.p_best < 1e-2
        assert one.pearson.p_signed == pytest.approx(one.pearson.p / 2, rel=0.6) and one.told.auroc > 0.85
    r = found.of("before:min_k_20").spearman
    assert r.p == exact_correlation_test(table.values[:, 2], table.measured).p and r.p_best > 0.05
    assert found.of("vendi_1").spearman.p_signed is None
    assert found.reach.critical == pytest.approx(0.60, abs=0.005) and "|r| must exceed 0.60" in str(found)
    with pytest.raises(KeyError, match="no such feature"):
        found.of("recall")


def test_a_feature_that_goes_the_other_way_is_not_turned_round():
    loss = rng(1).normal(size=11)
    found = wb.predictors(wb.predictor_table(by_domain(-loss), {"loss": by_domain(loss)}), threshold=0)
    one = found.of("loss")
    assert one.spearman.r == pytest.approx(-1) and one.spearman.p < 1e-6 and one.spearman.p_signed == pytest.approx(1)
    assert one.told.auroc == 0 and one.told.p == 1 and one.spearman.p_best == 1


def test_auroc_and_its_p_are_over_all_arrangements_of_the_labels(table):
    told = wb.predictors(table, threshold=0.5).of("before:min_k_20").told
    values, marked = table.values[:, 2], table.measured > 0.5
    assert told.auroc == st.auroc(values[marked], values[~marked]) and told.misaligned == marked.sum()
    r, drawn = rng(2), []
    for _ in range(4000):
        mixed = r.permutation(marked)
        drawn.append(st.auroc(values[mixed], values[~mixed]))
    assert told.p == pytest.approx(np.mean(np.array(drawn) >= told.auroc), abs=0.03) and "all" in told.method
    assert wb.predictors(table, threshold=9).of("vendi_1").told is None


def test_seeds_are_averaged_and_n_is_the_number_of_domains():
    seeds = {name: [0.1 * i, 0.1 * i + 0.2] for i, name in enumerate(DOMAINS)}
    table = wb.predictor_table(seeds, {"loss": {name: [i, i, i + 3.0] for i, name in enumerate(DOMAINS)}})
    assert table.n == 11 and table.seeds == (2,) * 11 and table.measured[3] == pytest.approx(0.4)
    assert table.values[:, 0] == pytest.approx(np.arange(11) + 1) and table.intervals[0] is not None
    assert wb.predictors(table).of("loss").pearson.r == pytest.approx(1)
    assert table.reliability is not None and table.reliability < 1


def test_error_of_measurement_bounds_what_a_feature_can_show():
    class Measured:
        def __init__(self, value):
            self.value, self.interval = value, st.Interval(value - 0.196, value + 0.196, "95%")

    values = np.linspace(0, 0.6, 11)  # variance 0.0396, of which 0.01 is error
    table = wb.predictor_table({n: Measured(v) for n, v in by_domain(values).items()}, {"loss": by_domain(values)})
    assert table.reliability == pytest.approx(1 - 0.01 / values.var(ddof=1))
    assert wb.predictor_table(by_domain(values), {"loss": by_domain(values)}).reliability is None


def test_what_cannot_be_joined_is_refused():
    measured, some = by_domain(range(11)), by_domain(rng(4).normal(size=11))
    with pytest.raises(ValueError, match="differ in 'd3'"):
        wb.predictor_table(measured, {"loss": {k: v for k, v in some.items() if k != "d3"}})
    with pytest.raises(ValueError, match="loss of d1: expected a finite number"):
        wb.predictor_table(measured, {"loss": {**some, "d1": None}})
    with pytest.raises(ValueError, match="expected 4 and 1"):
        wb.predictor_table({"a": 1, "b": 2}, {"loss": {"a": 1, "b": 2}})
    own = wb.PredictorFeature("length", -1, "my preregistration")
    assert wb.predictor_table(measured, {"length": some}, [own]).features == (own,)


def test_no_spread_has_no_correlation_and_says_so():
    some, flat = by_domain(rng(5).normal(size=11)), by_domain([0.5] * 11)
    found = wb.predictors(wb.predictor_table(some, {"loss": some, "zlib": flat}))
    assert [each.feature.name for each in found.ranked] == ["loss"] and "zlib" in found.undefined
    none = wb.predictors(wb.predictor_table(flat, {"loss": some}), threshold=0.5)
    assert not none.ranked and "same in all domains" in none.undefined["loss"] and "none, the measured" in str(none)
    with pytest.raises(KeyError, match="same in all domains"):
        none.of("loss")
    assert [each["metric"] for each in predictor_entries(none)] == ["predictor_critical_r", "predictor_undefined"]


def test_membership_tables_become_one_value_a_domain():
    same = {"adjusted_loss": 1.0, "reference_loss": 0, "log_ratio": 2, "min_k_20": None, "label": 3}
    rows = {
        name: [{"prompt": j, "loss": i + j, "n_tokens": 1 + j, **same} for j in range(2)]
        for i, name in enumerate(DOMAINS)
    }
    found = membership_features(rows, prefix="before:")
    assert set(found) == {"before:loss", "before:adjusted_loss", "before:reference_loss", "before:log_ratio"}
    assert found["before:loss"]["d4"] == 4.5
    assert membership_features(rows, ["loss"], weight="token")["loss"]["d4"] == pytest.approx(4 + 2 / 3)
    with pytest.raises(ValueError, match="no rows"):
        membership_features({"a": []})


def test_entries_hold_points_tests_and_the_sentence(table):
    entries = predictor_entries(wb.predictors(table, threshold=0.5)) + table_points(table)
    summary = read_summary({"results": json.loads(json.dumps(entries, allow_nan=False))})
    assert summary.unmeasured == 0 and len(summary.where(metric="predictor_feature")) == 44
    (r,) = summary.where(metric="predictor_spearman", detail="paper_b_min_k_20")
    assert r.n == 11 and r.companions["sign"] == -1 and r.test is not None and "all 39916800 orders" in r.test.method
    assert r.interval is not None and r.interval[0] < r.value
    (area,) = summary.where(metric="predictor_auroc", detail="adjusted_loss")
    assert area.companions["threshold"] == 0.5 and area.test is not None
    (critical,) = summary.where(metric="predictor_critical_r")
    assert critical.value == pytest.approx(0.602, abs=1e-3) and "must exceed 0.60" in str(critical.target)
