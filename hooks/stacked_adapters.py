"""Stacked adapters: the LoRA updates of all rows of a layer as two batched products, whatever number of adapters.

Row r gets x_r A_aᵀ B_aᵀ s_a of its adapter a (Hu et al. 2021, arXiv 2106.09685; s is alpha / rank, with rsLoRA
alpha / √rank). Adapters of lower rank are filled with zeros, which change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Groups:
    """Which entries of a layer's first axis each adapter has. `span` is (first, end) where they stand one adapter
    behind the other and each has as many; else `index` names them, filled up with -1."""

    adapters: tuple[str, ...]
    span: tuple[int, int] | None
    index: Int[Tensor, "adapter most"] | None = None

    @classmethod
    def of(cls, names: Sequence[str | None]) -> Groups:
        """From the adapter of every entry; None: the entry has none."""
        places: dict[str, list[int]] = {}
        for entry, name in enumerate(names):
            if name is not None:
                places.setdefault(name, []).append(entry)
        if not places:
            return cls((), None)
        flat = [entry for listed in places.values() for entry in listed]
        if len({len(listed) for listed in places.values()}) == 1 and flat == list(range(flat[0], flat[0] + len(flat))):
            return cls(tuple(places), (flat[0], flat[0] + len(flat)))
        most = max(map(len, places.values()))
        index = torch.tensor([[*listed, *[-1] * (most - len(listed))] for listed in places.values()], dtype=torch.long)
        return cls(tuple(places), None, index)


@dataclass(frozen=True)
class Factors:
    """The factors of one layer, adapter by adapter; the scale is in `write`. They lie as peft has them: copied as they
    are, and a product for few rows reads along them."""

    read: Float[Tensor, "adapter rank d_in"]
    write: Float[Tensor, "adapter d_out rank"]

    @classmethod
    def of(cls, layer: Any, adapters: Sequence[str]) -> Factors:
        rank = max(layer.r[name] for name in adapters)
        read, write = [], []
        for name in adapters:
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            b = (b.float() * layer.scaling[name]).to(b.dtype)
            if missing := rank - len(a):
                a, b = nn.functional.pad(a, (0, 0, 0, missing)), nn.functional.pad(b, (0, missing))
            read.append(a)
            write.append(b)
        return cls(torch.stack(read), torch.stack(write))


def stackable(layer: Any, adapters: Collection[str]) -> bool:
    """True for a layer whose updates by these adapters are the two products and nothing else."""
    plain = type(layer).__name__ == "Linear" and type(layer).__module__ == "peft.tuners.lora.layer"
    return plain and all(
        name not in layer.lora_A or (layer.lora_B[name].bias is None and name not in layer.lora_variant)
        for name in adapters
    )


class Stacks:
    """The stacked factors of the layers that one forward, or one generation, passes; made where first met."""

    def __init__(self) -> None:
        self._factors: dict[tuple[str, tuple[str, ...]], Factors] = {}
        self._groups: dict[tuple[str | None, ...], Groups] = {}

    def add(self, path: str, layer: Any, names: Sequence[str], x: Tensor, out: Tensor) -> Tensor:
        """`out`, what the layer gives without adapters on `x`, with the update of every entry's adapter added."""
        key = tuple(name if name in layer.lora_A else None for name in names)
        if key not in self._groups:
            self._groups[key] = Groups.of(key)
        groups = self._groups[key]
        if not groups.adapters:
            return out
        made = (path, groups.adapters)
        if made not in self._factors:
            self._factors[made] = Factors.of(layer, groups.adapters)
        factors = self._factors[made]
        return _added(groups, factors, x.to(factors.read.dtype), out)


def _added(groups: Groups, factors: Factors, x: Tensor, out: Tensor) -> Tensor:
    n, read, write = len(groups.adapters), factors.read.mT, factors.write.mT
    if groups.span is not None:
        first, end = groups.span
        inner = torch.bmm(x[first:end].reshape(n, -1, x.shape[-1]), read)
        if out.dtype == write.dtype and out.is_contiguous():
            out[first:end].view(n, -1, out.shape[-1]).baddbmm_(inner, write)
        else:
            out[first:end] += torch.bmm(inner, write).view(out[first:end].shape).to(out.dtype)
        return out
    assert groups.index is not None
    index = groups.index.to(x.device)
    chosen = x[index.clamp(min=0)]  # entries that only fill up are computed, and dropped
    updates = torch.bmm(torch.bmm(chosen.flatten(1, -2), read), write)
    updates = updates.view(*chosen.shape[:-1], -1).to(out.dtype)
    real = index >= 0
    return out.index_add_(0, index[real], updates[real])
