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


def test_a_prompt_that_is_too_long_for_all_variants_is_read_in_parts(population, many, tmp_path, request):
    """No forward holds more tokens than the budget, unless one variant alone does; the rows stand as in one forward."""
    model, sizes = population, []
    longest = max(len(model.encoder.encode(prompt)) for prompt in many)
    hook = model.module.register_forward_pre_hook(
        lambda m, a, k: sizes.append(tuple(k["input_ids"].shape)), with_kwargs=True
    )
    request.addfinalizer(hook.remove)
    for pool, budget in (("none", 3 * longest), ("mean", 5)):
        settings = dict(at="all", pool=pool, variants=model.variants, together=True, progress=False)
        whole = capture(model, many, to=tmp_path / f"whole {pool}", **settings)
        sizes.clear()
        parts = capture(model, many, to=tmp_path / f"parts {pool}", **settings, max_tokens=budget)
        assert len(parts.plan) == len(many) and sum(rows for rows, _ in sizes) == 7 * len(many)
        assert len(sizes) == 7 * len(many) if pool == "mean" else len(many) < len(sizes) < 4 * len(many)
        assert all(rows * columns <= budget or rows == 1 for rows, columns in sizes)
        for site in whole.sites:
            found, truth = (by_place(one, site) for one in (parts, whole))
            assert found.keys() == truth.keys()
            size = max(np.abs(value).max() for value in truth.values())
            assert max(np.abs(found[key] - truth[key]).max() for key in truth) < TOLERANCE * size


def test_parts_hold_every_variant_once_and_are_even(population, many):
    model, batch = population, population.encode(many[:2])
    columns = batch.inputs["input_ids"].shape[1]
    for most, expected in ((14 * columns, [7]), (12 * columns, [3, 4]), (6 * columns, [2, 2, 3]), (1, [1] * 7)):
        parts = model.across_in_parts(batch, model.variants, most)
        assert sorted(len(rows) // 2 for _, rows in parts) == expected
        assert [name for view, _ in parts for name in view.active] == [name for name in model.variants for _ in "ab"]
        assert all(rows.ids == batch.ids * (len(rows) // 2) for _, rows in parts)


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
