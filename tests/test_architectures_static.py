"""Every causal family of the zoo on a cache of fixed size, and under a CUDA graph as far as a CPU can repeat one: it
writes what its own loop writes, or it is known by name, and its own loop does."""

from __future__ import annotations

import pytest
import torch
import transformers.generation.utils  # noqa: F401  its annotations name torch.cuda.Stream, which is replaced below
import zoo
from own_hooks import noise
from recorded_graph import recorded_graphs
from zoo_expected import NOT_BUILT
from zoo_product import PROMPTS, loaded

from hooks import static_decode
from hooks.site import Site

pytestmark = pytest.mark.filterwarnings("ignore")

NOT_LOADED = {"dots3_note", "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "hrm_text", "reformer", "xlm"}
NO_DECODING = {"blt", "cpmant", "musicgen", "musicgen_melody", "openai-gpt", "rwkv", "xlnet"}  # no text, or no cache
# What the reason says, and the families of which it is said.
WITHOUT = {
    "its cache has layers": {
        *("axk2", "bailing_hybrid", "bamba", "deepseek_v32", "deepseek_v4", "falcon_h1", "gemma3n_text", "glm_moe_dsa"),
        *("granitemoehybrid", "hy_v4", "inkling2_text", "inkling_text", "jamba", "kimi_linear", "lfm2_moe", "lfm3"),
        *("minimax", "mllama", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next", "qwen4_exp"),
        *("recurrent_gemma", "zamba", "zamba2", "zaya"),
    },
    "it takes no position_ids and past_key_values": {
        *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "bloom", "falcon_mamba", "mamba", "mamba2"),
        *("marian", "mbart", "moss_transcribe_diarize", "mpt", "mvp", "pegasus", "plbart", "prophetnet", "roformer"),
        *("trocr", "whisper", "xlstm"),
    },
    "its layers are of kinds chunked_attention": {"llama4"},
    "the first step on a static cache gave other logits": {"git"},
}
# A static cache serves them, but their step waits for the device, copies from the host, or is not the same every time.
NOT_CAPTURED = {"dbrx", "falcon", "gpt_neo", "jetmoe", "longcat_flash", "xglm"}
FAMILIES = [
    name
    for name in zoo.families("causal")
    if ("causal", name) not in NOT_BUILT and name not in NOT_LOADED | NO_DECODING
]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_writes_what_its_own_loop_writes(name, monkeypatch):
    """Two rows padded left, steered at both ends of the stack."""
    model = loaded(zoo.build("causal", name))
    ends = {0, model.n_layers - 1}
    edits = {Site(layer): [noise(model, 0.5 * model.d_model**0.5, seed=layer)] for layer in ends}
    batch, options = model.encode(PROMPTS), {"max_new_tokens": 12, "eos_token_id": []}
    ordinary = model.generate(batch, edits=edits, **options)
    reason = static_decode.why_not
    monkeypatch.setattr(static_decode, "why_not", lambda *given: reason(*given[:-1], "static"))
    monkeypatch.setenv("WORKBENCH_KERNEL", "reference")
    recorded_graphs(monkeypatch)
    for way in ("graph", "static") if name in NOT_CAPTURED or not zoo.MEASURED else ("graph",):
        out = model.generate(batch, edits=edits, decode=way, **options)
        assert out.token_ids == ordinary.token_ids
        for site, (tally,) in ordinary.tallies.items():
            assert torch.equal(tally.edited, out.tallies[site][0].edited)
        said = next((why for why, families in WITHOUT.items() if name in families), None)
        if zoo.MEASURED and said:
            assert out.decoding.startswith(f"dynamic: {said}")
        elif zoo.MEASURED and way == "graph" and name in NOT_CAPTURED:
            assert out.decoding.startswith("dynamic: ")
        elif zoo.MEASURED:
            assert out.decoding == way
