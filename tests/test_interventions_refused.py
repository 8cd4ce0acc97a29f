"""Interventions that cannot act are refused with what to do; those that can state themselves in a table."""

import jaxtyping
import numpy as np
import pytest
from workbench_samples import posts, random_directions, random_subspace

from hooks.site import Site
from stores import content_key
from workbench.interventions.ablate import Ablate, KeepOnly
from workbench.interventions.steer import Clamp, Steer
from workbench.subspace.directions import Directions


def narrow(model):
    return Directions.of([Site(0)], np.ones(7), origin=np.ones((1, 7)), model="another-model")


def still(model):
    zeros = np.zeros((model.n_layers, model.d_model))
    return Directions.of(posts(model), zeros, origin=zeros, residual_norm=np.ones(model.n_layers))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: Ablate(narrow(m), 0), r"vectors of width 7, but this model's residual .* 32 wide: .*another-mod"),
        (lambda m: Steer(narrow(m), 0), "Steer has vectors of width 7"),
        (lambda m: Clamp(narrow(m), 0, 1.0), "Clamp has vectors of width 7"),
        (lambda m: KeepOnly(random_subspace(m).replace(basis=np.ones((3, 1, 1)), mean=np.ones((3, 1))), 0),
         "KeepOnly has vectors of width 1"),
        (lambda m: Ablate(random_directions(m), 3), r"Ablate\(layer=3\) is outside this model: expected 0\.\.2"),
        (lambda m: Steer(random_directions(m), [0, -1]), r"Steer\(layer=-1\) is outside this model"),
        (lambda m: Ablate(random_directions(m), "some"), r"layer='some'\) is unknown: expected a layer, a list"),
        (lambda m: KeepOnly(random_subspace(m), []), r"KeepOnly\(layer=\[\]\) names no layer"),
        (lambda m: Ablate(random_directions(m)[0], 1), "no vector at resid_post:1: .* holds resid_post:0"),
        (lambda m: Ablate(random_directions(m), source=7), "there is no vector at resid_post:7"),
        (lambda m: KeepOnly(random_subspace(m, sites=[Site(0)]), 1), "the subspace given holds resid_post:0"),
        (lambda m: Ablate(random_directions(m), to="median"), r"to='median'\) is unknown: expected 'mean' or 'zero'"),
        (lambda m: Steer(random_directions(m, role="read"), 0), "was given a read-out vector: expected a write vector"),
        (lambda m: Clamp(random_directions(m, role="read"), 0, 1.0), "Clamp was given a read-out vector"),
        (lambda m: Steer(random_directions(m, residual_norm=None), 0, unit="residual"), "use unit='raw'"),
        (lambda m: Steer(random_directions(m), 0, unit="sigma"), r"unit='sigma'\) is unknown"),
        (lambda m: Steer(random_directions(m), 0, at="answer"), "scope 'answer' is unknown: expected one of prompt"),
        (lambda m: Ablate(still(m)), r"Ablate\(layer=all\) has nothing to act with: .* norm 0 at every site"),
        (lambda m: Steer(still(m), 0), r"Steer\(layer=0\) has nothing to act with: .* norm 0"),
        (lambda m: Clamp(still(m), "all", 1.0), r"Clamp\(layer=all\) has nothing to act with: .* norm 0"),
    ],
)  # fmt: skip
def test_what_cannot_act_says_what_to_do(llama, make, says, monkeypatch):
    # The type checker of the test run would be first to refuse some of these; a user has none.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        make(llama).edits(llama)


def test_a_table_can_hold_what_they_say_of_themselves(llama):
    """Plain JSON; the same settings give the same words, and each setting that was changed shows."""
    v, subspace = random_directions(llama), random_subspace(llama)
    made = [
        Ablate(v), Ablate(v, 1), Ablate(v, [0, 1]), Ablate(v, to="zero"), Ablate(v, at="last"), Ablate(v, source=1),
        Steer(v, 1), Steer(v, 1, 2.0), Steer(v, 1, unit="residual"), Steer(v, 1, at="re:^a$"), Steer(v, 1, source=0),
        Clamp(v, 1, 2.0), Clamp(v, 1, 3.0), KeepOnly(subspace, 1), KeepOnly(subspace, 1, source=0),
    ]  # fmt: skip
    assert len({content_key(one.describe()) for one in made}) == len(made)
    assert Ablate(v, [0, 1]).describe()["layers"] == "0,1" and Ablate(v, [0, 1]).describe()["layer"] is None
    assert Ablate(v, [1]).describe()["layer"] == Ablate(v, np.int64(1)).describe()["layer"] == 1


def test_vectors_of_another_model_of_the_same_width_are_refused(llama):
    """Equal widths make no shared residual space; where one is shared, the user says so."""
    foreign = random_directions(llama).replace(model="another-llama")
    with pytest.raises(ValueError, match="vectors of the model 'another-llama', but this is 'LlamaForCausalLM'"):
        Ablate(foreign, to="zero").edits(llama)
    assert Ablate(foreign.replace(model="LlamaForCausalLM"), to="zero").edits(llama)
    assert Ablate(foreign.replace(model=""), to="zero").edits(llama)  # imported: nothing is known of it
