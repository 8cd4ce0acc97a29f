"""Checks of batches: padding, the cache, the beginning of a prompt, and pictures."""

from __future__ import annotations

import torch

from hooks.asked import LONG, SHORT, Asked, Verdict, distance, everything, newest, pushed
from hooks.decoding import GeneratesWithoutCache
from hooks.example import picture_batches
from hooks.masks import leave_out, unneeded
from hooks.pool import Pool
from hooks.prompt import Message, Prompt
from hooks.site import Site

BLIND = "two different pictures give the same logits: the image has no effect"


def padding(asked: Asked) -> Verdict:
    """A row of a batch padded on the right has the residual that it has alone. The same is measured for prompts padded
    on the left, as generation does it: some architectures count positions from the pad. On a side where it does not
    hold the model takes rows of one length only, from then on; on the left that is no fault. Where it holds on the
    right without a mask as well, padded text goes without."""
    model, last = asked.model, Site(asked.model.n_layers - 1)
    model.pads.update(right=True, left=True)
    model.masks_text = True
    batch, keep = asked.batch(SHORT, LONG), {last: newest}
    alone = torch.cat([model.run(asked.batch(text), {last: Pool("last")}).kept[last] for text in (SHORT, LONG)])
    right = distance(model.run(batch, {last: Pool("last")}).kept[last], alone)
    left = distance(model.generate(batch, keep, max_new_tokens=1).kept[last][0], alone)
    model.pads.update(right=right <= asked.tolerance, left=left <= asked.tolerance)
    ours = "backend" not in model.identity  # another library's forward is called as that library documents it
    if ours and model.pads["right"] and unneeded(model, batch, asked.tolerance):
        leave_out(model)
    apart = "" if all(model.pads.values()) else "; rows of different length go apart"
    return model.pads[
        "right"
    ], f"padded batches equal single prompts: off by {right:.1e}, on the left {left:.1e}{apart}"


def cache_under_edits(asked: Asked) -> Verdict:
    """Generation with the cache equals full forwards without it, token by token, under the same edit."""
    model = asked.model
    batch = asked.batch(SHORT, LONG) if model.pads["left"] else asked.batch(SHORT)
    final, edits = Site(model.n_layers - 1), {Site(model.n_layers // 2): [pushed(model, 0.1, "answering")]}
    try:
        out = model.generate(batch, {final: newest}, edits, max_new_tokens=4)
    except GeneratesWithoutCache as error:
        return None, f"{error}"
    worst = 0.0
    for row, (one, written) in enumerate(zip(batch.encoded, out.token_ids, strict=True)):
        for n in range(len(written)):  # of the residuals: a choice of token would hide most faults
            alone = model.encoder.collate([one.extended(written[:n])])
            kept = model.run(alone, {final: newest}, edits, logits=False).kept[final]
            worst = max(worst, distance(out.kept[final][n][row], kept[0]))
    detail = f"a batch, token by token, equals full forwards under the same edit: off by {worst:.1e}"
    # Recurrent layers read a prompt in chunks and then step by step: other sums, up to ten times the roundings.
    return worst <= 10 * asked.tolerance, detail


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
        return False, BLIND
    marked = batches[0].tokens.is_image[0]
    if not bool(marked.any()):
        return True, f"another picture moves the logits by {moved:.1e}; it has no positions in the language stream"
    entered = (one.kept[entry] != two.kept[entry]).any(dim=-1)[0].cpu()
    detail = f"another picture moves the logits by {moved:.1e} and enters at {int(entered.sum())} of {len(entered)} "
    # Not at every one: some families put learned tokens (the ends of lines) among those of the picture.
    inside = bool(entered.any()) and not bool((entered & ~marked).any())
    return inside, detail + f"positions; {int(marked.sum())} are image positions by the config"
