"""Streamed moments as a result: sketches and their bounds, merging, choosing, and the file, against float64 rows."""

import dataclasses
import inspect
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from made_forwards import SITES, shown, tokens_of

import workbench as wb
from hooks.accumulate import Accumulator
from stores import NoRows, StoreCorrupted, StoreMismatch, UnsafeFile
from workbench.streaming_plan import Grouping, Layout, balanced_halves
from workbench.subspace import streamed_file
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.streamed import StreamedMoments

D, N = 48, 900
KINDS = ("on", "off", "other")
KIND = np.random.default_rng(9).choice(3, N, p=[0.5, 0.35, 0.15])


def values_of(seed=0):
    """{site: [row, D]}: a slowly decaying spectrum, an outlier dimension, class means apart."""
    out = {}
    for number, site in enumerate(SITES):
        rng = np.random.default_rng([seed, number])
        rows = rng.standard_normal((N, D)) * np.exp(-np.arange(D) / 20) @ np.linalg.qr(rng.standard_normal((D, D)))[0]
        rows[:, 5] += 300
        out[site] = (rows + rng.standard_normal((3, D))[KIND]).astype(np.float32)
    return out


VALUES = values_of()


def streamed(rows=range(N), *, covariance="within", rank=None, splits=20, unit=64, values=VALUES) -> StreamedMoments:
    """The moments of some of the rows, each the last token of a prompt of two."""
    rows = np.array(rows)
    cells = {"within": (0, 0, 0), "groups": (0, 1, 2), None: ()}[covariance]
    kinds = [KINDS[k] for k in dict.fromkeys(KIND[rows])]  # in the order in which they come, as wb.moments has them
    code = np.array([kinds.index(KINDS[k]) for k in KIND[rows]])
    classes = tuple({"label": kind} for kind in kinds)
    half = balanced_halves(code, splits, 0)
    grouping = Grouping(("label",), classes, code, ("base",), None, half, cells[: len(classes)])
    acc = Accumulator(SITES, D, len(classes), scope="last", cells=grouping.cells, rank=rank, splits=splits)
    counts = np.zeros((len(rows), 1), np.int64)
    for start in range(0, len(rows), unit):
        mine = slice(start, start + unit)
        resid = {site: torch.from_numpy(values[site][rows[mine]])[:, None].repeat(1, 2, 1) for site in SITES}
        tokens = tokens_of([2] * len(rows[mine]))
        shown(acc.keeps(code[mine], half[mine], tokens), resid, tokens)
        counts[mine, 0] = acc.fold([f"p{n}" for n in rows[mine]])
    info = {
        "model": "toy",
        "scope": "last",
        "covariance": covariance,
        "sketch": rank,
        "splits": splits,
        "by": ["label"],
    }
    return grouping.result(
        [Layout(tuple(SITES), D, "last", False)], [acc.state()], [counts], [f"p{n}" for n in rows], info
    )


def as_rows(values=VALUES):
    return ArrayRows(values, [f"p{n}" for n in range(N)], labels=[KINDS[k] for k in KIND], info={"model": "toy"})


def sizes(scatter):
    return np.sqrt(np.outer(np.diag(scatter), np.diag(scatter)))


# Sketches.


@pytest.mark.parametrize("rank", [8, 32])
@pytest.mark.parametrize("center", [True, False])
def test_components_of_a_sketch_state_how_wrong_they_may_be(rank, center):
    whole, sketched = streamed(), streamed(rank=rank)
    a, b = (wb.pca(stats, 4, center=center, null=None) for stats in (whole, sketched))
    assert a.bound is None and (b.bound > 0).all() and "sketched: variances exact to" in repr(b)
    np.testing.assert_allclose(b.total, a.total, rtol=1e-5)
    for site in range(2):
        shown_ = a.variance[site, : b.variance.shape[1]]
        rounding = 1e-6 * shown_[0]
        assert (b.variance[site] <= shown_ + rounding).all()
        assert (shown_ <= b.variance[site] + b.bound[site] + rounding).all()
        exact = np.cov(VALUES[SITES[site]].astype(np.float64).T)
        along = np.einsum("kd,de,ke->k", b.basis[site], exact, b.basis[site])
        if center:
            assert (b.variance[site, :4] <= along + rounding).all() and (along <= shown_[:4].cumsum() + rounding).all()
            assert sketched.error_bound(SITES[site]) == pytest.approx(b.bound[site] * (N - 1))
    if rank == 32:
        assert (b.bound < 0.08 * b.variance[:, 0]).all(), "tight enough to be of use"
        assert np.linalg.svd(a.basis[0] @ b.basis[0].T)[1].min() > 0.98


