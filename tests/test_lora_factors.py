"""wb.lora_factors against the written-out ΔW: spectrum, norms, directions, cosines; from a folder and from memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapters import noisy_adapter, settings_of
from tiny_models import FAMILIES, byte_tokenizer

import workbench as wb
from hooks.load import load_model
from workbench.training.factors import Factor

# One config with everything that decides a scaling.
CONFIG = LoraConfig(
    r=4,
    lora_alpha=6,
    target_modules=["q_proj", "o_proj", "down_proj", "embed_tokens"],
    rank_pattern={"1.mlp.down_proj": 3, "o_proj": 5},
    alpha_pattern={"q_proj": 10},
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("factors")
    module = FAMILIES["llama"]()[0]
    gpt2 = LoraConfig(r=4, lora_alpha=6, use_rslora=True, fan_in_fan_out=True, target_modules=["c_attn", "c_proj"])
    return {
        "llama": noisy_adapter(root / "llama", module, CONFIG),
        "gpt2": noisy_adapter(root / "gpt2", FAMILIES["gpt2"]()[0], gpt2),
    }


def peft_of(family, folder):
    return PeftModel.from_pretrained(FAMILIES[family]()[0], str(folder)).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("source", ["folder", "PeftModel", "loaded"])
def test_factors_are_those_of_pefts_own_delta(folders, family, source):
    """`get_delta_weight` of every layer (transposed where the weight is): numpy's dense SVD is the twin."""
    peft = peft_of(family, folders[family])
    given = {"folder": folders[family], "PeftModel": peft}
    if source == "loaded":
        given["loaded"] = load_model(peft, byte_tokenizer(), check=False)
    found = wb.lora_factors(given[source])
    truth = {name: part for name, part in peft.get_base_model().named_modules() if hasattr(part, "lora_A")}
    assert {one.module for one in found} == set(truth) and not found.left_out
    for one in found:
        layer = truth[one.module]
        delta = layer.get_delta_weight("default").detach().double().numpy()
        # Embeddings hold [token, d], GPT-2's Conv1D [in, out]; ours is out x in.
        delta = delta if isinstance(layer.get_base_layer(), torch.nn.Linear) else delta.T
        assert one.delta().shape == delta.shape and np.abs(one.delta() - delta).max() < 1e-6
        u, s, vt = np.linalg.svd(one.delta())
        k = one.rank
        assert np.allclose(one.singular_values, s[:k], rtol=1e-10) and s[k] < 1e-10 * s[0]
        assert np.isclose(one.norm, np.linalg.norm(one.delta()), rtol=1e-12)
        assert np.allclose(np.abs(np.sum(one.writes(k) * u[:, :k].T, axis=1)), 1, atol=1e-9)
        assert np.allclose(np.abs(np.sum(one.reads(k) * vt[:k], axis=1)), 1, atol=1e-9)
        share = s[:k] ** 2 / np.sum(s**2)
        assert np.isclose(one.effective_rank, np.exp(-np.sum(share * np.log(share))))


def test_scalings_ranks_and_places_by_hand(folders):
    found = wb.lora_factors(folders["llama"])
    assert found["1.mlp.down_proj"].rank == 3 and found["1.mlp.down_proj"].scaling == 6 / 3
    assert found["0.mlp.down_proj"].rank == 4 and found["0.mlp.down_proj"].scaling == 6 / 4
    assert found["2.self_attn.o_proj"].rank == 5 and found["2.self_attn.o_proj"].scaling == 6 / 5
    assert found["2.self_attn.q_proj"].scaling == 10 / 4
    assert wb.lora_factors(folders["gpt2"])["h.0.attn.c_attn"].scaling == 6 / 2, "rsLoRA: alpha / sqrt(r)"
    table = pd.DataFrame(found.rows())
    assert len(table) == 10 and set(table.tower) == {"language"}
    assert table[table.name == "embed_tokens"].layer.isna().all() and sorted(set(table.layer.dropna())) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"'down_proj' names 3 of the adapter's modules: expected one"):
        found["down_proj"]
    with pytest.raises(ValueError, match="9 directions asked for; its factors have 3"):
        found["1.mlp.down_proj"].writes(9)


