"""Carrying directions into a model: patches against a twin by hand, one planned sweep of a recipient; the organism's
own direction undoes its fine-tune, a random one does not, and far too much of it breaks the model."""

import numpy as np
import pytest
import torch
from conftest import chat, stop_after

import workbench as wb
from hooks.edits import LowRankEdit
from hooks.site import Site
from stores import ResultTable
from workbench.interventions.maps import TransferMap
from workbench.interventions.readout import prefilled
from workbench.interventions.transfer_matrix_cells import Carried, Key, carried_by, edits_of, twins_of
from workbench.interventions.transfer_matrix_patch import Patch, Points, patch_table
from workbench.interventions.transfer_matrix_rows import at_the_choice, rows_outside
from workbench.interventions.transfer_matrix_sweep import UNEDITED, transfers_into
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.controls import energy_share
from workbench.subspace.directions import Directions

PLACES = [Site(0), Site(1), Site(2)]


def direction(model, seed=0, sites=PLACES, scale=3.0):
    vectors = np.random.default_rng(seed).normal(size=(len(sites), model.d_model)) * scale
    return Directions.of(sites, vectors, origin=np.zeros_like(vectors), model=model.identity["model"])


@pytest.fixture(scope="module")
def points(llama, questions, tmp_path_factory):
    """The model's own residuals where the answers are chosen."""
    to = tmp_path_factory.mktemp("points")
    return wb.capture(llama, at_the_choice(questions), sites="resid_post", at="last", to=to, progress=False).rows()


def test_a_run_patched_into_itself_changes_nothing_and_another_prompts_does(llama, questions, points):
    clean = {row["prompt"]: row for row in wb.sweep(llama, questions, [], progress=False).rows()}
    itself = Patch(direction(llama), Points.of(points))
    for row in patch_table(llama, questions, [itself]).rows():
        assert row["logit_difference"] == pytest.approx(clean[row["prompt"]]["logit_difference"], abs=1e-4)
    order = np.roll(np.arange(len(points)), 1)
    wrong = Points(itself.points.sites, itself.points.rows, itself.points.values[order])
    moved = patch_table(llama, questions, [Patch(direction(llama), wrong)]).rows()
    assert max(abs(row["logit_difference"] - clean[row["prompt"]]["logit_difference"]) for row in moved) > 1e-2


def test_patches_are_those_of_one_forward_each_made_by_hand(llama, questions):
    """Against LowRankEdit with a shift by row and position, one prompt and one patch a forward."""
    values = np.random.default_rng(5).normal(size=(len(questions), len(PLACES), llama.d_model)) * 4
    held = Points(tuple(PLACES), {question.id: n for n, question in enumerate(questions)}, values)
    patches = [Patch(direction(llama, 3, PLACES[1:2]), held)]  # a direction of one layer
    patches += [Patch(direction(llama, seed), held) for seed in (1, 2)]
    rows = patch_table(llama, questions, patches, max_tokens=64).rows()
    assert len(rows) == 3 * len(questions)
    for row in rows:
        patch = patches[row["cell"]]
        n = held.rows[row["prompt"]]
        batch = llama.encode([prefilled(questions[n])])
        last = int(batch.last_index[0])
        edits = {}
        for place, site in enumerate(PLACES):
            if site in patch.direction.sites:
                unit = torch.tensor(patch.direction.unit[patch.direction.sites.index(site)]).float()[None, None]
                shift = torch.zeros(1, last + 1, 1)
                shift[0, last] = float(values[n, place] @ unit[0, 0].numpy())
                edits[site] = [LowRankEdit(unit, unit, -torch.ones(1, 1), shift, torch.ones(1), ("last",))]
        logits = llama.run(batch, edits=edits).logits[0]
        right, contrary = (llama.encoder.continuation_ids(questions[n].tags[name])[0] for name in ("right", "contrary"))
        assert row["logit_difference"] == pytest.approx(float(logits[contrary] - logits[right]), abs=2e-4)


def test_a_patch_acts_while_an_answer_is_written(llama, questions, points, tmp_path):
    """A direction that reads the unembedding of "x": patched far out, it is what the model says."""
    judge = wb.judge("rule:keyword:xxx")
    plain = [chat(one.id, *one.messages[0].parts) for one in questions]
    rows = wb.capture(llama, plain, sites="resid_post", at="last", to=tmp_path / "rows", progress=False).rows()
    last = Site(llama.n_layers - 1)
    token = llama.encoder.continuation_ids("x")[0]
    head = llama.module.get_output_embeddings().weight[token].detach().double().numpy()
    v = Directions.of([last], head[None], model=llama.identity["model"])
    far = Points.of(rows)
    far = Points(far.sites, far.rows, far.values * 0 + 1e4 * v.unit[0])
    said = patch_table(llama, plain, [Patch(v, far)], judge=judge, max_new_tokens=3).rows()
    assert all(row["text"] == "xxx" and row["score"] == 1 for row in said)