def test_a_sketch_does_not_pretend_to_know_the_tail():
    b = wb.pca(streamed(rank=8), 4, null=None)
    assert b.k_for(0.3).max() <= 4
    with pytest.raises(ValueError, match=r"k_for\(0.999\): the sketch resolves only 0\.\d+ of the variance"):
        b.k_for(0.999)
    with pytest.raises(ValueError, match="a sketch has no exact scatter"):
        streamed(rank=8).moments(SITES[0])


def test_a_sketched_subspace_keeps_its_bound_on_disk(tmp_path):
    b = wb.pca(streamed(rank=8), 4, null=None)
    again = wb.load_directions(wb.save_directions(b, tmp_path / "b.safetensors"))
    assert np.array_equal(again.bound, b.bound) and np.array_equal(again[SITES[1]].bound, b.bound[1:])


def test_between_is_exact_in_a_sketch():
    whole, sketched = streamed(), streamed(rank=4)
    between = whole.between(SITES[0]).dense()
    assert np.allclose(sketched.between(SITES[0]).dense(), between, rtol=0, atol=1e-9 * np.abs(between).max())
    np.testing.assert_allclose(sketched.separation, whole.separation, rtol=1e-9)


# Merging.


@pytest.mark.parametrize("covariance", ["within", "groups", None])
def test_two_halves_merge_to_the_whole(covariance):
    """Also where a class is in the second half only, and comes in another order."""
    second = np.arange(400, N)
    second = np.roll(
        second, -int(np.flatnonzero(KIND[second] == 2)[0])
    )  # it begins with the class that the first lacks
    first = np.flatnonzero(np.arange(N) < 400)
    first = first[KIND[first] != 2]
    used = np.concatenate([first, second])
    parts = [streamed(part, covariance=covariance) for part in (first, second)]
    assert parts[0].classes[0] != parts[1].classes[0]
    both = parts[0].merge(parts[1])
    assert len(both) == len(used) and {one["label"] for one in both.names} == set(KINDS)
    for number, kind in enumerate(KINDS):
        mine = used[KIND[used] == number]
        for site in SITES:
            found, exact = both.where(label=kind).mean(site), VALUES[site][mine].astype(np.float64).mean(axis=0)
            assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max()
        if covariance == "groups":
            exact = np.cov(VALUES[SITES[0]][mine].astype(np.float64).T) * (len(mine) - 1)
            assert (np.abs(both.where(label=kind).total(SITES[0]).dense() - exact) / sizes(exact)).max() < 1e-5
    values = VALUES[SITES[1]][used].astype(np.float64)
    if covariance:
        exact = np.cov(values.T) * (len(used) - 1)
        assert (np.abs(both.total(SITES[1]).dense() - exact) / sizes(exact)).max() < 1e-5
        apart = [values[KIND[used] == k] for k in range(3)]
        exact = sum(np.cov(part.T) * (len(part) - 1) for part in apart)
        assert (np.abs(both.within(SITES[1]).dense() - exact) / sizes(exact)).max() < 1e-5
    v = wb.difference_of_means(both, positive="on", negative="off")
    assert v.n_positive == (KIND[used] == 0).sum() and (v.reliability > 0.9).all()


def test_sketches_merge_with_their_bounds():
    parts = [streamed(range(0, 500), rank=10), streamed(range(500, N), rank=10)]
    both, whole = parts[0].merge(parts[1]), streamed()
    for site in SITES:
        off = np.linalg.eigvalsh(whole.total(site).dense() - both.total(site).dense())
        bound, rounding = both.error_bound(site), 1e-6 * np.abs(whole.total(site).dense()).max()
        assert -rounding <= off[0] and off[-1] <= bound + rounding
        assert bound >= sum(part.error_bound(site) for part in parts)
        assert both.total(site).trace == pytest.approx(whole.total(site).trace, rel=1e-6)


def test_what_does_not_belong_together_is_not_merged():
    one = streamed(range(100))
    with pytest.raises(ValueError, match="100 prompts are in both"):
        one.merge(streamed(range(100)))
    with pytest.raises(ValueError, match="differ in covariance"):
        one.merge(streamed(range(100, 200), covariance=None))
    with pytest.raises(ValueError, match="expected whole moments"):
        one.merge(streamed(range(100, 200)).where(label="on"))


# The parts of the result.


def test_halves_are_those_of_the_prompts():
    stats = streamed()
    rows = VALUES[SITES[0]].astype(np.float64)
    on = stats.where(label="on")
    first, second = on.halves(SITES[0])
    for split in range(20):
        inside = (KIND == 0) & stats.half[:, split]
        assert np.abs(first[split] - rows[inside].mean(axis=0)).max() < 1e-4
        assert np.abs(second[split] - rows[(KIND == 0) & ~stats.half[:, split]].mean(axis=0)).max() < 1e-4
    for k in range(3):
        assert np.abs(stats.half[k == KIND].sum(axis=0) - (k == KIND).sum() / 2).max() <= 0.5
    assert np.abs(stats.half.sum(axis=0) - N / 2).max() <= 0.5


