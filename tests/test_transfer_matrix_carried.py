"""What is carried into a recipient, and by what: on rows whose maps are known rotations."""

import numpy as np
import pytest

from hooks.site import Site
from workbench.interventions.transfer_matrix_carried import (
    carried_as_is,
    carried_between,
    carried_within,
    maps_between,
)
from workbench.interventions.transfer_rows import family_tag
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions

RNG = np.random.default_rng(0)
N, D = 60, 6
TURN = {name: np.linalg.qr(RNG.normal(size=(D, D)))[0] for name in ("sound-0", "color-0", "sound-1")}
WORLD = RNG.normal(size=(N, D)) + np.repeat([[0.0], [3.0]], N // 2, axis=0)
LABELS = ["neutral"] * (N // 2) + ["contrary"] * (N // 2)
IDS = [f"p{n}" for n in range(N)]
DOMAINS = ["sound", "color", "tint"] * (N // 3)


class Held:
    """Rows of all variants, as a store shows them."""

    def __init__(self, labels=None, spoilt=None):
        values = np.concatenate([WORLD @ turn + (spoilt or {}).get(name, 0.0) for name, turn in TURN.items()])
        variants = [name for name in TURN for _ in IDS]
        named = None if labels is None else labels * len(TURN)
        facts = dict(variants=variants, labels=named, tags={"domain": DOMAINS * len(TURN)}, info={"model": "m"})
        self.rows = ArrayRows({Site(0): values}, IDS * len(TURN), **facts)
        self.prompts = {name: {"tags": {"domain": domain}} for name, domain in zip(IDS, DOMAINS, strict=True)}

    def where(self, **conditions):
        return self.rows.where(**conditions)


def pointing(vector, origin=0.0, model="m"):
    return Directions.of([Site(0)], np.atleast_2d(vector), origin=np.full((1, D), float(origin)), model=model)


AXIS = RNG.normal(size=D)
SHIFTS = {name: pointing(AXIS @ turn, origin=n) for n, (name, turn) in enumerate(TURN.items())}
DONORS = {"sound": "sound-0", "color": "color-0"}
POINTS = ArrayRows({Site(0): RNG.normal(size=(5, D))}, info={"model": "m"})


def test_within_one_base_a_direction_arrives_as_it_is():
    found = carried_as_is(("sound", "sound-1"), DONORS, SHIFTS, POINTS, operations=("ablate", "patch"))
    assert [(one.donor, one.domain, one.own) for one in found] == [
        ("own direction", "sound", True), ("sound", "sound", False), ("color", "color", False)
    ]  # fmt: skip
    plain = found[2]
    assert np.allclose(plain.direction.vectors, SHIFTS["color-0"].vectors), "one base: nothing is turned"
    assert np.array_equal(plain.direction.origin, SHIFTS["sound-1"].origin)
    assert plain.controlled and plain.by == "identity" and {one.operations for one in found} == {("ablate", "patch")}


def test_fitted_maps_turn_it_by_what_was_planted():
    held = {"prompts": Held(), "personas": Held(LABELS)}
    methods = ["identity", "procrustes", "ridge"]
    found = carried_within(("sound", "sound-1"), DONORS, SHIFTS, held, POINTS, methods, operations=("ablate",))
    assert [(one.donor, one.by) for one in found] == [
        (donor, f"{how} on {name}") for donor in DONORS for name in held for how in ("procrustes", "ridge")
    ]
    turned = next(one for one in found if one.by == "procrustes on prompts" and one.donor == "color")
    assert np.allclose(turned.direction.vectors, SHIFTS["sound-1"].vectors)
    assert turned.operations == ("ablate",) and not turned.controlled and turned.domain == "color"
    assert turned.beside["map R2"] == pytest.approx(1.0)


def test_maps_within_one_base_are_fitted_outside_both_domains():
    """What the recipient has on prompts about either domain is something else altogether."""
    spoilt = np.array([domain != "tint" for domain in DOMAINS])[:, None] * RNG.normal(size=(N, D)) * 9
    held = {"prompts": Held(spoilt={"sound-1": spoilt})}
    (turned,) = carried_within(("sound", "sound-1"), {"color": "color-0"}, SHIFTS, held, POINTS, ["procrustes"])
    assert np.allclose(turned.direction.vectors, SHIFTS["sound-1"].vectors)


def test_a_donor_that_is_the_recipient_is_its_own_direction_alone():
    same = ("sound", "sound-0"), {"sound": "sound-0"}, SHIFTS
    assert [one.donor for one in carried_as_is(*same, POINTS)] == ["own direction"]
    assert carried_within(*same, {"prompts": Held()}, POINTS, ["ridge"]) == []


def test_maps_between_bases_have_names_of_their_own_and_match_layers_as_told():
    source = {"personas": Held(LABELS).where(variant="sound-0")}
    target = {"personas": Held(LABELS).where(variant="color-0")}
    maps = maps_between(source, target, ["identity", "procrustes", "low_rank"])
    assert list(maps) == ["procrustes on personas, between bases", "low_rank on personas, between bases"]
    told = maps_between(source, target, ["procrustes"], "cka")
    assert list(told) == ["procrustes on personas, between bases, layers by cka"]
    assert next(iter(told.values())).layers == "cka"


def test_between_bases_the_donor_of_the_same_domain_has_the_maps_shuffles_beside_it():
    source = {"prompts": Held().where(variant="sound-0"), "personas": Held(LABELS).where(variant="sound-0")}
    target = {"prompts": Held().where(variant="color-0"), "personas": Held(LABELS).where(variant="color-0")}
    maps = maps_between(source, target, ["procrustes"])
    donors = {"sound": SHIFTS["sound-0"], "tint": SHIFTS["sound-0"]}
    found = carried_between(maps, donors, SHIFTS["color-0"], POINTS, domain="sound", shuffles=3)
    kinds = {(one.donor, one.by.split()[2].strip(","), one.operations): sorted(one.twins) for one in found}
    both = ["full shuffle", "within_class shuffle"]
    assert kinds == {
        ("sound", "prompts", ("ablate",)): ["full shuffle"],
        ("sound", "prompts", ("steer", "patch")): [],
        ("sound", "personas", ("ablate",)): both,
        ("sound", "personas", ("steer", "patch")): [],
        ("tint", "prompts", ("ablate", "steer", "patch")): [],
        ("tint", "personas", ("ablate", "steer", "patch")): [],
    }
    shown = next(one for one in found if len(one.twins) == 2)
    assert all(len(drawn) == 3 for drawn in shown.twins.values())
    assert np.allclose(shown.direction.vectors, SHIFTS["color-0"].vectors)
    full = [abs(float(one.unit[0] @ shown.direction.unit[0])) for one in shown.twins["full shuffle"]]
    assert max(full) < 0.999, "a map of wrong pairs turns another way"
    named = carried_between(
        maps, {"other model": donors["sound"]}, SHIFTS["color-0"], POINTS, domain="color", of="sound"
    )
    assert {(one.donor, one.domain) for one in named} == {("other model", "sound")}


def test_families_of_prompts_are_held_out_whole_by_the_tag_that_they_have():
    values = np.zeros((2, 4), np.float32)
    tags = [{"family": ["a", "b"], "item": ["c", "d"]}, {"item": ["c", "d"]}, {"domain": ["x", "y"]}]
    assert [family_tag(ArrayRows({Site(0): values}, ["p0", "p1"], tags=one)) for one in tags] == [
        "family",
        "item",
        None,
    ]
