"""wb.moments against a store of the same prompts: means, directions, components, differences, images, and resuming."""

import numpy as np
import pytest
from conftest import chat

import workbench as wb
from hooks.prompt import read_prompts
from stores import NoRows

SILENT = {"progress": False}


@pytest.fixture(scope="module")
def labelled():
    """Thirty prompts of many lengths in three classes of 16, 9 and 5, told apart by their first word."""
    kinds = ["red"] * 16 + ["green"] * 9 + ["blue"] * 5
    texts = [f"{kind} {'word ' * (1 + n * 7 % 5)}{n}" for n, kind in enumerate(kinds)]
    return [
        chat(f"p{n}", text, response="a" * (1 + n % 3), label=kind, tags={"odd": n % 2, "half": "ab"[n // 15]})
        for n, (text, kind) in enumerate(zip(texts, kinds, strict=True))
    ]


def both(model, prompts, folder, capture=None, **options):
    """A store and moments of the same prompts, in the same units."""
    shared = {"max_tokens": 250, **SILENT}
    plain = {name: options[name] for name in ("sites", "at", "pool", "variants") if name in options}
    store = wb.capture(model, prompts, to=folder / "s", **plain, **shared)
    return store, wb.moments(model, prompts, **options, **shared)


def exact(view, site):
    return view.values(site, np.float64)


def close(a, b, within=1e-6):
    assert np.abs(a - b).max() <= within * np.abs(b).max()


# Equal to a store.


@pytest.mark.parametrize("scope", ["last", "response"])
@pytest.mark.parametrize("family", ["llama", "half", "gpt2"])
def test_directions_are_those_of_a_store(request, family, scope, labelled, tmp_path):
    """Also in bfloat16: the rows are the same to the bit, and so are their sums to float32 rounding about a pilot."""
    store, stats = both(request.getfixturevalue(family), labelled, tmp_path, at=scope)
    named = {"positive": "red", "negative": "blue"}
    v, w = wb.difference_of_means(store, **named), wb.difference_of_means(stats, **named)
    close(w.vectors, v.vectors)
    close(w.origin, v.origin)
    close(w.positive_mean, v.positive_mean)
    for name in ("sites", "role", "model", "scope", "kind", "n_positive", "n_negative", "matched"):
        assert getattr(w, name) == getattr(v, name), name
    assert np.abs(w.residual_norm / v.residual_norm - 1).max() < 0.003
    # The same estimator from other halves (balanced, and within each class): near, and not equal.
    assert np.abs(w.reliability - v.reliability).max() < 0.15
    assert stats.counts.tolist() == [len(store.where(label=one)) for one in ("red", "green", "blue")]


@pytest.mark.parametrize("family", ["llama", "half"])
@pytest.mark.parametrize("center", [True, False])
def test_components_are_those_of_a_store(request, family, center, labelled, tmp_path):
    store, stats = both(request.getfixturevalue(family), labelled, tmp_path)
    a, b = (wb.pca(rows, 5, center=center, null=None) for rows in (store, stats))
    assert a.sites == b.sites and a.n == b.n == 30
    close(b.total, a.total)
    for site in range(3):
        shown = a.variance[site] > 1e-4 * a.variance[site, 0]
        assert np.abs(b.variance[site, : len(shown)][shown] / a.variance[site][shown] - 1).max() < 1e-3
        assert np.abs(b.variance[site, :5] / a.variance[site, :5] - 1).max() < 1e-4
        assert np.linalg.svd(a.basis[site] @ b.basis[site].T)[1].min() > 1 - 1e-6
    close(b.mean, a.mean)
    assert np.array_equal(a.origin[0] != 0, b.origin[0] != 0) and "no null band" in b.null_kind and b.bound is None
    with pytest.raises(ValueError, match="streamed moments keep no rows, so the spectrum has no null band"):
        wb.pca(stats, 5)


def test_components_of_one_class_need_their_own_scatter(llama, labelled, tmp_path):
    store, stats = both(llama, labelled, tmp_path, covariance="groups")
    a, b = (wb.pca(rows.where(label="green"), 3, null=None) for rows in (store, stats))
    assert a.n == b.n == 9 and np.abs(b.variance[:, :3] / a.variance[:, :3] - 1).max() < 1e-4
    whole = [wb.pca(rows, 3, null=None) for rows in (store, stats)]
    assert np.abs(whole[0].variance[:, :3] / whole[1].variance[:, :3] - 1).max() < 1e-4
    within = wb.moments(llama, labelled, **SILENT)
    with pytest.raises(ValueError, match="added up together with that of 2 others: expected all classes of a variant"):
        wb.pca(within.where(label="green"), 3, null=None)
    with pytest.raises(ValueError, match="hold no covariance"):
        wb.pca(wb.moments(llama, labelled, covariance=None, **SILENT), 3, null=None)


def test_between_and_within_are_those_of_the_rows(llama, labelled, tmp_path):
    store, stats = both(llama, labelled, tmp_path)
    for index, site in enumerate(stats.sites):
        parts = [exact(store.where(label=one), site) for one in ("red", "green", "blue")]
        mean = np.concatenate(parts).mean(axis=0)
        within = sum((p - p.mean(axis=0)).T @ (p - p.mean(axis=0)) for p in parts)
        between = sum(len(p) * np.outer(p.mean(axis=0) - mean, p.mean(axis=0) - mean) for p in parts)
        close(stats.within(site).dense(), within)
        close(stats.between(site).dense(), between, 1e-5)
        close(stats.total(site).dense(), within + between)
        assert stats.total(site).trace == pytest.approx(np.trace(within + between), rel=1e-5)
        assert stats.separation[index] == pytest.approx(np.trace(between) / np.trace(within), rel=1e-4)
        close(stats.means[index], np.stack([p.mean(axis=0) for p in parts]))
        close(stats.moments(site).covariance, np.cov(np.concatenate(parts).T))
        lengths = np.linalg.norm(np.concatenate(parts), axis=1)
        assert stats.median_norm(site) == pytest.approx(np.median(lengths), rel=0.02)  # an even count has two middles


@pytest.mark.parametrize("pool", ["none", "mean"])
def test_pitfall_10_all_leaves_position_0_out(llama, labelled, pool, tmp_path):
    """And weighs each position, or with pool="mean" each prompt, the same."""
    store, stats = both(llama, labelled, tmp_path, at="all", pool=pool)
    rows = store.rows() if pool == "mean" else store.where(position=lambda p: p > 0)
    assert len(stats) == len(rows)
    close(stats.mean(1), exact(rows, "resid_post:1").mean(axis=0))
    close(stats.total(1).dense(), (len(rows) - 1) * np.cov(exact(rows, "resid_post:1").T))
    if pool == "none":
        long = max(labelled, key=lambda p: rows.prompt_ids.count(p.id))
        assert rows.prompt_ids.count(long.id) > len(rows) / 30, "long prompts weigh more"


def test_classes_may_be_tags_functions_or_none(llama, labelled, tmp_path):
    store, stats = both(llama, labelled, tmp_path, by=("label", "odd"))
    mine = stats.where(label={"red", "blue"}, odd=lambda n: n == 1)
    close(mine.mean(0), exact(store.where(label={"red", "blue"}, odd=1), "resid_post:0").mean(axis=0))
    assert mine.names == [
        {"variant": "base", "label": "red", "odd": 1},
        {"variant": "base", "label": "blue", "odd": 1},
    ]
    stats = wb.moments(llama, labelled, by=lambda prompt: int(prompt.id[1:]) > 20, **SILENT)
    assert len(stats.where(group=True)) == 9 and len(stats.where(group=False)) == 21
    assert wb.moments(llama, labelled, by=None, **SILENT).counts.tolist() == [30]
    with pytest.raises(ValueError, match=r"by='topic' is no tag of these prompts: expected 'label', or of \['half'"):
        wb.moments(llama, labelled, by="topic", **SILENT)
    with pytest.raises(NoRows, match="'red'"):
        stats = wb.moments(llama, labelled, **SILENT)
        stats.where(label="mauve")
    with pytest.raises(ValueError, match="half does not tell these sums apart: expected variant, label"):
        stats.where(half="a")


def test_one_prompt_a_class_has_a_direction_and_no_reliability(llama, labelled, tmp_path):
    store, stats = both(llama, [labelled[0], labelled[20]], tmp_path)
    v, w = (wb.difference_of_means(rows, positive="red", negative="green") for rows in (store, stats))
    close(w.vectors, v.vectors)
    assert v.reliability is None and w.reliability is None
    with pytest.raises(ValueError, match="k=3 components asked for, 1 exist"):
        wb.pca(stats, 3, null=None)
    # Two classes a side, of a prompt each: where both fall into one half, the other half has no mean.
    four = wb.moments(llama, labelled[:4], by=lambda prompt: prompt.id, **SILENT)
    sides = [
        [four.where(group=group) for group in pair]
        for pair in ((["p0", "p2"], ["p1", "p3"]), (["p0", "p1"], ["p2", "p3"]))
    ]
    assert wb.difference_of_means(*sides[0]).reliability is None
    assert np.isfinite(wb.difference_of_means(*sides[1]).reliability).all()


# Variants.


@pytest.fixture(scope="module")
def shifts(world, tuned_world, tmp_path_factory):
    prompts = read_prompts(world.prompts)[:40]
    options = {"variants": ("base", "tuned"), "by": "domain", "max_tokens": 200, **SILENT}
    store = wb.capture(
        tuned_world,
        prompts,
        variants=("base", "tuned"),
        to=tmp_path_factory.mktemp("s") / "s",
        max_tokens=200,
        **SILENT,
    )
    return store, prompts, options


def test_variants_are_paired_as_in_a_store(tuned_world, shifts):
    store, prompts, options = shifts
    stats = wb.moments(tuned_world, prompts, splits=400, **options)
    plain = wb.moments(tuned_world, prompts, splits=400, **options | {"by": None})
    v, w, u = (
        wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"), splits=400)
        for rows in (store, stats, plain)
    )
    close(w.vectors, v.vectors, 1e-5)  # a small shift of long rows
    assert v.matched == w.matched == 40
    # Halves that are balanced over several classes agree better than any halves; those of one class are any halves.
    close(u.vectors, v.vectors, 1e-5)
    assert np.abs(v.reliability - u.reliability).max() < 0.02
    assert (w.reliability > v.reliability).all() and np.abs(v.reliability - w.reliability).max() < 0.05
    a, b = (wb.pca(rows.where(variant="tuned"), 3, null=None) for rows in (store, stats))
    assert a.n == b.n == 40 and np.abs(b.variance[:, :3] / a.variance[:, :3] - 1).max() < 1e-4
    domain = prompts[0].tags["domain"]
    with pytest.raises(ValueError, match="prompts are in both classes, and sums cannot leave the others out"):
        wb.difference_of_means(stats.where(variant="tuned", domain=domain), stats.where(variant="base"))
    loose = wb.difference_of_means(
        stats.where(variant="tuned", domain=domain), stats.where(variant="base"), paired=False
    )
    assert loose.matched is None and loose.n_negative == 40
    with pytest.raises(ValueError, match="the same groups: their difference is zero by construction"):
        wb.difference_of_means(stats.where(variant="tuned"), stats.where(variant="tuned"))
    with pytest.raises(ValueError, match="one class is streamed moments and the other is rows"):
        wb.difference_of_means(stats.where(variant="tuned"), store.where(variant="base"))


def test_minus_sums_the_differences_row_by_row(tuned_world, shifts):
    store, prompts, options = shifts
    stats = wb.moments(tuned_world, prompts, minus="base", **options)
    shift = store.difference("tuned", "base")
    assert stats.variants == ("tuned-base",) and stats.matched == shift.matched == 40
    for site in stats.sites:
        close(stats.mean(site), exact(shift, site).mean(axis=0))
    a, b = (wb.pca(rows, 3, null=None) for rows in (shift, stats))
    assert a.sites == b.sites and b.origin is None and a.origin is None
    assert np.abs(b.variance[:, :3] / a.variance[:, :3] - 1).max() < 1e-4
    with pytest.raises(ValueError, match="minus='base' with variants base: expected at least one other variant"):
        wb.moments(tuned_world, prompts, variants=("base",), minus="base", **SILENT)


def test_a_site_where_nothing_moved_is_unchanged_and_no_spectrum(tuned_world, shifts):
    """The embedding is before every adapter: its differences are exactly zero."""
    _, prompts, options = shifts
    stats = wb.moments(tuned_world, prompts, minus="base", sites="embedding, resid_post", **options)
    found = wb.pca(stats.at("resid_post"), 2, null=None)
    assert not found.skipped
    with pytest.raises(ValueError, match="unchanged: every row is exactly zero"):
        wb.pca(stats.at("resid_pre"), 2, null=None)
    first, second = (one["domain"] for one in stats.classes[:2])
    still = stats.at("resid_pre")
    v = wb.difference_of_means(still.where(domain=first), still.where(domain=second))
    assert v.norm.tolist() == [0.0] and v.residual_norm.tolist() == [0.0]


# Images.


def test_rows_of_a_tower_belong_to_their_prompts(gemma3, picture, tmp_path):
    """Two pictures, one, none: patches are counted for the prompts that show them."""
    prompts = [
        chat("two", picture, "or", picture, "?", label="x"),
        chat("one", picture, "what", label="y"),
        chat("none", "nothing to see", label="x"),
        chat("again", "see", picture, label="y"),
    ]
    options = {"sites": "resid_post, vision.resid_post", "at": {"language": "last", "vision": "image"}}
    store, stats = both(gemma3, prompts, tmp_path, **options)
    assert stats.streams == ("resid_post", "vision.resid_post")
    tower, rows = stats.at("vision.resid_post"), store.at("vision.resid_post")
    assert tower.counts.tolist() == [32, 32] and sorted(tower.prompt_ids) == ["again", "one", "two"]
    for label in ("x", "y"):
        close(tower.where(label=label).mean(1), exact(rows.where(label=label), "vision.resid_post:1").mean(axis=0))
    close(tower.total("vision.resid_post:0").dense(), 63 * np.cov(exact(rows, "vision.resid_post:0").T), 1e-5)
    assert stats.at("resid_post").counts.tolist() == [2, 2]
    with pytest.raises(ValueError, match="span streams with rows of their own"):
        len(stats)
    means = wb.moments(gemma3, prompts, sites="vision.resid_post", at="image", pool="mean", **SILENT)
    assert means.counts.tolist() == [2, 2], "one row a picture"
    with pytest.raises(NoRows, match="there is nothing to sum"):
        wb.moments(gemma3, prompts[2:3], at="image", **SILENT)
