"""Proof of ablation: nothing of the direction is left at any layer, on every kind of block; and it can fail."""

import numpy as np
import pytest
import torch
import transformers as T
from conftest import chat
from own_hooks import noise
from tiny_lm import _SIZES, LANGUAGE_MODELS, loud
from tiny_models import byte_tokenizer

from hooks.load import load_model
from hooks.site import Site
from workbench.interventions.ablate import Ablate
from workbench.interventions.proof import AblationIncomplete, Leftover, Proof, Prover, dtype_floor, leftover
from workbench.interventions.sweep import sweep
from workbench.subspace.directions import Directions

PROMPTS = [chat("a", "hi"), chat("b", "a somewhat longer question")]
FAMILIES = ["llama", "gpt2", "gemma2", "gemma3", "olmo2"]


@pytest.fixture(
    scope="module", params=[(name, dtype) for name in FAMILIES for dtype in ("float32", "bfloat16")], ids=str
)
def model(request):
    name, dtype = request.param
    olmo2 = T.Olmo2Config(vocab_size=len(byte_tokenizer()), **_SIZES)
    module = LANGUAGE_MODELS[name]() if name in LANGUAGE_MODELS else loud(T.Olmo2ForCausalLM(olmo2))
    return load_model(module.to(getattr(torch, dtype)), byte_tokenizer())


def direction(model, sites=None):
    sites = sites or [Site(0, "resid_pre"), *(Site(layer) for layer in range(model.n_layers))]
    vectors = np.random.default_rng(0).standard_normal((len(sites), model.d_model))
    return Directions.of(tuple(sites), vectors, origin=vectors * 0.1, kind="random")


@pytest.mark.parametrize("to", ["zero", "mean"])
def test_pitfall_03_nothing_is_left_at_any_layer(model, to):
    """Pre-norm, sandwich-norm and post-norm: the recipes that orthogonalise weights leave .05 to .1 on the latter."""
    proof = leftover(model, PROMPTS, Ablate(direction(model), to=to))
    assert {one.site for one in proof.sites} == {
        Site(layer, point) for layer in range(model.n_layers) for point in ("resid_pre", "resid_post")
    }
    assert proof.complete, str(proof)
    assert proof.worst.floor == dtype_floor(model.dtype) and proof.worst.share > 0


def test_a_feature_that_comes_back_between_two_edits_is_refused():
    """Something writes to the stream between a block's output and the next block's input, as deepstack models do."""
    model = load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer())
    v = direction(model)
    push = torch.tensor(v.unit[2], dtype=torch.float32)
    model.module.model.layers[1].register_forward_hook(lambda module, args, out: out + 0.5 * push)
    proof = leftover(model, PROMPTS, Ablate(v, to="zero"))
    assert [str(one.site) for one in proof.sites if not one.gone] == ["resid_pre:2"], str(proof)
    tagged = [chat(p.id, p.messages[0].text, tags={"right": "yes", "contrary": "no"}) for p in PROMPTS]
    with pytest.raises(AblationIncomplete, match=r"at resid_pre:2: expected at most"):
        sweep(model, tagged, [Ablate(v, to="zero")], progress=False)


def test_every_ablation_of_a_sweep_carries_its_proof(tmp_path, llama):
    v = direction(llama)
    tagged = [chat(p.id, p.messages[0].text, tags={"right": "yes", "contrary": "no"}) for p in PROMPTS]
    table = sweep(llama, tagged, [Ablate(v), Ablate(v, layer=1)], controls=2, to=tmp_path / "t", progress=False)
    rows = {row["cell"]: row for row in table.rows(control=None)}
    assert [row["proof"] is None for row in rows.values()] == [True, False, False], "not of the unedited model"
    whole, one = ([part.split("=")[0] for part in rows[c]["proof"].split()] for c in (1, 2))
    assert len(whole) == 2 * llama.n_layers and one == ["resid_post:1"]
    shares = [float(part.split("=")[1]) for part in rows[1]["proof"].split()]
    assert 0 < max(shares) <= rows[1]["proof_floor"] == pytest.approx(dtype_floor(torch.float32))
    assert all(row["proof"] is None for row in table.rows() if row["control"]), "nor of controls"


def by_hand(model, ablation, site, vector, remaining=0.0):
    """The largest |component off what should be left| / ‖h‖ over the positions of the scope, in float64 numpy."""
    batch = model.encode(PROMPTS)
    kept = model.run(batch, {site: lambda resid, where: resid.clone()}, ablation.edits(model)).kept[site]
    h = kept[batch.tokens.mask(ablation.at)].double().numpy()
    return (np.abs(h @ vector - remaining) / np.linalg.norm(h, axis=1)).max()


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def small(request):
    return load_model(LANGUAGE_MODELS["llama"]().to(getattr(torch, request.param)), byte_tokenizer())


