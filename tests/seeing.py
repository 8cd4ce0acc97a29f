"""What the tests of image-text models share: the families, prompts with pictures for each, and readings by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_packed_processors as packed
import tiny_processors as tiled
import torch
from conftest import chat
from PIL import Image
from torch import Tensor, nn

from hooks.load import load_model
from hooks.prompt import Prompt
from hooks.site import Site

FAMILIES = {
    build.__name__: build
    for build in (
        tiled.gemma3,
        tiled.paligemma,
        tiled.llava,
        tiled.llava_next,
        tiled.llava_onevision,
        tiled.idefics3,
        tiled.smolvlm,
        tiled.internvl,
        tiled.mllama,
        packed.qwen2_vl,
        packed.qwen2_5_vl,
        packed.qwen3_vl,
        packed.glm4v,
        packed.pixtral,
        packed.mistral3,
    )
}
# The vision tower's blocks, at paths written down by hand.
BLOCKS = {
    "idefics3": "model.vision_model.encoder.layers",
    "smolvlm": "model.vision_model.encoder.layers",
    "internvl": "model.vision_tower.encoder.layer",
    "mllama": "model.vision_model.transformer.layers",
    "pixtral": "model.vision_tower.transformer.layers",
    "mistral3": "model.vision_tower.transformer.layers",
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"), "model.visual.blocks"),
}


class Seen:
    """One family's model, as a user loads it from a folder, and prompts for it. The pictures differ in size, so that
    towers with tiles or with native resolution get rows of different length."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family = family
        self.folder = FAMILIES[family]().save(folder)
        self.model = load_model(folder)
        sizes = {"square": (32, 32), "wide": (16, 40), "tall": (40, 16)}
        self.pictures = {name: folder / f"{name}.png" for name in sizes}
        for seed, (name, size) in enumerate(sizes.items()):
            paint(self.pictures[name], size, seed)

    def prompt(self, identifier: str, *parts: str, **more: Any) -> Prompt:
        """Parts that name a picture are pictures. PaliGemma, a base model, reads raw text with placeholders."""
        if self.family != "paligemma":
            return chat(identifier, *(self.pictures.get(part, part) for part in parts), **more)
        shown = [self.pictures[part] for part in parts if part in self.pictures]
        text = "".join("<image>" if part in self.pictures else part for part in parts)
        return Prompt(identifier, text=text, pictures=tuple(shown), **more)

    def prompts(self) -> list[Prompt]:
        """Rows of different length: one image and a response, two images, none, another image; as far as they may
        share a batch."""
        rows = [
            self.prompt("one", "square", "what", response="a dog"),
            self.prompt("two", "in ", "wide", " or ", "square", "more of it?"),
            self.prompt("none", "no picture"),
            self.prompt("other", "see ", "tall"),
        ]
        if self.family == "paligemma":
            return [row for row in rows if row.images]
        kind = self.model.encoder.batch_kind(rows[0])
        return [row for row in rows if self.model.encoder.batch_kind(row) == kind]

    @property
    def tower(self) -> list[nn.Module]:
        path = BLOCKS.get(self.family, "model.vision_tower.encoder.layers")
        return list(self.model.module.get_submodule(path))

    def sites(self) -> list[Site]:
        return [Site(layer, point) for layer in range(self.model.n_layers) for point in ("resid_pre", "resid_post")]

    def plain(self, prompt: Prompt) -> tuple[list[Tensor], Tensor]:
        """Every output of the tower's blocks, and the logits: plain hooks, the module called by hand."""
        seen: list[Tensor] = []
        handles = [
            block.register_forward_hook(lambda m, a, o: seen.append((o if isinstance(o, Tensor) else o[0]).clone()))
            for block in self.tower
        ]
        try:
            with torch.no_grad():
                logits = self.model.module(**self.model.encode([prompt]).inputs).logits
        finally:
            [handle.remove() for handle in handles]
        return seen, logits


def paint(path: Path, size: tuple[int, int], seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry of `b`."""
    return float((a.float() - b.float()).abs().max() / b.float().abs().max())