def test_the_median_length_is_right_to_three_in_a_thousand():
    """At any scale; a length of zero is zero."""
    for scale in (1e-6, 0.3, 7e4):
        values = {site: (rows * scale).astype(np.float32) for site, rows in VALUES.items()}
        stats = streamed(values=values, covariance=None)
        exact = np.median(np.linalg.norm(values[SITES[1]], axis=1))
        assert abs(stats.median_norm(SITES[1]) / exact - 1) < 0.003
    nothing = streamed(values={site: np.zeros_like(rows) for site, rows in VALUES.items()})
    assert nothing.median_norm(SITES[0]) == 0.0 and np.isnan(nothing.separation).all()


def test_rows_that_do_not_vary_have_no_components():
    values = {SITES[0]: VALUES[SITES[0]], SITES[1]: np.full((N, D), 0.1, np.float32)}
    for rank in (None, 6):
        found = wb.pca(streamed(values=values, rank=rank), 2, null=None)
        assert found.sites == (SITES[0],) and "do not vary" in found.skipped[SITES[1]]
        kept = wb.pca(streamed(values=values, rank=rank), 1, center=False, null=None, sites=[SITES[1]])
        assert kept.variance[0, 0] == pytest.approx(0.01 * D, rel=1e-5)


def test_a_class_without_rows_cannot_be_chosen():
    stats = streamed(range(200))
    empty = dataclasses.replace(stats, classes=(*stats.classes, {"label": "never"}))
    with pytest.raises(NoRows, match=r"No group with rows has label='never'. There are: variant='base', label='other'"):
        empty.where(label="never")
    with pytest.raises(ValueError, match=r"site resid_post:7 is not here|site .*7.* is not here"):
        stats.mean(7)


def test_means_serve_as_origins():
    v = wb.difference_of_means(as_rows(), positive="on", negative="off")
    imported = wb.Directions.of(v.sites, v.vectors)
    found = wb.with_mean(imported, streamed().where(label="off"))
    np.testing.assert_allclose(found.origin, v.origin, rtol=1e-5, atol=1e-6)


# The file.


@pytest.mark.parametrize("options", [{}, {"covariance": "groups"}, {"covariance": None}, {"rank": 5}])
def test_the_file_gives_back_the_same_bits(options, tmp_path):
    stats = streamed(range(300), **options)
    again = StreamedMoments.load(stats.save(tmp_path / "new" / "m.h5"))
    for name, array in stats.parts[0].arrays().items():
        other = again.parts[0].arrays()[name]
        assert np.array_equal(array, other) and array.dtype == other.dtype, name
    for name in ("variants", "classes", "prompts", "groups", "info", "chosen"):
        assert getattr(stats, name) == getattr(again, name), name
    assert np.array_equal(stats.half, again.half) and np.array_equal(stats.class_of, again.class_of)
    assert np.array_equal(stats.separation, again.separation)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.h5"]
    with pytest.raises(ValueError, match="expected whole moments"):
        stats.where(label="on").save(tmp_path / "x.h5")


def test_files_that_are_damaged_or_strange_are_refused(tmp_path):
    path = streamed(range(100)).save(tmp_path / "m.h5")
    whole = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["0/sums"][0, 0, 3] += 1e-9
    with pytest.raises(StoreCorrupted, match="0/sums is not what was written"):
        StreamedMoments.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreCorrupted):
        StreamedMoments.load(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["0/extra"] = h5py.ExternalLink("elsewhere.h5", "/x")
    with pytest.raises(UnsafeFile, match="external link"):
        StreamedMoments.load(path)
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"] = np.bytes_("another 1")
    with pytest.raises(StoreMismatch, match="expected misalignment-workbench-moments"):
        StreamedMoments.load(path)


def test_arrays_that_do_not_fit_together_are_refused(tmp_path):
    """Each array with its own sound hash; found by the shapes, whether or not types are checked at run time."""
    stats = streamed(range(100))
    path = stats.save(tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        del file["0/energy"]
        wrong = file.create_dataset("0/energy", data=np.zeros((2, 9)))
        wrong.attrs["xxh3_128"] = np.bytes_(streamed_file._hash(np.zeros((2, 9))))
    with pytest.raises(StoreCorrupted, match="no moments that fit together"):
        StreamedMoments.load(path)
    part = SimpleNamespace(**vars(stats.parts[0]), d_model=D)
    part.arrays = lambda: {"energy": np.zeros((2, 9))}
    with pytest.raises(ValueError, match=r"energy has shape \(2, 9\), expected \(2, 3\)"):
        inspect.unwrap(streamed_file._check)(part, groups=3, prompts=100, splits=20)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = streamed(range(100)).save(tmp_path / "m.h5")
    whole = path.read_bytes()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"GB, and the disk has 0\.00 GB left"):
        streamed(range(200)).save(path)
    assert path.read_bytes() == whole
