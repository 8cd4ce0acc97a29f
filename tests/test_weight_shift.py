"""From weights to activations: inputs against a hook, shifts that are constant parts exactly, planted predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import chat
from peft import LoraConfig
from tiny_adapters import noisy_adapter
from tiny_models import FAMILIES, byte_tokenizer

import workbench as wb
from hooks.load import load_model

SITES = [wb.Site(0), wb.Site(1)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A tiny llama with an adapter on the last block's down_proj alone, and one on attention everywhere."""
    root, module = tmp_path_factory.mktemp("shift"), FAMILIES["llama"]()[0]
    last = LoraConfig(r=2, lora_alpha=4, target_modules=r".*layers\.1\.mlp\.down_proj")
    attention = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    folders = {"last": noisy_adapter(root / "last", module, last, size=0.1),
               "attention": noisy_adapter(root / "attention", module, attention, seed=1, size=0.1)}  # fmt: skip
    return load_model(FAMILIES["llama"]()[0], byte_tokenizer(), adapter=folders, check=False), folders


@pytest.fixture(scope="module")
def alike():
    """Eight prompts of one length."""
    return [chat(f"p{i}", f"what of {letter}") for i, letter in enumerate("abcdefgh")]


def measured(model, variant, prompts, at):
    """The mean shift of an adapter, by a capture of both."""
    batch = model.encode(prompts)
    from hooks.pool import Pool

    keep = {site: Pool(at, "mean") for site in SITES}
    runs = [model.variant(name).run(batch, keep, logits=False).kept for name in (variant, "base")]
    return np.stack([(runs[0][site] - runs[1][site]).double().mean(dim=0).numpy() for site in SITES])


def test_inputs_are_what_the_modules_read_in_the_base(loaded):
    """Prompts of several lengths in one batch, some of them padded: against each alone, read by a hook of ours."""
    model, _ = loaded
    questions = [chat(f"p{i}", "what of " + "x" * i) for i in range(1, 5)]
    found = wb.module_inputs(model, questions)
    assert found.prompts == tuple(prompt.id for prompt in questions)
    assert {name.rpartition(".")[2] for name in found.modules} == {"q_proj", "v_proj", "down_proj"}
    layer = dict(model.module.named_modules())["model.layers.1.mlp.down_proj"]
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double()))
    for prompt in questions:
        model.variant("base").run(model.encode([prompt]))
    handle.remove()
    name = "model.layers.1.mlp.down_proj"
    assert found.rows[name] == pytest.approx(np.stack([one[-1].numpy() for one in seen]), abs=1e-5)
    assert found.first[name] == pytest.approx(torch.stack([one[0] for one in seen]).mean(dim=0).numpy(), abs=1e-5)
    assert found.mean[name] == pytest.approx(torch.cat([one[1:] for one in seen]).mean(dim=0).numpy(), abs=1e-5)


@pytest.mark.parametrize("at", ["all", 0])
def test_a_shift_that_is_linear_in_the_inputs_is_predicted_exactly(loaded, alike, at):
    """What the last block adds is linear in what its down_proj reads, which the adapter does not change: the mean over
    positions is ΔW·x̄, at position 0 with its own mean. Without a change before it the block before is not moved."""
    model, folders = loaded
    inputs = wb.module_inputs(model, alike)
    parts = {"last": wb.constant_parts(wb.lora_factors(folders["last"]), inputs)}
    found = wb.constant_shift(model, alike, parts, sites=SITES, at=at)["last"]
    assert found == pytest.approx(measured(model, "last", alike, at), abs=1e-5)
    assert not found[0].any() and np.linalg.norm(found[1]) > 0.01


def test_the_base_is_as_it_was_afterwards(loaded, alike):
    model, folders = loaded
    batch = model.encode(alike)
    before = model.variant("base").run(batch).logits
    parts = {"attention": wb.constant_parts(wb.lora_factors(folders["attention"]), wb.module_inputs(model, alike))}
    moved = wb.constant_shift(model, alike, parts, sites=SITES)["attention"]
    assert np.linalg.norm(moved, axis=1).min() > 0
    assert torch.equal(model.variant("base").run(batch).logits, before)


