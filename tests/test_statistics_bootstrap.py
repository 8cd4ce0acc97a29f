"""The paired cluster bootstrap: against loops on the same draws, scipy, and what must hold where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench import statistics as st

D = np.array([0.31, -0.12, 0.55, 0.48, -0.07, 0.9, 0.26])


def loops(groups: list[np.ndarray], resamples: int, seed: int) -> list[tuple[float, float]]:
    """(mean, standard error) of each resample, value by value, from the generator's stream of the implementation."""
    rng = np.random.default_rng(seed)
    picks = [rng.integers(len(group), size=(resamples, len(group))) for group in groups]
    n, out = sum(map(len, groups)), []
    for draw in range(resamples):
        total = variance = 0.0
        for group, pick in zip(groups, picks, strict=True):
            chosen = [group[i] for i in pick[draw]]
            mean = sum(chosen) / len(chosen)
            total += sum(chosen)
            spread = sum((value - mean) ** 2 for value in chosen) / (len(chosen) - 1)
            variance += (len(group) / n) ** 2 * spread / len(group)
        out.append((total / n, variance**0.5))
    return out


@pytest.mark.parametrize("sources", [None, [0, 0, 0, 1, 1, 1, 1]], ids=["plain", "stratified"])
def test_studentised_ends_by_loops(sources):
    groups = [D] if sources is None else [D[:3], D[3:]]
    n = len(D)
    error = sum((len(g) / n) ** 2 * np.var(g, ddof=1) / len(g) for g in groups) ** 0.5
    drawn = loops(groups, 400, 3)
    t = sorted((m - D.mean()) / spread if spread > 1e-12 else np.copysign(np.inf, m - D.mean()) for m, spread in drawn)
    ours = st.bootstrap_interval(D, sources, level=0.9, resamples=400, seed=3)
    assert ours.low == pytest.approx(D.mean() - t[int(np.ceil(0.95 * len(t))) - 1] * error)
    assert ours.high == pytest.approx(D.mean() - t[int(np.ceil(0.05 * len(t))) - 1] * error)
    assert ours.method.startswith("studentised bootstrap 90% over 7")


def test_percentile_ends_equal_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=31)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    ours = st.bootstrap_interval(values, resamples=20_000, seed=2)
    assert "percentile" in ours.method
    # Two independent runs of 20,000 resamples: an end's error is about 2 % of the standard error of the mean.
    room = 0.1 * values.std(ddof=1) / np.sqrt(31)
    assert ours.low == pytest.approx(theirs.low, abs=room) and ours.high == pytest.approx(theirs.high, abs=room)


def test_the_method_changes_at_30_clusters():
    rng = np.random.default_rng(4)
    for k, name in ((29, "studentised"), (30, "percentile")):
        a, b, names = rng.normal(size=k * 3), rng.normal(size=k * 3), np.repeat(np.arange(k), 3)
        assert st.paired_bootstrap(a, b, names, resamples=2000).method.startswith(
            f"{name} bootstrap 95% over {k} paired"
        )


def test_pairs_share_a_cluster():
    """A large spread between prompts that both models share leaves the difference; unpaired groups would drown it."""
    rng = np.random.default_rng(5)
    prompts = np.repeat(np.arange(13), 4)
    shared = 50 * rng.normal(size=13)[prompts]
    a, b = shared + 1 + 0.1 * rng.normal(size=52), shared + 0.1 * rng.normal(size=52)
    interval = st.paired_bootstrap(a, b, prompts, resamples=2000)
    assert 1.0 in interval and interval.high - interval.low < 0.3


def test_clusters_are_joined_by_name_not_by_place():
    a, b = [1.0, 2.0, 5.0, 7.0], [0.5, 0.5, 0.0, 3.0, 3.0]
    one = st.paired_bootstrap(a, b, ["x", "x", "y", "z"], ["z", "z", "y", "x", "x"], resamples=500)
    differences = [1.5 - 3.0, 5.0 - 0.0, 7.0 - 0.5]
    same = st.bootstrap_interval(differences, resamples=500)
    assert (one.low, one.high) == (same.low, same.high)
    with pytest.raises(ValueError, match="1 clusters have values on one side only, 2 on both"):
        st.paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0], ["x", "y", "z"], ["x", "y"])


