"""Tiny random adapters of tiny models, and their weights added to the base by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn


def noisy_adapter(folder: Path, module: nn.Module, config: Any = None, *, seed: int = 0, size: float = 0.3) -> Path:
    """Writes an adapter for a copy of the module, all that it trains moved by noise; by default a LoRA of rank 2."""
    config = config or LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
    peft = get_peft_model(copy.deepcopy(module), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in peft.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=generator))
    peft.save_pretrained(str(folder))
    return folder


def added_by_hand(module: nn.Module, folder: Path, scaling: float) -> nn.Module:
    """A copy of the module with W + scaling · B A in place of W, read from the folder's tensors."""
    merged, stored = copy.deepcopy(module), load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        for key, a in stored.items():
            if not key.endswith("lora_A.weight"):
                continue
            part = merged.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            delta = scaling * stored[key.replace("lora_A", "lora_B")].double() @ a.double()
            transposed = not isinstance(part, nn.Linear)  # GPT-2's Conv1D holds its weight the other way round
            part.weight += (delta.T if transposed else delta).float()
    return merged.eval()


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())
