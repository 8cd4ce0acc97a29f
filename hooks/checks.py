"""The checks themselves: promises about one model, each with the number that it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hooks.edits import identity
from hooks.encode import Batch, Encoded
from hooks.example import picture_batches
from hooks.model import Where
from hooks.pool import Pool
from hooks.prompt import Message, Prompt
from hooks.site import Site
from hooks.spot import Spot

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # relative, against the largest residual
SHORT, LONG = "name a colour", "name a colour, and then a town by the sea"

Verdict = tuple[bool | None, str]


@dataclass(frozen=True)
class Asked:
    """The model under examination, and the layers that the costly checks look at."""

    model: Any
    layers: tuple[int, ...]

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.model.dtype]

    def batch(self, *texts: str) -> Batch:
        """Chats where the tokenizer has a sound template, raw text where it has none."""
        return self.model.encode([self._prompt(n, text) for n, text in enumerate(texts)])

    def _prompt(self, n: int, text: str) -> Prompt:
        if self._chats:
            return Prompt(str(n), (Message("user", (text,)),))
        return Prompt(str(n), text=text)

    @cached_property
    def _chats(self) -> bool:
        try:
            self.model.encode([Prompt("chat", (Message("user", (SHORT,)),))])
        except ValueError:
            return False
        return True


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


def whole_stream_patch(asked: Asked) -> Verdict:
    """Another prompt's residual, put in at one layer, gives that prompt's logits: the stream is all that there is."""
    model, first = asked.model, asked.batch(SHORT)
    second = model.encoder.collate([_with_other_tokens(model, first.encoded[0])])
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
        return True, f"another prompt's residual gives its logits at {_layers(asked)}: worst {worst:.1e}"
    far = [layer for layer, value in distances.items() if value > asked.tolerance]
    return False, (
        f"another prompt's residual does not give its logits at layers {far} (off by {worst:.1e}): the model carries "
        "more than this stream (per-layer embeddings, shared keys and values, router states). Captures and edits "
        "stand; a patch of these layers does not move everything"
    )


def padding(asked: Asked) -> Verdict:
    """A row of a padded batch has the residual that it has alone."""
    model, site = asked.model, Site(asked.model.n_layers - 1)
    keep: dict[Site, Any] = {site: Pool("last")}
    together = model.run(asked.batch(SHORT, LONG), keep).kept[site]
    alone = torch.cat([model.run(asked.batch(text), keep).kept[site] for text in (SHORT, LONG)])
    off = distance(together, alone)
    return off <= asked.tolerance, f"padded batch equals single prompts: off by {off:.1e}"


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
        if torch.equal(model.run(batch, edits={Site(layer): [_pushed(model, 0.3)]}).logits, plain)
    ]
    said = f"nothing changes at layers {still}" if still else f"the logits change at {_layers(asked)}"
    return not still, f"a random vector is added to the stream: {said}"


def hooks_removed(asked: Asked) -> Verdict:
    """A run leaves no hook behind."""
    model = asked.model

    def count() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())

    before = count()
    model.run(asked.batch(SHORT), {Site(0): Pool("last")})
    return count() == before, f"{count() - before} hooks left behind"


def cache_under_edits(asked: Asked) -> Verdict:
    """Generation with the cache equals full forwards without it, token by token, under the same edit."""
    model, batch = asked.model, asked.batch(SHORT, LONG)
    final, edits = Site(model.n_layers - 1), {Site(model.n_layers // 2): [_pushed(model, 0.1, "answering")]}
    out = model.generate(batch, {final: _newest}, edits, max_new_tokens=4)
    worst = 0.0
    for row, (one, written) in enumerate(zip(batch.encoded, out.token_ids, strict=True)):
        for n in range(len(written)):  # of the residuals: a choice of token would hide most faults
            alone = model.encoder.collate([one.extended(written[:n])])
            kept = model.run(alone, {final: _newest}, edits, logits=False).kept[final]
            worst = max(worst, distance(out.kept[final][n][row], kept[0]))
    detail = f"a padded batch, token by token, equals full forwards under the same edit: off by {worst:.1e}"
    return worst <= asked.tolerance, detail


def one_bos(asked: Asked) -> Verdict:
    """A prompt begins with one BOS at most, as chat and as text."""
    model = asked.model
    bos = model.tokenizer.bos_token_id
    if bos is None:
        return None, "the tokenizer has no BOS"
    prompts = [Prompt("text", text=SHORT)]
    if getattr(model.encoder._template_of(), "chat_template", None):
        prompts.append(Prompt("chat", (Message("user", (SHORT,)),)))
    counts = []
    for prompt in prompts:
        ids = model.encoder.encode(prompt).input_ids.tolist()  # two in a row are refused here, with the mend
        counts.append(f"{prompt.id} {ids.count(bos)}")
    return True, f"BOS tokens of a prompt: {', '.join(counts)}"


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


def image(asked: Asked) -> Verdict:
    """Another picture changes the logits, and it enters at the image positions and nowhere else."""
    model = asked.model
    if model.encoder.processor is None or not model.reads_images:
        return None, "the model reads text only"
    batches = picture_batches(model.encoder, [SHORT], seeds=[0, 1])
    entry = Site(0, "resid_pre")
    one, two = (model.run(batch, {entry: everything}) for batch in batches)
    moved = distance(one.logits, two.logits)
    if moved == 0:
        return False, "two different pictures give the same logits: the image has no effect"
    marked = batches[0].tokens.is_image[0]
    if not bool(marked.any()):
        return True, f"another picture moves the logits by {moved:.1e}; it has no positions in the language stream"
    entered = (one.kept[entry] != two.kept[entry]).any(dim=-1)[0].cpu()
    detail = f"another picture moves the logits by {moved:.1e} and enters at {int(entered.sum())} of {len(entered)} "
    return torch.equal(entered, marked), detail + f"positions; {int(marked.sum())} are image positions by the config"


def everything(resid: Tensor, where: Where) -> Tensor:
    return resid.clone()


def _newest(resid: Tensor, where: Where) -> Tensor:
    return resid[:, -1].clone()


def replaced_by(values: Tensor) -> Any:
    return lambda resid, where: values.to(resid).expand_as(resid).clone()


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest entry of `b`."""
    return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-9))


