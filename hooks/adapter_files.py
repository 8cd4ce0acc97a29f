"""Adapters from their folders: injected by peft, and then proved to have landed where they were trained, beside a base
that is still what it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hooks.adapter_config import LARGEST_SETTINGS, SETTINGS, WEIGHTS, adapter_config
from hooks.adapters import Adapters
from hooks.plain_files import Refused, json_file
from hooks.weight_files import tensors_of

MOVED_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")  # inits that take a part out of the base's weights


def adapters_from(module: nn.Module, folders: Mapping[str, Path], base: str) -> Adapters:
    """The adapters of some folders, injected into the module (its base weights stay as they are, the adapters are never
    merged). `base` identifies the weights.

    Raises ValueError, with the reason, where a tensor of a folder found no place or a place found no tensor, where the
    base would not stay the base, and for kinds that act outside the module; FileNotFoundError for a folder without an
    adapter.
    """
    from peft import PeftModel, get_peft_model_state_dict

    peft: Any = None
    for variant, folder in folders.items():
        if variant == "base":
            raise ValueError(
                "an adapter cannot be called 'base': that is the variant without adapters. Give it another name."
            )
        if "." in variant:
            raise ValueError(f"an adapter cannot be called {variant!r}: expected a name without dots.")
        settings = adapter_config(folder)
        _refuse_kind(folder)
        _refuse_other_base(folder, base)
        stored = tensors_of(folder / WEIGHTS)
        unchanged = _watch_base(module, stored)
        # peft asks the model for an attribute that transformers has renamed: nothing that a user could mend.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        with _fitting(folder, settings):
            if peft is None:
                peft = PeftModel.from_pretrained(module, str(folder), adapter_name=variant)  # type: ignore[arg-type]
            else:
                peft.load_adapter(str(folder), adapter_name=variant)
        # Else peft looks for the base that the settings name, on the hub too, to compare sizes of vocabularies.
        peft.peft_config[variant].base_model_name_or_path = None
        if not unchanged():
            raise ValueError(
                f"adapter {folder} changes weights of the base itself (biases, for one), which stay changed with the "
                "adapter off: expected one that only adds (bias='none'). Load the base anew."
            )
        landed = get_peft_model_state_dict(peft, adapter_name=variant)
        lost = _lost(stored, landed)
        if lost or len(landed) != len(stored):
            raise ValueError(
                f"adapter {folder} did not load: {len(lost)} of its {len(stored)} tensors found no place (first: "
                f"{lost[:1]}), and {max(0, len(landed) - len(stored))} places stayed empty. Expected an adapter that "
                f"was trained on this architecture{_base_named(settings)}."
            )
    module.eval()
    return Adapters(peft, tuple(folders))


@contextmanager
def _fitting(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """What peft says of an adapter that fits no module of the model, or none of this size, becomes one sentence. It is
    read below whether tensors found no place; peft's own warning of that would be a second voice."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            yield
    except (ValueError, RuntimeError) as error:
        misfit = next((line for line in str(error).splitlines() if "not found" in line or "size mismatch" in line), "")
        if not misfit:
            raise
        raise ValueError(
            f"adapter {folder} does not fit this model ({misfit.strip()[:200]}): expected the base that it was trained "
            f"on{_base_named(settings)}."
        ) from error


def _base_named(settings: Mapping[str, Any]) -> str:
    said = settings.get("base_model_name_or_path")
    return f" (its {SETTINGS} names {said!r:.80})" if said else ""


def _watch_base(module: nn.Module, stored: Mapping[str, torch.Tensor]) -> Callable[[], bool]:
    """Asked after an adapter was loaded: True where the base's own weights are what they were. peft also stores base
    weights (embeddings that it adapts) and writes them again: harmless where they are the same numbers."""
    before = {id(weight): (weight.data_ptr(), weight._version) for weight in module.parameters()}
    copies = {
        id(weight): weight.detach().clone()
        for name, weight in module.named_parameters()
        if any(key.replace(".base_layer", "").endswith(name.replace(".base_layer", "")) for key in stored)
    }

    def same(weight: torch.Tensor) -> bool:
        kept, copied = before.get(id(weight)), copies.get(id(weight))
        if kept is None or kept == (weight.data_ptr(), weight._version):
            return True
        return copied is not None and torch.equal(copied, weight)

    return lambda: all(same(weight) for weight in module.parameters())


def _lost(stored: Mapping[str, torch.Tensor], landed: Mapping[str, torch.Tensor]) -> list[str]:
    """The stored tensors that stand nowhere in the model. peft renames what an older transformers called otherwise:
    such a tensor is where one of the same module, and of the same numbers, is."""

    def same(key: str, place: str) -> bool:
        return torch.equal(landed[place].cpu().to(stored[key].dtype), stored[key])

    free = set(landed) - set(stored)
    moved = {key: [place for place in free if place.split(".")[-5:] == key.split(".")[-5:]] for key in stored}
    return [key for key in stored if not any(same(key, at) for at in ([key] if key in landed else moved[key]))]


def _refuse_kind(folder: Path) -> None:
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner

    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"{folder / SETTINGS} is not used ({error}): expected what peft writes.") from error
    tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)
    kind = str(config.peft_type).removeprefix("PeftType.")
    outside = config.is_prompt_learning or not (isinstance(tuner, type) and issubclass(tuner, BaseTuner))
    if outside or kind == "XLORA" or getattr(config, "alora_invocation_tokens", None):
        raise ValueError(
            f"adapter {folder} is of the kind {kind}, of which a part acts on what the model is "
            "called with (virtual tokens, gates), not inside its modules: expected LoRA, or another kind that does."
        )
    init = str(getattr(config, "init_lora_weights", ""))
    if init.startswith(MOVED_BASE) or getattr(config, "kasa_config", None):
        raise ValueError(
            f"adapter {folder} (init_lora_weights={init!r}) was trained on a base from which its beginning was taken "
            "away, so with it off the model is not the base: expected it converted to plain LoRA, "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )


def _refuse_other_base(folder: Path, base: str) -> None:
    """An adapter of `wb.train_lora` says which weights it was trained on."""
    record = folder / "training.json"
    said = json_file(record, LARGEST_SETTINGS) if record.is_file() else {}
    trained_on = str(said.get("base")) if isinstance(said, dict) else ""
    if len(trained_on) == len(base) == 64 and trained_on != base:
        raise ValueError(
            f"adapter {folder} was trained on another base (weights {trained_on[:12]}; these are {base[:12]}): "
            f"expected that one. (If only its config files changed since, take 'base' out of {record}.)"
        )
