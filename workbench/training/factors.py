"""What a LoRA adapter adds to each weight, ΔW = scaling · B·A, read from its factors: never written out in full.

Singular values and directions come from the QR decompositions of B and Aᵀ and the SVD of a [rank, rank] matrix,
float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed

# The last part of a module's path: what adds to the residual stream, and what reads it (through a norm).
WRITERS = frozenset({
    "o_proj", "out_proj", "c_proj", "dense", "proj", "wo",
    "down_proj", "dense_4h_to_h", "fc2", "fc_out", "w2",
    "embed_tokens", "wte", "word_embeddings",
})  # fmt: skip
READERS = frozenset({
    "q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value", "qkv", "query", "key", "value", "Wqkv",
    "gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "fc_in", "wi", "wi_0", "wi_1", "w1", "w3", "dense_h_to_4h",
    "in_proj", "lm_head",
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Factor(Printed):
    """The change of one module's weight: `scaling · b @ a`, out x in, in the convention of nn.Linear (also where the
    module stores its weight the other way round, as GPT-2 does). An embedding reads token ids and writes vectors."""

    module: str
    tower: str
    layer: int | None
    scaling: float
    a: Float[np.ndarray, "rank d_in"] = field(repr=False)
    b: Float[np.ndarray, "d_out rank"] = field(repr=False)

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def name(self) -> str:
        """The last part of the module's path, such as `down_proj`."""
        return self.module.rpartition(".")[2]

    @cached_property
    def _svd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        q_b, r_b = np.linalg.qr(self.b)
        q_a, r_a = np.linalg.qr(self.a.T)
        u, s, vt = np.linalg.svd(self.scaling * r_b @ r_a.T)
        n = min(len(s), *self.a.shape, *self.b.shape)
        return (q_b @ u[:, :n]).T, s[:n], vt[:n] @ q_a.T

    @property
    def singular_values(self) -> Float[np.ndarray, " k"]:
        """Of ΔW, largest first; k is the rank, or the smaller side of a weight that is narrower."""
        return self._svd[1]

    @property
    def norm(self) -> float:
        """‖ΔW‖_F."""
        return float(np.linalg.norm(self.singular_values))

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the squared singular values' shares; 0 for a change of nothing. Source: Roy & Vetterli
        2007, on energies."""
        energy = self.singular_values**2
        if not energy.any():
            return 0.0
        share = energy[energy > 0] / energy.sum()
        return float(np.exp(-(share * np.log(share)).sum()))

    def writes(self, k: int = 1) -> Float[np.ndarray, "k d_out"]:
        """The k directions that are written most (left singular vectors), unit length; signs are arbitrary."""
        return self._svd[0][: self._count(k)]

    def reads(self, k: int = 1) -> Float[np.ndarray, "k d_in"]:
        """The k directions that are read most (right singular vectors), unit length; signs are arbitrary."""
        return self._svd[2][: self._count(k)]

    def delta(self) -> Float[np.ndarray, "d_out d_in"]:
        """ΔW itself."""
        return self.scaling * self.b @ self.a

    def _count(self, k: int) -> int:
        if not 1 <= k <= len(self.singular_values):
            raise ValueError(
                f"{self.module}: {k} directions asked for; its factors have "
                f"{len(self.singular_values)}, expected at most as many."
            )
        return k

    def along(self, unit: Float[np.ndarray, " d"], side: str) -> tuple[float, float]:
        """(cosine of the top direction with `unit`, without its arbitrary sign; share of ‖ΔW‖²_F along `unit`), on the
        side `"write"` (output) or `"read"` (input)."""
        top = (self.writes() if side == "write" else self.reads())[0]
        part = (unit @ self.b) @ self.a if side == "write" else self.b @ (self.a @ unit)
        share = float(np.sum((self.scaling * part) ** 2)) / self.norm**2 if self.norm else 0.0
        return abs(float(top @ unit)), share

    def row(self) -> dict[str, Any]:
        """What a table says of the module."""
        return {
            "module": self.module,
            "tower": self.tower,
            "layer": self.layer,
            "name": self.name,
            "rank": self.rank,
            "scaling": self.scaling,
            "norm": self.norm,
            "largest": float(self.singular_values[0]),
            "effective_rank": self.effective_rank,
        }


@dataclass(frozen=True, eq=False)
class LoraFactors(Printed):
    """The changed modules of one adapter, in the order of the model. `left_out` names what has no single B·A, with the
    reason."""

    adapter: str
    factors: tuple[Factor, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Factor]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    def __getitem__(self, module: str) -> Factor:
        """The module with this path, or whose path alone ends so: `"3.mlp.down_proj"`."""
        found = [one for one in self.factors if f".{one.module}".endswith(f".{module}")]
        if len(found) != 1:
            raise ValueError(
                f"{module!r} names {len(found)} of the adapter's modules: expected one, such as "
                f"{self.factors[0].module!r}."
            )
        return found[0]

    def rows(self) -> list[dict[str, Any]]:
        """One row a module, for a data frame."""
        return [one.row() for one in self.factors]

    def cosine(self, v: Any) -> list[dict[str, Any]]:
        """How far each module's change lies along the directions `v`: one row a module of v's tower that adds to the
        stream (its output side, against v at the block's end) or reads it (its input side, against v at the block's
        input; the norm between the stream and the module is not undone).

        `cosine` is that of the top singular direction, `share` the part of ‖ΔW‖²_F along v, `chance` what a random
        direction has of it on average. Modules whose site v does not have, and those that touch the stream with neither
        side, are left out. Raises ValueError when v fits none.
        """
        at = {str(site): unit for site, unit, norm in zip(v.sites, v.unit, v.norm, strict=True) if norm > 0}
        out = []
        for one in self.factors:
            side = _side(one, v.unit.shape[1])
            site = next((site for site in _sites(one, side) if str(site) in at), None) if side else None
            if side is None or site is None:
                continue
            cosine, share = one.along(at[str(site)], side)
            facts = {"side": side, "site": str(site), "cosine": cosine, "share": share, "chance": 1 / v.unit.shape[1]}
            out.append({**one.row(), **facts})
        if not out:
            raise ValueError(
                f"no module of {self.adapter} touches the stream at {v.sites[0]} .. {v.sites[-1]} with a side of width "
                f"{v.unit.shape[1]}: expected directions of the model that it was trained on."
            )
        return out

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(one.name for one in self.factors))
        ranks = sorted({one.rank for one in self.factors})
        return f"LoraFactors({self.adapter!r}: {len(self)} modules ({names}), rank {', '.join(map(str, ranks))})"


def _side(one: Factor, width: int) -> str | None:
    """Which side of the module is the residual stream of this width; by its name, and for other names by its widths."""
    writes, reads = one.b.shape[0] == width, one.a.shape[1] == width
    if one.name in WRITERS:
        return "write" if writes else None
    if one.name in READERS:
        return "read" if reads else None
    return "write" if writes and not reads else "read" if reads and not writes else None


def _sites(one: Factor, side: str | None) -> list[Site]:
    """Where v is looked up: the end of the block that a module writes in, the input of the block that it reads in."""
    if one.layer is None:
        return [Site(0, "resid_pre", one.tower)] if side == "write" else []
    if side == "write":
        return [Site(one.layer, "resid_post", one.tower)]
    before = [Site(one.layer - 1, "resid_post", one.tower)] if one.layer else []
    return [Site(one.layer, "resid_pre", one.tower), *before]
