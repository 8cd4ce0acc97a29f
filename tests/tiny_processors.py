"""Tiny image-text models of many families as checkpoint folders: random weights, and the family's own processor over
pillow, with a byte tokenizer, small pictures and a chat template. No download, no torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers as hf
from tiny_models import _loud, byte_tokenizer

CORE = ["<pad>", "<eos>", "<bos>", "<turn>", "<end>", "<img>"]  # <img> is every family's placeholder
TEMPLATE = (
    "<bos>{% for m in messages %}<turn>{{ m['role'] }}:"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}PLACEHOLDER{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}<end>"
    "{% endfor %}{% if add_generation_prompt %}<turn>assistant:{% endif %}"
)
IMAGE = CORE.index("<img>")
TEXT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=512,
    pad_token_id=0,
    eos_token_id=1,
    bos_token_id=2,
)
TOWER = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)


class Family(NamedTuple):
    """What a checkpoint folder is written from."""

    model: Any
    tokenizer: Any
    pictures: Any  # the PIL image processor
    processor: str  # the processor's class
    settings: dict[str, Any] = {}  # noqa: RUF012 - and its own settings
    template: str = TEMPLATE.replace("PLACEHOLDER", "<img>")
    videos: str | None = None  # the class of a video processor that the checkpoint states, and that needs torchvision

    def save(self, folder: Path) -> Path:
        """Writes the folder as checkpoints on the hub are laid out."""
        for part in (self.model, self.tokenizer, self.pictures):
            part.save_pretrained(folder)
        (folder / "processor_config.json").write_text(
            json.dumps({"processor_class": self.processor, **self.settings}, indent=1)
        )
        if self.videos:
            (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": self.videos}))
        if self.template:
            (folder / "chat_template.jinja").write_text(self.template)
        return folder


def tokens(*more: str, **named: str) -> Any:
    tokenizer = byte_tokenizer([*CORE, *more], {"image_token": "<img>", **named})
    tokenizer.chat_template = None
    return tokenizer


def text_of(tokenizer: Any, kind: str = "llama", **more: Any) -> dict[str, Any]:
    return {"model_type": kind, "vocab_size": len(tokenizer), **TEXT, **more}


def awake(model: Any) -> Any:
    """Gates and projections that start at zero are filled, so that a picture has an effect; and the placeholder is
    never the likeliest token: a model that writes one speaks of a picture that is not there."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any() and weight.numel() < 4096:
                weight.normal_(0, 0.3, generator=generator)
        model.get_output_embeddings().weight[IMAGE] = 0
    return model


def gemma3() -> Family:
    tokenizer = tokens("<boi>", "<eoi>", boi_token="<boi>", eoi_token="<eoi>")
    text = text_of(tokenizer, "gemma3_text", query_pre_attn_scalar=8, sliding_window=16)
    text["layer_types"] = ["sliding_attention", "full_attention", "full_attention"]
    config = hf.Gemma3Config(
        text_config=text,
        vision_config=dict(model_type="siglip_vision_model", image_size=32, patch_size=8, vision_use_head=False)
        | TOWER,
        mm_tokens_per_image=4,
        boi_token_index=6,
        eoi_token_index=7,
        image_token_index=IMAGE,
    )
    pictures = hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return Family(
        awake(_loud(hf.Gemma3ForConditionalGeneration, config)),
        tokenizer,
        pictures,
        "Gemma3Processor",
        {"image_seq_length": 4},
        TEMPLATE.replace("PLACEHOLDER", "<boi>"),
    )


def paligemma() -> Family:
    tokenizer = byte_tokenizer([*CORE[:IMAGE], "<image>"], {"image_token": "<image>"})
    tokenizer.chat_template = None
    # The processor adds 1152 location and segmentation tokens and the model has an embedding for each.
    text = text_of(tokenizer, "gemma") | {"vocab_size": len(tokenizer) + 1152}
    tower = dict(model_type="siglip_vision_model", image_size=16, patch_size=8, vision_use_head=False)
    config = hf.PaliGemmaConfig(
        text_config=text,
        vision_config=tower | TOWER | {"projection_dim": 32},
        image_token_index=IMAGE,
        projection_dim=32,
        hidden_size=32,
    )
    pictures = hf.SiglipImageProcessorPil(size={"height": 16, "width": 16}, image_seq_length=4)
    model = awake(_loud(hf.PaliGemmaForConditionalGeneration, config))
    # A base model: no chat template; prompts are text with the placeholder in it.
    return Family(model, tokenizer, pictures, "PaliGemmaProcessor", template="")


def _clip(side: int) -> dict[str, Any]:
    return dict(model_type="clip_vision_model", image_size=side, patch_size=8, projection_dim=16) | TOWER


