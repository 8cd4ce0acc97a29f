"""From weights to activations: how far an adapter's shift is what B·A writes on the mean of what its modules read.

An adapter adds ΔW·x to every module's output. Its *constant part* is ΔW·x̄, with x̄ the mean of what the module reads in
the base: known from the weights and one pass of the base, whatever the prompts. Run as a constant through the base (so
that norms, attention and later layers act on it) it predicts a shift, which is held against the measured one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.adapter_rows import lora_layers
from hooks.encoded_prompts import EncodedPrompts
from hooks.pool import Pool
from hooks.positions import Scope
from hooks.prompt import Prompt
from hooks.site import Site
from stores.printed import Printed
from workbench.training.factors import Factor, LoraFactors
from workbench.units import budget_on, kinds_of, length_sorted


@dataclass(frozen=True, eq=False)
class ModuleInputs(Printed):
    """What each adapted module of the language model reads in the base: `first` the mean at position 0, `mean` at all
    other real positions, `rows` at the scope `at`, one a prompt (its mean over the scope), in the order of `prompts`.
    Position 0 is kept apart: its activations are of another size in many models. float64."""

    mean: Mapping[str, Float[np.ndarray, " d_in"]]
    first: Mapping[str, Float[np.ndarray, " d_in"]]
    rows: Mapping[str, Float[np.ndarray, "prompt d_in"]]
    prompts: tuple[str, ...]
    at: Scope

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self.mean)


Constant = tuple[Float[np.ndarray, " d_out"], Float[np.ndarray, " d_out"]]  # at position 0, and at every other


def module_inputs(
    model: Any, prompts: Sequence[Prompt], *, at: Scope = "last", max_tokens: int | None = None
) -> ModuleInputs:
    """What the adapted modules of `model` (with any adapters loaded) read while its base reads the prompts.

    Modules of a vision tower, and those that read something else than rows of positions (experts), are left out.
    """
    layers = _language_layers(model)
    totals = {name: [0.0, 0.0] for name in layers}
    sums: dict[str, list[Any]] = {name: [0.0, 0.0] for name in layers}
    rows: dict[str, dict[int, np.ndarray]] = {name: {} for name in layers}
    pool = Pool(at, "mean")
    for unit, batch in _batches(model, prompts, max_tokens):
        tokens = batch.tokens.to(model.device)
        masks = (tokens.position == 0, tokens.position > 0)

        def watch(name: str, unit: Sequence[int] = unit, tokens: Any = tokens, masks: Any = masks) -> Any:
            def seen(_: Any, args: tuple[Tensor, ...]) -> None:
                if args[0].shape[:2] != masks[0].shape:
                    return
                for i, mask in enumerate(masks):
                    sums[name][i] = sums[name][i] + args[0][mask].double().sum(dim=0).cpu().numpy()
                    totals[name][i] += int(mask.sum())
                picked = pool.picked(tokens)
                kept = picked.of(args[0]).double().cpu().numpy()
                rows[name].update({unit[row]: one for row, one in zip(picked.row.tolist(), kept, strict=True)})

            return seen

        with ExitStack() as stack:
            for name, layer in layers.items():
                stack.callback(layer.register_forward_pre_hook(watch(name)).remove)
            model.variant("base").run(batch)
    whole = [name for name in layers if min(totals[name]) > 0 and len(rows[name]) == len(prompts)]
    return ModuleInputs(
        {name: sums[name][1] / totals[name][1] for name in whole},
        {name: sums[name][0] / totals[name][0] for name in whole},
        {name: np.stack([rows[name][i] for i in range(len(prompts))]) for name in whole},
        tuple(prompt.id for prompt in prompts),
        at,
    )


def constant_parts(factors: LoraFactors, inputs: ModuleInputs) -> dict[str, Constant]:
    """ΔW·x̄ of each module, at position 0 and elsewhere. Raises ValueError when no module of the adapter was watched."""
    found = {one.module: (_written(one, inputs.first), _written(one, inputs.mean))
             for one in factors if one.module in inputs.mean}  # fmt: skip
    if not found:
        raise ValueError(
            f"{factors!r} has none of the watched modules ({', '.join(inputs.modules[:2]) or 'none'}, ...): expected "
            "an adapter of this model's language layers."
        )
    return found


def constant_shift(
    model: Any,
    prompts: Sequence[Prompt],
    adapters: Mapping[str, Mapping[str, Constant]],
    *,
    sites: Sequence[Site],
    at: Scope = "last",
    max_tokens: int | None = None,
) -> dict[str, Float[np.ndarray, "site d_model"]]:
    """The mean shift of the base's residuals at `at` when every adapted module adds its constant instead of ΔW·x, of
    each adapter by name. Cost: one forward a batch for each adapter, and one for the base."""
    keep = {site: Pool(at, "mean") for site in sites}
    base = model.variant("base")
    sums: dict[str, Any] = dict.fromkeys(adapters, 0.0)
    total, layers = 0, _language_layers(model)
    for _, batch in _batches(model, prompts, max_tokens):
        without = _kept(base.run(batch, keep, logits=False), sites)
        total += without.shape[1]
        for name, each in adapters.items():
            with acting_as_constant({layers[module]: both for module, both in each.items()}):
                sums[name] = sums[name] + (_kept(base.run(batch, keep, logits=False), sites) - without).sum(axis=1)
    return {name: one / total for name, one in sums.items()}


@contextmanager
def acting_as_constant(layers: Mapping[Any, Constant]) -> Iterator[None]:
    """While the body runs forwards of rows that are padded right, each of these modules adds its constant."""

    def adding(both: Constant) -> Any:
        first, rest = (torch.from_numpy(one) for one in both)

        def add(_: Any, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            added = rest.to(out).expand(out.shape).clone()
            added[:, 0] = first.to(out)
            return out + added

        return add

    with ExitStack() as stack:
        for layer, both in layers.items():
            stack.callback(layer.register_forward_hook(adding(both)).remove)
        yield


def _written(one: Factor, inputs: Mapping[str, Float[np.ndarray, " d_in"]]) -> Float[np.ndarray, " d_out"]:
    return one.scaling * (one.b @ (one.a @ inputs[one.module]))


def _kept(trace: Any, sites: Sequence[Site]) -> Float[np.ndarray, "site row d_model"]:
    return np.stack([trace.kept[site].double().cpu().numpy() for site in sites])


def _language_layers(model: Any) -> dict[str, Any]:
    """The adapted modules of the language model, by their path."""
    blocks = {id(part) for block in model.towers["language"].blocks for part in block.modules()}
    return {name: layer for name, layer in lora_layers(model.module).items() if id(layer) in blocks}


def _batches(model: Any, prompts: Sequence[Prompt], max_tokens: int | None) -> Iterator[tuple[list[int], Any]]:
    encoded = EncodedPrompts(model.encoder, prompts)
    kinds = kinds_of(model, prompts, encoded.lengths)
    for unit in length_sorted(encoded.lengths, max_tokens or budget_on(model.device), kinds):
        yield unit, model.encoder.collate(encoded.taken(unit)).padded("right")
