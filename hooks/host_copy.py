"""From the device to the host: one copy a unit, beside the forward that follows, into memory that is used again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class HostSlot:
    """Host memory for one unit of work, by stream. It grows to the largest unit and is used again for the next one;
    pinned, so that a GPU can write into it on its own."""

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._held: dict[str, Tensor] = {}

    def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory; it is what this slot gave for `name` before."""
        size = math.prod(shape) * dtype.itemsize
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        return held[:size].view(dtype).view(shape)

    @property
    def nbytes(self) -> int:
        return sum(len(held) for held in self._held.values())


class Arriving:
    """Tensors on their way to the host."""

    def __init__(self, tensors: dict[str, Tensor], event: Any = None) -> None:
        self._tensors, self._event = tensors, event

    def wait(self) -> dict[str, Tensor]:
        """The tensors, once they are there. Called by another thread than the one that runs the model, it holds up
        neither that nor the device."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors


class ToHost:
    """Brings slabs from one device into host slots. On a CPU they are made there, and nothing is copied; on a GPU the
    copy runs on a stream of its own, behind what was queued before it. `cuda` is where streams come from."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self.device, self._cuda = device, cuda
        self._beside = cuda.Stream(device=device) if device.type == "cuda" else None

    def slots(self, n: int = 4) -> list[HostSlot]:
        return [HostSlot(pinned=self.device.type == "cuda") for _ in range(n)]

    def room(self, slot: HostSlot, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for what the hooks write."""
        if self.device.type == "cpu":
            return slot.room(name, shape, dtype)
        return torch.empty(shape, dtype=dtype, device=self.device)

    def send(self, slot: HostSlot, slabs: Mapping[str, Tensor]) -> Arriving:
        """Starts the copy of what `room` gave and hooks have written. The slot is free again when it was waited for
        and read."""
        if self.device.type == "cpu":
            return Arriving(dict(slabs))
        targets = {name: slot.room(name, tuple(slab.shape), slab.dtype) for name, slab in slabs.items()}
        if self._beside is None:
            return Arriving({name: targets[name].copy_(slab) for name, slab in slabs.items()})
        self._beside.wait_stream(self._cuda.current_stream(self.device))
        with self._cuda.stream(self._beside):
            for name, slab in slabs.items():
                targets[name].copy_(slab, non_blocking=True)
                slab.record_stream(self._beside)  # its memory may not be given to another tensor before
            event = self._cuda.Event()
            event.record(self._beside)
        return Arriving(targets, event)
