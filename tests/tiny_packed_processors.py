"""More tiny image-text models as checkpoint folders: those whose vision tower reads all patches packed, one image after
the other."""

from __future__ import annotations

from typing import Any

import transformers as hf
from tiny_models import _loud, byte_tokenizer
from tiny_processors import CORE, IMAGE, TEMPLATE, TOWER, Family, awake, text_of, tokens

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
QWEN = ("<video>", "<vs>", "<ve>")
QWEN_TEMPLATE = TEMPLATE.replace("PLACEHOLDER", "<vs><img><ve>")
QWEN_IDS = dict(
    image_token_id=IMAGE, video_token_id=IMAGE + 1, vision_start_token_id=IMAGE + 2, vision_end_token_id=IMAGE + 3
)
PACKED = dict(patch_size=4, spatial_merge_size=2, temporal_patch_size=2)


def _qwen_pictures(kind: Any = hf.Qwen2VLImageProcessorPil) -> Any:
    return kind(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 24 * 32}
    )


def _qwen(model: Any, config: Any, tower: dict[str, Any], processor: str, kind: str) -> Family:
    tokenizer = tokens(*QWEN, video_token="<video>", vision_start_token="<vs>", vision_end_token="<ve>")
    # out_hidden_size: the merger writes into the language stream.
    built = config(
        text_config=text_of(tokenizer, kind, rope_parameters=MROPE),
        vision_config=PACKED | tower | dict(depth=3, num_heads=2),
        **QWEN_IDS,
    )
    return Family(
        awake(_loud(model, built)),
        tokenizer,
        _qwen_pictures(),
        processor,
        template=QWEN_TEMPLATE,
        videos=processor.replace("Processor", "VideoProcessor").replace("2_5_", "2"),
    )


def qwen2_vl() -> Family:
    tower = dict(embed_dim=24, hidden_size=32, mlp_ratio=2)
    return _qwen(hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLConfig, tower, "Qwen2VLProcessor", "qwen2_vl_text")


def qwen2_5_vl() -> Family:
    # Windows of 2 x 2 patches: the tower reorders its patches, within each picture.
    tower = dict(hidden_size=24, intermediate_size=32, out_hidden_size=32, window_size=16, fullatt_block_indexes=[1])
    model, config = hf.Qwen2_5_VLForConditionalGeneration, hf.Qwen2_5_VLConfig
    return _qwen(model, config, tower, "Qwen2_5_VLProcessor", "qwen2_5_vl_text")


def qwen3_vl() -> Family:
    tower = dict(
        hidden_size=24,
        intermediate_size=32,
        out_hidden_size=32,
        num_position_embeddings=64,
        deepstack_visual_indexes=[0, 1],
    )
    return _qwen(hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLConfig, tower, "Qwen3VLProcessor", "qwen3_vl_text")


def glm4v() -> Family:
    tokenizer = tokens(
        "<video>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
        video_token="<video>",
    )
    rope = MROPE | {"partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}
    config = hf.Glm4vConfig(
        text_config=text_of(tokenizer, "glm4v_text", rope_parameters=rope),
        vision_config=PACKED
        | dict(depth=3, hidden_size=24, num_heads=2, image_size=32, out_hidden_size=32, intermediate_size=32),
        image_token_id=IMAGE,
        video_token_id=IMAGE + 1,
        image_start_token_id=IMAGE + 2,
        image_end_token_id=IMAGE + 3,
        video_start_token_id=IMAGE + 4,
        video_end_token_id=IMAGE + 5,
    )
    return Family(
        awake(_loud(hf.Glm4vForConditionalGeneration, config)),
        tokenizer,
        _qwen_pictures(hf.Glm4vImageProcessorPil),
        "Glm4vProcessor",
        template=TEMPLATE.replace("PLACEHOLDER", "<|begin_of_image|><img><|end_of_image|>"),
        videos="Glm4vVideoProcessor",
    )


def _pixtral(model: Any, config: Any, merge: int) -> Family:
    tokenizer = byte_tokenizer([*CORE[:IMAGE], "[IMG]", "[IMG_BREAK]", "[IMG_END]"], {})
    tokenizer.chat_template = None
    tower = dict(model_type="pixtral", image_size=32, patch_size=4, head_dim=12) | TOWER
    more = {"spatial_merge_size": merge} if merge > 1 else {"vision_feature_select_strategy": "full"}
    built = config(
        text_config=text_of(tokenizer, "mistral"),
        vision_config=tower,
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        **more,
    )
    pictures = hf.PixtralImageProcessorPil(size={"longest_edge": 24}, patch_size={"height": 4, "width": 4})
    settings = {"patch_size": 4, "spatial_merge_size": merge}
    template = TEMPLATE.replace("PLACEHOLDER", "[IMG]")
    return Family(awake(_loud(model, built)), tokenizer, pictures, "PixtralProcessor", settings, template)


def pixtral() -> Family:
    return _pixtral(hf.LlavaForConditionalGeneration, hf.LlavaConfig, 1)


def mistral3() -> Family:
    return _pixtral(hf.Mistral3ForConditionalGeneration, hf.Mistral3Config, 2)
