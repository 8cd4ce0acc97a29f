"""Inputs for image encoders by themselves: one picture of noise in the form that the encoder reads."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from zoo_scenes import SIDE, Inputs, fixed

GRID = torch.tensor([[4, 4]])


def encoder_inputs(model: Any) -> Inputs:
    """One picture; packed as patches where the encoder takes a grid, and as frames where it takes a film."""
    config, accepted = model.config, inspect.signature(model.forward).parameters
    if "pixel_position_ids" in accepted:
        grid = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(6), indexing="xy"), dim=-1).reshape(1, 36, 2)
        return {"pixel_values": fixed(0, 1, 36, 3 * 64), "pixel_position_ids": grid}
    if "target_sizes" in accepted:
        return {"pixel_values": fixed(0, 1, 3, 8, 128), "target_sizes": GRID}
    if "spatial_shapes" in accepted:
        mask = torch.ones(1, 16, dtype=torch.long)
        return {"pixel_values": fixed(0, 1, 16, 192), "spatial_shapes": GRID, "pixel_attention_mask": mask}
    if grid := next((name for name in ("grid_thw", "image_grid_thw") if name in accepted), None):
        depth = getattr(config, "temporal_patch_size", None) or getattr(config, "patch_temporal", None) or 1
        name = "hidden_states" if "hidden_states" in accepted else "pixel_values"
        shape = _PACKED.get(config.model_type, (16, 3 * depth * config.patch_size**2))
        merged = {"merge_sizes": torch.tensor([2])} if "merge_sizes" in accepted else {}
        return {name: fixed(0, *shape), grid: torch.tensor([[1, 4, 4]])} | merged
    return _square(config, accepted)


_PACKED = {"inkling2_vision": (16, 16, 16, 3), "kimi_k25_vision": (16, 3, 8, 8)}


def _square(config: Any, accepted: Any) -> Inputs:
    side = getattr(config, "image_size", None) or SIDE
    side = side[0] if isinstance(side, list | tuple) else side
    shape = (getattr(config, "num_channels", 3), side, side)
    if "pixel_values_videos" in accepted:
        return {"pixel_values_videos": fixed(0, 1, getattr(config, "num_frames", 4), *shape)}
    if frames := getattr(config, "num_frames", None):
        return {"pixel_values": fixed(0, 1, frames, *shape)}
    if "aspect_ratio_ids" in accepted:
        tiles = torch.ones(1, 1, 4, dtype=torch.long)
        return {
            "pixel_values": fixed(0, 1, 1, 4, *shape),
            "aspect_ratio_ids": tiles[..., 0],
            "aspect_ratio_mask": tiles,
        }
    return {"pixel_values": fixed(0, 1, *shape)}
