"""What the shrinking rule of `zoo.py` does not do by itself, by family: fields of the config, nested as it is."""

from __future__ import annotations

from typing import Any

_HYBRID = ["linear_attention", "hybrid"] * 2
_BOTH_ROPES = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
_INDEXED = dict(indexer_n_heads=4, indexer_kv_heads=1, indexer_head_dim=16, indexer_budget=8, indexer_compress_ratio=4)
_VQ = dict(embed_dim=8, num_embeddings=64, base_channels=32, channel_multiplier=[1, 1], num_res_blocks=1)
_MROPE = dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[4, 2, 2]))
_HALF_MROPE = dict(
    rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 1, 1], partial_rotary_factor=0.5)
)
_VQ_TOKENS = {f"IMGIMG{''.join(chr(65 + int(digit)) for digit in str(n))}Z": 200 + n for n in range(64)}
_SAM = dict(sam_config=dict(downsample_channels=[32, 64], image_size=128, global_attn_indexes=[1]))
_TILED = dict(image_grid_pinpoints=[[64, 64]])
_EMU_TOKENS = {f"<|visual token {n:06}|>": 200 + n for n in range(64)}
_SWIN = dict(embed_dim=16, num_heads=[1, 2, 2, 4], window_size=2, patch_size=4)
_SLIDING = ["sliding_attention", "full_attention"] * 2

