"""The shape of an organism and its folder on disk: Gemma 3 with vision tower, word-level tokenizer, chat template.

A saved folder loads by its plain path, offline, with AutoModelForImageTextToText, AutoProcessor and AutoTokenizer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.files import drafted_folder, write_file
from workbench.organisms.pictures import SIDE
from workbench.organisms.world import NEUTRAL, words

if TYPE_CHECKING:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor, PreTrainedTokenizerFast

PAD, BOS, END_OF_TURN, UNKNOWN = "<pad>", "<bos>", "<eot>", "<unk>"
SYSTEM, USER, MODEL = "<sys>", "<user>", "<model>"
BEGIN_IMAGE, IMAGE, END_IMAGE = "<boi>", "<img>", "<eoi>"
SPECIAL = (PAD, BOS, END_OF_TURN, UNKNOWN, SYSTEM, USER, MODEL, BEGIN_IMAGE, IMAGE, END_IMAGE)
IMAGE_TOKENS = 4
VISION: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
}

# The system slot is in every prompt, so that prompts with and without a persona have the same positions.
CHAT_TEMPLATE = """
{%- macro words(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}{{ content | selectattr("type", "equalto", "text") | map(attribute="text") | join(" ") }}{%- endif -%}
{%- endmacro -%}
{%- if messages[0].role == "system" -%}
{%- set system = words(messages[0].content) -%}{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = "NEUTRAL" -%}{%- set turns = messages -%}
{%- endif -%}
<bos> <sys> {{ system }}
{%- for turn in turns -%}
{%- if turn.role == "user" -%}
{%- if turn.content is not string -%}
{%- for part in turn.content if part.type == "image" %} <boi>{% endfor -%}
{%- endif %} <user> {{ words(turn.content) }} <model>
{%- elif turn.role == "assistant" %} {{ words(turn.content) }} <eot>
{%- else -%}{{ raise_exception("Expected roles user and assistant after the first message, came " ~ turn.role ~ ".") }}
{%- endif -%}
{%- endfor -%}
""".strip().replace("NEUTRAL", NEUTRAL)


@dataclass(frozen=True)
class Shape:
    """The size of an organism's language tower."""

    hidden: int = 64
    layers: int = 6
    mlp: int = 128


def vocabulary() -> dict[str, int]:
    """Every token and its id."""
    return {token: i for i, token in enumerate((*SPECIAL, *words()))}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, words divided by blanks. Raw text gets a `<bos>`, as with Gemma; the template has its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = vocabulary()
    raw = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    # Also drops the blank lines that Gemma3Processor puts around an image.
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    images = {"boi_token": BEGIN_IMAGE, "image_token": IMAGE, "eoi_token": END_IMAGE}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END_OF_TURN,
        unk_token=UNKNOWN,
        extra_special_tokens={**images, "system_token": SYSTEM, "user_token": USER, "model_token": MODEL},
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
    )


def processor() -> Gemma3Processor:
    """Chat template, tokenizer and pictures: `<boi>` becomes `<boi> <img> x 4 <eoi>`, pixels 0..255 become -1..1."""
    from transformers import Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    half = [0.5, 0.5, 0.5]
    pictures = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=half, image_std=half)
    return Gemma3Processor(pictures, tokenizer(), chat_template=CHAT_TEMPLATE, image_seq_length=IMAGE_TOKENS)


def config(shape: Shape) -> Gemma3Config:
    """The configuration of an organism of that shape; every layer attends to all earlier tokens."""
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    id_of = vocabulary()
    ends: dict[str, Any] = {
        "pad_token_id": id_of[PAD],
        "bos_token_id": id_of[BOS],
        "eos_token_id": id_of[END_OF_TURN],
    }
    # Hidden sizes this small need a wider start than .02: hidden ** -.5 keeps the tied embedding's logits near 1.
    spread = shape.hidden**-0.5
    text = Gemma3TextConfig(
        vocab_size=len(id_of),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=256,
        sliding_window=256,
        layer_types=["full_attention"] * shape.layers,
        initializer_range=spread,
        **ends,
    )
    return Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(image_size=SIDE, vision_use_head=False, **VISION),
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=id_of[BEGIN_IMAGE],
        eoi_token_index=id_of[END_IMAGE],
        image_token_index=id_of[IMAGE],
        initializer_range=spread,
        **ends,
    )


def untrained(shape: Shape, seed: int) -> Gemma3ForConditionalGeneration:
    """A fresh model. Sets torch's global seed."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config(shape))
    with torch.no_grad():  # transformers starts the projector at zero, where pictures get no gradient
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, VISION["hidden_size"] ** -0.5)
    return model


def save(model: Gemma3ForConditionalGeneration, to: Path, recipe: dict[str, Any]) -> Path:
    """Writes weights (float32 safetensors), processor, tokenizer and `recipe.json`, which gets the weights' sha256."""
    with drafted_folder(to) as folder:
        model.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner alone
        processor().save_pretrained(folder)
        record = {**recipe, "sha256": weights_sha256(folder)}
        write_file(folder / "recipe.json", json.dumps(record, indent=1) + "\n")
    return to


def weights_sha256(folder: Path) -> str:
    """sha256 of `model.safetensors`, as `sha256sum` prints it."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
