"""Pictures of noise for the families of the zoo that want them in a form of their own, made by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from zoo_inputs import tokens

SIDE = 32
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """One row to be made: the model, the seeds of its picture and of its words, and how many words."""

    model: Any
    picture: int
    seed: int
    length: int

    @property
    def words(self) -> Tensor:
        return tokens(self.seed, self.length)

    @property
    def accepted(self) -> Any:
        return inspect.signature(self.model.forward).parameters

    @property
    def vision(self) -> Any:
        return getattr(self.model.config, "vision_config", None)

    @property
    def side(self) -> int:
        size = getattr(self.vision, "image_size", None)
        return size[0] if isinstance(size, list | tuple) else size or SIDE

    def noise(self, *shape: int) -> Tensor:
        return fixed(self.picture, *shape)

    def text(self, image_id: int, count: int) -> Inputs:
        """The picture's tokens after the first three words."""
        pictured = torch.full((1, count), image_id)
        return {"input_ids": torch.cat([self.words[:, :3], pictured, self.words[:, 3:]], dim=1)}


def fixed(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 + seed))


def pixels(scene: Scene) -> Inputs:
    """Pixels as a square, or as packed patches where the model wants the grid."""
    if "image_grid_thw" in scene.accepted:
        vision = scene.vision
        depth = getattr(vision, "temporal_patch_size", None) or getattr(vision, "patch_temporal", None) or 1
        width = 3 * depth * vision.patch_size**2
        return {"pixel_values": scene.noise(16, width), "image_grid_thw": torch.tensor([[1, 4, 4]])}
    return {"pixel_values": scene.noise(1, 3, scene.side, scene.side)}


def _sized(scene: Scene) -> Inputs:
    return pixels(scene) | {"image_sizes": torch.tensor([[SIDE, SIDE]])}


def _tiled(scene: Scene) -> Inputs:
    """Four tiles and the whole."""
    count = {"count": 24} if "granite4" in scene.model.config.model_type else {}
    return count | {"pixel_values": scene.noise(1, 5, 3, SIDE, SIDE), "image_sizes": torch.tensor([[64, 64]])}


def _stacked(scene: Scene) -> Inputs:
    return {"pixel_values": scene.noise(1, 1, 3, SIDE, SIDE)}


def _patches(scene: Scene) -> Inputs:
    return {"pixel_values": scene.noise(16, 3, 8, 8), "image_grid_thw": torch.tensor([[1, 4, 4]])}


def _no_tokens(scene: Scene) -> Inputs:
    """The picture goes in by cross-attention or as a prefix."""
    return pixels(scene) | {"input_ids": scene.words}


def _positions(scene: Scene) -> Inputs:
    grid = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(6), indexing="xy"), dim=-1).reshape(1, 36, 2)
    side = getattr(scene.vision, "model_patch_size", 8)
    return {"pixel_values": scene.noise(1, 36, 3 * side**2), "image_position_ids": grid}


def _flattened(scene: Scene) -> Inputs:
    """Row and column in front of each patch, both from 1."""
    place = torch.cartesian_prod(torch.arange(1.0, 5), torch.arange(1.0, 5))[None]
    return {"flattened_patches": torch.cat([place, scene.noise(1, 16, 3 * 64)], dim=-1), "input_ids": scene.words}


def _kosmos(scene: Scene) -> Inputs:
    inputs = scene.text(300, 4)
    inputs |= {"image_embeds_position_mask": (inputs["input_ids"] == 300).long()}
    if "flattened_patches" in scene.accepted:
        inputs |= _flattened(scene) | {"input_ids": inputs["input_ids"]}
        return inputs | {"width": torch.tensor([[4]]), "height": torch.tensor([[4]])}
    return inputs | pixels(scene)


def _mllama(scene: Scene) -> Inputs:
    ids, tiles = scene.words, 4
    return {
        "input_ids": ids,
        "pixel_values": scene.noise(1, 1, tiles, 3, SIDE, SIDE),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, tiles, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, ids.shape[1], 1, tiles, dtype=torch.long),
    }


