"""What a drift needs of earlier moments: the residuals at the start and the adapter's factors, in files beside its
table, so that a training that was stopped can go on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hooks.weight_files import tensors_of
from stores.files import write_file
from workbench.training.factors import LoraFactors


class Snapshots:
    """Named arrays in `folder/snapshots`, float32; a file is whole or not there."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder) / "snapshots"

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        data = save({key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()})
        write_file(self._folder / f"{name}.safetensors", data)

    def get(self, name: str) -> dict[str, np.ndarray]:
        stored = tensors_of(self._folder / f"{name}.safetensors")
        return {key: tensor.numpy() for key, tensor in stored.items()}

    def put_factors(self, step: int, factors: LoraFactors) -> None:
        """The trained numbers of every module, as they are (adapters train in float32 at most)."""
        sides = {f"{one.module}|{side}": getattr(one, side) for one in factors for side in ("a", "b")}
        self.put(f"step{step}", sides)

    def factors(self, step: int, like: LoraFactors) -> LoraFactors:
        """The factors of a step; modules and scalings, which training leaves alone, are those of `like`."""
        stored = {name: values.astype(np.float64) for name, values in self.get(f"step{step}").items()}
        return replace(
            like,
            factors=tuple(replace(one, a=stored[f"{one.module}|a"], b=stored[f"{one.module}|b"]) for one in like),
        )

    def steps(self) -> list[int]:
        """The steps whose factors are here, in order."""
        files = self._folder.glob("step*.safetensors")
        return sorted(int(file.name.removesuffix(".safetensors").removeprefix("step")) for file in files)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
