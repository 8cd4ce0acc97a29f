"""Fitted predictors and forecasts: p is uniform where labels are shuffled, planted features are found and foretold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

import workbench as wb
from workbench.reporting.summary import read_summary
from workbench.statistics.conformal import jackknife_interval
from workbench.statistics.exact_correlation import exact_correlation_ps
from workbench.statistics.fitted_tests import left_out_aurocs, left_out_skills, logistic_aurocs, shuffled_labels
from workbench.statistics.left_out import candidates_of, left_out, one_left_out

DOMAINS = [f"d{i}" for i in range(11)]
TIERS = np.repeat([0.9, 0.4, 0.05], (7, 2, 2))  # the organism's: seven domains spread, two half, two not
rng = np.random.default_rng


def made(seed, *, planted=True, names=("loss", "min_k_20", "zlib", "adjusted_loss"), prefix="before:"):
    r = rng(seed)
    measured = TIERS + 0.03 * r.normal(size=11)
    columns = {name: r.normal(size=11) for name in names}
    if planted:
        columns[names[1]] = 2 * measured + 0.3 * r.normal(size=11)
    features = {prefix + name: dict(zip(DOMAINS, each.tolist(), strict=True)) for name, each in columns.items()}
    return wb.predictor_table(dict(zip(DOMAINS, measured.tolist(), strict=True)), features)


def uniform(p):
    """The bound declared beforehand: Kolmogorov-Smirnov p > .01, and at most 7 % below .05."""
    return stats.kstest(p, "uniform").pvalue > 0.01 and np.mean(np.asarray(p) < 0.05) <= 0.07


def test_p_of_a_fitted_predictor_is_uniform_over_shuffled_populations():
    """200 populations, features and penalty chosen anew in every fold of every shuffle."""
    found = wb.shuffled_populations(made(0), populations=200, draws=199)
    assert len(found.p) == 200 and uniform(found.p), str(found)
    assert found.uniform == stats.kstest(found.p, "uniform").pvalue and found.below == np.mean(np.array(found.p) < 0.05)
    (entry,) = wb.summarise(found)
    assert entry["value"] == found.below and entry["test"]["p"] == found.uniform and len(entry["series"]["p"]) == 200


def test_p_of_a_single_feature_is_uniform_over_shuffled_populations():
    table = made(1)
    dealt = rng(2).permuted(np.broadcast_to(table.measured, (200, 11)), axis=1)
    for kind in ("pearson", "spearman"):
        assert uniform(exact_correlation_ps(table.values[:, 1], dealt, kind))


def test_p_of_classifiers_is_never_too_small_over_shuffled_populations():
    """An AUROC takes few values, so its p is above the uniform; it must not be below: at most 7 % under .05."""
    table, candidates = made(3), candidates_of(4)
    dealt = rng(4).permuted(np.broadcast_to(table.measured, (200 * 100, 11)), axis=1).T
    areas = left_out_aurocs(table.values, dealt, (dealt > 0.5).astype(float), candidates).reshape(200, 100)
    ridge = [(1 + np.sum(each[1:] >= each[0] - 1e-12)) / 100 for each in areas]
    columns, exact = shuffled_labels(table.measured > 0.5)  # all 330 arrangements: every shuffle has one of their p
    logistic = logistic_aurocs(table.values, columns, candidates)
    ps = np.array([np.mean(logistic >= each - 1e-12) for each in logistic])
    assert exact and np.mean(np.array(ridge) < 0.05) <= 0.07 and np.mean(ps < 0.05) <= 0.05


def test_choosing_outside_the_folds_would_not_be_uniform():
    """The meta-test: the best of many features, chosen on all domains, and zero as its yardstick."""
    r, below = rng(5), []
    for _ in range(40):
        x, y = r.normal(size=(11, 10)), r.normal(size=(11, 1))
        skills = [left_out_skills(x[:, [i]], y, candidates_of(1))[0] for i in range(10)]
        below.append(max(skills) > 0)
    assert np.mean(below) > 0.4


def test_the_planted_feature_is_chosen_and_beats_its_shuffles():
    found = wb.fitted_predictor(made(6), threshold=0.5, draws=299)
    assert found is not None and found.n == 11 and found.candidates == 8
    assert found.skill.value > 0.6 and found.skill.p == pytest.approx(1 / 300) and found.skill.null_mean < 0
    assert found.auroc is not None and found.auroc.value > 0.9 and found.chosen["before:min_k_20"] >= 10
    assert found.interval is not None and found.interval.low > 0 and "min_k_20" in str(found)
    noise = wb.fitted_predictor(made(7, planted=False), threshold=0.5, draws=299)
    assert noise is not None and noise.skill.p > 0.05 and noise.skill.value < 0.2
    expected = left_out(made(6).values, made(6).measured[:, None], one_left_out(11), candidates_of(4)).predicted[
        :, 0, 0
    ]
    assert list(found.predicted.values()) == pytest.approx(expected)


def test_a_logistic_predictor_is_compared_with_all_arrangements():
    found = wb.fitted_predictor(made(8), model="logistic", threshold=0.5)
    assert found is not None and found.skill.exact and len(found.skill.null) == math.comb(11, 4) - 1
    assert found.auroc is not None and found.auroc.p < 0.02 and found.skill.value > 0.3
    chances = np.array(list(found.predicted.values()))
    assert ((chances > 0.5) == (TIERS > 0.5)).mean() > 0.8 and ((chances > 0) & (chances < 1)).all()
    with pytest.raises(ValueError, match="stated beforehand"):
        wb.fitted_predictor(made(8), model="logistic")


def test_where_nothing_can_be_predicted_there_is_no_predictor():
    flat = wb.predictor_table(dict.fromkeys(DOMAINS, 0.0), {"loss": dict(zip(DOMAINS, range(11), strict=True))})
    assert wb.fitted_predictor(flat) is None and wb.summarise(None) == []
    assert wb.fitted_predictor(made(9), model="logistic", threshold=0.99) is None


def test_a_forecast_is_made_from_the_other_domains_alone():
    """Changing one domain's outcome changes neither its own forecast nor its interval."""
    table = made(10)
    found = wb.forecast_domains(table, bounds=None, draws=99)
    moved = wb.predictor_table(
        {name: (9.0 if name == "d4" else value) for name, value in zip(DOMAINS, table.measured.tolist(), strict=True)},
        {f.name: dict(zip(DOMAINS, table.values[:, i].tolist(), strict=True)) for i, f in enumerate(table.features)},
    )
    again = wb.forecast_domains(moved, bounds=None, draws=99)
    one, other = found.domains[4], again.domains[4]
    assert (one.predicted, one.interval, one.of_mean) == (other.predicted, other.interval, other.of_mean)
    assert found.domains[3] != again.domains[3]


