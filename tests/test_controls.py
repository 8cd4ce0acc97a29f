"""Random controls: their lengths, what they share across sites, and the energy they hold."""

from __future__ import annotations

import numpy as np
import pytest

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.controls import energy_matched, energy_share, isotropic, orthogonal
from workbench.subspace.directions import Directions
from workbench.subspace.pca import pca

D, N = 256, 300
SITES = (Site(0), Site(1))


@pytest.fixture(scope="module")
def rows() -> ArrayRows:
    """Rows with a steep spectrum and a large mean, as residual streams have."""
    rng = np.random.default_rng(0)
    scale = 1.0 / np.arange(1, D + 1)
    turn = np.linalg.qr(rng.standard_normal((D, D)))[0]
    shared = rng.standard_normal((N, D)) * scale @ turn
    return ArrayRows({SITES[0]: shared + 500.0, SITES[1]: 3 * shared + 0.1 * rng.standard_normal((N, D)) - 80.0})


@pytest.fixture(scope="module")
def v() -> Directions:
    vectors = np.random.default_rng(1).standard_normal((2, D)) * [[2.0], [7.0]]
    return Directions.of(SITES, vectors, origin=np.zeros((2, D)), model="toy", kind="difference of means")


@pytest.mark.parametrize("draw", ["isotropic", "orthogonal", "energy matched"])
def test_pitfall_31_a_control_is_as_long_as_the_direction_itself(draw, v, rows):
    """Pitfall 31: randn_like(v) * ‖v‖ is sqrt(d) too long."""
    make = {
        "isotropic": lambda: isotropic(v, 5),
        "orthogonal": lambda: orthogonal(v, 5),
        "energy matched": lambda: energy_matched(v, rows, 5),
    }[draw]
    for number, control in enumerate(make()):
        np.testing.assert_allclose(np.linalg.norm(control.vectors, axis=1), v.norm, rtol=1e-12)
        assert control.kind == f"{draw} control {number}"
        assert control.model == "toy" and control.origin is not None and control.reliability is None
    wrong = np.random.default_rng(0).standard_normal(D) * v.norm[0]
    assert np.linalg.norm(wrong) / v.norm[0] == pytest.approx(np.sqrt(D), rel=0.2)


def test_draws_differ_repeat_by_seed_and_agree_across_sites(v):
    a, b, again, other = *isotropic(v, 2, seed=3), isotropic(v, 2, seed=3)[0], isotropic(v, 2, seed=4)[0]
    assert abs(a.unit[0] @ b.unit[0]) < 0.3 and abs(a.unit[0] @ other.unit[0]) < 0.3
    np.testing.assert_array_equal(a.unit, again.unit)
    np.testing.assert_array_equal(a.unit[0], a.unit[1])


def test_isotropic_means_every_axis_alike(v):
    units = np.stack([control.unit[0] for control in isotropic(v, 400)])
    np.testing.assert_allclose((units**2).mean(axis=0), 1 / D, rtol=0.6)
    assert np.abs(units.mean(axis=0)).max() < 5 / np.sqrt(400 * D)


def test_orthogonal_controls_are_orthogonal(v):
    for control in orthogonal(v, 10):
        assert np.abs(np.einsum("sd,sd->s", control.unit, v.unit)).max() < 1e-12


def energy(direction: np.ndarray, values: np.ndarray) -> float:
    """Sum of squared components of the rows of `values` along a unit vector."""
    return float(np.square(values @ direction).sum())


@pytest.mark.parametrize("held", ["little", "much"])
def test_pitfall_37_energy_matched_controls_hold_exactly_the_energy_of_the_direction(rows, held):
    """Pitfall 37: an isotropic direction holds 1/d of the energy whatever the data; these hold what `v` holds."""
    rng, sites = np.random.default_rng(2), list(SITES)
    centred = [rows.values(site, np.float64) - rows.values(site, np.float64).mean(axis=0) for site in sites]
    top = np.stack([np.linalg.svd(each, full_matrices=False)[2][1] for each in centred])
    vectors = top if held == "much" else rng.standard_normal((2, D))
    v = Directions.of(sites, vectors)
    for control in energy_matched(v, rows, 12):
        for index, values in enumerate(centred):
            assert energy(control.unit[index], values) == pytest.approx(energy(v.unit[index], values), rel=1e-6)
    if held == "much":
        isotropic_share = np.mean([energy(control.unit[0], centred[0]) for control in isotropic(v, 40)])
        assert energy(v.unit[0], centred[0]) > 20 * isotropic_share


def test_energy_matched_controls_are_random_and_shared_by_the_sites(rows):
    top = np.stack([np.linalg.svd(rows.values(s, np.float64) - rows.values(s).mean(0))[2][1] for s in SITES])
    controls = energy_matched(Directions.of(SITES, top), rows, 12, seed=5)
    between = [abs(a.unit[0] @ b.unit[0]) for i, a in enumerate(controls) for b in controls[:i]]
    assert np.mean(between) < 0.8 and max(abs(control.unit[0] @ top[0]) for control in controls) < 0.999
    # The same Gaussian numbers at both sites, whose rows share their structure.
    across = [abs(control.unit[0] @ control.unit[1]) for control in controls]
    assert np.mean(across) > np.mean(between)


def test_pitfall_10_energy_is_measured_around_the_origin_and_without_position_0():
    """Ablation to the mean goes back to the origin, and an attention sink would hold all the energy there is."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((60, 16)) * np.linspace(3, 0.3, 16)
    position = np.tile(np.arange(6), 10)
    sink = values + 1000.0 * (position == 0)[:, None]
    v = Directions.of([Site(0)], rng.standard_normal((1, 16)), origin=np.full((1, 16), 0.7))
    rows = ArrayRows({Site(0): sink}, prompt_ids=[f"p{i // 6}" for i in range(60)], positions=position.tolist())
    kept = values[position > 0] - 0.7
    for control in energy_matched(v, rows, 5):
        assert energy(control.unit[0], kept) == pytest.approx(energy(v.unit[0], kept), rel=1e-6)


def test_energy_share_is_the_explained_variance_of_a_component(rows):
    found = pca(rows, 3, null=None)
    for index in range(3):
        np.testing.assert_allclose(energy_share(found.component(index), rows), found.explained[:, index], rtol=1e-9)
    np.testing.assert_allclose(energy_share(found, rows), found.explained[:, :3].sum(axis=1), rtol=1e-9)


def test_where_the_direction_does_not_move_neither_does_its_control(rows):
    still = Directions.of(SITES, np.stack([np.zeros(D), np.ones(D)]))
    for control in [*isotropic(still, 2), *orthogonal(still, 2), *energy_matched(still, rows, 2)]:
        assert control.norm[0] == 0 and not control.unit[0].any()
        assert control.norm[1] == pytest.approx(np.sqrt(D))


def test_controls_that_cannot_be_are_refused(v, rows):
    with pytest.raises(ValueError, match="is not here"):
        energy_matched(Directions.of([Site(9)], np.ones((1, D))), rows, 1)
    with pytest.raises(ValueError, match="different models"):
        energy_matched(Directions.of([SITES[0]], np.ones((1, 8))), rows, 1)
    constant = ArrayRows({site: np.zeros((5, D)) for site in SITES})
    with pytest.raises(ValueError, match="rows that vary"):
        energy_matched(v, constant, 1)
    with pytest.raises(ValueError, match="at least 1"):
        isotropic(v, 0)
