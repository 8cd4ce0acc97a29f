"""wb.convergence against planted structures: one direction, two personas, none; and its null against a naive twin."""

from __future__ import annotations

import numpy as np
import pytest
from planted_domains import SITE, D, domains, nothing, stream, units

import workbench as wb
from workbench.subspace.convergence_null import agreement, drawn_units, either
from workbench.subspace.directions import Directions

DRAWS = 199


def test_two_personas_come_out_as_two_directions():
    """Nine domains of one persona, two of another, one of none: as the organism's, and one that stands apart."""
    made = domains({"contrary": 9, "glitch": 2}, alone=1)
    at = wb.convergence(made, stream(), draws=DRAWS)[SITE]
    assert at.shared == 2
    assert [len(group) for group in at.groups] == [9, 2]
    assert all({name.rstrip("0123456789") for name in group} in ({"contrary"}, {"glitch"}) for group in at.groups)
    assert at.apart == ("lone0",) and at.seeds_alike == (3, 3)
    assert at.components[1].pair == (9, 10) and np.abs(at.components[1].loadings[9:11]).min() > 0.8


def test_one_persona_comes_out_as_one_direction_although_each_domain_has_its_own():
    """A narrow part that one domain alone has is no shared direction, and all of them together have eleven."""
    at = wb.convergence(domains({"one": 11}, agree=0.5), stream(), draws=DRAWS)[SITE]
    assert at.shared == 1 and at.groups == (tuple(f"one{i}" for i in range(11)),) and not at.apart
    assert at.mean == pytest.approx(0.5, abs=0.08) and min(at.within.values()) > 0.95
    assert at.interval is not None and at.interval[0] < at.mean < at.interval[1] and at.interval[0] > 0.3


@pytest.mark.parametrize("of_the_stream", [False, True])
def test_directions_that_share_nothing_share_nothing(of_the_stream):
    """A false component in at most 5 % of populations: more than 7 of 60 would come by chance once in 50 times."""
    rows = stream()
    found = [wb.convergence(nothing(rows if of_the_stream else None, 8, seed), rows, draws=99, seed=seed)[SITE]
             for seed in range(60)]  # fmt: skip
    assert sum(at.shared > 0 for at in found) <= 7
    assert np.mean([at.p["of the stream"] <= 0.5 for at in found]) == pytest.approx(0.5, abs=0.25)


def test_the_stream_is_the_harder_null():
    """Directions of the stream agree along its loud axes: isotropic ones hold that for something."""
    rows = stream(loud=2, times=10.0)
    at = [wb.convergence(nothing(rows, 8, seed), rows, draws=99)[SITE] for seed in range(10)]
    assert all(one.components[0].p["isotropic"] <= 0.05 for one in at)
    assert sum(one.components[0].p["of the stream"] <= 0.05 for one in at) <= 2
    alone = wb.convergence(nothing(rows, 8, 0), draws=99)[SITE]
    assert list(alone.p) == ["isotropic"] and alone.shared >= 1


def test_the_null_of_a_component_is_that_of_vectors_drawn_one_by_one():
    """Naive twin: residuals of the same lengths in random directions, the axes found again by an SVD."""
    made = units(domains({"a": 4, "b": 2}))
    axes = np.linalg.svd(made, full_matrices=False)[2]
    null = drawn_units(6, axes, 20, seed=5)
    fitted, rng = made @ axes[:2].T, np.random.default_rng(5)
    lengths = np.linalg.norm(made - fitted @ axes[:2], axis=1)
    naive = []
    for _ in range(20):
        random = rng.standard_normal((6, D))
        random -= random @ axes[:2].T @ axes[:2]
        random *= (lengths / np.linalg.norm(random, axis=1))[:, None]
        whole = fitted @ axes[:2] + random
        again = np.linalg.svd(whole, full_matrices=False)[2][:2]
        left = whole - whole @ again.T @ again
        left *= (lengths / np.linalg.norm(left, axis=1))[:, None]
        naive.append([max(abs(left[i] @ left[j]) for i in range(6) for j in range(i))])
    assert null.agreements(fitted, lengths) == pytest.approx(np.array(naive), rel=1e-9)


def test_narrow_parts_in_few_dimensions_are_no_shared_directions():
    """What is left of the domains lies in fewer dimensions than the stream has, and agrees with nothing."""
    rng = np.random.default_rng(4)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0].T
    made = {}
    for i in range(8):
        own = rng.standard_normal(16) @ axes[1:17]
        made[f"d{i}"] = [Directions.of([SITE], 2 * axes[0] + own / np.linalg.norm(own))]
    found = wb.convergence(made, stream(), draws=DRAWS)[SITE]
    assert found.shared == 1 and len(found.groups) == 1


def test_familywise_p_of_a_pair():
    """The largest |cosine| of all pairs: uniform under the null, at its floor for a planted pair."""
    rows = stream()
    at = wb.convergence(domains({"pair": 2}, agree=0.95, alone=6), rows, draws=DRAWS)[SITE]
    assert (
        at.cosine_p[0, 1] == pytest.approx(1 / (DRAWS + 1)) and at.cosine_p[2:, 2:][~np.eye(6, dtype=bool)].min() > 0.05
    )
    least = [wb.convergence(nothing(rows, 8, seed), rows, draws=99, seed=seed)[SITE].cosine_p for seed in range(40)]
    assert sum(one[~np.eye(8, dtype=bool)].min() <= 0.05 for one in least) <= 6


def test_what_cannot_be_compared_is_refused():
    made = domains({"a": 3})
    with pytest.raises(ValueError, match="at least 3"):
        wb.convergence({name: made[name] for name in ("a0", "a1")})
    with pytest.raises(ValueError, match="other sites"):
        wb.convergence({**made, "b": [Directions.of([wb.Site(5)], np.ones(D))]})
    still = Directions.of([SITE], np.zeros(D))
    with pytest.raises(ValueError, match="b moved nothing at resid_post:3"):
        wb.convergence({**made, "b": [still]})
    with pytest.raises(ValueError, match="expected one of resid_post:3"):
        wb.convergence(made, draws=9)[7]


def test_the_pair_that_agrees_most_is_named():
    gram = np.array([[1.0, 0.1, -0.7], [0.1, 1.0, 0.3], [-0.7, 0.3, 1.0]])
    assert agreement(gram, 1) == ([0.7], (0, 2))
    (product, mean), pair = agreement(gram, 0)
    assert (product, pair) == (0.7, (0, 2)) and mean == pytest.approx(0.1)


def test_one_p_of_two_statistics_is_uniform():
    """And no smaller than the floor: a value beyond all draws in either."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((400, 100, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    p = np.array([either(one[0].tolist(), one[1:]) for one in drawn])
    assert [np.mean(p <= level) for level in (0.05, 0.2, 0.5)] == pytest.approx([0.05, 0.2, 0.5], abs=0.05)
    assert either([9.0, 9.0], drawn[0]) == 1 / 101 and either([9.0, -9.0], drawn[0]) <= 2 / 101
    assert either([-9.0, -9.0], drawn[0]) == 1.0
