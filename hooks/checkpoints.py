"""A checkpoint through transformers: config, weights and tokenizer of a folder or hub name, after its files have been
judged. The one place that says `trust_remote_code`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hooks.checkpoint_files import check_config, check_folder, check_size
from hooks.plain_files import Refused, nearest
from hooks.processors import load_processor


@contextmanager
def named(name: str, what: str) -> Iterator[None]:
    """What transformers says of a file that it cannot use becomes Refused, which says which checkpoint it was; the
    network, missing packages, memory and torch speak for themselves."""
    from safetensors import SafetensorError

    try:
        yield
    except Exception as error:
        speaks = isinstance(error, Refused | OSError | ImportError | MemoryError | RuntimeError | SafetensorError)
        if speaks and not isinstance(error, RecursionError):
            raise
        said = str(error).strip().partition("\n")[0][:300]
        run_it = "load_model(..., trust_remote_code=True), or --trust-remote-code, runs it, where you trust it. "
        mend = run_it if "custom code" in said else ""
        raise Refused(
            f"the {what} of {name} cannot be used ({type(error).__name__}: {said}). {mend}Expected a checkpoint as "
            "transformers saves it."
        ) from error


@contextmanager
def looked_up(name: str) -> Iterator[None]:
    """What transformers says of a name that is neither a folder nor to be had from the hub, in one sentence."""
    from huggingface_hub import constants

    try:
        yield
    except OSError as error:
        if Path(name).is_dir():
            raise
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
        offline = " (HF_HUB_OFFLINE is set: the hub is not asked)" if constants.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"model {name} is no folder here, and the hub does not give it{offline}: {said} Expected a checkpoint "
            f"folder, or a hub name such as 'org/model'.{nearest(name)}"
        ) from error


def checkpoint_config(name: str, revision: str | None = None, *, trusted: bool = False, **options: Any) -> Any:
    """The config of a checkpoint. Raises Refused where its files are not used, OSError where there are none."""
    from transformers import AutoConfig

    with named(name, "config"), looked_up(name):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trusted, **options)
        check_config(name, config, trusted)
    return config


def checkpoint_tokenizer(name: str, revision: str | None = None, *, trusted: bool = False) -> Any:
    from transformers import AutoTokenizer

    with named(name, "tokenizer"):
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trusted)


def refuse_silent(name: str, tokenizer: Any) -> None:
    """Raises Refused for a tokenizer that makes no tokens: transformers makes an empty one where its files are
    missing."""
    if not tokenizer("the cow").input_ids:
        raise Refused(
            f"the tokenizer of {name} makes no tokens of 'the cow': expected its files (tokenizer.json, "
            "tokenizer_config.json) beside the weights, as tokenizer.save_pretrained writes them, or "
            "load_model(..., tokenizer=...)."
        )


def _refuse_dtype(dtype: Any) -> None:
    meant = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype != "auto" and not isinstance(meant, torch.dtype):
        raise ValueError(
            f"dtype {dtype!r} is unknown: expected 'auto' (the checkpoint's own), 'bfloat16', 'float16', 'float32', or "
            "a torch.dtype."
        )


def from_pretrained(
    name: str, tokenizer: Any, processor: Any, dtype: Any, revision: str | None, trusted: bool, **placed: Any
) -> tuple[nn.Module, Any, Any]:
    """Module, tokenizer and processor of a checkpoint; `placed` is the `device_map` of transformers. Raises
    FileNotFoundError for a folder that is not there or has no safetensors weights, and ValueError for weights that are
    damaged, missing, or of another shape than the config's."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    from transformers.utils import logging

    _refuse_dtype(dtype)
    folder = Path(name)
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_path and not folder.is_dir():
        raise FileNotFoundError(
            f"model folder {name} does not exist: expected a checkpoint folder, or a hub name such as 'org/model'."
            f"{nearest(name)}"
        )
    stored = check_folder(folder) if folder.is_dir() else {}
    config = checkpoint_config(name, revision, trusted=trusted)
    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    auto: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    if sees and processor is None:  # before the weights: what is missing for pictures is said at once
        with named(name, "processor"):
            processor = load_processor(name, revision, trusted=trusted)
    if stored:
        check_size(name, auto, config, stored, trusted)
    small = folder.is_dir() and sum(file.stat().st_size for file in folder.glob("*.safetensors")) < 2**30
    shown = logging.is_progress_bar_enabled()
    if small:  # a bar that is over at once says nothing
        logging.disable_progress_bar()
    options = dict(dtype=dtype, revision=revision, trust_remote_code=trusted, use_safetensors=True, **placed)
    try:
        with named(name, "model"):
            module, found = auto.from_pretrained(name, output_loading_info=True, **options)
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "ignore_mismatched_sizes" not in str(error):
            raise
        why = error if isinstance(error, SafetensorError) else "some have another shape, see the report above"
        raise ValueError(
            f"the weights of {name} cannot be read ({why}): expected whole .safetensors files that fit its config.json."
        ) from None
    finally:
        if small and shown:
            logging.enable_progress_bar()
    if absent := sorted(map(str, found["missing_keys"])):
        raise ValueError(
            f"{name} lacks {len(absent)} of the weights of a {type(module).__name__} (first: {absent[0]}); they would "
            "be random numbers. Expected a whole checkpoint of this architecture."
        )
    if tokenizer is None and processor is None:
        tokenizer = checkpoint_tokenizer(name, revision, trusted=trusted)
    refuse_silent(name, tokenizer or getattr(processor, "tokenizer", None))
    return module, tokenizer, processor
