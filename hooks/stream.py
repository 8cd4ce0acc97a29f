"""ResidualStream: the blocks that a residual stream passes, proved on a short forward.

The config's layer count proposes a module list; two forwards of different size decide: its blocks must fire once each,
in order, and what one returns must be what the next one reads. Anything else is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hooks.layout import Layout, Size, measured
from hooks.probe import Firing, Slot, text_inputs, watched_forward
from hooks.structure import (
    UnsupportedArchitecture,
    decoder_of,
    image_encoder_of,
    module_lists,
    parameter_count,
    text_depth,
    unwrapped,
)

# Rows and positions of the two forwards: no multiple of one another, and no usual number of heads or streams.
_FIRST: Size = (2, 5)
_SECOND: Size = (3, 7)


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """The blocks of one tower in the order of the stream, and where the stream is in what they take and give.

    `reads` is the argument, `writes` the entry of the output (None: the output itself) that holds the stream;
    `layouts` its axes at each block's output. `skipped` are the blocks that no text alone passes (cross-attention to
    images): there the stream goes on unchanged.
    """

    tower: str
    blocks: tuple[nn.Module, ...]
    reads: Slot = 0
    writes: Slot = None
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    skipped: frozenset[int] = frozenset()

    @property
    def layout(self) -> Layout | None:
        """The layout of the whole stream; None for a vision tower, whose rows depend on the pictures."""
        return next(iter(self.layouts.values()), None)

    def __len__(self) -> int:
        return len(self.blocks)


Example = Callable[[int, int], Mapping[str, Any]]


def find_stream(model: Any, tower: str = "language", example: Example | None = None) -> ResidualStream:
    """The residual stream of one tower. `example(rows, about_length)` gives the arguments of a forward for models that
    cannot run on text alone; every row must have the same length. Raises UnsupportedArchitecture, with the reason,
    where there is no single stream."""
    model = unwrapped(model)
    if tower == "language":
        return _language(model, example or partial(text_inputs, model))
    if tower == "vision":
        return _vision(model, example)
    raise ValueError(f"tower {tower!r} is unknown: expected 'language' or 'vision'.")


def _language(model: Any, example: Example) -> ResidualStream:
    root, depth, name = decoder_of(model), text_depth(model), type(model).__name__
    lists = module_lists(root)
    if not lists:
        raise UnsupportedArchitecture(f"{name}: no module list under {type(root).__name__}, so no blocks to hook.")
    inputs, first = _watched(model, lists, example)
    sizes = [_size_of(given, size) for given, size in zip(inputs, (_FIRST, _SECOND), strict=True)]
    listed = _chosen(name, lists, depth, first)
    firings = [firing for firing in first if firing.listed == listed]
    reads, writes = _slots(name, first, firings)
    second = {f.child: f for f in watched_forward(model, [lists[listed]], inputs[1])}
    layouts = {}
    for firing in firings:
        shapes = tuple(firing.outputs[writes].shape), tuple(second[firing.child].outputs[writes].shape)
        layout = measured(shapes[0], sizes[0], shapes[1], sizes[1])
        if layout is None:
            raise UnsupportedArchitecture(
                f"{name}: block {firing.child} returns {shapes[0]} for {sizes[0]} rows and positions and {shapes[1]} "
                f"for {sizes[1]}: no axis order with rows, positions and a width explains both."
            )
        layouts[firing.child] = layout
    if len({layout.width for layout in layouts.values()}) > 1:
        widths = sorted({layout.width for layout in layouts.values()})
        raise UnsupportedArchitecture(f"{name}: its blocks have streams of different widths {widths}: not one stream.")
    skipped = frozenset(range(len(lists[listed]))).difference(layouts)
    return ResidualStream("language", tuple(lists[listed]), reads, writes, layouts, skipped)


def _watched(
    model: Any, lists: Sequence[nn.ModuleList], example: Example
) -> tuple[list[Mapping[str, Any]], list[Firing]]:
    """The inputs of both forwards, and what fired in the first."""
    ways = [example]
    if isinstance(getattr(model.config.get_text_config(decoder=True), "num_codebooks", None), int):
        ways.append(partial(text_inputs, model, codebooks=True))
    failed: Exception | None = None
    for way in ways:
        try:
            inputs = [way(*size) for size in (_FIRST, _SECOND)]
            return inputs, watched_forward(model, lists, inputs[0])
        except Exception as error:
            failed = failed or error
    raise UnsupportedArchitecture(
        f"{type(model).__name__}: a short forward, which is to prove where the stream is, failed with "
        f"{type(failed).__name__}: {failed}. A model that cannot run on text alone needs an example: "
        "find_blocks(model, example=...), or load_model with its processor."
    ) from failed


def _size_of(inputs: Mapping[str, Any], asked: Size) -> Size:
    """Rows and positions of the tokens that the decoder reads."""
    ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    return (asked[0], int(ids.shape[-1])) if ids is not None else asked


def _chosen(name: str, lists: Sequence[nn.ModuleList], depth: int | None, seen: Sequence[Firing]) -> int:
    """The list that the stream passes: the config's depth first, else the longest chain; refused where neither fires
    once and in order."""

    def order(listed: int) -> list[int]:
        return [firing.child for firing in seen if firing.listed == listed]

    def in_order(listed: int) -> bool:
        return bool(fired := order(listed)) and fired == sorted(set(fired))

    def links(listed: int) -> int:
        return sum(_passed_on(seen, a, b) for a, b in _neighbours(seen, listed))

    proposed = [n for n, blocks in enumerate(lists) if len(blocks) == depth and in_order(n)]
    others = [n for n in range(len(lists)) if in_order(n) and n not in proposed]
    # Proposed by the config, and the chain has no gap; or, whatever the config says, the longest chain without one.
    for candidates in (proposed, others):
        whole = [n for n in candidates if links(n) == len(order(n)) - 1 and (len(order(n)) > 1 or len(lists[n]) == 1)]
        if whole:
            return max(whole, key=lambda n: (links(n), parameter_count(lists[n])))
    looped = [n for n in range(len(lists)) if len(order(n)) > len(set(order(n)))]
    if looped:
        most = max(looped, key=lambda n: parameter_count(lists[n]))
        raise UnsupportedArchitecture(
            f"{name}: a looped stack: its {len(lists[most])} blocks fire {len(order(most))} times in one forward, so a "
            "layer is not one place in the stream."
        )
    found = ", ".join(f"{len(lists[n])} blocks, {len(order(n))} calls, {links(n)} joints" for n in range(len(lists)))
    raise UnsupportedArchitecture(
        f"{name}: no module list whose blocks fire once, in order, each reading what the one before returned (the "
        f"config states {depth} layers). Found: {found}. Parallel lists have no block to hook."
    )


def _neighbours(seen: Sequence[Firing], listed: int) -> list[tuple[int, int]]:
    places = [n for n, firing in enumerate(seen) if firing.listed == listed]
    return list(pairwise(places))


def _passed_on(seen: Sequence[Firing], a: int, b: int) -> bool:
    """True when what firing `a` returned reaches firing `b`, directly or through the firings between them."""
    carried = list(seen[a].outputs.values())
    for between in seen[a + 1 : b]:
        if _shared(carried, between.inputs.values()):
            carried += between.outputs.values()
    return bool(_shared(carried, seen[b].inputs.values()))


def _shared(given: Any, read: Any) -> list[Tensor]:
    return [x for x in read if any(_same(x, y) for y in given)]


def _same(x: Tensor, y: Tensor) -> bool:
    # Weights that give NaN still have a stream; what is wrong with them is for the check-up to say.
    return x.shape == y.shape and torch.equal(x.nan_to_num(), y.nan_to_num())


def _slots(name: str, seen: Sequence[Firing], firings: Sequence[Firing]) -> tuple[Slot, Slot]:
    """Where the stream is among a block's arguments and in its output: what is passed on from block to block."""
    pairs: list[set[tuple[Slot, Slot]]] = []
    for a, b in pairwise(firings):
        common = {(read, write) for read, x in b.inputs.items() for write, y in a.outputs.items() if _same(x, y)}
        if common:
            pairs.append(common)
    always = set.intersection(*pairs) if pairs else set()
    if len({write for _, write in always}) > 1:
        shapes = {write: tuple(firings[0].outputs[write].shape) for _, write in always}
        if len(set(shapes.values())) > 1 or len({read for read, _ in always}) > 1:
            always = _widest_alike(name, always, firings)
    if always:
        return min(always, key=str)
    if any(not firing.inputs or not firing.outputs for firing in firings):
        raise UnsupportedArchitecture(f"{name}: its blocks take or return no floating tensor: there is no stream.")
    return next(iter(firings[0].inputs)), next(iter(firings[0].outputs))