def test_an_adapter_of_other_modules_is_refused(loaded, alike):
    model, folders = loaded
    inputs = wb.module_inputs(model, alike)
    other = noisy_adapter(
        folders["last"].parent / "other", FAMILIES["llama"]()[0], LoraConfig(target_modules=["up_proj"])
    )
    with pytest.raises(ValueError, match="none of the watched modules"):
        wb.constant_parts(wb.lora_factors(other), inputs)


def shifts(n_domains: int, per_domain: int, agree: float, seed: int = 0, common: float = 0.0):
    """Measured shifts of adapters, all with something in `common`, and predictions that agree with them."""
    rng = np.random.default_rng(seed)
    made, found, owner = {}, {}, {}
    for d in range(n_domains):
        own = rng.standard_normal((1, 50)) + common
        for i in range(per_domain):
            name = f"d{d}-{i}"
            found[name], owner[name] = own + 0.1 * rng.standard_normal((1, 50)), f"d{d}"
            made[name] = agree * own + np.sqrt(1 - agree**2) * rng.standard_normal((1, 50))
    return made, found, owner


def test_the_bridge_tells_own_from_other_domains_predictions():
    made, found, owner = shifts(6, 2, agree=0.9)
    (bridge,) = wb.weight_bridge(made, found, owner, sites=SITES[:1])
    first = next(iter(made))
    a, b = made[first][0], found[first][0]
    assert bridge.own[0] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert bridge.ratio[0] == pytest.approx(np.linalg.norm(a) / np.linalg.norm(b))
    assert bridge.explained[0] == pytest.approx(1 - ((b - a) ** 2).sum() / (b**2).sum())
    others = [made[name][0] for name in made if owner[name] != owner[first]]
    cosines = [one @ b / np.linalg.norm(one) / np.linalg.norm(b) for one in others]
    assert bridge.others[0] == pytest.approx(np.mean(cosines))
    assert bridge.gap > 0.7 and bridge.interval[0] > 0.5 and bridge.p is not None and bridge.p < 0.02


def test_a_bridge_knows_its_site():
    made, found, owner = shifts(6, 1, agree=0.9)
    made, found = ({name: np.concatenate([one, -one]) for name, one in each.items()} for each in (made, found))
    first, second = wb.weight_bridge(made, found, owner, sites=SITES)
    assert [first.site, second.site] == SITES and second.own == pytest.approx(first.own)


def test_what_all_domains_have_in_common_tells_none_apart():
    """Predictions that share it agree with every domain; what they know of their own still shows in p and gap."""
    (bridge,) = wb.weight_bridge(*shifts(6, 2, agree=0.9, common=1.0), sites=SITES[:1])
    assert bridge.others.min() > 0.4 and 0 < bridge.gap < 0.5 and bridge.p is not None and bridge.p < 0.02


def test_the_bridge_of_unrelated_predictions_has_a_uniform_p():
    p = np.array(
        [wb.weight_bridge(*shifts(6, 1, 0.0, seed), sites=SITES[:1], draws=199)[0].p for seed in range(60)], dtype=float
    )
    assert sum(p <= 0.05) <= 7 and np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.2)


def test_a_bridge_needs_another_domain_and_shifts():
    made, found, owner = shifts(4, 1, 0.9)
    assert wb.weight_bridge(made, found, owner, sites=SITES[:1])[0].p is None  # too few exchanges of 4 domains
    with pytest.raises(ValueError, match="1 domains"):
        wb.weight_bridge(made, found, dict.fromkeys(owner, "one"), sites=SITES[:1])
    with pytest.raises(ValueError, match="a shift of nothing"):
        wb.weight_bridge({**made, "d0-0": np.zeros((1, 50))}, found, owner, sites=SITES[:1])
