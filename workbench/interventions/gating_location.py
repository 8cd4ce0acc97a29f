"""locate_gate: the block that reads the trigger, and the place of the prompt that it writes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hooks.site import Site

HALF = 0.5  # of the trigger's effect: declared beforehand, like the rule


@dataclass(frozen=True)
class GateLocation:
    """`block` is the first behind which half of the effect has left the trigger's tokens (or, where these cannot be
    patched, has come to any other place: `by` says which), `place` where most of it is then. `behind` and `in_front`
    are the places of the map's sites behind and in front of the block."""

    block: int
    place: str
    by: str
    behind: int
    in_front: int

    def __str__(self) -> str:
        return f"block {self.block}, into the place {self.place!r}"


def locate_gate(
    share_in: Float[np.ndarray, "site place"],
    share_out: Float[np.ndarray, "site place"],
    sites: Sequence[Site],
    places: Sequence[str],
) -> GateLocation | None:
    """The gate by a rule with nothing to choose: the first site, in the order of the stream, at which the reference's
    stream at the trigger's own tokens takes less than half of the effect away, because what they said was read before;
    and of the other places that at which the trigger's stream brings most. Without the place `trigger` (texts of other
    lengths) the first site at which any other place brings half. None where no site does, or the embedding does."""
    others = [p for p, name in enumerate(places) if name not in ("before", "trigger")]
    if not others:
        return None
    if "trigger" in places:
        passed, by = share_out[:, places.index("trigger")] < HALF, "trigger"
    else:
        passed, by = share_in[:, others].max(axis=1) >= HALF, "arrival"
    if not passed.any() or passed[0]:
        return None
    at = int(np.argmax(passed))
    place = places[others[int(np.argmax(share_in[at, others]))]]
    return GateLocation(sites[at].layer, place, by, at, at - 1)