def _widest_alike(name: str, always: set[tuple[Slot, Slot]], firings: Sequence[Firing]) -> set[tuple[Slot, Slot]]:
    """Of several tensors that are passed on, the stream: refused where two of them have the stream's own shape."""
    main = next(iter(firings[0].outputs))
    stream = firings[0].outputs[main].shape
    alike = {write for _, write in always if firings[0].outputs[write].shape == stream}
    if len(alike) > 1:
        raise UnsupportedArchitecture(
            f"{name}: its blocks pass {len(alike)} tensors of the same shape {tuple(stream)} on to one another (a "
            "reversible or two-stream stack): there is no single residual stream."
        )
    return {(read, write) for read, write in always if write in alike} or always


def _vision(model: Any, example: Example | None) -> ResidualStream:
    root, depth = image_encoder_of(model)
    name, lists = type(model).__name__, module_lists(root)
    fitting = [blocks for blocks in lists if len(blocks) == depth] if depth is not None else []
    if len(fitting) > 1 and example is not None:  # mergers of the same number beside the blocks: see which carries on
        seen = watched_forward(model, fitting, example(*_FIRST))
        fitting = [fitting[_chosen(name, fitting, depth, seen)]]
    if len(fitting) != 1:
        found = sorted(len(blocks) for blocks in lists)
        raise UnsupportedArchitecture(
            f"{name}: expected one module list of {depth} blocks (the vision config's layer count) under "
            f"{type(root).__name__}; found lists of {found}. Where several fit, an example with pictures decides: "
            "find_blocks(model, 'vision', example=...)."
        )
    return ResidualStream("vision", tuple(fitting[0]))
