"""What a repair left, against planted truth: a shift that is gone, smaller, moved, or both; and what it does."""

import numpy as np
import pytest
from test_mitigation import judged

import workbench as wb
from hooks.site import Site
from workbench.behaviour.differences import Difference
from workbench.behaviour.relocation import decided
from workbench.statistics import Interval, sign_flip_test
from workbench.subspace.arrays import ArrayRows

WIDTH, HARM, ELSEWHERE = 16, 2.0, 1.2
E0, E1 = np.eye(WIDTH)[0], np.eye(WIDTH)[1]
SITE = Site(3)


def rows(values, names=None):
    return ArrayRows({SITE: values}, names, info={"model": "m", "scope": "last"})


def planted(left, n=120, noise=0.3, seed=0):
    """repaired, harmful, base: the harm is 2·e0, and `left` is what the repaired model has of its own."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((n, WIDTH)) * 3
    harmful = base + HARM * E0 + noise * rng.standard_normal(base.shape)
    return rows(base + left + noise * rng.standard_normal(base.shape)), rows(harmful), rows(base)


@pytest.mark.parametrize(
    ("left", "verdict", "along", "beside"),
    [
        (0 * E0, "removed", 0, 0),
        (0.5 * HARM * E0, "hidden", 0.5, 0),
        (ELSEWHERE * E1, "moved", 0, ELSEWHERE / HARM),
        (0.5 * HARM * E0 + ELSEWHERE * E1, "hidden and moved", 0.5, ELSEWHERE / HARM),
    ],
    ids=["removed", "hidden", "moved", "both"],
)
def test_what_was_planted_is_found(left, verdict, along, beside):
    found = wb.rediscovered(*planted(left))
    assert found.verdict(SITE) == verdict == found.verdict(3)
    measured = found.at(3)
    assert measured[0].value == pytest.approx(along, abs=0.05) and measured[1].value == pytest.approx(beside, abs=0.05)
    assert measured[0].value in measured[0].interval and measured[1].value in measured[1].interval
    assert found.prompts == found.clusters == 120
    if beside:
        assert abs(found.new.unit[0] @ E1) > 0.95
    assert abs(found.new.unit[0] @ found.old.unit[0]) < 1e-9
    assert found.new.norm[0] == pytest.approx(found.old.norm[0]) and found.old.norm[0] == pytest.approx(HARM, rel=0.1)


def test_noise_alone_has_nothing_beside_on_average_and_intervals_cover():
    """A rest that was fitted and measured on the same prompts would have a length; on others it has none."""
    found = [wb.rediscovered(*planted(0.5 * HARM * E0, n=40, noise=1.0, seed=s), draws=9).at(3) for s in range(150)]
    along, beside = zip(*found, strict=True)
    assert abs(np.mean([one.value for one in beside])) < 0.03
    assert np.mean([0.0 in one.interval for one in beside]) > 0.9
    assert np.mean([0.5 in one.interval for one in along]) > 0.85
    assert wb.rediscovered(*planted(0 * E0, n=8, noise=3.0, seed=2)).verdict(3) == "undecided"


def test_what_an_interval_leaves_open_is_undecided():
    found = [wb.rediscovered(*planted(0.15 * HARM * E0, n=20, noise=1.0, seed=s), draws=9).at(3)[0] for s in range(20)]
    low = [one.interval.low > 0.1 for one in found]
    assert [one.presence == "present" for one in found] == low and sum(low) < 5
    assert sum(one.presence == "undecided" and one.value > 0.1 for one in found) > 5


def test_along_equals_its_naive_twin_up_to_the_folds():
    repaired, harmful, base = planted(0.4 * HARM * E0 + ELSEWHERE * E1, n=400)
    b, h, r = (one.values(SITE, np.float64).mean(axis=0) for one in (base, harmful, repaired))
    naive = (r - b) @ (h - b) / ((h - b) @ (h - b))
    found = wb.rediscovered(repaired, harmful, base)
    assert found.at(3)[0].value == pytest.approx(naive, abs=0.01)
    cosine = (r - b) @ (h - b) / np.linalg.norm(r - b) / np.linalg.norm(h - b)
    assert (
        found.cosine[0] == pytest.approx(cosine) and found.cosine_interval[0, 0] < cosine < found.cosine_interval[0, 1]
    )
    assert found.reliability[0].min() > 0.95 and found.p[0] < 0.05


def test_the_null_of_the_cosine_is_of_directions_that_have_nothing_to_do_with_the_harm():
    random = np.random.default_rng(5).standard_normal((60, WIDTH))
    found = [wb.rediscovered(*planted(one, n=40, seed=s), draws=199) for s, one in enumerate(random)]
    inside = [one.null[0, 0] < one.cosine[0] < one.null[0, 1] for one in found]
    assert 0.78 < np.mean(inside) < 0.99  # 90 % expected
    width = np.mean([one.null[0, 1] - one.null[0, 0] for one in found])
    assert width == pytest.approx(2 * 1.645 / np.sqrt(WIDTH), rel=0.15)


def test_rows_are_joined_by_prompt_and_intervals_count_clusters():
    repaired, harmful, base = planted(ELSEWHERE * E1)
    values = base.values(SITE, np.float64)
    names = [str(n) for n in range(120)]
    shuffled = rows(values[::-1].copy(), names[::-1])
    same = wb.rediscovered(repaired, harmful, base)
    assert wb.rediscovered(repaired, harmful, shuffled).at(3)[1].value == pytest.approx(same.at(3)[1].value)
    grouped = wb.rediscovered(repaired, harmful, base, clusters={name: f"{int(name) // 10}" for name in names})
    assert grouped.clusters == 12 and grouped.prompts == 120


def test_rediscovered_refuses():
    repaired, harmful, base = planted(0 * E0, n=3)
    with pytest.raises(ValueError, match=r"3 prompts .* expected 4 or more"):
        wb.rediscovered(repaired, harmful, base)
    repaired, harmful, base = planted(0 * E0)
    with pytest.raises(ValueError, match="equals the base at"):
        wb.rediscovered(repaired, base, base)


def change(value, half=0.03):
    interval = Interval(value - half, value + half, "t")
    test = sign_flip_test([value or 0.1] * 12)
    return Difference("organism", "a", "b", value, interval, test, pairs=60, families=12, dropped=0, judges={})


GONE, SMALLER, MOVED = 0 * E0, 0.5 * HARM * E0, ELSEWHERE * E1


@pytest.mark.parametrize(
    ("left", "misaligned", "new", "draws", "verdict"),
    [
        (GONE, 0.0, 0.0, (), "removed"),
        (GONE, 0.3, 0.0, (), "left, not located"),
        (GONE, 0.09, 0.0, (), "undecided"),
        (SMALLER, 0.3, 0.0, (), "hidden"),
        (SMALLER, 0.0, 0.0, (), "hidden"),
        (MOVED, 0.3, 0.5, (0.1, 0.2), "relocated"),
        (MOVED, 0.0, 0.5, (), "relocated"),
        (MOVED, 0.0, 0.0, (0.1,), "removed"),
        (MOVED, 0.0, 0.5, (0.1, 0.6), "removed"),
        (MOVED, 0.0, 0.1, (), "undecided"),
        (SMALLER + MOVED, 0.3, 0.5, (), "hidden and relocated"),
    ],
)
def test_removed_hidden_or_relocated_is_decided_from_shares_and_effects(left, misaligned, new, draws, verdict):
    geometry = wb.rediscovered(*planted(left))
    found = decided(geometry, 3, left=change(misaligned), old=change(0.8), new=change(new), draws=draws)
    assert found.verdict == verdict and str(found).startswith(verdict)


def test_without_a_positive_control_nothing_is_said():
    """Where the old direction does not induce the harm in the base, that the new one does not either says nothing."""
    geometry = wb.rediscovered(*planted(MOVED))
    assert decided(geometry, 3, left=change(0.0), old=change(0.0), new=change(0.0)).verdict == "undecided"
    smaller = wb.rediscovered(*planted(SMALLER))  # there, and without effect: nothing is hidden in it
    assert decided(smaller, 3, left=change(0.0), old=change(0.0), new=change(0.0)).verdict == "undecided"


def test_relocation_reads_the_conditions_that_were_asked():
    geometry = wb.rediscovered(*planted(MOVED))
    conditions = wb.relocation_conditions(geometry, "arm0dose1", [0], coefficients={"base + new": 0.5}, controls=2)
    said = {"base": 0, "repaired": 1, "base + old": 16, "base + new": 12, "base + random 0": 1, "base + random 1": 0}
    said |= {"repaired - old": 1, "repaired - new": 0}
    assert set(conditions) == set(said) and conditions["base + new"][1].coefficient == 0.5
    assert conditions["base + random 1"][1].coefficient == 0.5 and conditions["repaired - old"][0] == "arm0dose1"
    plan = {name: ("c" * n + "r" * (20 - n), "r" * 20, "r" * 20) for name, n in said.items()}
    found = wb.relocation(judged(plan), geometry, 3, margin=0.2)
    assert found.verdict == "relocated" and found.draws == pytest.approx((0.05, 0.0))
    assert found.tests["left"].value == pytest.approx(0.05) and found.tests["new ablated"].value == pytest.approx(-0.05)
    entries = {entry["detail"]: entry for entry in found.entries() if entry["split"] == "confirm"}
    assert entries["new"]["control"]["draws"] == pytest.approx([0.05, 0.0])
    assert entries[f"relocated: {found.because}"]["metric"] == "verdict after the repair"
    assert all(entry["n"] and entry["clusters"] for entry in found.entries())
    assert all(entry["interval"] for entry in found.entries() if entry["metric"] != "verdict after the repair")


def test_each_direction_gets_the_strength_that_induces_most():
    geometry = wb.rediscovered(*planted(MOVED))
    arms = wb.inducing_arms(geometry, [0.5, 1.0, 2.0], layer=[0])
    said = {"base + old at 0.5": 4, "base + old at 1": 12, "base + old at 2": 1}
    said |= {"base + new at 0.5": 2, "base + new at 1": 2, "base + new at 2": 0}
    plan = {name: ("c" * n + "r" * (20 - n), "r" * 20, "r" * 20) for name, n in said.items()}
    assert set(arms.conditions) == set(said)
    assert wb.strongest(judged(plan), arms) == {"base + old": 1.0, "base + new": 0.5}
