"""GatesOverDomains: what the gates of several domains say together, with their controls and near misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stores.printed import Printed
from workbench.behaviour.gating_entries import gate_control_entries, gate_map_entries, near_miss_entries
from workbench.behaviour.gating_near import NearMisses
from workbench.behaviour.gating_summary import Gate
from workbench.interventions.gating import GatingMap


@dataclass(frozen=True, eq=False)
class GatesOverDomains(Printed):
    """The `gates` of all domains and splits; `ordinary`, the same patches when the giver shows an ordinary text (domain
    -> adapter -> map); `base`, the maps of the base model by domain; `near`, the near misses of each domain."""

    gates: Sequence[Gate]
    ordinary: Mapping[str, Mapping[str, GatingMap]] = field(default_factory=dict)
    base: Mapping[str, GatingMap] = field(default_factory=dict)
    near: Sequence[NearMisses] = ()

    _items = "gates"

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """Means over the domains of a split: shares by site and place, the controls beside them, and near misses, whose
        p are corrected for the number of texts. None where there is no gate."""
        out = gate_map_entries(self.gates, **facts)
        out += gate_control_entries(self.gates, self.ordinary, self.base, **facts)
        near = NearMisses.joined(self.near)
        return out + (near_miss_entries(near, **facts) if near.effects else [])
