"""capture with `together`: all variants of a unit in one forward, the numbers of single forwards, exact resume."""

import numpy as np
import pytest
from conftest import stop_after
from peft import LoraConfig
from tiny_adapters import noisy_adapter
from tiny_models import FAMILIES
from workbench_samples import by_place

from hooks.load import load_model
from stores import ActivationStore
from stores.errors import StoreMismatch
from workbench.capturing import capture

# float32 keeps 6e-8 of a number; a dozen sums of a few dozen terms, in another order where rows share a product.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    """One base with six adapters of different ranks."""
    root, (module, tokenizer, _) = tmp_path_factory.mktemp("population"), FAMILIES["llama"]()
    for part in (module, tokenizer):
        part.save_pretrained(root / "base")
    configs = [LoraConfig(r=2 + n, lora_alpha=4, target_modules="all-linear") for n in range(6)]
    folders = {f"a{n}": noisy_adapter(root / f"a{n}", module, config, seed=n) for n, config in enumerate(configs)}
    return load_model(root / "base", adapter=folders)


def test_capture_together_is_one_forward_a_unit_and_the_same_numbers(population, many, tmp_path, request):
    """Six adapters and their base: the base weights are read once a unit, not seven times."""
    model, calls = population, []
    assert model.why_not_by_row(model.variants) is None  # found out once, by three short forwards of its own
    hook = model.module.register_forward_pre_hook(lambda m, a, k: calls.append(len(k["input_ids"])), with_kwargs=True)
    request.addfinalizer(hook.remove)
    settings = dict(sites="resid_post", at="all", variants=model.variants, max_tokens=900, progress=False)
    single = capture(model, many, to=tmp_path / "single", **settings)
    assert len(calls) == 7 * len(single.plan)
    calls.clear()
    together = capture(model, many, to=tmp_path / "together", together=True, **settings)
    assert len(calls) == len(together.plan) > len(single.plan), "the budget counts the rows of all variants"
    assert all(rows % 7 == 0 for rows in calls) and together.spec["together"] is True
    for site in single.sites:
        found, truth = by_place(together, site), by_place(single, site)
        assert found.keys() == truth.keys()
        size = max(np.abs(value).max() for value in truth.values())
        assert max(np.abs(found[key] - truth[key]).max() for key in truth) < TOLERANCE * size
    with pytest.raises(StoreMismatch, match="together"):
        capture(model, many, to=tmp_path / "single", together=True, **settings)


def test_a_stopped_capture_together_goes_on_to_the_same_bits(population, many, tmp_path, monkeypatch):
    model = population
    settings = dict(at="all", variants=model.variants, together=True, max_tokens=900, progress=False)
    whole = capture(model, many, to=tmp_path / "whole", **settings)
    resumed = stop_after(monkeypatch, ActivationStore, commits=1)
    with pytest.raises(KeyboardInterrupt):
        capture(model, many, to=tmp_path / "s", **settings)
    resumed()
    again = capture(model, many, to=tmp_path / "s", **settings)
    assert all(np.array_equal(again.values(site), whole.values(site)) for site in whole.sites)
