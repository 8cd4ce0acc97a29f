"""The null of a probe's AUROC: p values are uniform where nothing is to read, and the best layer of noise is noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from hooks.site import Site
from workbench.statistics import auroc
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.probe_matrix import probe_matrix
from workbench.subspace.probe_null import design_of, least_p, permuted_aurocs, permuted_labels
from workbench.subspace.probe_rows import LabelledRows, labelled

SITE, D, SIZE = Site(0), 5, 5
DRAWS = 200


def rows_of(values: np.ndarray, size: int = SIZE, site=SITE) -> ArrayRows:
    return ArrayRows({site: values}, tags={"family": [f"f{i // size}" for i in range(len(values))]})


def some(positive, families) -> LabelledRows:
    rows = ArrayRows({SITE: np.zeros((len(positive), 2))}, [f"{i:02}" for i in range(len(positive))])
    verdicts = dict(zip(rows.prompt_ids, positive, strict=True))
    return labelled("some", rows, verdicts, families=dict(zip(rows.prompt_ids, families, strict=True)))


def by_question(rng: np.random.Generator):
    """Some questions draw out the answer, and questions look different: but no row says which way it was answered."""
    often = rng.random(24) < 0.5
    positive = rng.random((24, SIZE)) < np.where(often, 0.75, 0.25)[:, None]
    values = 2.0 * often[:, None, None] * np.eye(D)[0] + rng.standard_normal((24, SIZE, D))
    return values.reshape(-1, D), positive.ravel()


def by_family(rng: np.random.Generator):
    """One label a family, drawn by lot; rows of a family look alike."""
    positive = np.repeat(rng.permuted(np.arange(36) % 2 == 0), SIZE)
    values = np.repeat(rng.standard_normal((36, D)), SIZE, axis=0) + 0.3 * rng.standard_normal((36 * SIZE, D))
    return values, positive


def p_values(draw, families=None) -> list[float]:
    out = []
    for seed in range(DRAWS):
        values, positive = draw(np.random.default_rng(seed))
        rows = rows_of(values)
        verdicts = {"m": dict(zip(rows.prompt_ids, positive.tolist(), strict=True))}
        own = families and {one: one for one in rows.prompt_ids}
        found = probe_matrix(
            {"m": rows}, verdicts, families=own, method="difference_of_means", draws=199, seed=seed, shares=(0.5, 0),
            unusable="leave out",
        )  # fmt: skip
        out.append(found.cells[0].p)
    return out


@pytest.mark.parametrize("draw", [by_question, by_family])
def test_p_values_are_uniform_where_nothing_is_to_read(draw):
    found = p_values(draw)
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) <= 0.09


@pytest.mark.parametrize("draw", [by_question, by_family])
def test_rows_taken_for_independent_would_claim_findings(draw):
    """The meta-test: exchanged across families, the same draws are "significant" far too often."""
    assert np.mean(np.array(p_values(draw, families="rows")) <= 0.05) > 0.3


def test_the_best_layer_of_noise_is_noise():
    """The best of 8 layers looks better than chance on the families that chose it, and is at chance on the others."""
    chosen = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = ArrayRows({Site(layer): rng.standard_normal((100, D)) for layer in range(8)})
        verdicts = {"m": {one: bool(rng.random() < 0.5) for one in rows.prompt_ids}}
        chosen.append(probe_matrix({"m": rows}, verdicts, method="lda", draws=1, seed=seed).best("m", "m"))
    value, dev = (np.array([getattr(one, name) for one in chosen]) for name in ("value", "dev_value"))
    error = value.std(ddof=1) / np.sqrt(60)
    assert abs(value.mean() - 0.5) < 3 * error < 0.06
    assert dev.mean() > 0.6, "the meta-test: choosing is luck"


def test_what_is_exchanged_follows_the_labels():
    mixed = some([True, False, True, True, False, False], list("aabbcc"))
    assert design_of(mixed) == design_of(mixed, "within") == "within"
    labels = permuted_labels(mixed, "within", 200, 0)
    np.testing.assert_array_equal(labels[:, 2:], np.tile([True, True, False, False], (200, 1)))
    assert (labels[:, 0] != labels[:, 1]).all() and 60 < labels[:, 0].sum() < 140
    whole = some([True, True, False, False, False, True], list("aabbbc"))
    assert design_of(whole) == "families"
    labels = permuted_labels(whole, "families", 300, 0)
    assert (labels[:, 0] == labels[:, 1]).all() and (labels[:, 2] == labels[:, 4]).all()
    assert set(labels[:, [0, 2, 5]].sum(axis=1)) == {2} and 60 < (~labels[:, 5]).sum() < 140
    assert least_p(whole, "families", 999) == pytest.approx(1 / 3) and least_p(mixed, "within", 999) == 1 / 2
    assert least_p(some([True, False] * 10, ["a"] * 20), "within", 99) == 1 / 100
    with pytest.raises(ValueError, match=r"constant within each of the 3 families of 'some'.* n is 3, not 6"):
        design_of(whole, "within")
    with pytest.raises(ValueError, match="varies within 1 of the 3 families"):
        design_of(mixed, "families")


def test_models_with_the_same_labels_share_their_draws():
    """The maximum over cells is one data set's: draws may not differ where rows and labels do not."""
    values, positive = by_question(np.random.default_rng(0))
    rows = rows_of(values)
    verdicts = dict(zip(rows.prompt_ids, positive.tolist(), strict=True))
    found = probe_matrix({"a": rows, "b": rows}, {"a": verdicts, "b": verdicts}, draws=99, shares=(0.5, 0))
    nulls = [cell.null for cell in found.cells]
    assert all(np.array_equal(nulls[0], one) for one in nulls) and nulls[0].std() > 0
    np.testing.assert_array_equal(found.corrected_p(found.cells), [cell.p for cell in found.cells])


def test_permuted_aurocs_by_hand():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (3, 20)).astype(float)
    labels = rng.random((7, 20)) < 0.4
    expected = [[auroc(one[drawn], one[~drawn]) for one in scores] for drawn in labels]
    np.testing.assert_allclose(permuted_aurocs(scores, labels), expected, rtol=1e-12)
