"""Models that are spread over several devices (`device_map`): every hook works on the device of the model's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.positions import Tokens
from hooks.view import View

WHY = "the model is spread over several devices"


def spread(module: nn.Module) -> bool:
    """True where its weights lie on more than one device."""
    return len({weight.device for weight in module.parameters()}) > 1


def placed_on(device: torch.device, tensor: Tensor, view: View) -> View:
    """The view, or where the tensor lies on another device than the tokens, one that brings it here and back."""
    return view if tensor.device == device else MovedView(view, device, tensor.device)


@dataclass(frozen=True)
class MovedView:
    """A view of a tensor on another device: what keeps and edits see is a copy here. It costs that copy a site, so of
    the sites that are asked for alone."""

    inner: View
    here: torch.device
    there: torch.device

    @property
    def tokens(self) -> Tokens:
        return self.inner.tokens

    def rows(self, resid: Tensor) -> Float[Tensor, "row pos d_model"]:
        return self.inner.rows(resid.to(self.here))

    def back(self, rows: Float[Tensor, "row pos d_model"]) -> Tensor:
        return self.inner.back(rows).to(self.there)


def refuse_absent(device: Any) -> None:
    """Raises ValueError for a CUDA device that torch does not see."""
    asked, seen = torch.device(device), torch.cuda.device_count()
    if asked.type == "cuda" and (asked.index or 0) >= seen:
        there = ", ".join(f"'cuda:{index}'" for index in range(seen)) or "'cpu', or a CUDA build of torch and a driver"
        raise ValueError(f"device={str(device)!r} is not seen by torch {torch.__version__}: expected {there}.")


def refuse_moved(module: nn.Module, device: Any) -> None:
    """Raises ValueError where a spread model is asked onto one device."""
    if device is not None and spread(module):
        raise ValueError(
            f"device={device!r}: {WHY}: expected device_map= alone, or a module that is loaded on one device."
        )
