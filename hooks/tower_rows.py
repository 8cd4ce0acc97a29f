"""Rows of a vision tower: whatever shape a tower's stream has, as [picture, patch, d_model], and the prompt that each
picture belongs to.

Towers read pictures (whole images, crops, or tiles) one by one, or all patches packed one after the other; what they
read is known from the inputs that the processor gave. A tensor that these do not explain is refused, never guessed at.
Positions count patches in the tower's own order (a class token first where it has one; Qwen2.5-VL goes by windows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.encode import Batch
from hooks.positions import Tokens


@dataclass(frozen=True)
class TowerView:
    """The view of one tensor of a vision tower. `shape` is the tensor's own; of packed patches, `real` marks the places
    that they take in rows of unequal length."""

    tokens: Tokens
    shape: torch.Size
    real: Bool[Tensor, "row pos"] | None = None
    packed: bool = False

    def rows(self, resid: Tensor) -> Float[Tensor, "row pos d_model"]:
        """One row a picture. Packed patches are spread over rows, with zeros behind the shorter ones."""
        width = resid.shape[-1]
        if not self.packed:
            return resid.reshape(*self.tokens.position.shape, width)
        assert self.real is not None
        out = resid.new_zeros((*self.real.shape, width))
        out[self.real] = resid.reshape(-1, width)
        return out

    def back(self, rows: Float[Tensor, "row pos d_model"]) -> Tensor:
        """Rows in the tower's own shape."""
        if not self.packed:
            return rows.reshape(self.shape)
        assert self.real is not None
        return rows[self.real].reshape(self.shape)


def vision_view(batch: Batch, resid: Tensor, vision_config: Any) -> TowerView:
    """The view of a vision tower's stream in a forward of `batch`. `vision_config` is the model's own.

    Raises RuntimeError where the tensor cannot be told apart into pictures of known prompts.
    """
    inputs = batch.inputs
    pixels = inputs.get("pixel_values")
    found = _packed(batch, resid, vision_config)
    if found is None and pixels is not None and pixels.dim() == 6:
        found = _tiles_along_positions(batch, resid, vision_config)
    if found is None:
        found = _one_row_a_picture(batch, resid, vision_config)
    if found is None:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items() if name not in _OF_TEXT)
        raise RuntimeError(
            f"the vision tower's stream is {tuple(resid.shape)}, and the prompts have {len(batch.image_rows)} images "
            f"({shapes or 'no picture inputs'}): expected one row a picture or tile, or all patches packed. Which "
            "patch belongs to which prompt cannot be told, so its numbers would be misread."
        )
    return found


_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


def _packed(batch: Batch, resid: Tensor, vision_config: Any) -> TowerView | None:
    """All patches one after the other: [patches, D], or with a row axis of one. How many an image has is the product of
    its grid, or of its size in patches."""
    owners, total = batch.image_rows, resid.shape[-2]
    if resid.dim() != 2 and not (resid.dim() == 3 and len(resid) == 1):
        return None
    stated = [value for name, value in batch.inputs.items() if name not in _OF_TEXT and not value.is_floating_point()]
    grids = [value for value in stated if value.dim() == 2 and len(value) == len(owners)]
    if "image_sizes" in batch.inputs and vision_config is not None:
        grids.append(batch.inputs["image_sizes"] // torch.tensor(_pair(vision_config.patch_size)))
    lengths = next((n for grid in grids if int((n := grid.prod(dim=-1)).sum()) == total), None)
    if lengths is None:
        return None
    real = torch.arange(int(lengths.max()), device=resid.device)[None] < lengths[:, None].to(resid.device)
    return TowerView(_tokens(real, owners), resid.shape, real, packed=True)


def _one_row_a_picture(batch: Batch, resid: Tensor, vision_config: Any) -> TowerView | None:
    """[pictures, patches, D], or [pictures, height, width, D]."""
    if resid.dim() not in (3, 4):
        return None
    owners = _owners(batch)
    if len(owners) != len(resid):
        return None
    patches = resid.shape[1:-1].numel()
    real = _shown_patches(batch, len(resid), patches, vision_config).to(resid.device)
    return TowerView(_tokens(real, owners), resid.shape)


def _shown_patches(batch: Batch, rows: int, patches: int, vision_config: Any) -> Bool[Tensor, "row pos"]:
    """The patches that show something: some processors fill small pictures up, and give a mask."""
    everything = torch.ones((rows, patches), dtype=torch.bool)
    mask = batch.inputs.get("pixel_attention_mask")
    if mask is not None and mask.shape == everything.shape:
        return mask.bool()
    if mask is None or mask.dim() != 4:
        return everything
    joined = mask.flatten(0, 1).bool()
    tiles = joined[batch.inputs["pixel_values"].flatten(0, 1).flatten(1).any(dim=1)]
    height, width = _pair(vision_config.patch_size)
    shown = tiles.unfold(1, height, height).unfold(2, width, width).flatten(3).any(dim=-1).flatten(1)
    return shown if shown.shape == everything.shape else everything


def _owners(batch: Batch) -> list[int]:
    """The prompt of each row of the tower: of each entry of the pixel inputs, or of each tile in them that is not all
    zeros, which is how processors pad."""
    entries, tiles = [], []
    for row, one in enumerate(batch.encoded):
        pixels = one.images.get("pixel_values")
        if pixels is None:
            continue
        entries += [row] * len(pixels)
        if pixels.dim() == 5:
            tiles += [row] * int(pixels.flatten(0, 1).flatten(1).any(dim=1).sum())
    # With a tile axis, an entry is a stack of tiles and no row of the tower.
    return tiles or entries


def _tiles_along_positions(batch: Batch, resid: Tensor, vision_config: Any) -> TowerView | None:
    """[rows * images, tiles * patches, D], the tiles of an image one after the other, each with pads behind it; rows
    with fewer images and images with fewer tiles are filled up."""
    rows, images, tiles = batch.inputs["pixel_values"].shape[:3]
    if resid.dim() != 3 or len(resid) != rows * images or resid.shape[1] % tiles:
        return None
    side = [s // p for s, p in zip(_pair(vision_config.image_size), _pair(vision_config.patch_size), strict=True)]
    each, patches = resid.shape[1] // tiles, side[0] * side[1] + 1  # and a class token
    if each < patches:
        return None
    shown = batch.inputs["pixel_values"].flatten(3).any(dim=-1).view(rows * images, tiles, 1).to(resid.device)
    real = (shown & (torch.arange(each, device=resid.device) < patches)).flatten(1)
    owners = [row for row in range(rows) for _ in range(images)]
    return TowerView(_tokens(real, owners), resid.shape)


def _tokens(real: Bool[Tensor, "row pos"], owners: Sequence[int]) -> Tokens:
    """Patches count from 0 in each row, over the real ones; -1 elsewhere."""
    rows, patches = real.shape
    whole = Tokens.of_patches(rows, patches, real.device, owners)
    position = torch.where(real, real.long().cumsum(dim=1) - 1, -1)
    length = real.sum(dim=1)
    return Tokens(
        position.clamp_min(0), position, length, length, length, real, length, patches=True, owner=whole.owner
    )


def _pair(side: Any) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])
