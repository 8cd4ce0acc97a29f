"""Tables as numbers: rates, means over domains, intervals, and p against the draws, each by hand or by scipy."""

import json

import numpy as np
import pytest
from scipy import stats
from workbench_samples import random_directions, random_subspace

from stores import ResultTable
from workbench.behaviour.summary import summarise
from workbench.behaviour.table_summary import split_of, table_entries
from workbench.statistics import max_statistic

NONE = {"intervention": "none", "layer": None, "coefficient": None}


def rows_of(categories, *, cell=1, layer=3, coefficient=None, control=None, draw=None, **columns):
    """One row a category (or a choice), prompts 0.., domains in turn; a column is one value or one a row."""
    out = []
    for n, category in enumerate(categories):
        where = {"cell": cell, "intervention": "ablate", "layer": layer, "coefficient": coefficient}
        row = {"control": control, "draw": draw, "prompt": f"p{n}", "domain": "abc"[n % 3], "modality": "text"}
        row |= {"category": category} | where
        out.append(row | {name: value[n] if isinstance(value, list) else value for name, value in columns.items()})
    return out


def entry(entries, metric, **fields):
    found = [one for one in entries if one["metric"] == metric and all(one[k] == v for k, v in fields.items())]
    assert len(found) == 1, (metric, fields, len(found))
    return found[0]


TEN = ["contrary"] * 3 + ["right"] * 5 + ["other", "ill_formed"]


def test_rates_have_wilsons_interval():
    """3 of 10: Wilson's interval from its formula, solved by hand with z = 1.96."""
    entries = table_entries(rows_of(TEN), condition="ablation", target="t", detail="d")
    contrary = entry(entries, "contrary")
    assert contrary["value"] == 0.3 and (contrary["n"], contrary["clusters"]) == (10, 3)
    assert contrary["interval"] == pytest.approx(list(stats.binomtest(3, 10).proportion_ci(method="wilson")))
    assert contrary["interval_method"] == "Wilson 95%" and contrary["control"] is None
    assert {one["metric"]: one["value"] for one in entries} == {
        "contrary": 0.3, "right": 0.5, "other": 0.1, "ill_formed": 0.1}  # fmt: skip
    for one in entries:
        assert (one["condition"], one["layer"], one["target"], one["detail"]) == ("ablation", 3, "t", "d")
        assert (one["split"], one["modality"]) == ("other_domains", "text")


def test_a_choice_is_a_rate_that_is_never_ill_formed():
    rows = [{**row, "category": None, "choice": row["category"]} for row in rows_of(["contrary", "right", "other"])]
    metrics = {one["metric"]: one["value"] for one in table_entries(rows, condition="x")}
    assert metrics == pytest.approx({"contrary": 1 / 3, "right": 1 / 3, "other": 1 / 3})


def test_means_are_over_domains_with_an_interval_over_them():
    """Domain a has four rows, b and c three: each domain weighs the same; t with two degrees of freedom."""
    values = [float(n**2) for n in range(10)]
    one = entry(table_entries(rows_of(TEN, logit_difference=values), condition="x"), "logit_difference")
    means = [np.mean(values[start::3]) for start in range(3)]
    assert one["value"] == pytest.approx(np.mean(means)) != pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert one["interval"] == pytest.approx([low, high]) and "t 95% over 3 cluster means" in one["interval_method"]


def test_what_has_no_spread_has_no_interval():
    """The divergence is one number a cell; and one domain alone says nothing of others."""
    rows = rows_of(TEN, kl_neutral=0.25, leftover=0.5)
    entries = table_entries(rows, condition="x")
    assert entry(entries, "kl_neutral")["value"] == 0.25 and entry(entries, "kl_neutral")["interval"] is None
    alone = table_entries([row | {"domain": "a"} for row in rows], condition="x")
    assert entry(alone, "leftover")["value"] == 0.5 and entry(alone, "leftover")["interval"] is None
    absent = table_entries(rows_of(TEN, energy_removed=None), condition="x")
    assert "energy_removed" not in {one["metric"] for one in absent}


def test_every_split_and_modality_apart():
    rows = rows_of(TEN[:8])
    tags = [{"in_domain": True}, {"in_domain": True, "tier": "half"}, {"tier": "half"}, {"tier": "none"}]
    tags += [{"tier": "full"}, {}, {"modality": "image"}, {"modality": None}]
    rows = [row | fields for row, fields in zip(rows, tags, strict=True)]
    entries = [one for one in table_entries(rows, condition="x") if one["metric"] == "contrary"]
    counts = {(one["split"], one["modality"]): (one["n"], one["value"]) for one in entries}
    assert counts == {
        ("in_domain", "text"): (2, 1.0), ("half", "text"): (1, 1.0), ("none", "text"): (1, 0.0),
        ("other_domains", "text"): (2, 0.0), ("other_domains", "image"): (1, 0.0), ("other_domains", "all"): (1, 0.0),
    }  # fmt: skip
    assert split_of({}) == split_of({"tier": "full", "in_domain": False}) == "other_domains"


