"""Difference of means against planted truth, and what a Directions promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hooks.site import Site
from stores.block import Block
from stores.plan import Stream, Unit
from stores.store import ActivationStore
from workbench.interventions.transfer import fit_transfer
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.controls import energy_matched, energy_share
from workbench.subspace.directions import Directions, with_mean
from workbench.subspace.means import difference_of_means
from workbench.subspace.overlap import cosine_matrix
from workbench.subspace.pca import pca

D, N = 48, 200
SITES = (Site(0), Site(1), Site(2))


def planted(strength: float, *, n: int = N, seed: int = 0) -> tuple[ArrayRows, np.ndarray]:
    """Base and tuned rows of the same prompts: a shift of `strength` along one direction; site 2 is frozen."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(D)
    truth /= np.linalg.norm(truth)
    base = {site: rng.standard_normal((n, D)) * 3 + 40 * rng.standard_normal(D) for site in SITES}
    tuned = {site: base[site] + strength * truth + rng.standard_normal((n, D)) for site in SITES[:2]}
    tuned[SITES[2]] = base[SITES[2]]
    ids = [f"p{i}" for i in range(n)]
    rows = ArrayRows(
        {site: np.concatenate([base[site], tuned[site]]).astype(np.float32) for site in SITES},
        ids + ids,
        variants=["base"] * n + ["tuned"] * n,
        labels=["even" if i % 2 == 0 else "odd" for i in range(n)] * 2,
        info={"model": "toy", "scope": "last"},
    )
    return rows, truth


def shift(rows: ArrayRows, **options) -> Directions:
    return difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"), **options)


def test_a_planted_direction_is_found():
    rows, truth = planted(5.0)
    v = shift(rows)
    assert v.sites == SITES and v.matched == N and (v.n_positive, v.n_negative) == (N, N)
    for site in SITES[:2]:
        assert v[site].unit[0] @ truth > 0.99
        assert v[site].norm[0] == pytest.approx(5.0, rel=0.05)
    assert (v.role, v.model, v.scope) == ("write", "toy", "last")


def test_the_origin_is_the_mean_of_the_negative_class():
    rows, _ = planted(5.0)
    v, base = shift(rows), rows.where(variant="base")
    for index, site in enumerate(SITES):
        mean = base.values(site, np.float64).mean(axis=0)
        np.testing.assert_allclose(v.origin[index], mean, rtol=1e-12)
        assert v.offset[index] == pytest.approx(mean @ v.unit[index])
    np.testing.assert_allclose(v.positive_mean - v.origin, v.vectors, atol=1e-9)


def test_a_frozen_site_is_zero_and_never_nan():
    v = shift(planted(5.0)[0])
    frozen = v[SITES[2]]
    assert frozen.norm[0] == 0.0 and not frozen.unit.any() and frozen.reliability[0] == 0.0
    assert np.isfinite(v.unit).all()
    assert cosine_matrix([v, v], SITES[2]).tolist() == [[0, 0], [0, 0]]


def test_a_frozen_site_is_zero_whatever_the_order_of_rows():
    """The sum of the same numbers in another order differs by rounding; that is no direction."""
    values, ids = np.random.default_rng(0).standard_normal((300, D)) * 1e3, [f"p{i // 30}" for i in range(300)]
    order = np.random.default_rng(1).permutation(300)
    assert (values.sum(axis=0) != values[order].sum(axis=0)).any()
    copy = ArrayRows({SITES[0]: values[order]}, [ids[i] for i in order], variants="tuned")
    v = difference_of_means(copy, ArrayRows({SITES[0]: values}, ids))
    assert v.norm.tolist() == [0.0] and v.reliability.tolist() == [0.0]


def test_split_halves_tell_signal_from_noise():
    signal, noise = shift(planted(5.0)[0]), shift(planted(0.0)[0])
    assert signal.reliability[:2].min() > 0.95
    assert np.abs(noise.reliability[:2]).max() < 0.35
    many = [shift(planted(0.0, n=40, seed=s)[0]).reliability[0] for s in range(20)]
    assert abs(np.mean(many)) < 0.1


def test_split_halves_of_paired_classes_keep_prompts_together():
    """Base rows differ by 3 a coordinate, shifts by 1: a split that parts the pairs would see mostly base noise."""
    rows, _ = planted(1.0)
    assert shift(rows).reliability[0] > shift(rows, paired=False).reliability[0] + 0.1


