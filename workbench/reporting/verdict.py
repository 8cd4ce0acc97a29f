"""Does this direction carry the effect? The one place where that is decided, from the ablation and its controls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from workbench.reporting.summary import Result, Summary
from workbench.statistics import DRAWS_FOR_P, Tail, p_value

HONEST = "energy_matched"
"""The control that counts: an isotropic direction holds only 1/d of the energy, so removing it changes little."""


def _none() -> Float[np.ndarray, " draw"]:
    return np.empty(0)


@dataclass(frozen=True)
class Verdict:
    """Ablation at all layers in one modality: the rates, and the same rates under energy-matched control directions."""

    modality: str
    tuned: Result | None
    contrary: Result | None
    right: Result | None
    ill_formed: Result | None = None
    contrary_draws: Float[np.ndarray, " contrary_draw"] = field(default_factory=_none)
    right_draws: Float[np.ndarray, " right_draw"] = field(default_factory=_none)

    @property
    def enough(self) -> bool:
        """At least 99 control runs of both rates: fewer cannot give p ≤ 1/100."""
        return min(len(self.contrary_draws), len(self.right_draws)) >= DRAWS_FOR_P

    @property
    def lowered(self) -> bool:
        """Fewer contrary answers than without the edit, and than under every control. A tie is not fewer."""
        if self.contrary is None or self.tuned is None or not len(self.contrary_draws):
            return False
        below_all = as_extreme(self.contrary.value, self.contrary_draws, "less") == 0
        return self.contrary.value < self.tuned.value and below_all

    @property
    def recovered(self) -> bool:
        """More right answers than under every control: a model that merely broke gives none of either."""
        if self.right is None or not len(self.right_draws):
            return False
        return as_extreme(self.right.value, self.right_draws, "greater") == 0

    @property
    def carried(self) -> bool:
        """True only when contrary falls below every one, and right rises above every one, of at least 99 controls."""
        return self.enough and self.lowered and self.recovered


def ablation_verdict(summary: Summary, modality: str, split: str = "other_domains") -> Verdict:
    """The verdict on the ablation at all layers; whatever was not measured is None or empty in it."""
    cell = {"split": split, "modality": modality}
    contrary = summary.first(metric="contrary", condition="ablation", **cell)
    right = summary.first(metric="right", condition="ablation", **cell)
    return Verdict(
        modality=modality,
        tuned=summary.first(metric="contrary", condition="tuned", **cell),
        contrary=contrary,
        right=right,
        ill_formed=summary.first(metric="ill_formed", condition="ablation", **cell),
        contrary_draws=_draws(summary, contrary),
        right_draws=_draws(summary, right),
    )


def as_extreme(value: float, draws: Float[np.ndarray, " draw"], tail: Tail) -> int:
    """How many control draws are as extreme as the value; ties count, as in the p they belong to."""
    return round(p_value(value, draws, tail) * (1 + len(draws))) - 1


def _draws(summary: Summary, result: Result | None) -> Float[np.ndarray, " draw"]:
    return _none() if result is None else summary.controls(result).get(HONEST, _none())
