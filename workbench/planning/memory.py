"""Peak device memory of a forward, estimated from a config: weights, activations, cache, logits, what is kept.

With N = rows · columns, d the width of the stream, f of the MLP, a = heads · head width, c = key heads · head width,
V the vocabulary, b bytes a number:

| part | bytes |
|---|---|
| weights | of all parameters (tied ones once) and buffers, in the model's dtype, and `adapter_bytes` |
| stream | 2 N d b: the embeddings, which the forward holds to its end, and the stream |
| block, the largest of: | |
| its MLP | (g f + 2d) N b, with g = 3 where it is gated, 2 where not, 5 where its activation is written out in steps |
| its attention | (d + 3a + 4c) N b; with a mask also 2 (a - c) N b, and the mask in the model's dtype |
| its norm, in float32 | (d b + 12 d) N |
| mask | rows · columns · (columns + cached) for each kind of attention layer; where all layers see everything, only
  for rows that are padded on the left, or that stand behind a cache |
| vision | P · b · (4 d_v + max(2 f_v, 4 d_v)), P patches of one image: each passes alone, where the tower is
  captured all of a batch at once |
| pixels, features | 3 · side² · b for each image of the batch; and what the tower gave for all so far, up to 1 GiB |
| keys and values | 2 c b a token and layer, sliding layers up to their window; one layer twice, while it grows |
| logits | rows · V · (2b, below float32 b + 8) where they are read, and 40 more against neutral prompts; (b + 4 copies)
  where tokens are chosen: 2 copies (3 in sample_answers) for the likeliest, 7 for a draw, 9 with top_p |
| kept | what hooks hold: captured rows, recorded streams |

The peak is the largest phase (vision; blocks; logits) of the largest call, beside weights, kept, and keys and values.
It is of the tensors that torch allocates: not the CUDA context, the libraries' workspaces (on a CPU some 0.5 MB of
attention), or the allocator's reserve.
Checked against torch's own record of allocations on a CPU, for tiny models (tests/test_planning_memory.py); unverified
on a GPU, for mixtures of experts, for eager attention and for towers of native resolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hooks.structure import vision_config
from workbench.planning.model import Call, PlannedModel

FEATURES = 2**30  # bytes of image features that a model remembers (hooks.features)
UNFUSED = ("gelu_new", "gelu_fast", "gelu_python", "quick_gelu", "mish")  # activations in several tensor operations


class ByPart:
    """Bytes on the device at the peak, a field each part; an estimate."""

    @property
    def peak(self) -> int:
        return sum(vars(self).values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / 2**30:.3g}" for name, value in vars(self).items())
        return f"about {self.peak / 2**30:.3g} GiB ({parts})"


@dataclass(frozen=True)
class Memory(ByPart):
    """Device bytes of a forward at its peak."""

    weights: int
    activations: int
    cache: int
    logits: int
    kept: int


@dataclass(frozen=True)
class Sizes:
    """The widths that memory depends on, as a config states them."""

    b: int
    d: int
    f: int
    a: int
    c: int
    vocabulary: int
    steps: int  # numbers of the MLP's width that are alive at once
    windows: tuple[int | None, ...]  # of each layer; None sees everything
    eager_heads: int  # heads whose scores are materialised, 0 with fused attention
    patches: int = 0
    d_v: int = 0
    f_v: int = 0
    pixels: int = 0  # numbers of one image

    @staticmethod
    def of(model: PlannedModel) -> Sizes:
        text: Any = model.config.get_text_config(decoder=True)
        d, heads = model.d_model, int(text.num_attention_heads)
        head = int(getattr(text, "head_dim", None) or d // heads)
        key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
        window, kinds = getattr(text, "sliding_window", None), getattr(text, "layer_types", None)
        windows = [window if kinds and "sliding" in kinds[n] else None for n in range(model.n_layers)]
        names = {name.rpartition(".")[2] for name, _ in model.module.named_modules()}
        acts = getattr(text, "hidden_act", None) or getattr(text, "activation_function", None)
        eager = getattr(model.config, "_attn_implementation", None) == "eager"
        return Sizes(
            b=model.dtype.itemsize,
            d=d,
            f=int(getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * d),
            a=heads * head,
            c=key_heads * head,
            vocabulary=int(text.vocab_size),
            steps=3 if names & {"gate_proj", "gate_up_proj"} else 5 if acts in UNFUSED else 2,
            windows=tuple(windows),
            eager_heads=heads if eager else 0,
            **_seen(model.config),
        )

    @property
    def kinds(self) -> int:
        """Kinds of attention layers, each with a mask of its own."""
        return len(set(self.windows))

    def cache(self, rows: int, tokens: int) -> int:
        """Keys and values behind `tokens` columns, and one layer's copy while it grows."""
        per_layer = [2 * self.c * self.b * rows * min(tokens, w or tokens) for w in self.windows]
        return sum(per_layer) + max(per_layer)

    def blocks(self, rows: int, columns: int, cached: int = 0, *, masked: bool = True) -> int:
        n, b = rows * columns, self.b
        mlp = n * (self.steps * self.f + 2 * self.d) * b
        mask = n * (columns + cached) if masked else 0
        attention = n * (self.d + 3 * self.a + 4 * self.c) * b
        attention += (n * 2 * (self.a - self.c) + mask) * b if masked else 0
        attention += n * self.eager_heads * (columns + cached) * (2 * b + 4)
        norm = n * self.d * (b + 12)
        return 2 * n * self.d * b + max(mlp, attention, norm) + mask * self.kinds

    def vision(self, together: int) -> int:
        """Of the tower, over `together` pictures at once."""
        return together * self.b * self.patches * (4 * self.d_v + max(2 * self.f_v, 4 * self.d_v))

    def logits(self, call: Call) -> int:
        """Where they are read (as they are, then in float32 with their exponentials), or chosen from."""
        if not call.new:
            return call.logits * self.vocabulary * max(2 * self.b, self.b + 4 * (self.b < 4) + 4)
        return call.logits * self.vocabulary * (self.b + 4 * call.copies)


