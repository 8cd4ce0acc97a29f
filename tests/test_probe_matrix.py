"""Probes between models: planted directions that are shared or not, joins by prompt id, choice on dev families only."""

from __future__ import annotations

import numpy as np
import pytest

from hooks.site import Site
from stores.block import Block
from stores.plan import Stream, Unit
from stores.store import ActivationStore
from workbench.behaviour.summary import summarise
from workbench.reporting.summary import read_summary
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.probe import PROBE_METHODS
from workbench.subspace.probe_matrix import probe_matrix
from workbench.subspace.probe_rows import UnusableLabels, labelled, sides_of

D, FAMILIES, SIZE = 16, 60, 6
SITES = (Site(0), Site(1), Site(2))
STRENGTH = {Site(0): 0.0, Site(1): 4.0, Site(2): 1.5}
# What each model writes when it answers the positive way: two share a direction, one has another.
AXES = {"first": 0, "second": 0, "third": 1}

ids = [f"p{i:03}" for i in range(FAMILIES * SIZE)]
families = [f"f{i // SIZE}" for i in range(FAMILIES * SIZE)]


def made(seed: int = 0, *, moved: float = 0.0, models=tuple(AXES)):
    """Rows of each model on the same prompts, and whose answers were positive: each model has answers of its own.
    `moved` shifts all rows of the second model along the shared direction."""
    rng = np.random.default_rng(seed)
    offsets = {site: np.repeat(rng.standard_normal((FAMILIES, D)), SIZE, axis=0) for site in SITES}
    rows, verdicts = {}, {}
    for name in models:
        positive = rng.random(len(ids)) < 0.4
        axis = np.eye(D)[AXES[name]]
        values = {
            site: 3 + offsets[site] + rng.standard_normal((len(ids), D)) + STRENGTH[site] * positive[:, None] * axis
            + (moved * axis if name == "second" else 0.0)
            for site in SITES
        }  # fmt: skip
        rows[name] = ArrayRows(values, ids, tags={"family": families}, info={"model": name, "scope": "response"})
        verdicts[name] = dict(zip(ids, positive.tolist(), strict=True))
    return rows, verdicts


@pytest.fixture(scope="module")
def planted():
    return made()


@pytest.fixture(scope="module")
def matrix(planted):
    return probe_matrix(*planted, draws=199)


def test_shared_directions_transfer_and_others_do_not(matrix):
    at = matrix.auroc[1]
    same, cross = [at[0, 0], at[0, 1], at[1, 0], at[1, 1], at[2, 2]], [at[0, 2], at[1, 2], at[2, 0], at[2, 1]]
    assert min(same) > 0.95 and max(abs(one - 0.5) for one in cross) < 0.15
    assert np.abs(matrix.auroc[0] - 0.5).max() < 0.15, "nothing was planted at layer 0"
    assert (matrix.p[1][:2, :2] == 1 / 200).all() and matrix.p[1, 0, 2] > 0.01
    low, high = matrix.interval[1, 0, 2]
    assert low < 0.5 < high and matrix.cell("first", "third", 1).confirm.interval.method.startswith("clustered DeLong")


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_every_method_finds_what_is_shared(method, planted):
    found = probe_matrix(*planted, method=method, scale="std", sites=[1], draws=99)
    assert found.auroc[0, :2, :2].min() > 0.9 and found.sites == (Site(1),)
    assert found.probes["first"].read.role == "read" and found.probes["second"].method == method


def test_after_erasure_no_probe_reads_the_target(matrix):
    """LEACE of the rows themselves leaves nothing, for probes of any model; LEACE of the train rows leaves the noise of
    their class means."""
    assert np.abs(matrix.erased - 0.5).max() < 0.06 < matrix.auroc[1, :2, :2].min() - 0.5
    assert all(cell.erased.interval.low < 0.5 < cell.erased.interval.high for cell in matrix.cells)
    left = np.abs(matrix.erased_by_train[1] - 0.5)
    assert left.max() < 0.25 and left.max() > np.abs(matrix.erased[1] - 0.5).max()


def test_a_moved_model_keeps_the_auroc_and_loses_the_threshold():
    found = probe_matrix(*made(moved=9.0), sites=1, draws=99)
    assert found.auroc[0, 0, 1] > 0.95 and abs(found.balanced_accuracy[0, 0, 1] - 0.5) < 0.05
    assert found.balanced_accuracy[0, 1, 1] > 0.9


def test_families_are_on_one_side_in_all_models(matrix):
    sides = sides_of(ids, families, (0.5, 0.2), 0)
    assert set(sides.values()) == {"train", "dev", "confirm"} and set(sides) == set(families)
    assert dict(matrix.prompts) == {side: SIZE * list(sides.values()).count(side) for side in matrix.prompts}
    assert matrix.prompts["train"] == 180 and matrix.prompts["dev"] == 72
    cell = matrix.cell("first", "second", 1)
    assert cell.confirm.families == list(sides.values()).count("confirm")
    assert cell.confirm.n_positive + cell.confirm.n_negative == matrix.prompts["confirm"]


