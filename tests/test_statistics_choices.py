"""Choosing on one side and confirming on the other, and the guard against rows that only repeat their domain."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from workbench import statistics as st

ITEMS = [f"item{i}" for i in range(23)]
FAMILIES = [f"family{i // 2}" for i in range(23)]
IMAGES = [["a", "b"] if i == 4 else "b" if i == 11 else f"own{i}" if i % 3 else None for i in range(23)]


def sides(split: st.Split, items=ITEMS) -> dict:
    return dict(zip(items, split.sides, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_no_family_and_no_image_is_on_both_sides(seed):
    split = st.dev_confirm(ITEMS, FAMILIES, IMAGES, share=0.3, seed=seed)
    side = sides(split)
    for names in (FAMILIES, [tuple(image) if isinstance(image, list) else image for image in IMAGES]):
        for name in set(names) - {None}:
            assert len({side[item] for item, own in zip(ITEMS, names, strict=True) if own == name}) == 1
    assert side["item4"] == side["item5"] == side["item11"] == side["item10"], "joined through image b"
    assert split.groups == 11 and set(split.dev) | set(split.confirm) == set(ITEMS)
    assert [item for item in ITEMS if side[item] == "dev"] == list(split.dev), "in the order given"
    assert 4 <= len(split.dev) <= 7, "30 % of 23 is 7; groups have 1, 2 and 4 items"


def test_the_split_is_a_function_of_names_and_seed():
    split = sides(st.dev_confirm(ITEMS, FAMILIES, IMAGES))
    order = np.random.default_rng(0).permutation(23)
    shuffled = [[values[i] for i in order] for values in (ITEMS, FAMILIES, IMAGES)]
    assert sides(st.dev_confirm(*shuffled), shuffled[0]) == split
    assert len({tuple(st.dev_confirm(ITEMS, FAMILIES, seed=seed).dev) for seed in range(20)}) > 10


def test_the_split_does_not_change_between_versions():
    """Written down once: a split that moves makes every confirmed number a new one."""
    assert st.dev_confirm([*"abcdefgh"], [1, 1, 2, 2, 3, 3, 4, 4], share=0.5, seed=7).dev == ("c", "d", "e", "f")


def test_a_chain_of_shared_images_is_one_group():
    """1-2 share x, 2-3 share y, so 1 and 3 go together although they share nothing."""
    images = [["x"], ["x", "y"], ["y"], ["z"]]
    for seed in range(10):
        side = st.dev_confirm(ITEMS[:4], [1, 2, 3, 4], images, share=0.5, seed=seed).sides
        assert side[0] == side[1] == side[2] != side[3]


def test_an_image_named_as_a_family_joins_nothing():
    assert st.dev_confirm(ITEMS[:2], ["x", "y"], ["y", "x"]).groups == 2


def test_no_side_is_ever_empty():
    for share in (0.01, 0.5, 0.99):
        split = st.dev_confirm(ITEMS[:5], [1, 1, 1, 2, 2], share=share)
        assert split.dev and split.confirm
    assert str(split) == f"{len(split.dev)} dev and {len(split.confirm)} confirm items, of 2 indivisible groups"


def test_splits_that_cannot_be_made():
    with pytest.raises(ValueError, match="all 3 items hang together"):
        st.dev_confirm(ITEMS[:3], [1, 2, 3], ["same"] * 3)
    with pytest.raises(ValueError, match="no family"):
        st.dev_confirm(ITEMS[:2], [1, None])
    with pytest.raises(ValueError, match="2 items, 1 families"):
        st.dev_confirm(ITEMS[:2], [1])
    with pytest.raises(ValueError, match="share=1"):
        st.dev_confirm(ITEMS[:2], [1, 2], share=1.0)


def test_the_winners_value_is_the_held_out_one():
    """40 candidates that are all pure noise: the dev value of the best is far above 0, its held-out value is not."""
    rng = np.random.default_rng(0)
    inside = dev = 0
    for _ in range(60):
        scores = {layer: rng.normal(size=16) for layer in range(40)}
        best = st.selected(scores, lambda _: rng.normal(size=12))
        assert best.winner == max(scores, key=lambda layer: scores[layer].mean()) and best.candidates == 40
        assert best.dev_value == pytest.approx(scores[best.winner].mean())
        inside += 0.0 in best.interval
        dev += best.dev_value > 0.3
    assert inside >= 52 and dev >= 58, "coverage of 60: at least 52 with probability .99"


def test_selected_says_which_number_is_the_result():
    dev = {"layer 3": [0.0, 1.0], "layer 5": [1.0, 1.0, 1.0], "layer 7": [1.0]}
    best = st.selected(dev, {"layer 5": [0, 1, 1, 0, 1, 1], "layer 3": [1] * 6}, clusters=[*"aabbcd"])
    assert best.winner == "layer 5" and best.tied == ("layer 7",)
    assert best.value == pytest.approx((0.5 + 0.5 + 1 + 1) / 4) and "mean over clusters" in best.interval.method
    assert "held-out 0.75 [" in str(best) and "the dev value that chose it, 1, is no result" in str(best)
    least = st.selected(dev, lambda name: {"layer 3": [2.0, 3.0, 7.0]}[name], best="least")
    assert least.winner == "layer 3" and least.value == 4.0 and least.interval.method.startswith("t 95%")


def test_only_the_winner_is_measured_on_held_out_items():
    asked = []
    st.selected({"a": [1.0], "b": [2.0]}, lambda name: asked.append(name) or [1.0, 2.0, 3.0])
    assert asked == ["b"]


def test_selected_refusals():
    with pytest.raises(ValueError, match="no candidate"):
        st.selected({}, {})
    with pytest.raises(ValueError, match="'a' won on dev but has no held-out scores"):
        st.selected({"a": [1.0]}, {"b": [1.0]})
    with pytest.raises(ValueError, match="holds no score"):
        st.selected({"a": []}, {})


def test_pitfall_38_a_label_that_is_constant_within_domains_is_refused():
    domains = np.repeat(np.arange(11), 80)
    rate_of_domain = np.random.default_rng(1).uniform(size=11)[domains]
    with pytest.raises(st.PseudoReplication, match=r"constant within each of 11 groups .* n is 11, not 880"):
        st.clustered(rate_of_domain, domains, name="the domain's rate")
    with pytest.warns(st.PseudoReplicationWarning, match="the label is constant within each of 11 groups"):
        assert st.clustered(rate_of_domain, domains, then="warn") == 11
    assert st.cluster_means(rate_of_domain, domains).shape == (11,), "the mend that it names"


def test_labels_that_vary_within_a_group_or_stand_alone_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert st.clustered(["x", "x", "y", "x"], ["a", "a", "b", "b"], then="warn") == 4
        assert st.clustered([0.1, 0.2, 0.3], ["a", "b", "c"]) == 3, "one row a group"
        assert st.clustered([], []) == 0
