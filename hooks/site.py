"""Site: the name of one place in the residual stream of a model. No torch here, so that a store can be read without
it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# In the order in which the stream meets them within a block.
POINTS = ("projector", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
TOWERS = ("language", "vision")

_LENS_STYLE = re.compile(r"blocks\.(?P<layer>\d+)\.hook_(?P<point>\w+)")
_LENS_NAMES = {"in": "resid_pre", "out": "resid_post"}  # TransformerBridge's own words for a block's ends
_OURS = re.compile(r"(?:(?P<tower>\w+)\.)?(?P<point>\w+?)(?::(?P<first>\d+)(?:-(?P<last>\d+))?)?")


@dataclass(frozen=True, order=True)
class Site:
    """One place in a residual stream: `layer` is a 0-based block, `resid_pre` its input and `resid_post` its output.

    `attn_out` and `mlp_out` are what the two halves of a block *add* to the stream, after any norm and multiplier:
    `resid_pre + attn_out = resid_mid`, `resid_mid + mlp_out = resid_post`. `projector` (layer 0) is what an image
    gives the language stream: its input at the image positions. `str(Site(3))` is `"resid_post:3"`,
    `str(Site(3, tower="vision"))` is `"vision.resid_post:3"`; `Site.parse` reads both back, and TransformerLens'
    `"blocks.3.hook_resid_post"` as well.
    """

    layer: int
    point: str = "resid_post"
    tower: str = "language"

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise ValueError(f"Site point {self.point!r} is unknown: expected one of {', '.join(POINTS)}.")
        if self.tower not in TOWERS:
            raise ValueError(f"Site tower {self.tower!r} is unknown: expected one of {', '.join(TOWERS)}.")
        if self.layer < 0:
            raise ValueError(
                f"Site layer {self.layer} is negative: layers count from 0 at the input side of the model."
            )
        if self.point == "projector" and (self.layer or self.tower != "language"):
            raise ValueError(f"Site {self} does not exist: there is one projector output, 'projector'.")

    @property
    def stream(self) -> str:
        """The site without its layer: `"resid_post"` or `"vision.resid_post"`; what a store calls one dataset."""
        return self.point if self.tower == "language" else f"{self.tower}.{self.point}"

    def __str__(self) -> str:
        return f"{self.stream}:{self.layer}"

    @classmethod
    def parse(cls, name: str | Site) -> Site:
        """The site with this name; a range or a bare point is refused (see `parse_sites`)."""
        if isinstance(name, Site):
            return name
        found = parse_sites(name, n_layers=None)
        if len(found) != 1:
            raise ValueError(f"{name!r} names {len(found)} sites: expected one, such as 'resid_post:3'.")
        return found[0]


def parse_sites(names: str | Site | Iterable[str | Site], *, n_layers: int | dict[str, int] | None) -> list[Site]:
    """The sites that `names` stand for, in order, without repeats.

    A name is `"resid_post:3"`, a range `"resid_post:8-15"` (both ends included), a bare point `"resid_post"` (every
    layer), `"embedding"` (the input of block 0), `"final"` (the output of the last block), any of them behind
    `"vision."`, or `"projector"`. TransformerLens' `"blocks.3.hook_resid_mid"` is read as well. `n_layers` is the
    number of blocks (of each tower, if a dict); a layer outside it is refused.
    """
    if isinstance(names, Site):
        names = [names]
    if isinstance(names, str):
        names = [part.strip() for part in names.split(",")]
    sites: list[Site] = []
    for name in names:
        sites += [name] if isinstance(name, Site) else _sites_named(name, n_layers)
    for site in sites:
        depth = _depth(n_layers, site.tower)
        if depth is not None and site.layer >= depth:
            raise ValueError(
                f"Site {site} is outside this model: expected layers 0..{depth - 1} (layers count from 0)."
            )
    return list(dict.fromkeys(sites))


def _depth(n_layers: int | dict[str, int] | None, tower: str) -> int | None:
    if isinstance(n_layers, dict):
        if tower not in n_layers:
            raise ValueError(f"this model has no {tower!r} tower: expected one of {', '.join(n_layers)}.")
        return n_layers[tower]
    return n_layers


def _sites_named(name: str, n_layers: int | dict[str, int] | None) -> Sequence[Site]:
    if lens := _LENS_STYLE.fullmatch(name):
        return [Site(int(lens["layer"]), _LENS_NAMES.get(lens["point"], lens["point"]))]
    if name in ("hook_embed", "hook_pos_embed"):
        raise ValueError(
            f"{name!r} is a part of the embedding, and the stream of many models is scaled or normed after it: "
            "expected 'embedding', the input of block 0."
        )
    match = _OURS.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is no site: expected a name such as 'resid_post:3', 'resid_pre:0-5' or 'resid_post'."
        )
    tower, point = match["tower"] or "language", match["point"]
    if match["first"] is not None:
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise ValueError(f"{name!r} runs backwards: expected first-last, both ends included.")
        return [Site(layer, point, tower) for layer in range(first, last + 1)]
    if point == "embedding":
        return [Site(0, "resid_pre", tower)]
    if point == "projector":
        return [Site(0, "projector", tower)]
    depth = _depth(n_layers, tower)
    if depth is None:
        raise ValueError(f"{name!r} gives no layer: expected one, such as '{name}:3'.")
    if point == "final":
        return [Site(depth - 1, "resid_post", tower)]
    return [Site(layer, point, tower) for layer in range(depth)]