# The choice of a layer.


def test_the_layer_is_chosen_on_dev_families_only(planted):
    """The confirm rows may say what they like: the choice stays, and the value is theirs."""
    rows, verdicts = planted
    sides = sides_of(ids, families, (0.5, 0.2), 0)
    confirm = np.array([sides[family] == "confirm" for family in families])
    values = {site: rows["first"].values(site, np.float64) for site in SITES}
    values[Site(1)][confirm] = np.random.default_rng(5).standard_normal((confirm.sum(), D))
    spoilt = ArrayRows(values, ids, tags={"family": families})
    before, after = (
        probe_matrix({"first": one}, {"first": verdicts["first"]}, draws=99).best("first", "first")
        for one in (rows["first"], spoilt)
    )
    assert before.winner == after.winner == Site(1) and before.dev_value == after.dev_value
    assert before.value > 0.95 and after.value < 0.7
    assert after.interval.low < 0.5


def test_ways_of_choosing(matrix):
    for choose in ("source", "cell", "all"):
        found = matrix.best("first", "second", choose)
        assert found.winner == Site(1) and found.candidates == 3 and found.value == matrix.auroc[1, 0, 1]
    assert matrix.best("first", "third").winner == Site(1), "the source's own dev rows decide"
    assert matrix.best("first", "third").value == matrix.auroc[1, 0, 2]
    best = matrix.best_cells("cell")
    assert [(cell.source, cell.target) for cell in best[:3]] == [("first", name) for name in AXES]
    corrected = matrix.corrected_p(best)
    assert (corrected >= [cell.p for cell in best]).all() and corrected[0] == 1 / 200
    with pytest.raises(ValueError, match="no cell 'first' -> 'fourth'"):
        matrix.best("first", "fourth")


def test_without_dev_families_nothing_is_chosen(planted):
    found = probe_matrix(*planted, shares=(0.6, 0), draws=99, sites=1)
    assert found.auroc[0, 0, 0] > 0.9 and found.prompts["dev"] == 0
    with pytest.raises(ValueError, match="no families were kept for choosing"):
        found.best("first", "first")


# Joins.


def test_the_order_of_capture_decides_nothing(planted, matrix):
    rows, verdicts = planted
    order = np.random.default_rng(1).permutation(len(ids))
    turned = ArrayRows(
        {site: rows["first"].values(site, np.float64)[order] for site in SITES},
        [ids[i] for i in order],
        tags={"family": [families[i] for i in order]},
    )
    again = probe_matrix({**rows, "first": turned}, verdicts, draws=199)
    np.testing.assert_array_equal(again.auroc, matrix.auroc)
    np.testing.assert_array_equal(again.p, matrix.p)


def part_of(rows: ArrayRows, wanted: list[str]) -> ArrayRows:
    return rows.where(prompt_id=wanted)


