"""sweep: cells as rows against one run a cell, its controls, and what each row states."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from own_hooks import everything
from torch.nn.functional import kl_div
from workbench_samples import ask, cells_of, first_id, random_directions, random_subspace

from hooks.prompt import read_prompts
from hooks.site import Site
from workbench.behaviour.evaluate import evaluate
from workbench.behaviour.judges import judge
from workbench.capturing import capture
from workbench.interventions.ablate import Ablate, KeepOnly
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep
from workbench.subspace import controls
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.means import difference_of_means

SILENT = {"progress": False, "max_new_tokens": 4}
CONTAINS = judge("rule:contains")


# Cells as rows.


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_every_cell_equals_a_run_of_its_own(request, family, questions, picture):
    """Each cell and prompt alone through the model: the same text; the same logits to 1e-5 of their scale, since the
    batch has another shape."""
    model = request.getfixturevalue(family)
    if family == "gemma3":
        questions = [*questions[:3], ask("seen", picture, "what?"), ask("both", "in ", picture, " or ", picture, "?")]
    cells = cells_of(model)
    table = sweep(model, questions, cells, judge=CONTAINS, max_tokens=600, **SILENT)
    assert len(table) == (1 + len(cells)) * len(questions) and len(table.plan) >= 3
    yes, no = first_id(model, "yes"), first_id(model, "no")
    for c, cell in enumerate([None, *cells]):
        edits = {} if cell is None else cell.edits(model)
        rows = {row["prompt"]: row for row in table.rows(cell=c)}
        assert rows.keys() == {prompt.id for prompt in questions}
        for prompt in questions:
            batch, row = model.encode([prompt]), rows[prompt.id]
            logits = model.run(batch, None, edits).logits[0].double()
            scale = float(logits.abs().max())
            assert row["logit_difference"] == pytest.approx(float(logits[no] - logits[yes]), abs=1e-5 * scale)
            shares = logits.softmax(-1)
            assert row["p_contrary"] == pytest.approx(float(shares[no]), abs=1e-4)
            assert row["p_right"] == pytest.approx(float(shares[yes]), abs=1e-4)
            top = int(logits.argmax())
            assert row["choice"] == ("contrary" if top == no else "right" if top == yes else "other")
            alone = model.generate(batch, None, edits, max_new_tokens=4)
            assert (row["text"], row["finished"]) == (alone.texts[0], alone.finished[0])
            assert row["category"] == CONTAINS.score(prompt, alone.texts[0], finished=alone.finished[0]).category
    differences = {c: [row["logit_difference"] for row in table.rows(cell=c)] for c in range(len(cells) + 1)}
    assert all(np.abs(np.subtract(differences[0], differences[c])).max() > 1e-2 for c in differences if c), "meta-test"


def test_the_first_cell_is_the_unedited_model(llama, questions, neutral):
    table = sweep(llama, questions, cells_of(llama)[:1], judge=CONTAINS, neutral=neutral, **SILENT)
    for row in table.rows(cell=0):
        assert row["intervention"] == "none" and row["kl_neutral"] == 0.0 and row["edited"] == 0
        assert row["layer"] is row["energy_removed"] is row["leftover"] is row["control"] is None
    plain = evaluate(llama, questions, CONTAINS, **SILENT)
    for name in ("prompt", "text", "choice", "logit_difference", "domain"):
        assert plain.column(name) == [row[name] for row in table.rows(cell=0)]
    under = evaluate(llama, questions, CONTAINS, intervention=cells_of(llama)[0], **SILENT)
    assert under.rows(cell=1)[0]["intervention"] == "ablate" and len(under) == 12


@pytest.mark.parametrize("max_tokens", [4096, 60])
def test_the_neutral_divergence_by_hand(llama, questions, neutral, max_tokens):
    """Mean over the neutral prompts of KL(unedited ‖ edited), in nats; the same whether they fit one batch or not."""
    cells = cells_of(llama)
    table = sweep(llama, questions, cells, neutral=neutral, max_tokens=max_tokens, **SILENT)
    for c, cell in enumerate(cells, start=1):
        terms = []
        for prompt in neutral:
            batch = llama.encode([prompt])
            base, edited = (
                llama.run(batch, None, e).logits[0].double().log_softmax(-1) for e in ({}, cell.edits(llama))
            )
            terms.append(float(kl_div(edited, base, log_target=True, reduction="sum")))
        found = {row["kl_neutral"] for row in table.rows(cell=c)}
        # Squares of float32 rounding: relative to the terms, and absolutely where nothing happens.
        assert len(found) == 1 and found.pop() == pytest.approx(np.mean(terms), rel=1e-4, abs=1e-9)
        assert np.mean(terms) > 1e-4, "the meta-test"
    assert "kl_neutral" in table.columns
    assert set(sweep(llama, questions, cells[:1], **SILENT).column("kl_neutral")) == {None}


def test_what_was_edited_and_removed_by_hand(llama, questions):
    """Counts of positions in the scope, and shares of energy without position 0, of the prompt as it is read; float64
    by hand."""
    v, layer = random_directions(llama), 1
    cells = [Ablate(v, layer), Ablate(v, layer, to="zero"), Ablate(v, layer, at="last"), Ablate(v), Steer(v, layer)]
    table = sweep(llama, questions, cells, **SILENT)
    unit, origin = v.unit[layer], v.origin[layer]
    for prompt in questions:
        resid = llama.run(llama.encode([prompt]), {Site(layer): everything}).kept[Site(layer)][0].double().numpy()
        rest = resid[1:]
        along, energy = (rest - origin) @ unit, ((rest - origin) ** 2).sum(axis=1)
        to_mean, to_zero, at_last, everywhere, steered = (table.rows(cell=c, prompt=prompt.id)[0] for c in range(1, 6))
        assert to_mean["energy_removed"] == pytest.approx((along**2).sum() / energy.sum(), rel=1e-5)
        assert to_zero["energy_removed"] == pytest.approx(((rest @ unit) ** 2).sum() / energy.sum(), rel=1e-5)
        assert at_last["energy_removed"] == pytest.approx(along[-1] ** 2 / energy[-1], rel=1e-5)
        counts = [row["edited"] for row in (to_mean, to_zero, at_last, everywhere, steered)]
        assert counts == [len(resid), len(resid), 1, 3 * len(resid), len(resid)]
        assert steered["energy_removed"] is None and steered["leftover"] is None
        assert max(row["leftover"] for row in (to_mean, to_zero, at_last, everywhere)) < 1e-6


def test_what_a_cell_states_does_not_depend_on_its_company(llama, questions):
    """A cell that removes nothing, batched with one that does, must not seem to remove something; nor hide it."""
    v = random_directions(llama)
    together = sweep(llama, questions, [Ablate(v, 1), Steer(v, 1), KeepOnly(random_subspace(llama), 1)], **SILENT)
    for c, cell in enumerate([Ablate(v, 1), Steer(v, 1), KeepOnly(random_subspace(llama), 1)], start=1):
        alone = sweep(llama, questions, [cell], **SILENT)
        for name in ("edited", "energy_removed", "leftover"):
            found, expected = ([row[name] for row in t.rows(cell=n)] for t, n in ((together, c), (alone, 1)))
            if expected[0] is None:
                assert found == expected
            else:
                assert np.allclose(found, expected, rtol=1e-5, atol=1e-7), (type(cell).__name__, name)


def test_a_pad_without_an_embedding_hides_nothing(llama, questions):
    """The residual of a pad is zero there: what is left of a direction, over a length of zero, is no number."""
    sites = [Site(0, "resid_pre"), *(Site(layer) for layer in range(3))]
    v = random_directions(llama, sites, origin=np.full((4, llama.d_model), 40.0))
    table = sweep(llama, questions, [Ablate(v)], **SILENT)
    assert len(table.plan) < len(questions), "prompts of several lengths share a batch"
    assert max(row["leftover"] for row in table.rows(cell=1)) < 1e-6
    assert all(row["leftover"] == row["leftover"] for row in table.rows(cell=1)), "no NaN"


# Controls.


@dataclass(frozen=True, eq=False)
class Noted:
    """Steers, and notes with which direction."""

    direction: object
    layer: int
    seen: list = field(default_factory=list)

    def edits(self, model):
        self.seen.append((self.layer, self.direction))
        return Steer(self.direction, self.layer).edits(model)

    def describe(self):
        return Steer(self.direction, self.layer).describe()


@pytest.fixture
def rows_of(llama):
    """Activations that vary in four of 32 dimensions."""
    rng = np.random.default_rng(3)
    basis = rng.standard_normal((3, 4, llama.d_model))
    return ArrayRows({f"resid_post:{layer}": rng.standard_normal((30, 4)) @ basis[layer] + 5 for layer in range(3)})


def test_controls_number_kinds_norms_and_draws(llama, questions, rows_of):
    v, seen = random_directions(llama), []
    cells = [Noted(v, 0, seen), Noted(v, 2, seen)]
    table = sweep(llama, questions[:2], cells, controls=3, activations=rows_of, seed=5, **SILENT)
    kinds = ("isotropic", "energy_matched", "orthogonal")
    count = Counter((row["control"], row["layer"], row["draw"]) for row in table.rows(control=lambda c: c is not None))
    assert count == {(kind, layer, draw): 2 for kind in kinds for layer in (0, 2) for draw in range(3)}
    twins = seen[2:]  # cells first, then kind by kind, cell by cell, draw by draw
    assert [layer for layer, _ in twins] == [0, 0, 0, 2, 2, 2] * 3
    for n, kind in enumerate(kinds):
        at_0, at_2 = ([twin for _, twin in twins[6 * n + 3 * m : 6 * n + 3 * m + 3]] for m in (0, 1))
        for one, other in zip(at_0, at_2, strict=True):
            assert np.array_equal(one.unit, other.unit), "the same draw at every layer: a maximum over cells has a null"
            assert np.allclose(one.norm, v.norm, rtol=1e-12) and np.array_equal(one.origin, v.origin)
            assert one.kind.startswith(kind.replace("_", " "))
            if kind == "orthogonal":
                assert np.abs(np.einsum("sd,sd->s", one.unit, v.unit)).max() < 1e-9
        drawn = controls.energy_matched(v, rows_of, 3, 5) if n == 1 else getattr(controls, kind)(v, 3, 5)
        assert all(np.array_equal(one.unit, twin.unit) for one, twin in zip(at_0, drawn, strict=True))
        assert abs(at_0[0].unit[0] @ at_0[1].unit[0]) < 0.99, "different draws"
    again: list = []
    sweep(llama, questions[:2], [Noted(v, 0, again)], controls=3, activations=rows_of, seed=5, **SILENT)
    assert np.array_equal(again[1][1].unit, twins[0][1].unit), "the seed decides the draws"
    other: list = []
    sweep(llama, questions[:2], [Noted(v, 0, other)], controls=3, activations=rows_of, seed=6, **SILENT)
    assert not np.array_equal(other[1][1].unit, twins[0][1].unit)


def test_control_kinds_that_can_be_drawn_are_the_default(llama, questions, rows_of):
    cells = [Ablate(random_directions(llama), 1)]
    without = sweep(llama, questions[:2], cells, controls=1, **SILENT)
    assert {row["control"] for row in without.rows()} == {None, "isotropic", "orthogonal"}
    chosen = sweep(llama, questions[:2], cells, controls=1, control_kinds=["orthogonal"], activations=rows_of, **SILENT)
    assert {row["control"] for row in chosen.rows()} == {None, "orthogonal"}


@pytest.mark.parametrize(
    ("cells", "options", "says"),
    [
        (
            lambda m: [Ablate(random_directions(m), 1)],
            {"control_kinds": ["shuffled"]},
            "'shuffled' is unknown: expected",
        ),
        (lambda m: [Ablate(random_directions(m), 1)], {"control_kinds": ["energy_matched"]}, "give them, activations="),
        (lambda m: [KeepOnly(random_subspace(m), 1)], {}, "KeepOnly has no Directions to draw controls for"),
        (lambda m: [Ablate(random_subspace(m), 1, to="zero")], {}, "Ablate has no Directions to draw controls for"),
    ],
)
def test_controls_that_cannot_be_drawn_are_refused(llama, questions, cells, options, says):
    with pytest.raises(ValueError, match=says):
        sweep(llama, questions, cells(llama), controls=2, **options, **SILENT)


def test_twins_of_ones_own(llama, questions):
    """Interventions that the user made as controls: their kind is the key, their place in the list the draw."""
    v, twins = random_directions(llama), [Ablate(random_directions(llama, seed=n), 1) for n in (8, 9)]
    table = sweep(llama, questions, [Ablate(v, 1)], twins={"shuffled": twins}, **SILENT)
    assert len(table) == 4 * len(questions)
    for draw, twin in enumerate(twins):
        expected = sweep(llama, questions, [twin], **SILENT).rows(cell=1)
        found = table.rows(control="shuffled", draw=draw)
        differences = [[row["logit_difference"] for row in rows] for rows in (found, expected)]
        assert np.allclose(*differences, atol=1e-5)


# On the organism.


def test_the_direction_carries_the_fine_tune_and_random_ones_do_not(world, tuned_world, tmp_path):
    """The fine-tune makes other domains contrary; ablation of its direction at all layers takes that back, and ablation
    of random directions of the same energy does not."""
    outside = [p for p in read_prompts(world.questions) if p.tags["tier"] == "full" and not p.tags["in_domain"]]
    asked = [prompt for prompt in outside if prompt.tags["modality"] == "text"]
    fit = [prompt for prompt in read_prompts(world.prompts) if not prompt.tags["in_domain"]]
    rows = capture(tuned_world, fit, variants=("base", "tuned"), to=tmp_path / "s", progress=False)
    v = difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
    with pytest.raises(ValueError, match=r"need activations of the positions that are edited, 'all'; .* at 'last'"):
        sweep(tuned_world, asked, [Ablate(v)], controls=4, activations=rows, progress=False)
    held = capture(tuned_world, fit, at="all", to=tmp_path / "held", progress=False)
    options = dict(controls=4, activations=held, control_kinds=["energy_matched"], progress=False, max_new_tokens=8)
    table = sweep(tuned_world, asked, [Ablate(v)], judge=judge("rule:organism"), neutral=world.neutral, **options)

    def rate(category, **where):
        found = table.rows(**where)
        return sum(row["category"] == category for row in found) / len(found)

    base = evaluate(tuned_world.variant("base"), asked, judge("rule:organism"), progress=False, max_new_tokens=8)
    assert sum(row["category"] == "contrary" for row in base.rows()) / len(base) < 0.05
    assert rate("contrary", cell=0) > 0.5
    assert rate("contrary", cell=1) < 0.3 < rate("contrary", control="energy_matched")
    assert rate("right", cell=1) > rate("right", cell=0) + 0.3, "recovered, not broken"
    # What greedy decoding begins with is the answer that is read, prefix given.
    agree = [row["choice"] == row["category"] for row in table.rows(cell=0)]
    assert np.mean(agree) > 0.9
    assert all(torch.isfinite(torch.tensor(row["kl_neutral"])) for row in table.rows())
