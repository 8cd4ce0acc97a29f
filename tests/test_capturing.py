"""capture: what a store holds against plain hooks on the raw module, bit for bit."""

import numpy as np
import pytest
import torch
from conftest import chat
from own_hooks import own_hooks
from workbench_samples import by_place

from hooks.load import load_model
from hooks.model import NothingEdited
from hooks.prompt import read_prompts
from hooks.site import Site
from workbench.capturing import capture
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.subspace.directions import Directions

SILENT = {"progress": False}


def planned(store, prompts):
    """The prompts of every unit of a store, as they stand in its batch."""
    by_id = {prompt.id: prompt for prompt in prompts}
    return [[by_id[identifier] for identifier in batch] for unit in store.plan for batch in unit.batched()]


def direction(model, layer=0, size=3.0) -> Directions:
    vector = np.random.default_rng(0).standard_normal(model.d_model)
    return Directions.of([Site(layer)], size * vector / np.linalg.norm(vector), origin=np.ones((1, model.d_model)))


# What is stored.


@pytest.mark.parametrize("scope", ["last", "all", "response", 3])
def test_rows_equal_plain_hooks_bit_for_bit(scene, scope, tmp_path):
    model, prompts = scene
    store = capture(model, prompts, sites="resid_pre, resid_post", at=scope, to=tmp_path / "s", **SILENT)
    expected = {}
    for unit in planned(store, prompts):
        batch = model.encode(unit)
        truth = own_hooks(model, batch)
        for row, one in enumerate(batch.encoded):
            p, r = one.prompt_length, one.response_length
            for position in {"last": [p - 1], "all": range(len(one)), "response": range(p, p + r), 3: [3]}[scope]:
                token = int(one.input_ids[position])
                expected[one.id, position] = token, {site: truth[site][row, position] for site in truth if site}
    found = list(zip(store.prompt_ids, store.positions.tolist(), strict=True))
    assert sorted(found) == sorted(expected) and len(set(found)) == len(found)
    assert store.token_ids.tolist() == [expected[key][0] for key in found]
    assert len(store.sites) == 2 * model.n_layers
    for name in store.sites:
        truth = torch.stack([expected[key][1][Site.parse(name)] for key in found])
        assert np.array_equal(store.values(name), truth.numpy()), name


def test_both_variants_see_the_same_batches_and_pair_exactly(world, tuned_world, tmp_path):
    """Base rows are those of the checkpoint without an adapter; fine-tuned rows those of plain hooks with it on."""
    prompts = [prompt for prompt in read_prompts(world.prompts) if prompt.tags["domain"] in ("sound", "color")][:24]
    store = capture(tuned_world, prompts, variants=("base", "tuned"), to=tmp_path / "s", max_tokens=64, **SILENT)
    assert len(store.plan) > 2 and store.spec["variants"] == ["base", "tuned"]
    plain, last = load_model(world.base), f"resid_post:{tuned_world.n_layers - 1}"
    truth = {}
    for unit in planned(store, prompts):
        batch = plain.encode(unit)
        for variant, model in (("base", plain), ("tuned", tuned_world)):
            tuned_world.adapters.activate("tuned")
            residuals = own_hooks(model, batch)[Site.parse(last)]
            for row, one in enumerate(batch.encoded):
                truth[one.id, variant, one.prompt_length - 1] = residuals[row, one.prompt_length - 1].numpy()
    stored = by_place(store, last)
    assert stored.keys() == truth.keys() and len(truth) == 48
    assert all(np.array_equal(stored[key], truth[key]) for key in truth)
    shift = store.difference("tuned", "base")
    assert shift.matched == 24 and np.abs(shift.values(last)).max() > 0.1
    base, tuned = store.where(variant="base"), store.where(variant="tuned")
    assert base.prompt_ids == tuned.prompt_ids
    assert np.array_equal(shift.values(last), tuned.values(last) - base.values(last))