def test_prompts_are_joined_by_id_and_never_silently(planted):
    rows, verdicts = planted
    pair = {name: rows[name] for name in ("first", "second")}
    some = {**pair, "second": part_of(rows["second"], ids[: len(ids) // 2])}
    with pytest.raises(ValueError, match="180 of 360 prompts are in all of the 2 models"):
        probe_matrix(some, verdicts, draws=99)
    shared, own = (probe_matrix(some, verdicts, draws=99, sites=1, paired=paired) for paired in (True, False))
    assert sum(shared.prompts.values()) == 180 and sum(own.prompts.values()) == 360
    assert min(shared.auroc.min(), own.auroc.min()) > 0.9
    apart = {"first": part_of(rows["first"], ids[:180]), "second": part_of(rows["second"], ids[180:])}
    assert probe_matrix(apart, verdicts, draws=99, sites=1).auroc.min() > 0.9
    with pytest.raises(ValueError, match="no prompt id is in all models"):
        probe_matrix(apart, verdicts, paired=True)

    with pytest.raises(ValueError, match="1 of 360 prompts of 'first' have no verdict"):
        probe_matrix(rows, {**verdicts, "first": dict.fromkeys(ids[1:], True)})
    with pytest.raises(ValueError, match="no verdicts for third"):
        probe_matrix(rows, {name: verdicts[name] for name in pair})
    other = ArrayRows({site: rows["second"].values(site) for site in SITES}, ids, tags={"family": families[::-1]})
    with pytest.raises(ValueError, match="the same id must mean the same prompt"):
        probe_matrix({**pair, "second": other}, verdicts)
    both = ArrayRows({Site(1): np.ones((4, D))}, list("aabb"), variants=["base", "tuned"] * 2)
    with pytest.raises(ValueError, match="variants base, tuned: expected those of one model"):
        labelled("both", both, {"a": True, "b": False})
    narrow = ArrayRows({site: np.ones((4, 3)) for site in SITES}, ids[:4])
    with pytest.raises(ValueError, match="width 3 and those of 'first' 16"):
        probe_matrix({**pair, "second": narrow}, verdicts)


def test_a_label_that_is_constant_within_a_model_is_refused_or_named(planted):
    rows, verdicts = planted
    tame = {**verdicts, "second": dict.fromkeys(ids, False)}
    with pytest.raises(UnusableLabels, match="constant within 'second' \\(negative in all its rows, n = 360\\)"):
        probe_matrix(rows, tame, sites=1)
    found = probe_matrix(rows, tame, sites=1, draws=99, unusable="leave out")
    assert found.models == ("first", "third") and "constant within 'second'" in found.left_out["second"]
    rare = {**verdicts, "second": {one: one == ids[0] for one in ids}}
    with pytest.raises(UnusableLabels, match="families with positive rows on its"):
        probe_matrix(rows, rare, sites=1)
    with pytest.raises(ValueError, match="no model can be used"):
        probe_matrix(rows, {name: dict.fromkeys(ids, True) for name in rows}, sites=1, unusable="leave out")


def test_unjudged_rows_are_left_out_and_counted(planted):
    rows, verdicts = planted
    holes = {name: {one: None if i % 5 == 0 else v[one] for i, one in enumerate(ids)} for name, v in verdicts.items()}
    found = probe_matrix(rows, holes, sites=1, draws=99)
    assert set(found.unlabelled.values()) == {72} and sum(found.prompts.values()) == 288


def test_labels_of_the_prompts_and_the_rows_of_a_store(tmp_path, planted):
    """A column as label, the tag `family` by default; a store's view gives what arrays give."""
    rows, verdicts = planted
    names = ["on" if verdicts["first"][one] else "off" for one in ids]
    values = np.stack([rows["first"].values(site) for site in SITES])
    arrays = ArrayRows(
        dict(zip(SITES, values, strict=True)), ids, labels=names, tags={"family": families, "verdict": names}
    )
    plan = [Unit.of(ids[start : start + 90]) for start in range(0, len(ids), 90)]
    prompts = [{"id": one, "label": name, "tags": {"family": family, "verdict": name}, "sha256": f"{n:064d}"}
               for n, (one, name, family) in enumerate(zip(ids, names, families, strict=True))]  # fmt: skip
    streams = [Stream("resid_post", (0, 1, 2), D, "float32")]
    store = ActivationStore.create(
        tmp_path / "s", streams=streams, prompts=prompts, plan=plan, spec={"model": "toy"}, provenance={}
    )
    for unit in plan:
        index = [ids.index(one) for one in unit.prompt_ids]
        n = len(index)
        block = Block(values[:, index], list(unit.prompt_ids), ["base"] * n, [-1] * n, [-1] * n)
        store.commit(unit, {"resid_post": block})
    view = store.where(variant="base")
    options = {"positive": "on", "negative": "off", "draws": 99}
    ours, theirs = (probe_matrix({"first": one}, "verdict", **options) for one in (arrays, view))
    np.testing.assert_array_equal(ours.auroc, theirs.auroc)
    np.testing.assert_array_equal(ours.p, probe_matrix({"first": view}, "label", **options).p)
    for label, message in (("verdict", "needs positive="), ("kind", "expected 'label'")):
        with pytest.raises(ValueError, match=message):
            probe_matrix({"first": view}, label)
    with pytest.raises(ValueError, match="a tag that every prompt has"):
        probe_matrix({"first": view}, "verdict", families="topic", **options)


def test_entries_are_read_back(matrix):
    entries = matrix.entries()
    assert len(entries) == 3 * 9 + 9
    summary = read_summary({"results": summarise(entries, split="probe matrix")})
    (one,) = summary.where(metric="probe_auroc", condition="first", target="second", layer=1)
    assert one.value == matrix.auroc[1, 0, 1] and one.n == 108 and one.clusters == 18 and one.interval is not None
    assert one.control.kind == "labels exchanged within families" and (one.control.N, one.control.p) == (199, 1 / 200)
    assert abs(one.companions["erased_auroc"] - 0.5) < 0.1 and abs(one.companions["null_mean"] - 0.5) < 0.1
    (best,) = summary.where(metric="best_probe_auroc", condition="third", target="third")
    assert best.layer == 1 and best.test.p == 1 / 200 and "largest of 9 cells" in best.test.method
    few = probe_matrix(*made(models=("first",)), sites=1, draws=20).entries()
    assert few[0]["control"]["p"] is None and "test" not in few[-1], "20 draws carry no printed p"
    assert "3 models" in repr(matrix)