def test_intervals_are_those_of_a_naive_jackknife():
    table, candidates = made(11), candidates_of(4)
    found = wb.forecast_domains(table, level=0.8, bounds=None, draws=99)
    rest = [i for i in range(11) if i != 2]
    x, y = table.values[rest], table.measured[rest]
    fits = left_out(x, y[:, None], one_left_out(10), candidates, table.values[[2]]).predicted[:, :, 0]
    expected = jackknife_interval(fits[:, 1], y - fits[:, 0], 0.8)
    assert (found.domains[2].interval.low, found.domains[2].interval.high) == pytest.approx(
        (expected.low, expected.high)
    )


def test_the_planted_domains_are_foretold_better_than_by_the_mean():
    table = made(12)
    new = {"unseen": dict.fromkeys((each.name for each in table.features), 0.0)}
    new["unseen"]["before:min_k_20"] = 1.8
    found = wb.forecast_domains(table, new=new, draws=199)
    assert found.skill is not None and found.skill.p == 1 / 200 and found.skill_within is not None
    assert found.skill_within.low > 0 and found.covered >= 7 and found.width < found.mean_width
    assert "better than the mean" in str(found) and "90.9%" in str(found)
    assert found.new[0].predicted == pytest.approx(0.9, abs=0.15) and found.new[0].covered is None
    assert min(each.interval.low for each in found.domains) >= 0 and max(e.interval.high for e in found.domains) <= 1
    noise = wb.forecast_domains(made(13, planted=False), draws=199)
    assert "better than the mean" not in str(noise)
    with pytest.raises(ValueError, match="lacks the feature"):
        wb.forecast_domains(table, new={"unseen": {}})


def test_eleven_domains_promise_at_most_ten_elevenths():
    wide = wb.forecast_domains(made(14), level=0.95, bounds=None, draws=99)
    assert all(np.isinf(each.interval.high) and "at least 19" in each.interval.method for each in wide.domains)
    assert wide.covered == 11
    cut = wb.forecast_domains(made(14), level=0.95, draws=99)
    assert all((each.interval.low, each.interval.high) == (0, 1) for each in cut.domains)


def test_a_forecast_refuses_what_was_measured_after_the_fine_tuning():
    with pytest.raises(ValueError, match=r"name it 'before:loss'"):
        wb.forecast_domains(made(15, prefix=""))
    with pytest.raises(ValueError, match="at least 6 domains"):
        few = wb.predictor_table(
            {n: i for i, n in enumerate("abcde")}, {"vendi_1": {n: i for i, n in enumerate("abcde")}}
        )
        wb.forecast_domains(few)


def test_domains_that_measure_the_same_have_a_forecast_without_skill():
    flat = wb.predictor_table(dict.fromkeys(DOMAINS, 0.0), {"vendi_1": dict(zip(DOMAINS, range(11), strict=True))})
    found = wb.forecast_domains(flat)
    assert found.skill is None and "nothing could be foretold" in str(found) and found.covered == 11


def test_entries_hold_shuffles_forecasts_and_the_sentence():
    table = made(16)
    fitted = wb.fitted_predictor(table, threshold=0.5, draws=99)
    forecast = wb.forecast_domains(table, draws=99, bounds=None, level=0.95)
    entries = wb.summarise(fitted) + wb.summarise(forecast)
    summary = read_summary({"results": json.loads(json.dumps(entries, allow_nan=False))})
    assert summary.unmeasured == 0 and len(summary.where(metric="forecast")) == 11
    (skill,) = summary.where(metric="fitted_skill")
    assert skill.control is not None and skill.control.kind == "shuffled" and len(skill.control.draws) == 99
    (coverage,) = summary.where(metric="forecast_coverage")
    assert coverage.value == 1 and "Forecast before fine-tuning" in str(coverage.target)
    (first,) = summary.where(metric="forecast", condition="d0")
    assert first.interval is None and "at least 19" in str(first.interval_method)
