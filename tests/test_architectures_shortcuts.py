"""Every causal family of the zoo under the planner: what a model lets us leave out is known by name, and whatever way
a cell goes, it reads what a whole forward reads."""

from __future__ import annotations

import pytest
import torch
import zoo
from own_hooks import noise
from zoo_expected import NOT_BUILT
from zoo_product import PROMPTS, loaded

from hooks.shortcuts import shortcuts
from hooks.site import Site
from workbench.interventions.passes import Passes
from workbench.interventions.planner import Bounds

pytestmark = pytest.mark.filterwarnings("ignore")

NOT_LOADED = {"dots3_note", "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "hrm_text", "reformer", "xlm"}
READS_NO_TEXT = {"musicgen", "musicgen_melody"}
# Families whose forward gave other numbers, or none, when it was passed so.
WITHOUT = {
    "replay": {"gemma3n_text"},  # later layers read keys that earlier ones leave in a place of their own
    "copies": {"gemma3n_text", "hy_v4", "zaya"},
    "staircase": {
        *("bloom", "cpmant", "deepseek_v4", "gemma3n_text", "hy_v4", "mllama", "prophetnet", "xlnet", "xmod", "zaya"),
    },
    "prefix": {
        *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "blt", "camembert", "cpmant", "data2vec-text"),
        *("deepseek_v4", "falcon_mamba", "gemma3n_text", "git", "jamba", "mamba", "mamba2", "marian", "mbart"),
        *("minimax", "moshi", "mvp", "nemotron_h", "openai-gpt", "pegasus", "plbart", "prophetnet", "recurrent_gemma"),
        *("roberta", "roberta-prelayernorm", "rwkv", "trocr", "whisper", "xlm-roberta", "xlm-roberta-xl", "xlnet"),
        *("xlstm", "xmod", "zamba", "zamba2"),
    },
}
FAMILIES = [
    name
    for name in zoo.families("causal")
    if ("causal", name) not in NOT_BUILT and name not in NOT_LOADED | READS_NO_TEXT
]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_way_reads_what_a_whole_forward_reads(name):
    """float32: a cell a pass to the bit, several within 1e-4 of the largest logit."""
    model = loaded(zoo.build("causal", name))
    batch = model.encode(PROMPTS)
    found = shortcuts(model, batch)
    if zoo.MEASURED:
        assert {way for way, why in vars(found).items() if why} == {way for way in WITHOUT if name in WITHOUT[way]}
    layers = sorted({0, model.n_layers // 2, model.n_layers - 1})
    cells = {0: {}}
    for layer in layers:
        for scope in ("all", "last"):
            size = 3.0 * model.d_model**0.5
            cells[len(cells)] = {Site(layer): [noise(model, size, scope, seed=len(cells))]}
    whole = {c: model.run(batch, edits=edits, must_edit=bool(edits)).logits for c, edits in cells.items()}
    exact = Bounds(4096, 2**30, exact=True)
    for bounds in (exact, Bounds(4096, 2**30, nearly_empty=0), Bounds(4096, 2**30, nearly_empty=4096)):
        for reading in Passes(model, batch, bounds).read(cells):
            for c, logits in zip(reading.cells, reading.logits, strict=True):
                if bounds is exact:
                    assert torch.equal(logits, whole[c]), f"cell {c}"
                assert (logits - whole[c]).abs().max() <= 1e-4 * whole[c].abs().max(), f"cell {c}"
    assert any(not torch.equal(whole[0], whole[c]) for c in cells if c), "the meta-test: a cell changes something"


@pytest.mark.skipif(not zoo.MEASURED, reason="WITHOUT is of transformers 5.23: measure again")
def test_what_is_held_against_families_is_of_families_that_exist():
    assert set().union(*WITHOUT.values(), NOT_LOADED, READS_NO_TEXT) <= set(zoo.families("causal"))
    counted = {way: len(FAMILIES) - len(WITHOUT[way]) for way in WITHOUT}
    assert counted == {"replay": 171, "copies": 169, "staircase": 162, "prefix": 134}
