"""domain_weights: the adapters of many domains, looked at by their weights: how alike they are, where they write, and
whether their gates tell one prompt from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.subspace.convergence_directions import DomainDirections
from workbench.training.factor_analysis import Gate, WeightCosines, lora_gates, weight_cosines, writes_along
from workbench.training.factors import LoraFactors
from workbench.training.lora_files import lora_factors
from workbench.training.weight_shift import Constant, ModuleInputs, constant_parts


@dataclass(frozen=True, eq=False)
class DomainWeights(Printed):
    """Of the adapters by name: `owner`, the domain that each belongs to; their `factors`; `cosines` of their weight
    changes; what `writes_along` says of each with its domain's direction; and the `gates` of its modules."""

    owner: Mapping[str, str]
    factors: Mapping[str, LoraFactors]
    cosines: WeightCosines
    writes: Mapping[str, Mapping[str, float]]
    gates: Mapping[str, Sequence[Gate]]

    def __str__(self) -> str:
        within = "" if self.cosines.within is None else f", {self.cosines.within:.2f} within one"
        domains = len(set(self.owner.values()))
        said = f"weights of {len(self.owner)} adapters of {domains} domains"
        return f"{said}: mean cosine {self.cosines.between:.2f} between domains{within}"

    def constants(self, inputs: ModuleInputs) -> dict[str, dict[str, Constant]]:
        """ΔW·x̄ of each adapter's modules, for `wb.constant_shift` (see `constant_parts`)."""
        return {name: constant_parts(one, inputs) for name, one in self.factors.items()}


def domain_weights(
    adapters: Mapping[str, LoraFactors | str | Path],
    found: DomainDirections,
    inputs: ModuleInputs,
    prompts: Sequence[Prompt],
) -> DomainWeights:
    """The weights of the fine-tunes that have a direction in `found` (`wb.domain_directions`); `adapters` are folders
    by variant, or their factors. `inputs` are what their modules read in the base on the `prompts`
    (`wb.module_inputs`), whose tags `domain` and `family` say which are an adapter's own, and what belongs together.

    Raises ValueError as `wb.weight_cosines` does: for fewer than two adapters, adapters of other modules, and one that
    changes nothing.
    """
    owner = {name: domain for domain in found.directions for name in found.groups[domain]}
    given = {name: adapters[name] for name in owner}
    factors = {name: one if isinstance(one, LoraFactors) else lora_factors(one) for name, one in given.items()}
    cosines = weight_cosines({domain: [factors[name] for name in found.groups[domain]] for domain in found.directions})
    families = {one.id: str(one.tags.get("family", one.id)) for one in prompts}
    own = {domain: {one.id for one in prompts if one.tags.get("domain") == domain} for domain in found.directions}
    mean = found.mean
    return DomainWeights(
        owner,
        factors,
        cosines,
        {name: writes_along(factors[name], mean[domain]) for name, domain in owner.items()},
        {name: lora_gates(factors[name], inputs, own[domain], families) for name, domain in owner.items()},
    )