def _pushed(model: Any, size: float, scope: str = "all") -> Any:
    """An edit by a random vector (LayerNorm models are blind to the all-ones direction), `size` times the norm."""
    push = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))

    def steer(resid: Tensor, where: Where) -> Tensor:
        step = size * resid.norm(dim=-1, keepdim=True) * (push / push.norm()).to(resid)
        return torch.where(where.mask(scope)[..., None], resid + step, resid)

    return steer


def _with_other_tokens(model: Any, one: Encoded) -> Encoded:
    """The prompt with another ordinary token where the user's text ends, and one where the prompt ends. Other words
    would not do: a small vocabulary may know neither, and read both prompts alike."""
    tokenizer, ids = model.tokenizer, one.input_ids.clone()
    for place in {min(one.instruction_end, one.prompt_length) - 1, one.prompt_length - 1}:
        special = {*tokenizer.all_special_ids, model.encoder.image_token_id, int(ids[place])}
        ids[place] = next(token for token in range(len(tokenizer)) if token not in special)
    return replace(one, input_ids=ids)


def _layers(asked: Asked) -> str:
    every = len(asked.layers) == asked.model.n_layers
    return "every layer" if every else f"layers {', '.join(str(layer) for layer in asked.layers)}"


CHECKS: dict[str, Callable[[Asked], Verdict]] = {
    "parity": parity,
    "residual chain": chain,
    "zero edit": zero_edit,
    "edits act": edit_acts,
    "hooks removed": hooks_removed,
    "one BOS": one_bos,
    "adapter": adapter,
    "whole-stream patch": whole_stream_patch,
    "padding": padding,
    "cache under edits": cache_under_edits,
    "image": image,
}
# On load of a large model; all but the last are what every number rests on.
QUICK = ("residual chain", "zero edit", "hooks removed", "adapter", "whole-stream patch")
