"""View: what a module has, as [row, pos, d_model] with the place of every token, and back into the module's own
form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.layout import Layout
from hooks.positions import Tokens
from hooks.site import Site


@runtime_checkable
class View(Protocol):
    """One tensor of one forward. `tokens` has a position for every (row, pos), -1 where there is none."""

    @property
    def tokens(self) -> Tokens: ...

    def rows(self, resid: Tensor) -> Float[Tensor, "row pos d_model"]: ...

    def back(self, rows: Float[Tensor, "row pos d_model"]) -> Tensor: ...


@dataclass(frozen=True)
class TextView:
    """The view of the language stream; `original` keeps what is no token (a learned prefix)."""

    tokens: Tokens
    layout: Layout
    original: Tensor

    def rows(self, resid: Tensor) -> Float[Tensor, "row pos d_model"]:
        return self.layout.rows(resid, *self.tokens.position.shape)

    def back(self, rows: Float[Tensor, "row pos d_model"]) -> Tensor:
        return self.layout.back(rows, self.original)


@dataclass(slots=True, eq=False)
class PlainView:
    """The view of a stream that is [row, pos, d_model] already."""

    tokens: Tokens

    def rows(self, resid: Tensor) -> Float[Tensor, "row pos d_model"]:
        return resid

    def back(self, rows: Float[Tensor, "row pos d_model"]) -> Tensor:
        return rows


def text_view(site: Site, resid: Tensor, tokens: Tokens, layout: Layout) -> View:
    """The language stream at `site`; raises RuntimeError when the tensor is not what the layout promises."""
    if tokens.memo.get(PlainView) == resid.shape and site.point != "projector":
        return PlainView(tokens)  # as at the sites before: a decoding step passes here once a layer
    rows, length = tokens.position.shape
    if length > 1 and tuple(resid.shape) == layout.shape(rows, 1):
        # Some last layers run on the newest token alone while a prompt is read (shared KV); rows are padded left there.
        if not bool((tokens.position[:, -1] == tokens.position.amax(dim=1)).all()):
            raise RuntimeError(
                f"the residual at {site} has one position, and the rows do not end together: "
                "expected every position, or rows of one length."
            )
        tokens, length = tokens.columns(slice(-1, None)), 1
    if tuple(resid.shape) != layout.shape(rows, length):
        raise RuntimeError(
            f"the residual at {site} is {tuple(resid.shape)}: expected {layout.shape(rows, length)} for {rows} rows "
            f"and {length} positions. This architecture's stream is not laid out here as in its probe, so its numbers "
            "would be misread."
        )
    if site.point == "projector":
        tokens = replace(tokens, position=torch.where(tokens.is_image, tokens.position, -1))
    elif layout.plain and length == tokens.position.shape[1]:
        tokens.memo[PlainView] = resid.shape
        return PlainView(tokens)
    return TextView(tokens, layout, resid)
