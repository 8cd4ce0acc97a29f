"""load_model: a checkpoint folder, a hub name or a module that is already in memory, and its adapters, as a
TracedModel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hooks.adapter_files import adapters_from
from hooks.adapters import Adapters
from hooks.backends.choose import chosen
from hooks.backends.hf import HuggingFaceModel
from hooks.blocks import UnsupportedArchitecture, unwrapped
from hooks.checkpoints import from_pretrained
from hooks.processors import pictures_identity
from hooks.remote_code import code_identity
from hooks.selftest import checked
from hooks.spread import refuse_absent, refuse_moved, spread
from hooks.structure import refuse_packed, windows

WHOLE_HASH_LIMIT = 64 * 2**20  # larger weight files are identified by size and both ends, not by every byte


def load_model(
    name_or_path_or_module: Any,
    tokenizer: Any = None,
    processor: Any = None,
    *,
    adapter: str | Path | Mapping[str, str | Path] | None = None,
    backend: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    check: bool = True,
) -> HuggingFaceModel:
    """A model ready for capture and edits, in eval mode.

    `adapter` is a LoRA folder (its variant is called `"tuned"`) or a dict name -> folder (empty: none); the base
    model stays available as variant `"base"`. An adapter that is missing tensors, or that changes nothing, raises
    ValueError. With a module, give its tokenizer (and processor, for images). `backend` is `"hf"` (the default),
    `"transformer_lens"` (text; works on a copy of a module that is given) or `"nnsight"`; a TransformerBridge or an
    nnsight model that is given keeps its own. `check` examines the model (`hooks.selftest`; a large one briefly)
    and raises SelfTestFailed when it breaks a promise that every number rests on; the result is `model.checkup`.
    `device_map` ("auto", or as transformers takes it) spreads a checkpoint over several devices; kept and edited
    residuals come to the device of its inputs. Weights are read from safetensors alone. Code that a checkpoint brings
    runs only with `trust_remote_code=True`; its hash is then part of `model.identity`, so of every store and table.
    """
    kind, wrapper, name_or_path_or_module = chosen(backend, name_or_path_or_module)
    if wrapper is not None:
        if adapter is not None or device is not None:
            raise ValueError(
                f"the {type(wrapper).__name__} is used as it is: expected no adapter= and no device=; load the adapter "
                "into it, or move it, before."
            )
        tokenizer = tokenizer or getattr(wrapper, "tokenizer", None)
    if isinstance(name_or_path_or_module, nn.Module):
        if not hasattr(name_or_path_or_module, "config"):
            raise UnsupportedArchitecture(
                f"a {type(name_or_path_or_module).__name__} without a config came: expected a model of transformers, "
                "its name or its folder. Give a module of your own such a config (a PreTrainedModel has one)."
            )
        module, name = (
            unwrapped(name_or_path_or_module)
            if wrapper is not None
            else kind.adopted(unwrapped(name_or_path_or_module)),
            getattr(name_or_path_or_module.config, "_name_or_path", "") or "module",
        )
        if dtype != "auto" or revision is not None or trust_remote_code or device_map is not None:
            raise ValueError(
                "dtype, revision, device_map and trust_remote_code say how a checkpoint is read: expected a module as "
                "it should be."
            )
        if tokenizer is None and processor is None:
            raise ValueError(
                "a module alone cannot read prompts: expected load_model(module, tokenizer=...) (processor=... for "
                "images)."
            )
        adapters = _adapters_inside(name_or_path_or_module)
        if adapters is not None and adapter is not None:
            raise ValueError("the module has adapters already: expected either a PeftModel, or adapter=..., not both.")
        identity: dict[str, Any] = {"model": type(module).__name__, "weights": _module_hash(module)}
    else:
        adapters = None
        name = str(name_or_path_or_module)
        if device_map is not None and device is not None:
            raise ValueError("device_map says where each part lies, device where all do: expected one of them.")
        how = {} if device_map is None else {"device_map": device_map}
        module, tokenizer, processor = from_pretrained(
            name, tokenizer, processor, dtype, revision, trust_remote_code, **how
        )
        identity = {
            "model": Path(name).name if Path(name).is_dir() else name,
            "weights": _checkpoint_identity(name, module),
        }
    refuse_packed(module)
    tokenizer = tokenizer or processor.tokenizer
    refuse_moved(module, device)
    if device is not None:
        refuse_absent(device)
    target = device or ("cuda" if torch.cuda.is_available() and wrapper is None else None)
    if target is not None and device_map is None and not spread(module):
        module = module.to(target)
    module.eval()
    identity |= {
        "dtype": str(next(module.parameters()).dtype).removeprefix("torch."),
        "attention": getattr(module.config, "_attn_implementation", None),
        **windows(module.config),
        "tokenizer": _tokenizer_hash(tokenizer, processor),
        **pictures_identity(processor),
        **code_identity(module, module.config, tokenizer, processor),
    }
    if adapter is not None and adapter != {}:
        folders = dict(adapter) if isinstance(adapter, Mapping) else {"tuned": adapter}
        adapters = adapters_from(module, {name: Path(at) for name, at in folders.items()}, identity["weights"])
        identity["adapters"] = {variant: folder_hash(Path(folder)) for variant, folder in folders.items()}
    model = kind(module, tokenizer, processor, name=name, identity=identity, adapters=adapters, wrapper=wrapper)
    if adapters is not None:
        _refuse_identity(model)
    if check:
        model.checkup = checked(model)
    return model


def _adapters_inside(module: nn.Module) -> Adapters | None:
    """The adapters of a PeftModel that was given; without them its base variant would be the tuned model."""
    names = tuple(getattr(module, "peft_config", None) or ())
    if not names or not any(hasattr(part, "base_layer") for part in module.modules()):
        return None
    if unwrapped(module) is module or "base" in names:
        raise ValueError(
            f"the module has adapters inside it ({', '.join(names)}), so what counts as its base is unclear: expected "
            "the PeftModel itself (no adapter called 'base'), or load_model(folder, adapter=folder)."
        )
    if any(getattr(part, "merged_adapters", None) for part in module.modules()):
        raise ValueError(
            "the module has adapters merged into its weights, and taking them out again does not give the base back "
            "bit for bit: expected an unmerged PeftModel, or what merge_and_unload() gives, as a base by itself."
        )
    return Adapters(module, names)


def _refuse_identity(model: HuggingFaceModel) -> None:
    config: Any = model.module.config
    ids = torch.arange(4, 12, device=model.device)[None] % config.get_text_config().vocab_size

    def logits(variant: str) -> torch.Tensor:
        view = model.variant(variant)
        with view._ready():
            return view.module(input_ids=ids).logits

    base = logits("base")
    for variant in model.variants[1:]:
        if torch.equal(logits(variant), base) and not _acts_on_images(model, variant):
            raise ValueError(
                f"adapter {variant!r} changes nothing: the logits of a probe with it on equal those with it off, bit "
                "for bit. Expected a trained adapter (an untrained LoRA has B = 0)."
            )


def _acts_on_images(model: HuggingFaceModel, variant: str) -> bool:
    """True when a LoRA adapter has a non-zero B in the vision tower, which a probe of text does not pass."""
    tower = model.towers.get("vision")
    named = (pair for block in (tower.blocks if tower else ()) for pair in block.named_parameters())
    return any(bool(weight.any()) for name, weight in named if f"lora_B.{variant}." in name)


def folder_hash(folder: Path) -> str:
    """sha256 over the safetensors files and JSON configs of a checkpoint or adapter folder (see WHOLE_HASH_LIMIT)."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")]):
        if file.name == "adapter_config.json":  # it names the folder of the base, which is not the adapter's identity
            config = {**json.loads(file.read_text()), "base_model_name_or_path": None}
            digest.update(json.dumps(config, sort_keys=True).encode())
            continue
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        if file.stat().st_size <= WHOLE_HASH_LIMIT:
            digest.update(file.read_bytes())
        else:
            with file.open("rb") as data:
                digest.update(data.read(2**20))
                data.seek(-(2**20), 2)
                digest.update(data.read())
    return digest.hexdigest()


def _checkpoint_identity(name: str, module: nn.Module) -> str:
    commit = getattr(module.config, "_commit_hash", None)
    return folder_hash(Path(name)) if Path(name).is_dir() else f"commit {commit}"


def _module_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in module.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.double().sum().item():.17g}".encode())
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: Any, processor: Any) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items())
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    return hashlib.sha256(json.dumps([vocabulary, template]).encode()).hexdigest()