def test_the_model_as_it_stands_is_the_default_variant(world, tuned_world, tmp_path):
    prompts = read_prompts(world.prompts)[:3]
    for name, view in (("tuned", tuned_world), ("base", tuned_world.variant("base"))):
        assert set(capture(view, prompts, to=tmp_path / name, **SILENT).variants) == {name}
    with pytest.raises(ValueError, match="variant 'other' is not loaded: expected one of base, tuned"):
        capture(tuned_world, prompts, variants=("base", "other"), to=tmp_path / "x", **SILENT)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("scope", ["all", "prompt"])
@pytest.mark.parametrize("family", ["llama", "half"])
def test_a_mean_is_the_float64_mean(request, family, scope, prompts, tmp_path):
    """To float32 rounding of a sum over at most 60 positions; `all` leaves position 0 out, `prompt` does not."""
    model = request.getfixturevalue(family)
    store = capture(model, prompts, at=scope, pool="mean", to=tmp_path / "s", **SILENT)
    assert store.positions.tolist() == [-1] * 4 and store.token_ids.tolist() == [-1] * 4
    found = by_place(store, "resid_post:1")
    for unit in planned(store, prompts):
        batch = model.encode(unit)
        truth = own_hooks(model, batch)[Site(1)]
        for row, one in enumerate(batch.encoded):
            inside = slice(1, len(one)) if scope == "all" else slice(0, one.prompt_length)
            mean = truth[row, inside].double().mean(dim=0).numpy()
            assert np.abs(found[one.id, "base", -1] - mean).max() < 1e-5 * np.abs(mean).max()


def test_bfloat16_is_stored_as_it_is(half, many, tmp_path):
    store = capture(half, many, at="all", to=tmp_path / "s", max_tokens=200, **SILENT)
    assert "bfloat16" in repr(store)
    found = by_place(store, "resid_post:2")
    for unit in planned(store, many):
        batch = half.encode(unit)
        truth = own_hooks(half, batch)[Site(2)]
        assert truth.dtype == torch.bfloat16
        for row, one in enumerate(batch.encoded):
            for position in range(len(one)):
                assert np.array_equal(found[one.id, "base", position], truth[row, position].float().numpy())


def test_labels_tags_and_provenance_travel(llama, many, tmp_path):
    store = capture(llama, many, to=tmp_path / "s", **SILENT)
    even = store.where(label="even")
    assert sorted(even.tag("n")) == [0, 2, 4, 6, 8] and len(store.where(n=lambda n: n > 6)) == 3
    info = store.info
    assert (info["model"], info["scope"], info["pool"], info["n_layers"]) == ("LlamaForCausalLM", "last", "none", 3)
    assert store.provenance["model"]["weights"] == llama.identity["weights"]


# Images.


@pytest.fixture
def pictured(picture, tmp_path):
    """Two images in one prompt, one image in another, none in a third."""
    from PIL import Image

    other = tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(other)
    return [chat("two", picture, "or", other, "?"), chat("one", other, "what"), chat("none", "no picture here")]


def test_both_towers_in_one_store(gemma3, pictured, tmp_path):
    """Language rows of every prompt; vision rows of every patch of every image, the second image counting on."""
    at = {"language": "last", "vision": "image"}
    store = capture(gemma3, pictured, sites="resid_post, vision.resid_post", at=at, to=tmp_path / "s", **SILENT)
    assert sorted(store.at("resid_post").prompt_ids) == ["none", "one", "two"]
    assert store.spec["scope"] == "language last, vision image"
    rows = store.at("vision.resid_post")
    assert sorted(zip(rows.prompt_ids, rows.positions.tolist(), strict=True)) == [
        *(("one", n) for n in range(16)),
        *(("two", n) for n in range(32)),
    ]
    for site in ("vision.resid_post:0", "vision.resid_post:1"):
        found = by_place(rows, site)
        for unit in planned(store, pictured):
            batch = gemma3.encode(unit)
            if not batch.image_rows:
                continue
            truth = own_hooks(gemma3, batch, "vision")[Site.parse(site)]
            seen = {}
            for image, row in enumerate(batch.image_rows):
                first = seen.setdefault(batch.ids[row], 0)
                seen[batch.ids[row]] += 16
                for patch in range(16):
                    expected = truth[image, patch].numpy()
                    assert np.array_equal(found[batch.ids[row], "base", first + patch], expected)