def test_a_planted_write_direction_is_found_where_it_was_planted(folders, tmp_path):
    """Block 1's down_proj writes one direction only; q_proj of block 2 reads it only."""
    rng = np.random.default_rng(0)
    planted = rng.standard_normal(32)
    planted /= np.linalg.norm(planted)
    stored = load_file(folders["llama"] / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers"
    stored[f"{prefix}.1.mlp.down_proj.lora_B.weight"] = torch.tensor(np.outer(planted, [1, 2, 3])).float()
    stored[f"{prefix}.2.self_attn.q_proj.lora_A.weight"] = torch.tensor(np.outer([1, -1, 2, 0.5], planted)).float()
    (tmp_path / "adapter_config.json").write_text((folders["llama"] / "adapter_config.json").read_text())
    save_file(stored, tmp_path / "adapter_model.safetensors")
    v = wb.Directions.of([f"resid_post:{layer}" for layer in range(3)], np.stack([planted, -2 * planted, planted]))
    found = wb.lora_factors(tmp_path)
    rows = {row["module"]: row for row in found.cosine(v)}
    writer, reader = rows["model.layers.1.mlp.down_proj"], rows["model.layers.2.self_attn.q_proj"]
    assert (writer["side"], writer["site"]) == ("write", "resid_post:1")
    assert (reader["side"], reader["site"]) == ("read", "resid_post:1"), "the block's input is the output of the last"
    for row in (writer, reader):
        assert row["cosine"] == pytest.approx(1, abs=1e-6) and row["share"] == pytest.approx(1, abs=1e-6)
    assert found["1.mlp.down_proj"].effective_rank == pytest.approx(1, abs=1e-6)
    others = [row for name, row in rows.items() if row not in (writer, reader)]
    assert len(others) == 6 and max(row["share"] for row in others) < 0.5, "q_proj of block 0 has no site here"
    assert {row["chance"] for row in others} == {1 / 32}
    with pytest.raises(ValueError, match=r"no module of .* touches the stream at .* with a side of width 8"):
        found.cosine(wb.Directions.of(["resid_post:0"], np.ones((1, 8))))


def test_the_share_along_a_direction_is_that_of_the_written_out_matrix():
    rng = np.random.default_rng(1)
    one = Factor("layers.0.mlp.down_proj", "language", 0, 0.7, rng.standard_normal((2, 9)), rng.standard_normal((5, 2)))
    unit = rng.standard_normal(5)
    unit /= np.linalg.norm(unit)
    delta = 0.7 * one.b @ one.a
    assert one.along(unit, "write")[1] == pytest.approx(np.sum((unit @ delta) ** 2) / np.sum(delta**2), rel=1e-12)
    wide = Factor("x.0.up_proj", "language", 0, 1.0, rng.standard_normal((4, 3)), rng.standard_normal((6, 4)))
    assert len(wide.singular_values) == 3, "rank 4 of a matrix with 3 columns"
    nothing = Factor("x.0.o_proj", "language", 0, 1.0, np.ones((2, 3)), np.zeros((4, 2)))
    assert nothing.norm == 0 and nothing.effective_rank == 0 and nothing.along(np.eye(4)[0], "write")[1] == 0


def test_vision_layers_are_told_from_language_layers(tmp_path):
    folder = noisy_adapter(tmp_path / "it", FAMILIES["gemma3"]()[0], LoraConfig(r=2, target_modules=["q_proj"]))
    found = wb.lora_factors(folder)
    assert [(one.tower, one.layer) for one in found] == [*(("vision", n) for n in range(2)),
                                                         *(("language", n) for n in range(4))]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LoraConfig(r=2, target_modules=["q_proj"], use_dora=True), "is a DoRA: it rescales every row"),
        (LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"), "so B·A is not its change"),
        (IA3Config(target_modules=["q_proj"], feedforward_modules=[]), "is of the kind IA3: expected LoRA"),
    ],
    ids=["DoRA", "PiSSA", "IA3"],
)
def test_changes_that_are_no_b_a_are_refused(tmp_path, config, says):
    module = FAMILIES["llama"]()[0]
    folder = noisy_adapter(tmp_path / "it", module, config)
    with pytest.raises(ValueError, match=says):
        wb.lora_factors(folder)
    if settings_of(folder).get("use_dora"):
        with pytest.raises(ValueError, match=says):
            wb.lora_factors(PeftModel.from_pretrained(module, str(folder)))


def test_whole_modules_and_experts_are_named_as_left_out(folders, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    found = wb.lora_factors(noisy_adapter(tmp_path / "it", FAMILIES["llama"]()[0], config))
    assert dict(found.left_out) == {"lm_head.weight": "a whole tensor, not factors"} and len(found) == 3
    stored = load_file(folders["llama"] / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    (tmp_path / "adapter_config.json").write_text((folders["llama"] / "adapter_config.json").read_text())
    save_file({**stored, key: torch.ones(8, 32)}, tmp_path / "adapter_model.safetensors")
    left_out = wb.lora_factors(tmp_path).left_out
    assert dict(left_out) == {"model.layers.0.self_attn.q_proj": "factors of 2 matrices in one (experts)"}


def test_what_holds_no_factors_is_refused(folders, tmp_path, llama):
    with pytest.raises(FileNotFoundError, match="is no adapter: expected"):
        wb.lora_factors(tmp_path)
    with pytest.raises(ValueError, match=r"variant 'base' has no LoRA factors: expected one of none"):
        wb.lora_factors(llama)
    with pytest.raises(ValueError, match=r"expected one of default"):
        wb.lora_factors(peft_of("llama", folders["llama"]), variant="other")
    with pytest.raises(ValueError, match="a folder holds one adapter"):
        wb.lora_factors(folders["llama"], variant="default")
    assert "10 modules" in repr(wb.lora_factors(folders["llama"]))
