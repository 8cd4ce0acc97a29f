"""The encoder of whatever can read prompts: a model, a tokenizer, or a checkpoint whose weights stay on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hooks.encode import Encoder


def encoder_from(given: Any, *, trusted: bool = False) -> Encoder:
    """The encoder of a model, a tokenizer, or of a checkpoint folder or hub name (no weights are read; code that it
    brings runs only if `trusted`)."""
    if isinstance(given, Encoder):
        return given
    if isinstance(getattr(given, "encoder", None), Encoder):
        return given.encoder
    if isinstance(given, str | Path):
        return _encoder_at(str(given), trusted)
    if hasattr(given, "apply_chat_template") and not hasattr(given, "tokenizer"):
        return Encoder(given)
    # A processor's own image token may be another than the config's, which is the one that counts.
    raise TypeError(f"{type(given).__name__} cannot encode rows: expected a model, a tokenizer or a checkpoint's name.")


def _encoder_at(name: str, trusted: bool) -> Encoder:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    from hooks.checkpoints import checkpoint_config, checkpoint_tokenizer
    from hooks.processors import load_processor
    from hooks.structure import image_token_id

    config = checkpoint_config(name, trusted=trusted)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return Encoder(checkpoint_tokenizer(name, trusted=trusted))
    processor = load_processor(name, trusted=trusted)
    return Encoder(processor.tokenizer, processor, image_token_id(config))
