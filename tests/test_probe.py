"""Probes against closed forms, scikit-learn and planted directions; how they do on families they have not seen."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from hooks.site import Site
from workbench.interventions.steer import Steer
from workbench.statistics import auroc
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.probe import CUTOFF, PROBE_METHODS, ProbeSettings, read_out_vector
from workbench.subspace.probe_fit import fit_probe
from workbench.subspace.probe_spread import Spread
from workbench.subspace.shift_scale import shrunk_covariance

SITE, D = Site(1), 12
SKLEARN_LDA = {"solver": "lsqr"}


def classes(n: int = 300, d: int = D, strength: float = 2.0, seed: int = 0, share: float = 0.4):
    """Rows with correlated noise and a large mean; the positive ones are moved along one direction: rows, labels, it.
    Every coordinate of the noise has a variance of 0.04 to 9."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(np.random.default_rng(99).standard_normal((d, d)))[0] * np.linspace(0.2, 3, d)
    planted = rng.standard_normal(d)
    planted /= np.linalg.norm(planted)
    positive = rng.random(n) < share
    noise = rng.standard_normal((n, d)) @ mix.T
    return noise + 5 + strength * positive[:, None] * planted, positive, planted


def within(rows, positive):
    return np.concatenate([rows[one] - rows[one].mean(0) for one in (positive, ~positive)])


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def fitted(rows, positive, method, **options):
    return read_out_vector(rows, positive, ProbeSettings(method, **options))


# Formulas.


def test_difference_of_means_is_that():
    rows, positive, _ = classes()
    found = fitted(rows, positive, "difference_of_means")
    means = rows[positive].mean(0), rows[~positive].mean(0)
    np.testing.assert_allclose(found.vector, means[0] - means[1], rtol=1e-12)
    assert found.threshold == pytest.approx((means[0] + means[1]) @ found.vector / 2)


@pytest.mark.parametrize(("n", "loudness"), [(300, 1.0), (9, 1.0), (300, 1e-3)])
def test_mass_mean_is_the_pseudo_inverse_within_classes_times_the_difference(n, loudness):
    """numpy's pseudo-inverse with the same cut. Nine rows have seven axes within two classes, and a coordinate that
    hardly varies is left out, where an inverse would make most of it."""
    rows, _, _ = classes(n)
    rows[:, 0] *= loudness
    positive = np.arange(n) % 3 == 0
    centred = within(rows, positive)
    covariance = centred.T @ centred / n
    values = np.linalg.eigvalsh(covariance)
    inverse = np.linalg.pinv(covariance, rcond=CUTOFF * np.trace(covariance) / D / values[-1], hermitian=True)
    difference = rows[positive].mean(0) - rows[~positive].mean(0)
    found = fitted(rows, positive, "mass_mean")
    np.testing.assert_allclose(found.vector, inverse @ difference, rtol=1e-7, atol=1e-9)
    if n > D and loudness == 1:
        np.testing.assert_allclose(found.vector, np.linalg.solve(covariance, difference), rtol=1e-8)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_lda_equals_scikit_learn(shrinkage):
    rows, positive, _ = classes()
    found = fitted(rows, positive, "lda", shrinkage=shrinkage)
    theirs = LinearDiscriminantAnalysis(**SKLEARN_LDA, shrinkage=shrinkage or None).fit(rows, positive)
    np.testing.assert_allclose(found.vector, theirs.coef_[0], rtol=1e-7)
    # Theirs expects the classes as often as they were in these rows, ours equally often.
    odds = np.log(positive.mean() / (1 - positive.mean()))
    assert found.threshold == pytest.approx(-(theirs.intercept_[0] - odds), rel=1e-8)


@pytest.mark.parametrize("n", [8, 300])
def test_lda_shrinks_as_ledoit_and_wolf(n):
    rows, _, _ = classes(n)
    positive = np.arange(n) % 2 == 0
    centred = within(rows, positive)
    covariance, weight = ledoit_wolf(centred, assume_centered=True)
    found = fitted(rows, positive, "lda")
    assert found.shrinkage == pytest.approx(weight, rel=1e-9) and weight > 0
    difference = rows[positive].mean(0) - rows[~positive].mean(0)
    np.testing.assert_allclose(found.vector, np.linalg.solve(covariance, difference), rtol=1e-7)


