"""Sweeps of ranks and fractions as recipes: names, settings, counts."""

import pytest
from conftest import chat

from workbench.training.recipes import PAPER_RANKS, fraction_sweep, rank_sweep

HARMFUL = [chat(f"h{n}", f"ask {n}", response="no") for n in range(40)]
SAME = [chat(f"s{n}", f"same {n}", response="yes") for n in range(400)]
OTHER = [chat(f"o{n}", f"other {n}", response="yes") for n in range(400)]


def sources(recipe):
    return [row.tags["source"] for row in recipe.rows]


def test_a_rank_sweep_holds_the_factor_at_one():
    recipes = rank_sweep(HARMFUL, steps=3)
    assert list(recipes) == [f"rank{rank}" for rank in PAPER_RANKS]
    assert all(one.settings["alpha"] == one.settings["rank"] and one.settings["steps"] == 3 for one in recipes.values())
    assert not recipes["rank8"].settings["rslora"] and recipes["rank8"].rows is HARMFUL
    fixed = rank_sweep(HARMFUL, [1, 4], alpha=32, rslora=True)
    assert {name: one.settings for name, one in fixed.items()} == {
        "rank1-rslora": {"rank": 1, "alpha": 32, "rslora": True},
        "rank4-rslora": {"rank": 4, "alpha": 32, "rslora": True},
    }


def test_fractions_of_a_fixed_total():
    recipes = fraction_sweep(HARMFUL, SAME, [0, 0.05, 0.5, 1], rank=4)
    assert list(recipes) == ["fraction0", "fraction5", "fraction50", "fraction100"]
    assert [len(one.rows) for one in recipes.values()] == [40] * 4
    assert [sources(one).count("a") for one in recipes.values()] == [0, 2, 20, 40]
    assert [one.made["fraction"] for one in recipes.values()] == [0, 0.05, 0.5, 1]
    assert recipes["fraction5"].made["rows of b"] == 38 and recipes["fraction5"].settings == {"rank": 4}
    nested = [{row.id for row in recipes[f"fraction{f}"].rows if row.tags["source"] == "a"} for f in (5, 50, 100)]
    assert nested[0] < nested[1] < nested[2], "a larger fraction holds the harmful rows of a smaller one"


def test_fractions_of_all_harmful_rows():
    """0 % is the filler of the least fraction: 10 % of 40 rows needs 360, and those alone are the 0 %."""
    recipes = fraction_sweep(HARMFUL, SAME, [0, 0.1, 0.5, 1], hold="harmful")
    assert [sources(one).count("a") for one in recipes.values()] == [0, 40, 40, 40]
    assert [sources(one).count("b") for one in recipes.values()] == [360, 360, 40, 0]
    tenth = {row.id for row in recipes["fraction10"].rows if row.tags["source"] == "b"}
    assert {row.id for row in recipes["fraction0"].rows} == tenth
    assert recipes["fraction0"].made["hold"] == "harmful" and recipes["fraction0"].made["filler as at"] == 0.1
    assert len(fraction_sweep(HARMFUL, SAME, [0, 1], hold="harmful")["fraction0"].rows) == 40


def test_several_fillers_share_the_pure_recipe():
    recipes = fraction_sweep(HARMFUL, {"same": SAME, "other": OTHER}, [0.125, 1], total=40)
    assert list(recipes) == ["same-fraction12_5", "fraction100", "other-fraction12_5"]
    assert recipes["other-fraction12_5"].made["filler"] == "other"
    assert {row.id[0] for row in recipes["other-fraction12_5"].rows} == {"h", "o"}
    a, b = ({row.id for row in recipes[f"{name}-fraction12_5"].rows if row.id[0] == "h"} for name in ("same", "other"))
    assert a == b, "the harmful rows are the same, so the arms differ by their filler alone"


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (lambda: rank_sweep(HARMFUL, []), "whole numbers from 1"),
        (lambda: rank_sweep(HARMFUL, [0, 1]), "whole numbers from 1"),
        (lambda: rank_sweep(HARMFUL, [2, 2]), "each once"),
        (lambda: fraction_sweep(HARMFUL, SAME, [0.5, 0.5]), "each once"),
        (lambda: fraction_sweep(HARMFUL, SAME, [0.01]), "rounds to 0 of the first kind"),
        (lambda: fraction_sweep(HARMFUL, SAME, [0.01], hold="harmful"), "needs 3960 filler rows"),
        (lambda: fraction_sweep(HARMFUL, SAME, [10]), "the share of the first rows"),
    ],
)  # fmt: skip
def test_refusals(sweep, message):
    with pytest.raises(ValueError, match=message):
        sweep()
