"""membership: how likely a model finds given texts, as the scores of membership inference, one row a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.model import NothingEdited
from hooks.prompt import Prompt, as_prompts
from stores import ResultTable, Unit, content_key, provenance
from workbench.behaviour.membership_reading import PER, Reader, reference_texts, table_row
from workbench.behaviour.membership_scores import Share, checked_k
from workbench.behaviour.membership_texts import Prefix, Texts
from workbench.interventions.cells import Intervention, combined, fingerprint
from workbench.progress import followed
from workbench.units import budget_on, kinds_of, length_sorted

TABLE_VERSION = 1


def membership(
    model: HuggingFaceModel | Any,
    prompts: str | Path | Iterable[Prompt],
    *,
    reference: HuggingFaceModel | str | Any | None = None,
    of: str = "answer",
    text: str = "template",
    k: Share | Sequence[Share] = 20,
    per: str = "token",
    recall_prefix: Prefix | None = None,
    joined_by: str = "\n",
    max_length: int | None = None,
    interventions: Sequence[Intervention] = (),
    to: str | Path | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> ResultTable:
    """Membership scores of every prompt, one row each, in nats; higher speaks for a member (`membership_scores` has
    each formula and its source).

    Columns: `loss` (mean log p), `zlib`, `min_k_20` and `min_k_pp_20` (min-k % and min-k % ++, for each percentage of
    `k`), `recall` where `recall_prefix` gives texts that are no members, `n_tokens` and `n_characters` that were
    scored, `truncated`, and the prompt's id, label and tags. `paper_b_min_k_20` and `paper_b_zlib` keep that paper's
    sign: lower speaks for a member. With a `reference` (a model, or a variant of this one: `"base"`) each score stands
    beside `reference_NAME` and `adjusted_NAME`, their difference; `log_ratio` is log p of the whole text minus that
    of the reference, `loss_ratio` the reference's loss over the model's.

    `of="answer"` scores the response's tokens given the prompt (without its end of turn), `"full"` all tokens but the
    first. `text="raw"` leaves the chat template out, for models that have none: turns and answer with `joined_by`
    between them; prompts of raw text are read as they are. `per` divides log p in `loss` by the tokens, by the
    characters, or not at all. A text over `max_length` tokens is cut behind them, the prefix not counted (default: no
    cap; texts beyond the model's own positions are refused). `interventions` act on the model, not on the reference
    (`edited`: positions). Resumes in `to`; `max_tokens` as in `wb.capture`.

    The reference reads the same token ids. Raises ValueError where its tokenizer gives others, unless `per` is
    "character" or "text": it then reads the texts in its own tokens and template, and `loss` alone is compared.
    ValueError too for log-probabilities that are not finite; PromptError for prompts with nothing to score.
    """
    base = model.variant(reference) if isinstance(reference, str) else reference
    for one in (model, *([] if base is None else [base])):
        if not isinstance(one, HuggingFaceModel):
            raise TypeError(
                f"{type(one).__name__} gives no log-probabilities of given texts: expected wb.load_model(...)."
            )
    if per not in PER:
        raise ValueError(f"per={per!r}: expected 'token', 'character' or 'text'.")
    listed, ks, edits = as_prompts(prompts), checked_k(k), combined(model, interventions)
    form: dict[str, Any] = dict(of=of, form=text, joined_by=joined_by, prefix=recall_prefix, max_length=max_length)
    texts = Texts(model.encoder, listed, **form)
    readers = [Reader(model, texts, edits, ks, per)]
    if base is not None:
        readers.append(Reader(base, reference_texts(texts, base, listed, per, **form), {}, ks, per))
    for reader in readers:
        _refuse_too_long(reader)

    budget = max_tokens or budget_on(model.device)
    lengths = [max(each) for each in zip(*(reader.texts.lengths for reader in readers), strict=True)]
    kinds = list(zip(*(kinds_of(each.model, listed, each.texts.lengths) for each in readers), strict=True))
    planned = {Unit.of([listed[i].id for i in unit]).key: unit for unit in length_sorted(lengths, budget, kinds)}
    spec = {
        "table": "membership",
        "version": TABLE_VERSION,
        "model": model.identity,
        "variant": model.active or "base",
        "reference": None if base is None else {"model": base.identity, "variant": base.active or "base"},
        "of": of,
        "text": text,
        "k": ks,
        "per": per,
        "recall_prefix": _key_of(recall_prefix),
        "joined_by": joined_by,
        "max_length": max_length,
        "interventions": [{**one.describe(), "edits": fingerprint(one.edits(model))} for one in interventions],
        "prompts": content_key([prompt.record() for prompt in listed]),
        "max_tokens": budget,  # it decides the batches, by which the table is planned
    }
    table = ResultTable.create(to, spec=spec, plan=list(planned), provenance=provenance.collect(**model.facts))
    same = readers[-1].texts is texts
    for key in followed(table.missing(), "membership" if to is None else f"membership {Path(to).name}", show=progress):
        unit = planned[key]
        read = zip(*(reader.read(unit) for reader in readers), strict=True)
        table.commit(key, [table_row(listed[i], each, same=same) for i, each in zip(unit, read, strict=True)])
    if edits and not any(table.column("edited")):
        raise NothingEdited("the interventions touched no position of any prompt: expected a scope that they have.")
    return table


def _refuse_too_long(reader: Reader) -> None:
    """Beyond the positions that a model was made for, its numbers mean nothing (or it fails somewhere inside)."""
    config: Any = reader.model.module.config
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(reader.texts.lengths)
    if most is not None and longest > most:
        raise ValueError(
            f"the longest text has {longest} tokens, its prefix included, and {reader.model.name!r} was made for "
            f"{most}: expected shorter texts, or max_length= to score their beginnings."
        )


def _key_of(prefix: Prefix | None) -> str | None:
    """What a spec keeps of a prefix: a hash."""
    if prefix is None:
        return None
    texts = [prefix] if isinstance(prefix, str) else [prompt.content_hash for prompt in prefix]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
