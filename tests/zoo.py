"""A zoo of tiny random models: one of nearly every class behind transformers' Auto mappings, shrunk by rule.

`build("causal", "llama")` reads the family's default config, sets the usual size fields (width, layers, heads, experts,
vocabulary, pictures) to tiny values through all its nested configs, and fills the model with loud seeded weights.
What the rule does not do for a family is written in `zoo_families.py`.
"""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto import CONFIG_MAPPING, modeling_auto
from zoo_families import NEEDS

LAYERS = {"text": 4, "vision": 3, "audio": 2}
MEASURED = Version(transformers.__version__).release[:2] == (5, 23)  # the mappings that the expected rows are of
VOCAB, FIRST_SPECIAL = 320, 264  # ordinary tokens below; special tokens that do not fit get ids of their own from here
MAPPINGS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    "image-text": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    "vision": modeling_auto.MODEL_FOR_IMAGE_MAPPING,
}

# The first pattern that fits the whole name of a field gives its size.
_SIZES: list[tuple[str, int | str]] = [
    (r"(unpadded_|decoder_|text_)?vocab_size(_per_layer_input)?|n_vocab", VOCAB),
    (r"(moe|(moe_)?shared_experts?|share_expert|expert)_(intermediate_size|dim|ffn_hidden_size)", 32),
    (r"\w*intermediate_size(_mlp)?|(encoder_|decoder_)?ffn_dim|d_ff|dff|dim_ff|n_inner|mlp_dim", 96),
    (r"ffn_hidden_size|feed_forward_size|d_inner|lru_width", 64),
    (r"mamba_d_ssm", 128),
    (r"output_channels|post_conv_\w+_channels|downsample_hidden_size|base_channels|latent_channels", 32),
    (r"downsample_channels", 32),
    (r"(num|swa_num|num_global)_(key_value|kv)_heads|kv_n_heads|num_query_groups", "kv heads"),
    (r"mamba_n(um)?_heads|n_mamba_heads", 8),
    (r"linear_num_(key|value)_heads|index_n_heads", 4),
    (r"(\w+_)?(attention_heads|num_heads|n_heads?)|linear_num_heads|resampler_heads", 4),
    (r"qk_rope_head_dim|index_head_dim|rotary_dim", 8),
    (r"qk_head_dim", 24),
    (r"(\w+_)?(head_dim|head_size|headdim|d_head)|dim_head|resampler_dim_head|d_kv|kv_channels", 16),
    (r"\w*(lora|laurel|adapter|norm)_rank|hc_lowrank", 16),
    (r"num_hidden_layers|n_layers?|(num_)?((en|de)coder_)?layers|depth|num_blocks", "layers"),
    (r"(moe_)?num_(local_)?experts|n_(routed_)?experts", 4),
    (r"(moe_)?num_experts_per_tok(en)?|(moe_)?top_?k|moe_k", 2),
    (r"n_group|topk_group|num_expert_group|mamba_n_groups|mamba_ngroups", 1),
    (r"(moe_)?(n|num)_shared_experts?", 1),
    (r"(\w+_)?hidden_size(_per_layer_input|_global)?|d_model|n_embd|(\w+_)?embed_dim|emb_dim|dim|hidden_dim|width", 64),
    (r"embedding_(size|dim)|\w*projection_(dim|hidden_dim)|projector_\w+_dim|dim_model_base", 64),
    (r"(in|out)put_embedding_size|vision_output_dim|adapter_(in|out)_dim", 64),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|max_(target|source)_positions", 512),
    (r"(ssm_)?state_size|mamba_d_state", 8),
    (r"(mamba_)?chunk_size", 16),
    (r"image_size|crop_size|resolution", 32),
    (r"patch_size", 8),
    (r"mm_tokens_per_image|num_image_tokens|image_seq_length|vision_soft_tokens_per_image", 4),
    (r"num_position_embeddings", 16),
    (r"sliding_window(_size)?|attention_window_size|local_attention(_window_len)?|attention_chunk_size", 16),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"query_pre_attn_scalar", 16),
    (r"num_query_tokens|latent_query_num|resampler_n_latents|resampler_num_latents", 4),
]
_RULES = [(re.compile(pattern), size) for pattern, size in _SIZES]
_TOKEN = re.compile(r"\w*(token_id|token_index|_token)s?|(image_patch|eod|im_\w+)_id|(bos|eos|pad|unk|mask)_index")
_PICTURE_TOKEN = re.compile(r"(image|video|audio)_(token|patch)_?(id|index)")
_PER_LAYER = re.compile(r"\w*(layer_types|layers_block_type|block_types|indexer_types|no_rope_layers|layer_rope_theta)")


