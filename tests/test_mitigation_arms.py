"""The arms of a mitigation study: twins of equal strength, adapters and conditions, doses trained one by one."""

import numpy as np
import pytest
from conftest import chat

import workbench as wb
from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions
from workbench.training import adapter_doses as doses_module

STEER = Directions.of([Site(0)], np.eye(1, 8))


def test_twins_have_equal_length_and_ablations_equal_energy(rng_rows):
    v = Directions.of([Site(0)], 3.0 * np.eye(1, 8), origin=np.zeros((1, 8)))
    arms = wb.Arms(
        {"steer": {1: ("tuned", wb.Steer(v, layer=0))}, "ablate": {1: ("tuned", wb.Ablate(v))}, "lora": {1: "tuned"}}
    )
    twins = arms.twins(arms.conditions, 4, rng_rows)
    assert {name: list(kinds) for name, kinds in twins.of.items()} == {
        "steer at 1": ["isotropic"], "ablate at 1": ["energy_matched"],
    }  # fmt: skip
    values = rng_rows.values(Site(0), np.float64)
    for variant, act in twins.of["ablate at 1"]["energy_matched"].values():
        held = ((values @ act.direction.unit[0]) ** 2).sum()
        assert variant == "tuned" and held == pytest.approx(((values @ v.unit[0]) ** 2).sum(), rel=1e-4)
    for _, act in twins.of["steer at 1"]["isotropic"].values():
        assert act.direction.norm[0] == pytest.approx(3.0) and abs(act.direction.unit[0, 0]) < 0.99
    with pytest.raises(ValueError, match="2 interventions"):
        wb.Arms({"both": {1: ("tuned", wb.Steer(v, 0), wb.Ablate(v))}}).twins(["both at 1"], 2)


@pytest.fixture
def rng_rows():
    values = np.random.default_rng(0).standard_normal((40, 8)) * np.arange(8, 0, -1)
    return ArrayRows({Site(0): values}, info={"scope": "all"})


def test_arms_are_adapters_and_conditions(tmp_path):
    done = tmp_path / "done"
    done.mkdir()
    with pytest.raises(ValueError, match=r"1 of 1 adapters are not finished \(first: .*done"):
        wb.Arms({"repair": {5: done}})
    (done / "adapter_config.json").write_text("{}")
    arms = wb.Arms({"repair, same": {5: done}, "steer": {0.5: ("tuned", wb.Steer(STEER, 0))}})
    (variant,) = arms.adapters
    assert arms.adapters[variant] == done and arms.variant("repair, same", 5) == variant and "." not in variant
    assert arms.conditions["repair, same at 5"] == variant and arms.conditions["steer at 0.5"][0] == "tuned"
    with pytest.raises(ValueError, match="is a condition"):
        arms.variant("steer", 0.5)
    with pytest.raises(ValueError, match="'empty' has no dose"):
        wb.Arms({"empty": {}})


def test_adapter_doses_train_each_dose_with_its_own_settings(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(
        doses_module, "train_lora", lambda base, rows, *, to, **settings: trained.append((to, settings))
    )
    rows = [chat("a", "a", response="b")]
    doses = {5: {"steps": 5}, 20: {"steps": 20}}
    found = wb.adapter_doses("base", rows, doses, to=tmp_path, steps=40, rank=2)
    assert trained == [(tmp_path / "5", {"steps": 5, "rank": 2}), (tmp_path / "20", {"steps": 20, "rank": 2})]
    trained.clear()
    assert wb.adapter_doses("base", rows, doses, to=tmp_path, part="1/2", rank=2) == found
    assert len(trained) == 1


@pytest.fixture(scope="module")
def measured():
    """A direction with a mean and residual norms."""
    rng = np.random.default_rng(0)
    harmful, base = (ArrayRows({Site(0): rng.standard_normal((12, 8)) + one}) for one in (1.0, 0.0))
    return wb.difference_of_means(harmful, base)


def test_the_usual_arms_begin_where_they_should(measured, monkeypatch, tmp_path):
    """A repair goes on from the harmful adapter, with its rank; a new one has its own; prevention edits meanwhile."""
    trained = {}
    monkeypatch.setattr(
        doses_module, "train_lora", lambda base, rows, *, to, **settings: trained.update({to: (rows[0].id, settings)})
    )
    harmful, benign = [chat("h", "h", response="x")], {"same": [chat("s", "s", response="y")]}
    benign["other"] = [chat("o", "o", response="z")]
    given = dict(start="harm", to=tmp_path, repair_steps=[5, 20], coefficients=[0.5], layer=[0], rank=2, alpha=4)
    arms = wb.trained_arms("base", harmful, benign, measured, targets="all-linear", steps=40, **given)
    assert list(arms) == [
        "repair, same domain", "repair, other domain", "from the base, no repair", "preventative steering",
        "preventative steering, random direction", "ablation in training",
    ]  # fmt: skip
    asked = {arm: [trained[folder] for folder in doses.values()] for arm, doses in arms.items()}
    assert asked["repair, other domain"] == [("o", {"start": "harm", "steps": n}) for n in (5, 20)]
    new = {"rank": 2, "alpha": 4, "targets": "all-linear", "steps": 40}
    assert asked["from the base, no repair"] == [("s", new | {"steps": n}) for n in (5, 20)]
    for arm, same in (("preventative steering", True), ("preventative steering, random direction", False)):
        ((row, settings),) = asked[arm]
        (act,) = settings.pop("during")
        assert row == "h" and settings == new and act.coefficient == 0.5
        assert np.allclose(act.direction.vectors, measured.vectors) == same
        assert np.allclose(act.direction.norm, measured.norm)
    ((row, settings),) = asked["ablation in training"]
    assert row == "h" and isinstance(settings["during"][0], wb.Ablate) and "start" not in settings


def test_edits_of_a_fine_tune_push_against_the_direction_where_the_answer_is_chosen(measured):
    arms = wb.edited_arms(measured, 34, coefficients=[0.5], shares=[0.1])
    assert list(arms)[1] == "steering, layer 20, in residual norms" and len(arms["ablation, one layer"]) == 7
    acts = [act for doses in arms.values() for variant, act in doses.values() if variant == "tuned"]
    steered = [act for act in acts if isinstance(act, wb.Steer)]
    assert len(acts) == 1 + 1 + 7 + 1 and [act.coefficient for act in steered] == [-0.5, -0.1]
    assert {act.at for act in steered} == {"answering"} and [act.unit for act in steered] == ["raw", "residual"]
