"""General and narrow parts, known directions, and directions fitted on other domains, against what is planted."""

from __future__ import annotations

import numpy as np
import pytest
from planted_domains import SITE, D, domains, nothing, stream, units

import workbench as wb
from workbench.statistics import p_value
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.convergence_directions import domain_directions, label_directions
from workbench.subspace.convergence_null import drawn_units
from workbench.subspace.directions import Directions
from workbench.subspace.grassmann import stream_rows

OTHER = wb.Site(4)


def test_parts_are_those_along_the_mean_of_the_others_and_the_rest():
    made = domains({"a": 6}, agree=0.6, alone=1)
    parts = wb.general_and_narrow(made, stream(), draws=99)
    every = units(made)
    for i, (name, one) in enumerate(parts.items()):
        others = np.delete(every, i, axis=0).mean(axis=0)
        common = others / np.linalg.norm(others)
        own = np.mean([each.vectors[0] for each in made[name]], axis=0)
        assert one.general.vectors[0] == pytest.approx((own @ common) * common)
        assert one.narrow.vectors[0] == pytest.approx(own - (own @ common) * common)
        assert one.share[0] == pytest.approx((own @ common) ** 2 / (own @ own))
        lengths = {part: v.norm[0] for part, v in one.of_one_length().items()}
        assert lengths == pytest.approx(dict.fromkeys(("own", "general", "narrow"), np.linalg.norm(own)))
    assert parts["a0"].p[0] == 0.01 and parts["lone0"].p[0] > 0.05
    with pytest.raises(ValueError, match="2 domains"):
        wb.general_and_narrow({name: made[name] for name in ("a0", "a1")})


def test_a_known_direction_is_found_by_the_domains_that_have_it():
    made = domains({"a": 4, "b": 3})
    marks = {"a's": Directions.of([SITE], units(made)[:4].sum(axis=0)), "any": nothing(None, 1, 9)["d0"][0]}
    found = wb.near_landmarks(made, marks, stream(), draws=199)
    assert found["a's"].cosine[:, 0] == pytest.approx(units(made) @ marks["a's"].unit[0])
    random = drawn_units(7, marks["any"].unit, 199, rows=stream_rows(stream(), SITE)).along[:, :, 0]
    largest = np.abs(random).max(axis=1)
    assert found["any"].p[:, 0] == pytest.approx([p_value(abs(one), largest) for one in found["any"].cosine[:, 0]])
    assert (found["a's"].p[:4] == 1 / 200).all() and found["a's"].p[4:].min() > 0.05 and found["any"].p.min() > 0.05


@pytest.fixture
def captured():
    """Twelve prompts of three domains and none; every fine-tune adds its own vector to what is not its domain, and
    another to what is; at the second site x alone moves."""
    rng = np.random.default_rng(0)
    about = {f"p{i}": (("x", "y", "z", None))[i % 4] for i in range(12)}
    base, added = rng.standard_normal((12, D)), rng.standard_normal((4, D))
    variants = {"base": base}
    for k, name in enumerate(("x", "y", "z")):
        shift = np.stack([added[3] if about[f"p{i}"] == name else added[k] for i in range(12)])
        variants |= {f"{name}-seed{s}": base + shift for s in (0, 1)}
    names = [name for name in variants for _ in range(12)]
    values = {SITE: np.concatenate(list(variants.values())), OTHER: np.tile(base, (len(variants), 1))}
    values[OTHER][12:36] += 1.0
    return ArrayRows(values, [*about] * len(variants), variants=names), about, added


def test_a_direction_is_fitted_on_prompts_about_other_domains(captured):
    rows, about, added = captured
    found = domain_directions(rows, {name: [f"{name}-seed0", f"{name}-seed1"] for name in "xyz"}, about)
    assert found.sites == (SITE,) and found.fitted_on == 9 and not found.left_out
    for k, name in enumerate("xyz"):
        assert found.mean[name].vectors[0] == pytest.approx(added[k], abs=1e-6)
    on_all = found.measured(["x-seed0"])["x-seed0"][0]
    assert on_all == pytest.approx(added[0] * 9 / 12 + added[3] * 3 / 12, abs=1e-6)
    assert found.middle() == 3
    with pytest.raises(ValueError, match="layer 4: expected one"):
        found.middle(4)


def test_a_fine_tune_that_moved_nothing_leaves_its_domain_out(captured):
    rows, about, _ = captured
    groups = {"still": ["base"], **{name: [f"{name}-seed0"] for name in "xyz"}}
    still = ArrayRows(
        {site: np.concatenate([rows.values(site), rows.where(variant="base").values(site)]) for site in rows.sites},
        [*rows.prompt_ids, *about], variants=[*rows.variants, *["still-seed0"] * 12],
    )  # fmt: skip
    found = domain_directions(still, {**groups, "still": ["still-seed0"]}, about)
    assert list(found.directions) == ["x", "y", "z"] and "still" in found.left_out
    with pytest.raises(ValueError, match="directions of 2 domains"):
        domain_directions(still, {"still": ["still-seed0"], "x": ["x-seed0"], "y": ["y-seed0"]}, about)


def test_directions_of_labels_are_against_the_reference():
    values = np.arange(12.0).reshape(6, 2) ** 2
    rows = ArrayRows({SITE: values}, labels=["good", "bad", "odd"] * 2)
    found = label_directions(rows, "good")
    assert list(found) == ["bad", "odd"]
    assert found["bad"].vectors[0] == pytest.approx(values[[1, 4]].mean(axis=0) - values[[0, 3]].mean(axis=0))
    assert list(label_directions(rows, "absent")) == ["bad", "odd"]  # the first label, then
    with pytest.raises(ValueError, match="1 labels"):
        label_directions(rows.where(label="good"))