def test_patches_without_points_or_length_and_with_several_rows_a_prompt_are_refused(llama, questions, points):
    held = Points.of(points)
    few = Points(held.sites, {questions[0].id: 0}, held.values)
    with pytest.raises(ValueError, match="5 prompts have no point"):
        patch_table(llama, questions, [Patch(direction(llama), few)])
    with pytest.raises(ValueError, match="nothing to act with"):
        patch_table(llama, questions, [Patch(direction(llama, scale=0.0), held)])
    with pytest.raises(ValueError, match="carry them over"):
        patch_table(llama, questions, [Patch(direction(llama).replace(model="another"), held)])
    twice = ArrayRows({Site(0): np.zeros((2, 4))}, prompt_ids=["a", "a"])
    with pytest.raises(ValueError, match="one row a prompt"):
        Points.of(twice)


def test_tagged_questions_are_read_with_their_answer_begun_and_others_as_they_are():
    tagged = chat("a", "hi", response="no", tags={"right": "x", "contrary": "y", "answer_prefix": "it is"})
    bare = chat("b", "hi", tags={"answer_prefix": "it is"})
    first, second = at_the_choice([tagged, bare])
    assert first.prefill == "it is" and first.response is None and second == bare


def test_points_pass_the_maps_affinely(llama):
    rng = np.random.default_rng(0)
    source, turn = rng.normal(size=(40, 6)), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    rows = [
        ArrayRows({Site(0): one}, info={"model": name}) for one, name in ((source, "a"), (source @ turn + 5.0, "b"))
    ]
    carry = wb.fit_transfer(*rows, method="procrustes")
    assert isinstance(carry, TransferMap)
    assert np.allclose(Points.of(rows[0], carry).values[:, 0], rows[1].values(Site(0)), atol=1e-6)
    v = Directions.of([Site(0)], rng.normal(size=(1, 6)), origin=np.zeros((1, 6)), model="a")
    own = Directions.of([Site(0)], v.vectors @ turn, origin=np.full((1, 6), 5.0), model="b")
    (one,) = carried_by({"procrustes": carry}, "a", v, own, rows[0], domain="x")
    assert np.allclose(one.direction.vectors, own.vectors, atol=1e-6) and one.domain == "x"
    assert np.array_equal(one.direction.origin, own.origin)
    assert one.beside["map R2"] == pytest.approx(1.0, abs=1e-6)


def test_cells_are_named_and_their_controls_are_matched(llama, points):
    v = direction(llama)
    carried = [Carried("a", v, points=Points.of(points)), Carried("b", v, operations=("ablate", "patch"))]
    cells = edits_of(carried, [0], -1.0)
    assert list(cells) == [Key("a", "identity", o) for o in ("ablate", "steer", "patch")] + [
        Key("b", "identity", "ablate")
    ]
    rows = ArrayRows({site: np.random.default_rng(1).normal(size=(30, llama.d_model)) for site in PLACES})
    twins = twins_of(Key("a", "identity", "ablate"), carried[0], rows, 3, 2, 0)
    assert [key.control for key in twins] == ["energy_matched"] * 3 + ["orthogonal"] * 2
    matched = [energy_share(one, rows) for key, one in twins.items() if key.control == "energy_matched"]
    assert np.allclose(matched, energy_share(v, rows))
    assert {key.control for key in twins_of(Key("a", "identity", "steer"), carried[0], rows, 2, 0, 0)} == {"isotropic"}
    with pytest.raises(ValueError, match="arrives twice"):
        edits_of([carried[0], carried[0]], [0], -1.0)
    with pytest.raises(ValueError, match="operation 'erase' is unknown"):
        edits_of([Carried("a", v, operations=("erase",))], [0], -1.0)


def test_rows_outside_domains_are_kept_where_there_are_any(llama, many, tmp_path):
    tagged = [chat(one.id, *one.messages[0].parts, tags={"domain": "ab"[n % 2]}) for n, one in enumerate(many)]
    store = wb.capture(llama, tagged, sites="resid_post:0", to=tmp_path / "a", progress=False)
    assert set(rows_outside(store, "base", "a").tag("domain")) == {"b"}
    assert len(rows_outside(store, "base", "a", "b")) == len(rows_outside(store, "base")) == len(tagged)
    bare = wb.capture(llama, many, sites="resid_post:0", to=tmp_path / "b", progress=False)
    assert len(rows_outside(bare, "base", "a")) == len(many)


