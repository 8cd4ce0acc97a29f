"""Slab: what one unit of work keeps of one stream, [layer, row, d_model] in one piece, written by the hooks into its
place: nothing is stacked, joined or copied to the host layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.model import Keep, Where
from hooks.pool import Picked, Pool
from hooks.positions import Tokens

Room = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Gives memory for a shape, uninitialised: on the model's device, or (on a CPU) where it will be written from."""


class Slab:
    """Rows of `passes` forwards of the same prompts (one a variant), pass after pass, at several layers.

    `picked` are the kept positions of one pass, on the CPU, and `tokens` what they were picked from: both are the same
    in every pass, unless `part` says that a forward holds some of the rows alone. `values` is None until the first
    forward has shown how many rows there are.
    """

    def __init__(
        self, pool: Pool, layers: int, d_model: int, dtype: torch.dtype, room: Room, *, passes: int = 1
    ) -> None:
        self.pool, self.passes = pool, passes
        self.picked: Picked | None = None
        self.tokens: Tokens | None = None
        self.values: Float[Tensor, "layer row d_model"] | None = None
        self._layers, self._d_model, self._dtype, self._room = layers, d_model, dtype, room
        self._at, self._rows = 0, 0  # where the forward's rows begin, and how many they are
        self._expected: Picked | None = None  # of the forward's tokens, on the device
        self._seen: Tokens | None = None

    def expect(self, tokens: Tokens, device: torch.device) -> None:
        """The tokens (on the CPU) of the language stream in the forwards to come. Without it the first hook finds out
        what is kept (inside a tower only the forward knows), which on a GPU waits for it."""
        picked = self.pool.picked(tokens)
        self._expected = picked.to(device)
        self._begin(picked, tokens)

    def part(self, tokens: Tokens, device: torch.device) -> None:
        """The tokens of the next forward, where it holds the rows behind the last one's, not all that are expected."""
        self._expected, self._seen = self.pool.picked(tokens).to(device), tokens
        self._rows = len(self._expected)

    def plane(self, layer: int) -> Keep:
        """The Keep of one site, which writes into the `layer`-th plane and keeps nothing itself."""

        def write(resid: Tensor, where: Where) -> None:
            self._write(layer, resid, where)

        return write

    def next_pass(self) -> None:
        """The forward is over: what comes stands behind its rows."""
        self._at += self._rows

    def _begin(self, picked: Picked, tokens: Tokens) -> None:
        self.picked, self.tokens, self._seen, self._rows = picked, tokens, tokens, len(picked)
        self.values = self._room((self._layers, len(picked) * self.passes, self._d_model), self._dtype)

    def _write(self, layer: int, resid: Tensor, where: Where) -> None:
        picked = self._picked(where)
        if self.values is None:
            self._begin(picked.to(torch.device("cpu")), where.tokens)
        assert self.values is not None
        n = self._rows
        wanted = torch.float32 if self.pool.reduce == "mean" else resid.dtype
        if len(picked) != n or wanted != self._dtype or resid.shape[-1] != self._d_model:
            raise ValueError(
                f"site {where.site} has {len(picked)} kept rows of {resid.shape[-1]} {wanted}: expected {n} of "
                f"{self._d_model} {self._dtype}, as at the other layers of its stream. Capture it into a store of its "
                "own."
            )
        if n:
            picked.of(resid, self.values[layer, self._at : self._at + n])

    def _picked(self, where: Where) -> Picked:
        if self._expected is None or self._seen is None or where.site.point == "projector":
            return self.pool.picked(where.tokens)
        # A layer may see fewer positions than its batch has (see `text_view`); its indices are its own.
        same = where.tokens.position.shape == self._seen.position.shape
        return self._expected if same else self.pool.picked(where.tokens)