def _blip(scene: Scene) -> Inputs:
    side, count = scene.side, scene.model.config.num_query_tokens
    video = "instructblipvideo" in scene.model.config.model_type
    shape = (1, 1, 3, side, side) if video else (1, 3, side, side)
    return scene.text(300, count) | {"pixel_values": scene.noise(*shape), "qformer_input_ids": tokens(2, 4)}


def _naflex(scene: Scene) -> Inputs:
    mask, shapes = torch.ones(1, 16, dtype=torch.long), torch.tensor([[4, 4]])
    return {"pixel_values": scene.noise(1, 16, 192), "spatial_shapes": shapes, "pixel_attention_mask": mask}


def _minicpm(scene: Scene) -> Inputs:
    return {"pixel_values": scene.noise(1, 3, 8, 128), "target_sizes": torch.tensor([[4, 4]])}


def _molmo2(scene: Scene) -> Inputs:
    pooling = torch.arange(16).reshape(4, 4)
    return {
        "pixel_values": scene.noise(1, 16, 192),
        "image_token_pooling": pooling,
        "image_grids": torch.tensor([[2, 2, 0, 0]]),
        "image_num_crops": torch.tensor([1]),
    }


def _pi0(scene: Scene) -> Inputs:
    config = scene.model.config
    inputs = scene.text(config.vlm_config.image_token_id, 16) | {"pixel_values": scene.noise(1, 1, 3, SIDE, SIDE)}
    inputs |= {"state": fixed(50, 1, config.max_state_dim), "timestep": torch.tensor([0.5])}
    inputs |= {"noise": fixed(51, 1, config.chunk_size, config.max_action_dim)}
    return inputs | {"pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)}


def _udop(scene: Scene) -> Inputs:
    return _no_tokens(scene) | {"bbox": torch.rand(1, scene.length, 4, generator=torch.Generator().manual_seed(3))}


def _idefics(scene: Scene) -> Inputs:
    inputs = _stacked(scene) | {"input_ids": scene.words}
    return inputs | {"image_attention_mask": torch.ones(1, scene.length, 1, dtype=torch.long)}


OWN: dict[str, Callable[[Scene], Inputs]] = {
    **dict.fromkeys(["emu3", "mistral3", "mistral_large4", "lighton_ocr"], _sized),
    **dict.fromkeys(["llava_next", "llava_next_video", "llava_onevision", "granite4_vision"], _tiled),
    **dict.fromkeys(["idefics2", "idefics3", "smolvlm"], _stacked),
    **dict.fromkeys(["kimi_k25", "paddleocr_vl"], _patches),
    **dict.fromkeys(["blip", "git", "pp_formulanet", "vision-encoder-decoder"], _no_tokens),
    **dict.fromkeys(["blip-2", "instructblip", "instructblipvideo"], _blip),
    **dict.fromkeys(["gemma4", "gemma4_unified"], _positions),
    **dict.fromkeys(["kosmos-2", "kosmos-2.5"], _kosmos),
    **dict.fromkeys(["minicpm_ocr", "minicpmv4_6", "minicpmv4_7"], _minicpm),
    "deepseek_vl_hybrid": lambda scene: pixels(scene) | {"high_res_pixel_values": scene.noise(1, 3, SIDE, SIDE)},
    "fuyu": lambda scene: {"pixel_values": scene.noise(1, 4, 192), "count": 4},
    "granite_docling": lambda scene: _stacked(scene) | {"pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)},
    "idefics": _idefics,
    "inkling2": lambda scene: {"pixel_values": scene.noise(16, 16, 16, 3), "image_grid_thw": torch.tensor([[1, 4, 4]])},
    "inkling_mm_model": lambda scene: {"pixel_values": scene.noise(4, 2, 8, 8, 3), "count": 4},
    "lfm2_vl": _naflex,
    "llama4": lambda scene: pixels(scene) | {"count": 4},
    "mllama": _mllama,
    "molmo2": _molmo2,
    "nemotron_h_omni": lambda scene: {
        "pixel_values": scene.noise(16, 192),
        "image_grid_hw": torch.tensor([[4, 4]]),
        "count": 4,
    },
    "pi0": _pi0,
    "pix2struct": lambda scene: _flattened(scene) | {"decoder_input_ids": scene.words},
    "udop": _udop,
    "video_llama_3": lambda scene: pixels(scene) | {"image_merge_sizes": torch.tensor([2])},
}
