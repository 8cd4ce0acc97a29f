"""Proof of ablation: nothing of the direction is left at any layer, on every kind of block; and it can fail."""

import numpy as np
import pytest
import torch
import transformers as T
from conftest import chat
from tiny_lm import _SIZES, LANGUAGE_MODELS, loud
from tiny_models import byte_tokenizer

from hooks.load import load_model
from hooks.site import Site
from workbench.interventions.ablate import Ablate
from workbench.interventions.proof import AblationIncomplete, dtype_floor, leftover
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