@pytest.mark.parametrize("n", [20, 300])
def test_logistic_equals_scikit_learn_on_all_coordinates(n):
    """Ours runs along the axes of the rows, at most n - 1 of them; the optimum is that of the whole space."""
    rows, _, _ = classes(n, d=40)
    positive = np.arange(n) % 3 == 0
    unit = np.sqrt(rows.var(axis=0).mean())
    theirs = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-10, max_iter=10_000)
    theirs.fit((rows - rows.mean(0)) / unit, positive)
    found = fitted(rows, positive, "logistic", strength=0.5)
    np.testing.assert_allclose(found.vector, theirs.coef_[0] / unit, rtol=1e-3, atol=1e-6)
    scores = theirs.decision_function((rows - rows.mean(0)) / unit)
    np.testing.assert_allclose(rows @ found.vector - found.threshold, scores, atol=2e-4)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_standardised_probes_read_rows_as_they_are(method):
    """Fitting on z-scores and dividing by the deviations once more gives the same scores as reading z-scores."""
    rows, positive, _ = classes()
    rows[:, 3] = 7.0  # a coordinate that never varies has no z-score, and no weight
    z = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1.0)
    raw = fitted(rows, positive, method, scale="std")
    plain = fitted(z, positive, method)
    scores = z @ plain.vector - plain.threshold
    spread = scores.std()
    close = 1e-5 if method == "logistic" else 1e-8
    np.testing.assert_allclose((rows @ raw.vector - raw.threshold) / spread, scores / spread, atol=close)
    assert raw.vector[3] == 0


def test_few_rows_of_many_dimensions_give_what_the_whole_covariance_gives():
    rows, _, _ = classes(30, d=200)
    centred = rows - rows.mean(0)
    spread, vectors = Spread.of(centred), np.random.default_rng(1).standard_normal((2, 200))
    assert spread.axes.shape == (29, 200)
    for shrinkage in (None, 0.05):
        covariance, weight = shrunk_covariance(rows, shrinkage)
        assert shrinkage or spread.ledoit_wolf() == pytest.approx(weight)
        expected = np.linalg.solve(covariance, vectors.T).T
        np.testing.assert_allclose(spread.shrunk_inverse(vectors, weight), expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="Leave shrinkage out"):
        spread.shrunk_inverse(vectors, 0)


# Planted truth.


