"""Where one site of one tower is hooked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hooks.joints import Joint
from hooks.site import Site
from hooks.spot import Spot
from hooks.stream import ResidualStream
from hooks.structure import UnsupportedArchitecture


def located(tower: ResidualStream, site: Site, joints: Callable[[], Sequence[Joint]], *, text_only: bool) -> Spot:
    """The spot of a site. Blocks that text alone does not pass leave the stream as it is: with `text_only` their ends
    are the end of the block before. `joints()` finds the halves of the blocks when they are first asked for.

    Raises UnsupportedArchitecture for a place that these blocks do not have.
    """
    if text_only and site.layer in tower.skipped:
        if site.point not in ("resid_pre", "resid_post"):
            raise UnsupportedArchitecture(f"site {site}: text alone does not pass this block, so it adds nothing.")
        return _end_before(tower, site.layer)
    block = tower.blocks[site.layer]
    if site.point == "resid_post":
        return Spot(block, "output", tower.writes)
    start = Spot(block, "input", tower.reads)
    if site.point in ("resid_pre", "projector"):
        return start
    if site.tower != "language":
        raise UnsupportedArchitecture(f"site {site}: expected resid_pre or resid_post in a vision tower.")
    try:
        return joints()[site.layer].spot(site.point, start)
    except UnsupportedArchitecture as error:
        raise UnsupportedArchitecture(f"site {site} of {type(block).__name__}: {error}") from None


def _end_before(tower: ResidualStream, layer: int) -> Spot:
    passed = [n for n in range(layer) if n not in tower.skipped]
    if passed:
        return Spot(tower.blocks[passed[-1]], "output", tower.writes)
    first = next(n for n in range(len(tower)) if n not in tower.skipped)
    return Spot(tower.blocks[first], "input", tower.reads)
