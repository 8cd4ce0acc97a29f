"""What is expected of each family: everything, but for what is written here with its reason.

Of transformers 5.23. `EXPECTED[kind, family][check] = (fragment of what is measured, why)`; the check "stream" is the
search for the blocks itself, and its fragment is of the refusal.
"""

from __future__ import annotations

_TIMM = "its vision tower comes from the timm package"
_PARENT = "a drafter that runs on the cache of a parent model"
_LEAK = "stream does not carry everything"
_CONV = "stages of convolutions or of changing width: no stream of [picture, patch, width]"
_STAGES = "bit convnext convnextv2 dinov3_convnext focalnet glpn mobilevit poolformer pvt regnet resnet segformer"
_STAGES += " hiera swiftformer swinv2"
_FLAT = "mobilenet_v1 mobilenet_v2"
_GATED = ("does not read", "gated cross-attention stands between the blocks, and changes what one passes on")
_NO_TOWER = "has no vision tower"
_ENCODED = "the prompt goes to the encoder, the stream is the decoder's: plain prompts do not say both"

NOT_BUILT: dict[tuple[str, str], str] = {
    ("causal", "dots3_note"): "its config's cross-checks do not allow a tiny one",
    ("causal", "gemma3n"): _TIMM,
    ("causal", "gemma4_assistant"): _PARENT,
    ("causal", "gemma4_unified_assistant"): _PARENT,
    ("image-text", "dots3_note"): "its config's cross-checks do not allow a tiny one",
    ("image-text", "fast_vlm"): _TIMM,
    ("image-text", "gemma3n"): _TIMM,
    ("image-text", "perception_lm"): _TIMM,
    ("vision", "conditional_detr"): _TIMM,
    ("vision", "dab-detr"): _TIMM,
    ("vision", "deformable_detr"): _TIMM,
    ("vision", "depth_pro"): "several encoders whose sizes must fit one another",
    ("vision", "detr"): _TIMM,
    ("vision", "dinat"): "needs the natten package",
    ("vision", "edgetam_vision_model"): _TIMM,
    ("vision", "efficientnet"): "convolutions whose sizes do not shrink",
    ("vision", "imagegpt"): "reads pixels as tokens",
    ("vision", "levit"): "convolutions whose sizes do not shrink",
    ("vision", "mobilevitv2"): "convolutions whose sizes do not shrink",
    ("vision", "sam2_vision_model"): "stages whose sizes do not shrink",
    ("vision", "swin"): "stages whose sizes do not shrink",
    ("vision", "swin2sr"): "stages whose sizes do not shrink",
    ("vision", "table-transformer"): _TIMM,
    ("vision", "timm_backbone"): _TIMM,
    ("vision", "timm_wrapper"): _TIMM,
}

EXPECTED: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    ("causal", "blt"): {
        "capture": ("no entry that equals", "several stacks; the hidden states that it reports are another one's"),
        "generate": ("num_hidden_layers", "transformers cannot make a cache from its config"),
    },
    ("causal", "cpmant"): {"generate": ("with a cache", "not causal: its learned prefix reads later tokens")},
    ("causal", "gemma3n_text"): {"patch": (_LEAK, "token embeddings are added in every layer; late layers share K/V")},
    ("causal", "gemma4_text"): {"patch": (_LEAK, "token embeddings are added in every layer; late layers share K/V")},
    ("causal", "hrm_text"): {"stream": ("looped stack", "its stacks run in cycles: a layer is not one place")},
    ("causal", "inkling2_text"): {"patch": (_LEAK, "attends over earlier blocks' states after the last block")},
    ("causal", "musicgen"): {
        "generate": ("repeat_interleave", "music codes: its generate wants settings of its own checkpoint"),
        "product": ("is invalid for input", "reads music codes, not text"),
    },
    ("causal", "musicgen_melody"): {"product": ("is invalid for input", "reads music codes, not text")},
    ("causal", "reformer"): {"stream": ("reversible or two-stream", "two reversible streams")},
    ("causal", "xlm"): {"stream": ("Parallel lists", "attentions and MLPs stand in lists of their own: no blocks")},
    ("causal", "zamba"): {"patch": (_LEAK, "shared attention blocks read the embeddings again")},
    ("causal", "zamba2"): {"patch": (_LEAK, "shared attention blocks read the embeddings again")},
    ("causal", "zaya"): {"patch": (_LEAK, "router states travel beside the stream")},
    ("image-text", "chameleon"): {"vision": (_NO_TOWER, "pictures become tokens")},
    ("image-text", "deepseek_ocr2"): {"vision": ("found lists of", "two encoders in a row")},
    ("image-text", "diffusion_gemma"): {
        "patch": (_LEAK, "the canvas reads the prompt's cache in every layer"),
        "generate": ("decoder_start_token_id", "block diffusion: no greedy decoding to compare with"),
        "product": ("", "its stream is of the canvas, not of the prompt"),
    },
    ("image-text", "emu3"): {"vision": (_NO_TOWER, "pictures become tokens")},
    ("image-text", "florence2"): {
        "product": ("encoder-decoder", _ENCODED),
        "vision": ("has stages", "stages of convolutions"),
    },
    ("image-text", "fuyu"): {"vision": (_NO_TOWER, "patches go straight into the language model")},
    ("image-text", "gemma4"): {"patch": (_LEAK, "token embeddings are added in every layer; late layers share K/V")},
    ("image-text", "gemma4_unified"): {"vision": ("", "patches go straight into the language model")},
    ("image-text", "idefics"): dict.fromkeys(("capture", "edit", "lora"), _GATED),
    ("image-text", "inkling2"): {"patch": (_LEAK, "attends over earlier blocks' states after the last block")},
    ("image-text", "pi0"): {"stream": ("no axis order", "its positions are actions of a robot, not tokens")},
    ("image-text", "pp_formulanet"): {
        "generate": ("input_ids", "its generate takes the picture alone"),
        "lora": ("get_input_embeddings", "peft does not wrap it"),
    },
    ("image-text", "t5gemma2"): {"product": ("encoder-decoder", _ENCODED)},
    ("image-text", "udop"): {"vision": (_NO_TOWER, "patches join the text encoder")},
    ("image-text", "unlimited_ocr"): {"vision": ("found lists of", "two encoders in a row")},
    ("vision", "yolos"): {"vision": ("does not read", "position embeddings are added between the blocks")},
    **{("vision", name): {"vision": ("has stages", _CONV)} for name in _STAGES.split()},
    **{("vision", name): {"vision": ("found lists of", _CONV)} for name in _FLAT.split()},
    ("vision", "gemma4_vision"): {"vision": (_NO_TOWER, "nothing in it says that it reads pictures")},
    ("vision", "kimi_k25_vision"): {"vision": (_NO_TOWER, "nothing in it says that it reads pictures")},
    ("vision", "videoprism_vision_model"): {"vision": ("found lists of", "a spatial and then a temporal stack")},
}

# The goals of the design page: kind -> check -> how many families at least.
GOALS = {
    "causal": {"capture": 162, "edit": 174, "patch": 168},
    "image-text": {"capture": 84, "edit": 87, "patch": 85, "vision": 72, "image": 79},
    "vision": {"vision": 33},
}
