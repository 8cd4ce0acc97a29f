"""Image features: the vision tower runs once for each distinct image, and what it gave is used again, in other rows of
a batch (a grid of interventions repeats its images) and in later forwards.

Every distinct image is computed by itself, so its features do not depend on what else was in the batch, nor on what ran
before: they equal those of a forward on its prompt alone bit for bit, and those of a plain batch up to rounding.
Nothing is reused where a number could change: while anything is hooked in the tower, outside inference mode, or where
the family's features are not understood; then the tower runs plainly, and `plain_because` says why.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from hooks.encode import Batch, Encoded

LIMIT = 2**30  # bytes of features that are kept
_ENTRY = "get_image_features"
_UNUSED = ("last_hidden_state", "hidden_states", "attentions")  # of the tower itself; the language model reads the rest


class _NotUnderstood(Exception):
    """The features cannot be put together from those of single images."""


class ImageFeatures:
    """The features of the images that one model has seen, up to `limit` bytes; the longest unused go first.

    `computed` counts images that went through the tower, `reused` those that did not have to. `plain_because` is why
    the last forward with images ran the tower plainly, None where it did not.
    """

    def __init__(self, module: nn.Module, language_blocks: Iterable[nn.Module], limit: int = LIMIT) -> None:
        self.limit = limit
        self.computed = self.reused = 0
        owners = [part for part in module.modules() if callable(getattr(part, _ENTRY, None))]
        self._owner: Any = owners[-1] if owners else None  # the innermost: the others pass the call on to it
        self.plain_because: str | None = None if owners else "the model has no get_image_features"
        self._language = {id(part) for block in language_blocks for part in block.modules()}
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._digests: Any = WeakIdKeyDictionary()

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())

    def clear(self) -> None:
        self._kept.clear()

    @contextmanager
    def during(self, batch: Batch | None) -> Iterator[None]:
        """While the body runs its forward on `batch`, the tower is asked only for images that are not known yet. The
        model is left as it was, whatever happens."""
        if self._owner is None or batch is None or not batch.image_rows:
            yield
            return
        original, before = getattr(self._owner, _ENTRY), vars(self._owner).get(_ENTRY)

        @functools.wraps(original)
        def features(*args: Any, **kwargs: Any) -> Any:
            try:
                self.plain_because = None
                return self._assembled(original, batch, args, kwargs)
            except _NotUnderstood as error:
                self.plain_because = str(error)
            return original(*args, **kwargs)

        setattr(self._owner, _ENTRY, features)
        try:
            yield
        finally:
            if before is None:
                delattr(self._owner, _ENTRY)
            else:
                setattr(self._owner, _ENTRY, before)

    def _assembled(self, original: Callable[..., Any], batch: Batch, args: Any, kwargs: dict[str, Any]) -> Any:
        if not torch.is_inference_mode_enabled():
            raise _NotUnderstood("gradients may be wanted")
        asked = inspect.signature(original).bind(*args, **kwargs).arguments
        asked |= asked.pop("kwargs", {})
        given = {name: value for name, value in asked.items() if isinstance(value, Tensor)}
        if set(given) != set(batch.inputs) & set(asked) or "pixel_values" not in given:
            raise _NotUnderstood(f"it is asked with {sorted(given)}, which is not what the processor gave")
        if any(given[name].shape != batch.inputs[name].shape for name in given):
            raise _NotUnderstood("its pictures are not those of the batch")
        state, listed, fresh, like = self._state(), [], 0, given["pixel_values"]
        for one in batch.encoded:
            inputs: list[dict[str, Tensor]] = []
            for n, digest in enumerate(self._digests_of(one)):
                key = (digest, str(like.device), like.dtype, state)
                if key in self._kept:
                    self._kept.move_to_end(key)
                else:
                    inputs = inputs or image_inputs(one)
                    mine = {name: inputs[n][name].to(value.device, value.dtype) for name, value in given.items()}
                    self._remember(key, _slim(original(**{**asked, **mine})))
                    fresh += 1
                listed.append(self._kept[key][0])
        joined = _joined_outputs(listed)
        self.computed += fresh
        self.reused += len(listed) - fresh
        self._forget()
        return joined

    def _remember(self, key: Any, out: Any) -> None:
        self._kept[key] = (out, sum(one.numel() * one.element_size() for one in _tensors(out)))

    def _forget(self) -> None:
        while self._kept and self.bytes > self.limit:
            self._kept.popitem(last=False)

    def _digests_of(self, one: Encoded) -> list[str]:
        pixels = one.images.get("pixel_values")
        if pixels is None:
            return []
        if pixels not in self._digests:  # only hashes are kept: the pixels belong to whoever holds the prompt
            self._digests[pixels] = [_digest(inputs) for inputs in image_inputs(one)]
        return self._digests[pixels]

    def _state(self) -> tuple[Any, ...]:
        """What the features depend on besides the pixels: the weights outside the language blocks, and the adapters
        that act there (so that variants which differ in the language model alone share their features)."""
        parts = [part for part in self._owner.modules() if id(part) not in self._language]
        for part in parts:
            for hooks in (part._forward_hooks, part._forward_pre_hooks):
                # transformers leaves hooks behind that only record what passes.
                if any(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks.values()):
                    raise _NotUnderstood(f"{type(part).__name__} is hooked")
        weights = tuple(
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for part in parts
            for weight in part.parameters(recurse=False)
        )
        adapters = tuple(
            (bool(getattr(part, "disable_adapters", False)), tuple(names), str(getattr(part, "scaling", "")))
            for part in parts
            if isinstance(names := getattr(part, "active_adapters", None), list | tuple)
        )
        return hash(weights), adapters


def image_inputs(one: Encoded) -> list[dict[str, Tensor]]:
    """The picture inputs of a prompt, image by image where they can be told apart; else all of them together."""
    images, n = one.images, one.n_images
    whole = [dict(images)]
    if n == 1:
        return whole
    grid = images.get("image_grid_thw")
    if grid is not None and set(images) == {"pixel_values", "image_grid_thw"}:
        parts = images["pixel_values"].split([int(size) for size in grid.prod(dim=-1)])
        return [{"pixel_values": part, "image_grid_thw": grid[i : i + 1]} for i, part in enumerate(parts)]
    # Not where a prompt's images are cut together, which shows in an input with another number of entries: the tiles of
    # all images in a row (InternVL, Idefics3), or the number of images itself (LLaVA-OneVision).
    if grid is None and all(len(value) == n for value in images.values()):
        return [_trimmed({name: value[i : i + 1] for name, value in images.items()}) for i in range(n)]
    return whole


def _trimmed(image: dict[str, Tensor]) -> dict[str, Tensor]:
    """One of several images, without the zeros that its larger neighbours made the processor put behind it."""
    pixels = image["pixel_values"]
    if pixels.dim() == 5:
        shown = pixels[0].flatten(1).any(dim=1).nonzero()
        pixels = pixels[:, : int(shown[-1]) + 1] if len(shown) else pixels
    elif pixels.dim() == 4 and "image_sizes" in image:
        height, width = (int(side) for side in image["image_sizes"][0])
        if not pixels[..., height:, :].any() and not pixels[..., width:].any():
            pixels = pixels[..., :height, :width]
    return {**image, "pixel_values": pixels}


def _digest(inputs: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        value = inputs[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _slim(out: Any) -> Any:
    """The output without what the language model does not read."""
    if isinstance(out, Tensor):
        return out
    if not isinstance(out, Mapping):
        raise _NotUnderstood(f"its features are {type(out).__name__}")
    return _output(type(out), {name: value for name, value in _said(out).items() if name not in _UNUSED})


def _joined_outputs(outs: Sequence[Any]) -> Any:
    first = outs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outs))
    return _output(type(first), {name: _joined(name, [_said(out)[name] for out in outs]) for name in _said(first)})


def _said(out: Any) -> dict[str, Any]:
    """What an output holds by name, fields that it was given and that its class does not have included (LLaVA with a
    Pixtral tower in transformers 5.17): as a mapping the output keeps quiet about those."""
    held = vars(out) if dataclasses.is_dataclass(out) else out
    return {name: value for name, value in held.items() if value is not None}


def _output(kind: Any, said: Mapping[str, Any]) -> Any:
    own = set(getattr(kind, "__dataclass_fields__", said))
    out = kind(**{name: value for name, value in said.items() if name in own})
    for name in said.keys() - own:
        setattr(out, name, said[name])
    return out


def _joined(name: str, values: Sequence[Any]) -> Any:
    """One field of all images: tensors along dim 0; a list of `pooler_output` counts images, any other one layers."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if not isinstance(first, list | tuple) or not all(isinstance(one, Tensor) for one in _tensors(first)):
        raise _NotUnderstood(f"its {name} is {type(first).__name__}")
    if name == "pooler_output":
        return type(first)([one for listed in values for one in listed])
    return type(first)([_joined("pooler_output", layer) for layer in zip(*values, strict=True)])


def _tensors(held: Any) -> list[Tensor]:
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, Mapping):
        return [one for value in _said(held).values() for one in _tensors(value)]
    return [one for value in held for one in _tensors(value)] if isinstance(held, list | tuple) else []