@pytest.mark.parametrize("at", ["all", "last"])
@pytest.mark.parametrize("to", ["zero", "mean"])
def test_the_share_is_the_largest_of_the_edited_positions_by_hand(small, to, at):
    """Not their mean, not in the model's own precision, not of positions that the scope leaves alone."""
    v = direction(small)
    ablation = Ablate(v, to=to, at=at)
    proof = leftover(small, PROMPTS, ablation)
    assert proof.complete, str(proof)
    for one in proof.sites:
        at_end = one.site if one.site in v.sites else Site(one.site.layer - 1)
        unit, origin = v.unit[v.sites.index(at_end)], v.origin[v.sites.index(at_end)]
        expected = by_hand(small, ablation, one.site, unit, unit @ origin if to == "mean" else 0.0)
        assert one.share == pytest.approx(expected, rel=1e-6), one.site


def test_one_layers_vector_is_looked_for_where_it_was_taken_out(small):
    """With `source` that vector at every site, not the site's own."""
    v = direction(small)
    ablation = Ablate(v, to="zero", source=1)
    proof = leftover(small, PROMPTS, ablation)
    assert proof.complete, str(proof)
    for one in proof.sites:
        expected = by_hand(small, ablation, one.site, v.unit[v.sites.index(Site(1))])
        assert one.share == pytest.approx(expected, rel=1e-6), one.site


def test_the_floor_is_what_rounding_can_leave_and_not_much_more(small):
    """Rounding h with h·v = 0 leaves at most eps/2 of ‖h‖ along v: the floor lies above that, and within a few times of
    it, so that a thousandth of a direction that comes back in bfloat16's neighbour, float32, is seen."""
    assert 0.5 <= dtype_floor(torch.float32) / torch.finfo(torch.float32).eps <= 16
    assert 0.5 <= dtype_floor(torch.bfloat16) / torch.finfo(torch.bfloat16).eps <= 2
    v, floor = direction(small), dtype_floor(small.dtype)
    push = torch.tensor(v.unit[2], dtype=small.dtype)

    def leak(module, args, out):
        return out + 20 * floor * out.norm(dim=-1, keepdim=True) * push

    handle = small.module.model.layers[1].register_forward_hook(leak)
    try:
        proof = leftover(small, PROMPTS, Ablate(v, to="zero"))
    finally:
        handle.remove()
    assert [str(one.site) for one in proof.sites if not one.gone] == ["resid_pre:2"], str(proof)


def test_where_nothing_was_taken_out_nothing_is_looked_for(llama):
    """A layer whose classes do not differ has no direction: neither its output nor the next input can be clean of it,
    and the direction of an earlier layer is not expected to stay away."""
    sites = [Site(0, "resid_pre"), *(Site(layer) for layer in range(llama.n_layers))]
    vectors = np.random.default_rng(0).standard_normal((len(sites), llama.d_model))
    vectors[sites.index(Site(1))] = 0.0
    proof = leftover(llama, PROMPTS, Ablate(Directions.of(tuple(sites), vectors, kind="random"), to="zero"))
    assert [str(one.site) for one in proof.sites] == [
        "resid_pre:0", "resid_post:0", "resid_pre:1", "resid_post:2"]  # fmt: skip
    assert proof.complete, str(proof)


def test_the_worst_site_is_the_one_furthest_above_its_floor():
    """A subspace of higher rank has a higher floor: the larger share need not be the one that is left."""
    within, left = Leftover(Site(0), 2e-3, 1e-2), Leftover(Site(1), 1e-3, 1e-4)
    assert Proof((within, left)).worst is left and not Proof((within, left)).complete


def test_a_proof_takes_prompts_that_may_share_a_batch(monkeypatch, llama):
    """Where padding changes numbers only rows of one length go together; the others would be refused, or wrong."""
    monkeypatch.setattr(llama, "pads", {"right": False, "left": True})
    prover = Prover(llama, PROMPTS)
    assert prover.of(Ablate(direction(llama), to="zero")).complete and prover.of(noise(llama)) is None


def test_the_floor_of_a_subspace_is_that_of_one_rounding():
    """Rounding to bfloat16 moves a vector by half an eps of its length at most: 32 directions hold no more."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 32, generator=generator, dtype=torch.float64)).Q
    h = torch.randn(1000, 64, generator=generator, dtype=torch.float64)
    h = (h - h @ basis @ basis.T).bfloat16().double()
    share = float(((h @ basis).norm(dim=-1) / h.norm(dim=-1)).max())
    assert share <= torch.finfo(torch.bfloat16).eps <= dtype_floor(torch.bfloat16, 32) < 1.01 * 2**-7