def _seen(config: Any) -> dict[str, int]:
    """Of a vision tower with pictures of one size; a tower of native resolution is taken at its config's image_size."""
    vision = vision_config(config)
    if vision is None:
        return {}
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if not isinstance(side, int) or not isinstance(patch, int):
        return {}
    d = int(vision.hidden_size)
    f = int(getattr(vision, "intermediate_size", None) or 4 * d)
    return {"patches": (side // patch) ** 2, "d_v": d, "f_v": f, "pixels": 3 * side * side}


def weight_bytes(module: nn.Module) -> int:
    """Of all parameters, tied ones once, and all buffers."""
    every = {id(one): one for one in (*module.parameters(), *module.buffers())}
    return sum(one.numel() * one.element_size() for one in every.values())


def peak_of(model: PlannedModel, calls: Iterable[Call], adapter_bytes: int = 0) -> Memory:
    """The peak over these calls; with pictures, of a run that has seen them all."""
    sizes, weights = Sizes.of(model), weight_bytes(model.module) + adapter_bytes
    features = min(FEATURES, sum(model.pictures.values()) * sizes.d * sizes.b)
    found = [one for call in dict.fromkeys(calls) for one in phases(sizes, call, weights, features)]
    return max(found, key=lambda one: one.peak, default=Memory(weights, 0, 0, 0, 0))


def phases(s: Sizes, call: Call, weights: int = 0, features: int = 0) -> list[Memory]:
    """The vision tower, the prompt's blocks, its logits, and the last decoding step of one call."""
    whole = call.behind + call.columns
    cached = bool(call.new or call.behind)
    behind, ready = (s.cache(call.rows, n) if cached and n else 0 for n in (call.behind, whole))
    end = s.cache(call.rows, whole + max(0, call.new - 1)) if cached else 0
    pixels = call.images * s.pixels * s.b
    logits = s.logits(call)
    masked = s.kinds > 1 or bool(call.behind) or (cached and call.tokens < call.rows * call.columns)
    blocks = s.blocks(call.rows, call.columns, call.behind, masked=masked)
    held = call.kept + (features if call.images else 0)
    return [
        Memory(weights, pixels + s.vision(call.together), behind, 0, held),
        Memory(weights, pixels + blocks, ready, 0, held),
        Memory(weights, pixels + 2 * call.rows * call.columns * s.d * s.b, ready, logits, held),
        Memory(weights, pixels + s.blocks(call.rows, 1, whole), end, logits, held),
    ]
