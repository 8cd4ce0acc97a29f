"""Checks of the stream: what is captured, what an edit does, and what is left behind."""

from __future__ import annotations

from typing import Any

import torch

from hooks.asked import LONG, SHORT, Asked, Verdict, distance, everything, pushed, replaced_by, with_other_tokens
from hooks.edits import identity
from hooks.example import picture_batches
from hooks.pool import Pool
from hooks.site import Site
from hooks.spot import Spot


def parity(asked: Asked) -> Verdict:
    """What is captured is what a plain hook on the same module sees, the model called by hand."""
    model, batch, seen = asked.model, asked.batch(SHORT), {}
    tower = model.towers["language"]

    def plain(layer: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[layer] = Spot(module, "output", tower.writes).take(output).clone()

        return hook

    passed = [layer for layer in asked.layers if layer not in tower.skipped]
    kept = model.run(batch, {Site(layer): everything for layer in passed}).kept
    handles = [tower.blocks[layer].register_forward_hook(plain(layer)) for layer in passed]
    try:
        model.run(batch)
    finally:
        for handle in handles:
            handle.remove()
    rows, length = batch.tokens.position.shape
    off = [
        layer for layer in passed if not torch.equal(model.layout.rows(seen[layer], rows, length), kept[Site(layer)])
    ]
    return not off, f"captured residuals equal those of plain hooks, bit for bit, at {len(passed) - len(off)} of " + (
        f"{len(passed)} layers"
    )


def chain(asked: Asked) -> Verdict:
    """The input of each block is the output of the one before."""
    model = asked.model
    keep: dict[Site, Any] = {
        Site(layer, point): Pool("all") for layer in range(model.n_layers) for point in ("resid_pre", "resid_post")
    }
    kept = model.run(asked.batch(SHORT), keep).kept
    joints = range(1, model.n_layers)
    broken = [layer for layer in joints if not torch.equal(kept[Site(layer, "resid_pre")], kept[Site(layer - 1)])]
    return not broken, f"input of block l is output of block l-1 at {len(joints) - len(broken)} of {len(joints)} joints"


def zero_edit(asked: Asked) -> Verdict:
    """An edit by zero, at every layer, leaves every bit of the logits."""
    model, batch = asked.model, asked.batch(SHORT)
    edits: dict[Site, Any] = {Site(layer): [identity(1, model.d_model)] for layer in range(model.n_layers)}
    plain, edited = model.run(batch).logits, model.run(batch, edits=edits).logits
    return torch.equal(plain, edited), "an edit by zero leaves the logits bit for bit"


def edit_acts(asked: Asked) -> Verdict:
    """A random vector, added at one layer, changes the logits."""
    model, batch = asked.model, asked.batch(SHORT)
    plain = model.run(batch).logits
    still = [
        layer
        for layer in asked.layers
        if torch.equal(model.run(batch, edits={Site(layer): [pushed(model, 0.3)]}).logits, plain)
    ]
    said = f"nothing changes at layers {still}" if still else f"the logits change at {asked.layers_named}"
    return not still, f"a random vector is added to the stream: {said}"


def hooks_removed(asked: Asked) -> Verdict:
    """A run leaves no hook behind."""
    model = asked.model

    def count() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())

    before = count()
    model.run(asked.batch(SHORT), {Site(0): Pool("last")})
    return count() == before, f"{count() - before} hooks left behind"


def whole_stream_patch(asked: Asked) -> Verdict:
    """Another prompt's residual, put in at one layer, gives that prompt's logits: the stream is all that there is."""
    model, first = asked.model, asked.batch(SHORT)
    second = model.encoder.collate([with_other_tokens(model, first.encoded[0])])
    plain = model.run(first).logits
    other = model.run(second, {Site(layer): everything for layer in asked.layers})
    if torch.equal(plain, other.logits):
        return None, "two prompts of different tokens have the same logits: nothing to see a patch by"
    distances = {}
    for layer in asked.layers:
        patched = model.run(first, edits={Site(layer): [replaced_by(other.kept[Site(layer)])]}).logits
        distances[layer] = distance(patched, other.logits)
    worst = max(distances.values())
    if worst <= asked.tolerance:
        return True, f"another prompt's residual gives its logits at {asked.layers_named}: worst {worst:.1e}"
    far = [layer for layer, value in distances.items() if value > asked.tolerance]
    return False, (
        f"another prompt's residual does not give its logits at layers {far} (off by {worst:.1e}): the model carries "
        "more than this stream (per-layer embeddings, shared keys and values, router states). Captures and edits "
        "stand; a patch of these layers does not move everything"
    )


def adapter(asked: Asked) -> Verdict:
    """Each adapter changes the logits, and off again is the base, bit for bit."""
    model = asked.model
    if model.adapters is None:
        return None, "no adapter loaded"
    batch = asked.batch(LONG)
    base = model.variant("base").run(batch).logits
    moved = {name: distance(model.variant(name).run(batch).logits, base) for name in model.variants[1:]}
    if not all(moved.values()) and model.encoder.processor is not None:  # one that acts in the vision tower alone
        seen = picture_batches(model.encoder, [SHORT], seeds=[0])[0]
        blank = model.variant("base").run(seen).logits
        moved = {name: far or distance(model.variant(name).run(seen).logits, blank) for name, far in moved.items()}
    restored = torch.equal(model.variant("base").run(batch).logits, base)
    text = ", ".join(f"{variant} moves the logits by {far:.1e}" for variant, far in moved.items())
    return restored and all(moved.values()), f"{text}; off again is the base {'bit for bit' if restored else 'NO MORE'}"