def _crop(side: int) -> dict[str, Any]:
    return dict(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def llava() -> Family:
    tokenizer = tokens()
    config = hf.LlavaConfig(
        text_config=text_of(tokenizer), vision_config=_clip(16), image_token_index=IMAGE, image_seq_length=4
    )
    model = awake(_loud(hf.LlavaForConditionalGeneration, config))
    return Family(model, tokenizer, hf.CLIPImageProcessorPil(**_crop(16)), "LlavaProcessor", LLAVA)


def llava_next() -> Family:
    tokenizer, grid = tokens(), [[16, 32], [32, 16], [32, 32]]
    config = hf.LlavaNextConfig(
        text_config=text_of(tokenizer),
        vision_config=_clip(16),
        image_token_index=IMAGE,
        image_grid_pinpoints=grid,
        image_seq_length=4,
    )
    pictures = hf.LlavaNextImageProcessorPil(**_crop(16), image_grid_pinpoints=grid)
    model = awake(_loud(hf.LlavaNextForConditionalGeneration, config))
    return Family(model, tokenizer, pictures, "LlavaNextProcessor", LLAVA)


def llava_onevision() -> Family:
    tokenizer, grid = tokens("<video>", video_token="<video>"), [[16, 16], [16, 32], [32, 16], [32, 32]]
    tower = dict(model_type="siglip_vision_model", image_size=16, patch_size=8, vision_use_head=False)
    config = hf.LlavaOnevisionConfig(
        text_config=text_of(tokenizer, "qwen2"),
        vision_config=tower | TOWER,
        image_token_index=IMAGE,
        video_token_index=IMAGE + 1,
        image_grid_pinpoints=grid,
    )
    pictures = hf.LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=grid)
    return Family(
        awake(_loud(hf.LlavaOnevisionForConditionalGeneration, config)),
        tokenizer,
        pictures,
        "LlavaOnevisionProcessor",
        {"num_image_tokens": 4, "vision_feature_select_strategy": "full"},
        videos="LlavaOnevisionVideoProcessor",
    )


def _idefics(model: Any, config: Any, pictures: Any, processor: str, videos: str | None) -> Family:
    tags = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    tokenizer = byte_tokenizer(
        [*CORE[:IMAGE], "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tags],
        {},
    )
    tokenizer.chat_template = None
    if getattr(pictures, "is_dummy", False):
        pytest.skip(f"transformers {hf.__version__} reads pictures of this family with torchvision alone")
    kind = "idefics3_vision" if "Idefics3" in processor else "smolvlm_vision"
    built = config(
        text_config=text_of(tokenizer),
        vision_config=dict(model_type=kind, image_size=16, patch_size=4) | TOWER,
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    small = pictures(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    template = TEMPLATE.replace("PLACEHOLDER", "<image>")
    return Family(awake(_loud(model, built)), tokenizer, small, processor, {"image_seq_len": 4}, template, videos)


def idefics3() -> Family:
    return _idefics(
        hf.Idefics3ForConditionalGeneration, hf.Idefics3Config, hf.Idefics3ImageProcessorPil, "Idefics3Processor", None
    )


def smolvlm() -> Family:
    return _idefics(
        hf.SmolVLMForConditionalGeneration,
        hf.SmolVLMConfig,
        hf.SmolVLMImageProcessorPil,
        "SmolVLMProcessor",
        "SmolVLMVideoProcessor",
    )


def internvl() -> Family:
    tokenizer = byte_tokenizer(
        [*CORE, "<is>", "<ie>", "<video>"],
        dict(start_image_token="<is>", end_image_token="<ie>", context_image_token="<img>", video_token="<video>"),
    )
    tokenizer.chat_template = None
    config = hf.InternVLConfig(
        text_config=text_of(tokenizer, "qwen2"),
        vision_config=dict(model_type="internvl_vision", image_size=[16, 16], patch_size=[4, 4]) | TOWER,
        image_token_id=IMAGE,
        image_seq_length=4,
    )
    pictures = hf.GotOcr2ImageProcessorPil(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return Family(
        awake(_loud(hf.InternVLForConditionalGeneration, config)),
        tokenizer,
        pictures,
        "InternVLProcessor",
        {"image_seq_length": 4},
        videos="InternVLVideoProcessor",
    )


def mllama() -> Family:
    tokenizer = tokens("<|python_tag|>")
    # The placeholder's id lies outside the LM head's rows, as in the real checkpoints.
    text = text_of(tokenizer, "mllama_text_model", cross_attention_layers=[1])
    config = hf.MllamaConfig(
        text_config=text,
        vision_config=dict(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=3,
            num_global_layers=2,
            attention_heads=2,
            image_size=16,
            patch_size=8,
            max_num_tiles=4,
            vision_output_dim=48,
            intermediate_layers_indices=[1],
            supported_aspect_ratios=[[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        ),
        image_token_index=IMAGE,
    )
    pictures = hf.MllamaImageProcessorPil(size={"height": 16, "width": 16}, max_image_tiles=4)
    return Family(awake(_loud(hf.MllamaForConditionalGeneration, config)), tokenizer, pictures, "MllamaProcessor")