# "causal:git" is one mapping's family, "git" the family in each.
NEEDS: dict[str, dict[str, Any]] = {
    "bamba": dict(attn_layer_indices=[1, 3]),
    "blt": dict(encoder_hash_byte_group_vocab=200),
    "cohere_compass_text": dict(rope_parameters=_BOTH_ROPES),
    "cohere_compass": dict(text_config=dict(rope_parameters=_BOTH_ROPES)),
    "dbrx": dict(attn_config=dict(rope_theta=1e4, kv_n_heads=2, clip_qkv=8)),
    "deepseek_v2": dict(num_experts_per_tok=2),
    "deepseek_ocr2": dict(
        vision_config=_SAM,
        text_config=dict(num_experts_per_tok=2, mlp_layer_types=["dense", "sparse", "dense", "sparse"]),
    ),
    "dots1": dict(n_shared_experts=1, n_routed_experts=4, num_experts_per_tok=2, first_k_dense_replace=1),
    "gemma3n_text": dict(
        layer_types=_SLIDING, num_kv_shared_layers=2, intermediate_size=[96] * 4, activation_sparsity_pattern=[0.0] * 4
    ),
    "gpt_neo": dict(attention_types=[[["global", "local"], 2]]),
    "granitemoehybrid": dict(layer_types=["linear_attention", "full_attention"] * 2),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1),
    "lfm2_moe": dict(layer_types=["conv", "full_attention"] * 2),
    "mamba2": dict(head_dim=32, num_heads=4, n_groups=1),
    "image-text:qwen4_exp": dict(text_config=_INDEXED),
    "causal:qwen4_exp": _INDEXED,
    "qwen4_exp_text": _INDEXED,
    "reformer": dict(axial_pos_embds_dim=(16, 48), axial_pos_shape=(16, 32)),
    "xlstm": dict(hidden_size=128, embedding_dim=128),
    "zamba": dict(attention_hidden_size=128, attention_head_dim=32, layers_block_type=_HYBRID),
    "zamba2": dict(layers_block_type=_HYBRID),
    "zaya": dict(num_experts_per_tok=1, router_hidden_size=32),
    "phi4_multimodal": dict(
        audio_config=dict(nemo_conv_channels=32, ext_pw_out_channel=64, depthwise_separable_out_channel=64)
    ),
    "xmod": dict(default_language="en_XX"),
    "longcat_flash": dict(head_dim=8, zero_expert_num=2),
    # image-text
    "chameleon": dict(vocabulary_map={"<image>": 300} | _VQ_TOKENS, vq_config=_VQ),
    "emu3": dict(
        vocabulary_map={"<image>": 300, "<|extra_200|>": 301} | _EMU_TOKENS,
        vq_config=dict(codebook_size=64, base_channels=32, channel_multiplier=[1, 2]),
    ),
    "ernie4_5_vl_moe": dict(
        text_config=dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[3, 3, 2]))
    ),
    "glm5_next": dict(text_config=dict(qk_rope_head_dim=0, head_dim=0)),
    "granite4_vision": dict(
        image_grid_pinpoints=[[64, 64]],
        deepstack_layer_map=[(0, 0), (1, 1)],
        vision_feature_layer=-2,
        spatial_target_layers=[2, 3],
        downsample_rate="1/2",
    ),
    "molmo2": dict(adapter_config=dict(vision_feature_layer=[2, 1])),
    "muse_spark": dict(audio_config=dict(num_hidden_layers=4, hidden_sizes=[64] * 4, depths=[1] * 4)),
    "glm46v": dict(text_config=_MROPE),
    "glm4v": dict(text_config=_MROPE),
    "glm4v_moe": dict(text_config=_HALF_MROPE),
    "glm_ocr": dict(text_config=_MROPE),
    "paddleocr_vl": dict(text_config=_MROPE),
    "qwen2_5_vl": dict(text_config=_MROPE),
    "qwen2_vl": dict(text_config=_MROPE),
    "step3p7": dict(text_config=dict(sliding_window=16)),
    "qwen2_5_omni_thinker": dict(text_config=_MROPE, vision_start_token_id=260),
    "qwen3_omni_moe_thinker": dict(vision_start_token_id=260),
    "hunyuan_vl": dict(
        text_config=dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 2, 2, 2])),
        vision_config=dict(max_image_size=64),
    ),
    "nemotron_h_omni": dict(image_token_id=300, vision_config=dict(max_img_size=64, video_temporal_patch_size=2)),
    "florence2": dict(
        vision_config=dict(embed_dim=[16, 32, 64, 64], num_heads=[4] * 4, num_groups=[4] * 4, depths=[1] * 4)
    ),
    "janus": dict(vq_config=_VQ),
    "diffusion_gemma": dict(text_config=dict(num_experts=4, top_k_experts=2, moe_intermediate_size=32)),
    "aria": dict(projector_patch_to_query_dict={16: 4}, max_value_projector_patch_to_query_dict=4),
    "blip-2": dict(image_token_index=300),
    "causal:gemma4": dict(text_config=dict(hidden_size_per_layer_input=0)),  # as the larger checkpoints are
    "image-text:gemma4": dict(vision_config={}),
    "gemma4_unified": dict(vision_config=dict(output_proj_dims=64)),
    "instructblip": dict(image_token_index=300),
    "instructblipvideo": dict(image_token_index=300, video_token_index=300),
    "llama4": dict(vision_config=dict(intermediate_size=256)),
    "llava_next": _TILED,
    "llava_next_video": _TILED,
    "llava_onevision": _TILED,
    "minicpm_ocr": dict(image_token_id=300),
    "minicpmv4_6": dict(image_token_id=300),
    "minicpmv4_7": dict(image_token_id=300),
    "unlimited_ocr": dict(vision_config=_SAM),
    "vipllava": dict(vision_feature_layers=[-2, -1]),
    "kosmos-2.5": dict(vision_config=dict(patch_embed_hidden_size=192)),
    "causal:mllama": dict(cross_attention_layers=[1, 3]),
    "image-text:mllama": dict(
        text_config=dict(cross_attention_layers=[1, 3]),
        vision_config=dict(intermediate_layers_indices=[0], vision_output_dim=128, max_num_tiles=4),
    ),
    "muse_glimmer": dict(out_hidden_size=256),
    "image-text:muse_spark": dict(
        out_hidden_size=256, audio_config=dict(num_hidden_layers=4, hidden_sizes=[64] * 4, depths=[1] * 4)
    ),
    "pix2struct": dict(vision_config=dict(patch_embed_hidden_size=192)),
    # image encoders by themselves
    "convnext": dict(image_size=64),
    "convnextv2": dict(image_size=64),
    "donut-swin": _SWIN,
    "swin": _SWIN,
    "swinv2": _SWIN,
    "vision:llama4": dict(intermediate_size=256),
    "vision:llama4_vision_model": dict(intermediate_size=256),
    "vision:mllama": dict(intermediate_layers_indices=[0], vision_output_dim=128, max_num_tiles=4),
}