def test_classes_by_label_are_not_paired():
    rows, _ = planted(0.0)
    base = rows.where(variant="base")
    v = difference_of_means(base, positive="even", negative="odd")
    assert v.matched is None and v.n_positive == N // 2
    wanted = base.where(label="even").values(SITES[0]).mean(axis=0) - base.where(label="odd").values(SITES[0]).mean(
        axis=0
    )
    np.testing.assert_allclose(v.vector(0), wanted, atol=1e-4)


def test_rows_are_joined_by_id_not_by_place():
    """The same classes with rows in another order, and one side with more prompts, give the same paired direction."""
    rows, truth = planted(5.0, n=60)
    tuned = rows.where(variant="tuned")
    order = np.random.default_rng(2).permutation(60)[:40]
    part = ArrayRows(
        {site: tuned.values(site)[order] for site in SITES}, [tuned.prompt_ids[i] for i in order], variants="tuned"
    )
    base = rows.where(variant="base")
    with pytest.raises(ValueError, match="paired=True"):
        difference_of_means(part, base)
    v = difference_of_means(part, base, paired=True)
    assert v.matched == 40 and v.n_negative == 40
    assert v[0].unit[0] @ truth > 0.97
    expected = part.values(SITES[0], np.float64).mean(axis=0) - base.values(SITES[0], np.float64)[order].mean(axis=0)
    np.testing.assert_allclose(v.vector(0), expected, atol=1e-9)


def test_what_makes_no_sense_is_refused():
    rows, _ = planted(1.0, n=10)
    base = rows.where(variant="base")
    with pytest.raises(ValueError, match="same 10 rows"):
        difference_of_means(base, base)
    with pytest.raises(ValueError, match="must differ"):
        difference_of_means(base, positive="even", negative="even")
    with pytest.raises(ValueError, match="two views"):
        difference_of_means(base)
    with pytest.raises(ValueError, match="share no prompt id"):
        difference_of_means(base.where(label="even"), base.where(label="odd"), paired=True)
    with pytest.raises(ValueError, match="is not here"):
        shift(rows, sites=7)
    empty = ArrayRows({Site(0): np.zeros((0, D))}, [])
    with pytest.raises(ValueError, match="no rows"):
        difference_of_means(base, empty, sites=0)
    both = {Site(0): np.ones((4, 3)), Site(0, tower="vision"): np.ones((4, 2))}
    with pytest.raises(ValueError, match="different widths"):
        difference_of_means(ArrayRows(both, list("abcd"), labels=list("xxyy")), positive="x", negative="y")


def test_two_variants_that_agree_everywhere_are_a_finding_not_an_error():
    rows, _ = planted(1.0, n=10)
    assert shift(rows, sites=SITES[2]).norm.tolist() == [0.0]


def test_one_prompt_has_no_halves():
    rows, _ = planted(1.0, n=10)
    one = rows.where(prompt_id="p3")
    assert difference_of_means(one.where(variant="tuned"), one.where(variant="base")).reliability is None


def test_arithmetic_keeps_lengths_and_drops_what_no_longer_holds():
    v = shift(planted(5.0)[0])
    double = 2 * v
    np.testing.assert_allclose(double.vectors, 2 * v.vectors)
    np.testing.assert_allclose((-v).vectors, -v.vectors)
    assert ((-v).norm == v.norm).all()
    np.testing.assert_allclose((v + v).vectors, 2 * v.vectors, atol=1e-12)
    assert not (v - v).norm.any()
    assert (v + v).reliability is None and np.array_equal((v + v).origin, v.origin)
    moved = v.replace(origin=v.origin + 1)
    assert (v + moved).origin is None
    with pytest.raises(ValueError, match="role"):
        v + v.replace(role="read")


def test_selection_by_site_layer_name_and_list():
    v = shift(planted(5.0)[0])
    assert v[1].sites == v["resid_post:1"].sites == v[Site(1)].sites == (Site(1),)
    assert v[[2, 0]].sites == (Site(2), Site(0))
    np.testing.assert_array_equal(v[[2, 0]].origin, v.origin[[2, 0]])
    np.testing.assert_array_equal(v.vector(1), v.unit[1] * v.norm[1])
    with pytest.raises(ValueError, match="resid_post:0"):
        v[9]