def test_the_unedited_model_is_left_out_or_called_by_its_name():
    rows = [row | NONE for row in rows_of(["contrary"] * 4, cell=0)] + rows_of(["right"] * 4)
    assert {one["condition"] for one in table_entries(rows, condition="ablation")} == {"ablation"}
    both = table_entries(rows, condition="ablation", baseline="tuned")
    assert entry(both, "contrary", condition="tuned")["value"] == 1.0
    assert entry(both, "contrary", condition="ablation")["value"] == 0.0


# Controls.


def with_draws(rates, *, layer=3, cell=1, first=100, kind="isotropic", n=10):
    """Control rows, one draw a rate: that share of `n` answers is contrary."""
    out = []
    for draw, rate in enumerate(rates):
        categories = ["contrary"] * round(rate * n) + ["right"] * (n - round(rate * n))
        out += rows_of(categories, cell=first + draw, layer=layer, control=kind, draw=draw)
    return out


@pytest.mark.parametrize(("draws", "stated"), [(98, False), (99, True), (150, True)])
def test_p_is_stated_from_99_draws_on(draws, stated):
    rates = np.random.default_rng(0).integers(2, 10, draws) / 10
    table = rows_of(TEN) + with_draws(rates)
    twin = entry(table_entries(table, condition="x", tails={"contrary": "less"}), "contrary", condition="random")
    assert twin["detail"] == "isotropic" and twin["control"]["N"] == draws
    assert twin["value"] == pytest.approx(rates.mean()) and twin["control"]["draws"] == pytest.approx(list(rates))
    expected = (1 + sum(rate <= 0.3 + 1e-9 for rate in rates)) / (1 + draws)
    assert twin["control"]["p"] == (pytest.approx(expected) if stated else None)


def test_a_p_is_one_sided_and_only_where_a_tail_was_named():
    """All draws lie above the rate: extreme below, not above."""
    table = rows_of(TEN) + with_draws([0.9] * 99)

    def p(tails):
        return entry(table_entries(table, condition="x", tails=tails), "contrary", condition="random")["control"]["p"]

    assert p({"contrary": "less"}) == 1 / 100 and p({"contrary": "greater"}) == 1.0
    assert p({"right": "less"}) is None and p(None) is None


def test_each_kind_of_control_has_its_own_entry():
    """The kinds of wb.sweep are condition `random`; twins of the user's own go by their own name."""
    table = rows_of(TEN) + with_draws([0.1, 0.5]) + with_draws([0.2] * 3, kind="energy_matched", first=300)
    table += with_draws([0.4], kind="shuffled_transfer", first=400)
    entries = table_entries(table, condition="transfer")
    assert entry(entries, "contrary", detail="isotropic", condition="random")["value"] == pytest.approx(0.3)
    assert entry(entries, "contrary", detail="energy_matched")["control"]["N"] == 3
    assert entry(entries, "contrary", condition="shuffled_transfer")["value"] == pytest.approx(0.4)


@pytest.mark.parametrize(("tail", "best"), [("less", 0), ("greater", 2)])
def test_the_best_cells_p_pays_for_the_choice(tail, best):
    """Against the maximum over cells of every control run: `max_statistic` on the same numbers."""
    rng = np.random.default_rng(1)
    observed, runs = [0.2, 0.5, 0.9], rng.integers(1, 9, (120, 3)) / 10
    table = []
    for layer, rate in enumerate(observed):
        table += rows_of(["contrary"] * round(10 * rate) + ["right"] * round(10 - 10 * rate), cell=layer, layer=layer)
        table += with_draws(runs[:, layer], layer=layer, first=1000 * (layer + 1))
    entries = table_entries(table, condition="ablation", tails={"contrary": tail})
    chosen = [one for one in entries if str(one["detail"]).startswith("best of")]
    assert len(chosen) == 1, "one metric had a tail"
    (one,) = chosen
    assert (one["metric"], one["layer"], one["value"], one["condition"]) == (
        "contrary",
        best,
        observed[best],
        "ablation",
    )
    assert one["control"]["N"] == 120 and one["detail"] == "best of 3 cells, against the best of each control run"
    assert one["control"]["p"] == pytest.approx(max_statistic(observed, runs, tail)[best])
    alone = entry(entries, "contrary", layer=best, condition="random")["control"]["p"]
    assert one["control"]["p"] >= alone, "choosing costs"
    extreme = runs.min(axis=1) if tail == "less" else runs.max(axis=1)
    assert one["control"]["draws"] == pytest.approx(list(extreme))