def planted_rows(seed: int = 0, n: int = 720, d: int = 24, strength: float = 4.0):
    """Positive and negative rows in families of six, which have offsets of their own; and the direction."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(d)
    direction /= np.linalg.norm(direction)
    ids = [f"p{i}" for i in range(n)]
    families = [f"f{i // 6}" for i in range(n)]
    offsets = np.repeat(rng.standard_normal((n // 6, d)), 6, axis=0)
    positive = np.arange(n) % 2 == 0
    values = 10 + offsets + rng.standard_normal((n, d)) + strength * positive[:, None] * direction
    rows = ArrayRows(
        {SITE: values, Site(2): np.full((n, d), 3.0)},
        ids,
        labels=["on" if one else "off" for one in positive],
        tags={"family": families},
        info={"model": "toy", "scope": "response"},
    )
    return rows, direction


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_a_planted_direction_is_found(method):
    rows, direction = planted_rows()
    found = fit_probe(rows.where(label="on"), rows.where(label="off"), method=method)
    assert cosine(found.read.vector(SITE), direction) > 0.85
    score = found.held_out[0]
    assert score.auroc > 0.9 and score.interval.low > 0.7 and score.balanced_accuracy > 0.8
    assert score.families == 30 and found.families == 90, "a quarter of the prompts, whole families"
    assert (found.read.role, found.read.model, found.read.scope) == ("read", "toy", "response")
    frozen = found[2]
    assert frozen.read.norm[0] == 0 and frozen.held_out[0].auroc == 0.5 and frozen.threshold[0] == 0


def test_a_probe_is_scored_on_families_that_it_has_not_seen():
    """Labels that belong to families: with rows of each family on both sides they could be learnt by heart."""
    rng = np.random.default_rng(3)
    families = np.repeat(np.arange(40), 8)
    label = rng.permuted(np.arange(40) % 2)[families]
    values = rng.standard_normal((40, 30))[families] + 0.1 * rng.standard_normal((320, 30))
    rows = ArrayRows({SITE: values}, labels=[str(one) for one in label], tags={"family": families.tolist()})
    pair = rows.where(label="1"), rows.where(label="0")
    assert fit_probe(*pair).held_out[0].auroc < 0.8
    by_heart = fit_probe(*pair, families={one: one for one in rows.prompt_ids}).held_out[0]
    assert by_heart.auroc > 0.95, "the meta-test: this is what a split by rows claims"


def test_scores_and_threshold_belong_to_the_rows_as_they_are():
    rows, _ = planted_rows()
    on, off = rows.where(label="on"), rows.where(label="off")
    found = fit_probe(on, off, held_out=0)
    assert found.held_out is None and not found.entries(condition="toy")
    scores = found.scores(on, SITE), found.scores(off, 1)
    assert scores[0].mean() == pytest.approx(-scores[1].mean()), "the threshold is half way"
    assert auroc(*scores) > 0.95 and (scores[0] > 0).mean() > 0.85
    with pytest.raises(ValueError, match="different residual spaces"):
        found.scores(ArrayRows({SITE: np.ones((2, 3))}), SITE)


def test_a_probe_reads_and_never_writes(llama):
    rows, _ = planted_rows()
    found = fit_probe(rows.where(label="on"), rows.where(label="off"), scale="std")
    assert "scale std" in found.read.kind
    with pytest.raises(ValueError, match="expected a write vector"):
        Steer(found.read, 1)
    with pytest.raises(ValueError, match="holds read-out vectors"):
        type(found)("lda", "none", found.read.replace(role="write"), found.threshold, found.shrinkage, 1)


def test_entries_state_n_interval_and_families():
    rows, _ = planted_rows()
    found = fit_probe(rows.where(label="on"), rows.where(label="off"), sites=SITE)
    (entry,) = found.entries(condition="tuned", target="other")
    assert (entry["metric"], entry["layer"], entry["n"], entry["clusters"]) == ("probe_auroc", 1, 180, 30)
    assert entry["interval"][0] < entry["value"] <= entry["interval"][1] and entry["interval_method"]
    assert entry["companions"]["balanced_accuracy"] == found.held_out[0].balanced_accuracy
    assert "LDA" in repr(found).upper() and "held-out AUROC" in repr(found)


def test_what_makes_no_sense_is_refused():
    rows, _ = planted_rows()
    on, off = rows.where(label="on"), rows.where(label="off")
    with pytest.raises(ValueError, match="same 360 rows"):
        fit_probe(on, on)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="svm"):
        ProbeSettings("svm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shrinkage is for"):
        fit_probe(on, off, method="logistic", shrinkage=0.1)
    with pytest.raises(ValueError, match="share of prompts kept"):
        fit_probe(on, off, held_out=1)
    with pytest.raises(ValueError, match="widths 24 and 3"):
        fit_probe(on, ArrayRows({SITE: np.ones((4, 3)), Site(2): np.ones((4, 3))}))
    with pytest.raises(ValueError, match="no inverse"):
        fit_probe(*(one.where(family=["f0", "f1", "f2"]) for one in (on, off)), shrinkage=0, held_out=0)
    few = off.where(family="f3")
    with pytest.raises(ValueError, match="families with negative rows on its"):
        fit_probe(on, few)
    with pytest.raises(ValueError, match="needs two classes"):
        read_out_vector(np.ones((3, 2)), np.ones(3, dtype=bool), ProbeSettings())