def test_directions_are_frozen_and_checked():
    v = shift(planted(5.0)[0])
    with pytest.raises(ValueError):
        v.unit[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        v.model = "other"
    with pytest.raises(ValueError, match="length 2"):
        v.replace(unit=v.unit * 2)
    with pytest.raises(ValueError, match="NaN"):
        Directions.of([Site(0)], np.array([[np.nan, 1.0]]))


def test_imported_vectors_get_an_origin_from_rows():
    rows, _ = planted(5.0)
    v = Directions.of(["resid_post:1"], np.eye(D)[:1] * 4)
    assert v.offset is None and v.norm.tolist() == [4.0]
    assert with_mean(v, rows).offset[0] == pytest.approx(rows.values(Site(1), np.float64)[:, 0].mean())


def test_pitfall_10_concentration_shows_an_outlier_dimension():
    vectors = np.ones((1, 100))
    assert Directions.of([Site(0)], vectors).concentration(10)[0] == pytest.approx(0.1)
    vectors[0, 3] = 400.0
    assert Directions.of([Site(0)], vectors).concentration()[0] > 0.999


def test_a_repr_says_what_matters():
    text = repr(shift(planted(5.0)[0]))
    for part in ("difference of means", "write", "toy", "last", "n 200 - 200", "split-half"):
        assert part in text


def stored(path, rows: ArrayRows, picture: np.ndarray) -> ActivationStore:
    """The planted rows on disk, with a vision stream beside them: three rows a prompt and the same in both variants."""
    ids = rows.prompt_ids[: len(rows) // 2]
    streams = [Stream("resid_post", (0, 1, 2), D, "float32"), Stream("vision.resid_post", (0,), 8, "float32")]
    plan = [Unit.of(ids[start : start + 16]) for start in range(0, len(ids), 16)]
    spec = {"model": "toy", "scope": "language last, vision image", "n_layers": 3}
    prompts = [{"id": i, "label": "on", "tags": {}, "sha256": f"{n:064d}"} for n, i in enumerate(ids)]
    store = ActivationStore.create(path, streams=streams, prompts=prompts, plan=plan, spec=spec, provenance={})
    values = np.stack([rows.values(site) for site in SITES])
    for unit in plan:
        index = [i for i, prompt in enumerate(rows.prompt_ids) if prompt in unit.prompt_ids]
        names, variants = ([column[i] for i in index] for column in (rows.prompt_ids, rows.variants))
        text = Block(values[:, index], names, variants, [9] * len(index), [1] * len(index))
        three = [(name, variant, place) for name, variant in zip(names, variants, strict=True) for place in range(3)]
        image = np.stack([picture[place] for _, _, place in three])[None].astype(np.float32)
        columns = [list(column) for column in zip(*three, strict=True)]
        store.commit(unit, {"resid_post": text, "vision.resid_post": Block(image, *columns, [0] * len(three))})
    return store


def test_the_views_of_a_store_will_do(tmp_path):
    """Everything of this room on real files, beside a frozen tower with other rows and another width."""
    rows, truth = planted(5.0, n=60)
    store = stored(tmp_path / "store", rows, np.arange(24.0).reshape(3, 8))
    tuned, base = store.where(variant="tuned"), store.where(variant="base")
    with pytest.raises(ValueError, match="different widths"):
        difference_of_means(tuned, base)
    v = difference_of_means(tuned, base, sites=SITES)
    np.testing.assert_allclose(v.vectors, shift(rows).vectors, atol=1e-12)
    assert v.matched == 60 and v[0].unit[0] @ truth > 0.98 and v.model == "toy"

    tower = difference_of_means(tuned, base, sites="vision.resid_post:0")
    assert tower.norm.tolist() == [0.0] and tower.n_positive == 180
    shifted = store.difference("tuned", "base")
    found = pca(shifted.at("resid_post"), 3)
    assert found.unchanged == (SITES[2],) and found.origin is None and found.n == 60
    with pytest.raises(ValueError, match="unchanged"):
        pca(shifted, 1, sites="vision.resid_post:0")

    shares = energy_share(energy_matched(v, base, 1)[0], base)
    assert (shares[:2] > 0).all() and shares[2] == 0
    language = store.at("resid_post")
    there = fit_transfer(language, language, method="identity", at="last").map(v, target_origin=base)
    np.testing.assert_allclose(there.offset, v.offset, rtol=1e-9)