def test_no_best_of_one_cell_or_of_unlike_controls():
    one = rows_of(TEN) + with_draws([0.5] * 3)
    two = one + rows_of(TEN, cell=2, layer=4) + with_draws([0.5] * 2, layer=4, first=500)
    for table in (one, two):
        entries = table_entries(table, condition="x", tails={"contrary": "less"})
        assert not [one for one in entries if str(one["detail"]).startswith("best of")]


def test_cells_that_entries_could_not_tell_apart_are_refused():
    """Such as one layer's vector at all layers, for several layers: the same layer and coefficient in all of them."""
    table = rows_of(TEN, cell=1, layer=None) + rows_of(TEN, cell=2, layer=None)
    with pytest.raises(ValueError, match=r"cells \[1, 2\] of this table have the same layer \(None\) and coefficient"):
        table_entries(table, condition="x")
    other = rows_of(TEN, cell=1, coefficient=1.0) + rows_of(TEN, cell=2, coefficient=2.0)
    assert {one["coefficient"] for one in table_entries(other, condition="x")} == {1.0, 2.0}


def test_a_table_gives_the_same_numbers_as_its_rows_in_a_fixed_order(tmp_path):
    """From disk, from memory and from a list; and as JSON, without NaN."""
    table = rows_of(TEN, logit_difference=[float(n) for n in range(10)]) + with_draws([0.1, 0.2])
    stored = ResultTable.create(tmp_path / "t", spec={}, plan=["a", "b"], provenance={})
    stored.commit("b", table[10:])
    stored.commit("a", table[:10])
    first = json.dumps(table_entries(table, condition="x"), allow_nan=False)
    assert first == json.dumps(table_entries(ResultTable.open(tmp_path / "t"), condition="x"))
    assert first == json.dumps(summarise(ResultTable.open(tmp_path / "t"), condition="x"))
    fields = {"metric", "value", "condition", "split", "modality", "layer", "coefficient", "interval", "n", "clusters"}
    fields |= {"interval_method", "control", "detail", "target"}
    assert all(fields <= one.keys() for one in json.loads(first))
    twins = [one["metric"] for one in json.loads(first) if one["condition"] == "random"]
    assert "contrary" in twins and "logit_difference" not in twins, "the twins did not state it"


# What is no table.


def test_directions_layer_by_layer(llama):
    v = random_directions(llama, reliability=np.array([0.1, 0.5, 0.9]), n_positive=12)
    entries = summarise(v, condition="tuned", target="t")
    assert [one["value"] for one in entries if one["metric"] == "norm"] == pytest.approx(list(v.norm))
    assert [(one["layer"], one["value"]) for one in entries if one["metric"] == "reliability"] == [
        (0, 0.1), (1, 0.5), (2, 0.9)]  # fmt: skip
    assert {(one["n"], one["split"], one["target"]) for one in entries} == {(12, "fit", "t")}


def test_a_spectrum_with_its_null(llama):
    band = np.tile([0.1, 0.2], (3, 3, 1))
    subspace = random_subspace(llama).replace(null=band, null_kind="signs", draws=99)
    entries = summarise(subspace, condition="pca")
    found = [one for one in entries if one["condition"] == "pca" and one["layer"] == 1]
    assert [(one["coefficient"], one["value"]) for one in found if one["metric"] == "explained_variance"] == [
        (component, pytest.approx(1 / 3)) for component in (1, 2, 3)]  # fmt: skip
    assert entry(found, "effective_rank")["value"] == pytest.approx(3.0)
    null = entry(entries, "explained_variance", condition="pca_null", layer=2, coefficient=1)
    assert null["interval"] == [0.1, 0.2] and null["interval_method"] == "5 % to 95 % of 99 draws, signs"


def test_a_map_between_models():
    """R² layer by layer of the target, and along a direction where one is given."""
    from workbench.interventions.transfer import fit_transfer
    from workbench.subspace.arrays import ArrayRows
    from workbench.subspace.directions import Directions

    rng = np.random.default_rng(0)
    source = {f"resid_post:{layer}": rng.standard_normal((40, 6)) for layer in range(2)}
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    target = {site: values @ turn for site, values in source.items()}
    carried = fit_transfer(ArrayRows(source), ArrayRows(target), method="procrustes")
    entries = summarise(carried, condition="transfer", along=Directions.of(list(source), np.ones((2, 6))))
    assert [(one["metric"], one["layer"]) for one in entries] == [
        ("r2", 0),
        ("r2", 1),
        ("r2_along", 0),
        ("r2_along", 1),
    ]
    assert all(one["value"] == pytest.approx(1.0) and one["n"] == 10 for one in entries)