def families(kind: str) -> dict[str, tuple[type[PreTrainedConfig], type[nn.Module]]]:
    """Every distinct model class behind a mapping, by the model type that it is written for."""
    found: dict[type[nn.Module], tuple[Any, Any]] = {}
    listed = list(MAPPINGS[kind].items())
    if kind == "vision":  # the towers of image-text models that are models by themselves: CLIP, SigLIP2, Pixtral, ...
        mapping = modeling_auto.MODEL_MAPPING
        towers = [name for name in mapping._model_mapping if re.search("vision_model|_vision$|pixtral", name)]
        listed += [(CONFIG_MAPPING[name], mapping[CONFIG_MAPPING[name]]) for name in towers]
        listed = [(config, model) for config, model in listed if "text_config" not in config.sub_configs]
    for config, classes in listed:
        model = classes[0] if isinstance(classes, tuple) else classes
        # Several types share a class; the one of the class's own folder gives the name.
        if model not in found or config.__module__.split(".")[-2] == model.__module__.split(".")[-2]:
            found.setdefault(model, (config, model))
            if found[model][0].__module__.split(".")[-2] != model.__module__.split(".")[-2]:
                found[model] = (config, model)
    return {config.model_type: (config, model) for config, model in found.values()}


def build(kind: str, name: str) -> nn.Module:
    """The tiny model of one family: CPU, float32, eval, the same weights on every call."""
    listed, model = families(kind)[name]
    config = shrunk(getattr(model, "config_class", None) or listed, needs(kind, name))
    if kind == "causal" and hasattr(config, "is_decoder"):
        config.is_decoder = True  # the BERT family attends both ways otherwise
    torch.manual_seed(0)
    return loud(model(config), seed=zlib.crc32(name.encode()))


def needs(kind: str, name: str) -> Mapping[str, Any]:
    return NEEDS.get(f"{kind}:{name}", NEEDS.get(name, {}))


def shrunk(cls: type[PreTrainedConfig], wanted: Mapping[str, Any] = {}) -> Any:
    """A tiny config of this class: its own defaults, with sizes set by rule and then by `wanted` (dicts for nested
    configs)."""
    return _tiny(cls(), wanted, "text", iter(range(FIRST_SPECIAL, VOCAB)))


def _tiny(default: Any, wanted: Mapping[str, Any], part: str, ids: Iterator[int]) -> Any:
    given = {}
    names = inspect.signature(type(default).__init__).parameters
    usual = type(default)()  # a nested config may differ from its class's own defaults
    kept = _kept_layers(default, LAYERS[part])
    for name in names:
        value = vars(default).get(name, vars(default).get(default.attribute_map.get(name, "")))
        if value is None and isinstance(wanted.get(name), dict) and name in type(default).sub_configs:
            value = type(default).sub_configs[name]()  # an optional part that is wanted
        if isinstance(value, PreTrainedConfig):
            given[name] = _tiny(value, wanted.get(name, {}), _part_of(name, part), ids)
        elif name not in wanted:
            new = _resized(name, value, default, part, ids, kept)
            if new is not value or value != vars(usual).get(name, value):
                given[name] = new
    nested = {name for name, value in given.items() if isinstance(value, PreTrainedConfig)}
    given |= {name: value for name, value in wanted.items() if name not in nested}
    return type(default)(**given)