def test_a_mean_over_patches_is_one_row_an_image(gemma3, pictured, tmp_path):
    store = capture(gemma3, pictured, sites="vision.resid_post:1", at="image", pool="mean", to=tmp_path / "s", **SILENT)
    found = by_place(store, "vision.resid_post:1")
    assert sorted(found) == [("one", "base", 0), ("two", "base", 0), ("two", "base", 1)]
    truth = own_hooks(gemma3, gemma3.encode(pictured[:1]), "vision")[Site(1, tower="vision")].double().mean(dim=1)
    for image in (0, 1):  # float32 means over 16 patches, in another batch
        assert np.abs(found["two", "base", image] - truth[image].numpy()).max() < 1e-5 * truth.abs().max()


@pytest.mark.parametrize(
    ("at", "prompts", "says"),
    [
        ("last", None, "scope 'last' has no meaning inside the vision tower: expected 'image' or 'all'"),
        ({"language": "last"}, None, "gives no scope for the vision tower, whose sites are asked for"),
        ("image", 1, "no prompt has an image: leave them out"),
    ],
    ids=["scope of text", "scope missing", "no image"],
)
def test_vision_sites_that_cannot_be_are_refused_before_a_store_is_made(gemma3, pictured, at, prompts, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        capture(
            gemma3, pictured[-prompts:] if prompts else pictured, sites="vision.resid_post", at=at, to=tmp_path / "s"
        )
    assert not (tmp_path / "s").exists()


# Interventions.


def test_interventions_act_on_what_is_captured(llama, many, tmp_path):
    """The plain rows plus the vector where it was added, and what the edited stream became in later layers."""
    v = direction(llama)
    plain = capture(llama, many[:3], to=tmp_path / "plain", **SILENT)
    steered = capture(llama, many[:3], interventions=[Steer(v, 0, 2.0)], to=tmp_path / "steered", **SILENT)
    added = steered.values("resid_post:0") - plain.values("resid_post:0")
    assert np.abs(added - 2 * v.vector(0)).max() < 1e-5
    for unit in planned(steered, many):
        batch = llama.encode(unit)
        handle = llama.module.model.layers[0].register_forward_hook(
            lambda module, args, out: out + torch.tensor(2 * v.vector(0), dtype=torch.float32)
        )
        try:
            truth = own_hooks(llama, batch)[Site(2)]
        finally:
            handle.remove()
        for row, one in enumerate(batch.encoded):
            off = np.abs(
                by_place(steered, "resid_post:2")[one.id, "base", len(one) - 1] - truth[row, len(one) - 1].numpy()
            )
            assert off.max() < 1e-4 * truth.abs().max()
    assert steered.spec["interventions"][0]["coefficient"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"at": "image"}, "touched no position of any prompt"),
        ({"at": "response"}, "touched no position of any prompt"),
        ({"layer": 2, "sites": "resid_post:0-1"}, "act behind every captured site"),
        ({"layer": 1, "sites": "resid_pre:0-1"}, "act behind every captured site"),
    ],
    ids=["image", "response", "later layer", "same block's input"],
)
def test_interventions_that_cannot_show_are_refused_each_time(llama, many, tmp_path, arguments, says):
    """Before a store is made: the second call must not find a finished store of unedited rows."""
    layer, sites = arguments.get("layer", 0), arguments.get("sites", "resid_post")
    ablate = Ablate(direction(llama, layer), layer, at=arguments.get("at", "all"))
    for _ in range(2):
        with pytest.raises(NothingEdited, match=says):
            capture(llama, many[:2], sites=sites, interventions=[ablate], to=tmp_path / "s", **SILENT)
    assert not (tmp_path / "s").exists()


def test_one_touched_prompt_is_enough(gemma3, pictured, tmp_path):
    """A text prompt among pictures is left as it is."""
    steer = Steer(direction(gemma3), 0, at="image")
    store = capture(gemma3, pictured, interventions=[steer], to=tmp_path / "s", **SILENT)
    plain = capture(gemma3, pictured, to=tmp_path / "plain", **SILENT)
    moved = {key[0] for key, value in by_place(store, "resid_post:3").items()
             if not np.array_equal(value, by_place(plain, "resid_post:3")[key])}  # fmt: skip
    assert moved == {"one", "two"}