def test_strata_keep_their_share():
    """Two sources far apart: drawn within sources their distance adds nothing to the interval."""
    rng = np.random.default_rng(6)
    names = [f"{source}{i}" for source in "ab" for i in range(20)]
    a, b = np.repeat([0.0, 10.0], 20) + rng.normal(size=40), np.zeros(40)
    source = {name: name[0] for name in names}
    plain = st.paired_bootstrap(a, b, names, resamples=2000)
    within = st.paired_bootstrap(a, b, names, strata=source, resamples=2000)
    assert within.high - within.low < 0.35 * (plain.high - plain.low)
    assert "drawn within 2 strata" in within.method
    assert within.high - within.low == pytest.approx(
        2 * 1.96 * np.hypot(*a.reshape(2, 20).std(axis=1)) / 2 / 20**0.5, rel=0.1
    )
    with pytest.raises(ValueError, match="1 clusters have no entry in strata"):
        st.paired_bootstrap(a, b, names, strata=dict.fromkeys(names[1:], 0))
    with pytest.raises(ValueError, match="a stratum holds one cluster"):
        st.paired_bootstrap(a, b, names, strata={**source, "a0": "alone"})


@pytest.mark.parametrize("k", [2, 5, 11, 30, 101])
@pytest.mark.parametrize("value", [0.0, 0.1, -1.0, 1.0])
def test_equal_differences_never_pretend_certainty(k, value):
    names = np.repeat(
        np.arange(k), np.arange(k) % 3 + 1
    )  # 0.1 over clusters of 1, 2 and 3 rows differs in its last bit
    a, b = np.full(len(names), value), np.zeros(len(names))
    bounded, unbounded = st.paired_bootstrap(a, b, names, bounds=(-1, 1)), st.paired_bootstrap(a, b, names)
    other = st.wilson(0, k).high
    assert bounded.low == pytest.approx(value - other * (value + 1))
    assert bounded.high == pytest.approx(value + other * (1 - value))
    assert (unbounded.low, unbounded.high) == (-np.inf, np.inf) and "no spread is seen" in unbounded.method
    assert st.cluster_interval(a + 3, names).low == -np.inf and st.t_interval(np.full(k, value)).high == np.inf


def test_equal_values_outside_the_bounds_are_refused():
    with pytest.raises(ValueError, match="ends of the scale, but a mean of 70"):
        st.cluster_interval([70.0, 70.0], ["a", "b"], bounds=(0, 1))


def test_few_distinct_values_fall_back_on_t_and_say_so():
    """One of five differs: a third of the resamples has no spread, so no quantile of t exists."""
    values = np.array([0.0, 0.0, 0.0, 0.0, 0.2])
    interval, t = st.bootstrap_interval(values), st.t_interval(values)
    assert (interval.low, interval.high) == pytest.approx((t.low, t.high))
    assert interval.method.startswith("t 95%") and "too few distinct" in interval.method
    assert st.bootstrap_interval(values, bounds=(0.0, 1.0)).low == 0.0


def test_more_than_one_block_of_resamples(monkeypatch):
    whole = st.bootstrap_interval(D, resamples=999, seed=1)
    monkeypatch.setattr("workbench.statistics.bootstrap.AT_ONCE", 7 * 100)
    parts = st.bootstrap_interval(D, resamples=999, seed=1)
    assert (parts.low, parts.high) == (whole.low, whole.high)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 values: 1 came"):
        st.bootstrap_interval([1.0])
    with pytest.raises(ValueError, match="at least 200"):
        st.bootstrap_interval(D, resamples=50)
    with pytest.raises(ValueError, match="NaN"):
        st.paired_bootstrap([np.nan, 1.0], [0.0, 1.0], ["a", "b"])


def test_studentised_covers_a_skewed_mean_better_than_percentile():
    """Eleven clusters of log-normal shifts, 500 evaluations: .85 or more against less than that."""
    hits = []
    for seed in range(500):
        shifts = np.random.default_rng([7, seed]).lognormal(size=11)
        both = [st.bootstrap_interval(shifts, resamples=400, seed=seed, studentised=s) for s in (True, False)]
        hits.append([np.exp(0.5) in interval for interval in both])
    studentised, percentile = np.mean(hits, axis=0)
    assert studentised > 0.85 > percentile