def _part_of(name: str, part: str) -> str:
    if re.search("vision|visual|vit|image|vq|sam", name):
        return "vision"
    return "audio" if re.search("audio|speech|sound", name) else part


def _resized(name: str, value: Any, default: Any, part: str, ids: Iterator[int], kept: list[int] | None) -> Any:
    if isinstance(value, dict):
        return _rope(value)
    if value is None:
        return {"head_dim": 16, "num_key_value_heads": 2}.get(name)
    if isinstance(value, list | tuple) and kept is not None and len(value) == _depth(default) and len(value) > 4:
        return [value[n] for n in kept]
    if name == "depths":
        return type(value)([2] * len(value))
    if re.fullmatch(r"deepstack_\w*index\w*|fullatt_block_indexes", name):
        return type(value)([0, 1])  # of three layers; other than the number of layers, so that lists can be told apart
    if _TOKEN.fullmatch(name):
        return _token(name, value, ids)
    if isinstance(value, bool) or not (isinstance(value, int) or _numbers(value)):
        return value
    for pattern, size in _RULES:
        if pattern.fullmatch(name):
            new = _size(size, value, default, part)
            return type(value)([new] * len(value)) if _numbers(value) else new
    return value


def _size(size: int | str, value: Any, default: Any, part: str) -> int:
    if size == "layers":
        return LAYERS[part]
    if size == "kv heads":
        heads = getattr(default, "num_attention_heads", value)
        return 4 if not isinstance(heads, int) or value == heads else 2
    assert isinstance(size, int)
    return size


def _numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= 2 and all(isinstance(n, int) for n in value)


def _token(name: str, value: Any, ids: Iterator[int]) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_token(name, one, ids) for one in value)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    # Picture tokens always get their own: a small default id would fall among the ordinary ones.
    return next(ids) if value >= FIRST_SPECIAL or _PICTURE_TOKEN.fullmatch(name) else value


def _depth(config: Any) -> int | None:
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "decoder_layers"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def _kept_layers(config: Any, layers: int) -> list[int] | None:
    """The layers of the default config that stay: every kind of layer, as far as there is room."""
    depth = _depth(config)
    if depth is None or depth <= layers:
        return None
    kinds = [value for value in vars(config).values() if isinstance(value, list | tuple) and len(value) == depth]
    seen: dict[Any, int] = {}
    for n in range(depth):
        seen.setdefault(str([kind[n] for kind in kinds]), n)
    first = list(seen.values())[:layers]
    rest = [n for n in range(depth) if n not in first]
    return sorted(first + rest[: layers - len(first)])


def _rope(value: Any) -> Any:
    """Rope settings for a head of 16: the sections of a multi-axis rope add up to its half."""
    new = {key: _rope(one) if isinstance(one, dict) else one for key, one in value.items()}
    if "mrope_section" in new:
        half = int(8 * new.get("partial_rotary_factor", 1.0))
        new["mrope_section"] = [half - 2 * (half // 3)] + [half // 3] * 2
    return new if new != value else value


def loud(model: nn.Module, seed: int) -> nn.Module:
    """Weights that make every layer count: default initialisation makes tiny layers almost the identity, and starts
    some projectors and gates at zero."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.is_floating_point() or weight.numel() == 0:
                continue
            noise = torch.randn(weight.shape, generator=source)
            if weight.dim() >= 2 and "embed" not in name:
                fan = weight[0].numel() if weight.dim() == 2 else weight.shape[-1]
                weight.copy_(noise * min(0.25, 1.4 * fan**-0.5))
            elif float(weight.abs().max()) == 0:
                weight.copy_(0.3 * noise)
            elif weight.dim() < 2 and "norm" in name:
                weight.add_(0.2 * noise)
            elif weight.dim() >= 2 and weight.std() < 0.1:
                weight.copy_(0.3 * noise)
    return model.eval()