@pytest.fixture(scope="module")
def organism_parts(tuned_world, world, tmp_path_factory):
    """Text questions of the effect and of capability, the fine-tune's direction, the base's points, positions."""
    to = tmp_path_factory.mktemp("organism")
    text = [one for one in wb.read_prompts(world.questions) if not one.images]
    effect = [one for one in text if wb.split_of(one.tags) == "other_domains"][::3]
    calm = [one for one in wb.read_prompts(world.neutral) if not one.images]
    fit = [one for one in wb.read_prompts(world.prompts) if not one.images and not one.tags["in_domain"]][::2]
    options = dict(sites="resid_post", progress=False)
    held = wb.capture(tuned_world, fit, variants=["base", "tuned"], at="last", to=to / "fit", **options)
    v = wb.difference_of_means(held.where(variant="tuned"), held.where(variant="base"))
    base, tuned = (tuned_world.variant(name) for name in ("base", "tuned"))
    at = wb.capture(base, at_the_choice([*effect, *calm]), at="last", to=to / "at", **options).rows()
    matched = wb.capture(tuned, fit, at="all", to=to / "all", **options).rows()
    return dict(base=base, tuned=tuned, effect=effect, calm=calm, v=v, points=Points.of(at), matched=matched)


def carried_into(parts, to, carried, **more):
    arguments = dict(
        capability=parts["calm"], activations=parts["matched"], domain="capital", to=to, steer_at=[0, 1, 2]
    )
    return transfers_into("capital", parts["tuned"], parts["base"], carried, parts["effect"], **arguments | more)


@pytest.mark.slow
def test_the_own_direction_is_specific_random_ones_do_nothing_and_a_great_one_breaks(organism_parts, tmp_path):
    parts = organism_parts
    own = Carried("own direction", parts["v"], points=parts["points"], domain="capital", own=True)
    found = carried_into(parts, tmp_path / "a", [own], controls=3, orthogonal=1)
    (matrix,) = [wb.transfer_matrix([found])]
    by = {one.operation: one.found for one in matrix.cells}
    assert {one.kind for one in matrix.cells} == {"own"} and set(by) == {"ablate", "steer", "patch"}
    for name, one in by.items():
        assert one.closed.value > 0.5, (name, str(one))
        assert name == "steer" or (one.lost.value < 0.3 and one.value > 0.4), (name, str(one))  # steering costs more
        assert max(max(drawn) for drawn in one.draws.values()) < one.value
        assert one.means[1] - one.means[0] > 0.5, "the gap that is there by construction"
    far = Carried("far", parts["v"], domain="capital", operations=("steer",), controlled=False)
    broken = wb.transfer_matrix([carried_into(parts, tmp_path / "b", [far], coefficient=-12.0)]).cells[0].found
    assert broken.lost.value > 0.5 and broken.value < 0.5 * by["steer"].value


@pytest.mark.slow
def test_a_recipient_is_one_sweep_for_each_set_and_goes_on_where_it_stopped(
    organism_parts, tmp_path, monkeypatch, capsys
):
    parts, v = {**organism_parts}, organism_parts["v"]
    parts |= {"effect": parts["effect"][::2], "calm": parts["calm"][::2]}
    carried = [Carried("a", v, points=parts["points"]), Carried("b", -v, operations=("ablate",))]
    whole = carried_into(parts, tmp_path / "a", carried, controls=1, explain=True)
    assert "forwards" in capsys.readouterr().out, "the plan is said"
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "base", "tuned", "effect", "effect-patches", "capability", "capability-patches"
    }  # fmt: skip
    assert len(whole.keys) == 4 and len(whole.effect.cells) == 1 + 4 * 2 == len(whole.capability.cells)
    restore = stop_after(monkeypatch, ResultTable, 3)
    with pytest.raises(KeyboardInterrupt):
        carried_into(parts, tmp_path / "b", carried, controls=1)
    restore()
    again = carried_into(parts, tmp_path / "b", carried, controls=1)
    assert list(again.effect.cells) == list(whole.effect.cells)
    assert np.allclose(again.effect.values, whole.effect.values, atol=1e-5)
    clean = wb.sweep(parts["tuned"], parts["effect"], [wb.Ablate(v)], progress=False).rows()
    alone = {row["prompt"]: row["p_contrary"] for row in clean if row["cell"] == 1}
    row = whole.effect.of(Key("a", "identity", "ablate"))[0]
    assert row == pytest.approx([alone[one.id] for one in parts["effect"]], abs=1e-4)
    assert whole.effect.beside[Key("a", "identity", "ablate")]["energy_removed"] > 0
    assert UNEDITED not in whole.keys


def test_a_model_that_is_no_fine_tune_has_no_gap_and_nothing_is_swept(llama, questions, tmp_path):
    with pytest.raises(wb.NotMeasurable, match="nothing to take a share of"):
        transfers_into("x", llama, llama, [Carried("a", direction(llama))], questions, to=tmp_path, steer_at=[0])
    assert not (tmp_path / "effect").exists()
    with pytest.raises(ValueError, match="expected a judge"):
        transfers_into("x", llama, llama, [], [chat("a", "hi")], to=tmp_path, steer_at=[0])
    with pytest.raises(ValueError, match="capability questions need the tags"):
        transfers_into("x", llama, llama, [], questions, capability=[chat("a", "hi")], to=tmp_path, steer_at=[0])
