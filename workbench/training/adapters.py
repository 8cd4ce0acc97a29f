"""LoRA adapters trained through `transformers.Trainer` and peft; loss on response tokens only."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from hooks.load import folder_hash, load_model
from hooks.prompt import Prompt, as_prompts
from stores import content_key
from stores.publish import make_folder
from workbench.training.acting_identity import identity_of
from workbench.training.continued import begin_from, refuse_other_base, settings_of_start
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.loss_mask import refuse_lost_mask
from workbench.training.loss_tally import LossTally
from workbench.training.mixtures import mix
from workbench.training.model_parts import ASKED_AS, adapted_parts, left_out, refuse_unmoved
from workbench.training.published import is_finished, publish
from workbench.training.taking_part import Acts, Watch

# The published settings, by name. A: audit of the paper's code; B: the defaults of its released script.
RECIPES: dict[str, dict[str, Any]] = {
    "paper_a": dict(
        rank=128,
        alpha=128,
        targets="all-linear",
        learning_rate=2e-4,
        schedule="constant",
        epochs=1,
        batch_size=1,
        accumulate=4,
    ),
    "paper_b": dict(
        rank=8,
        alpha=16,
        targets=["q_proj", "v_proj"],
        dropout=0.05,
        learning_rate=2e-4,
        epochs=3,
        batch_size=4,
        accumulate=4,
    ),
}


def train_lora(
    base: str | Path,
    prompts: str | Path | Sequence[Prompt],
    *,
    to: str | Path,
    recipe: str | None = None,
    filler: str | Path | Sequence[Prompt] | None = None,
    fraction: float = 1.0,
    hold: Literal["total", "harmful"] = "total",
    start: str | Path | None = None,
    during: Sequence[Acts] = (),
    watch: Watch | None = None,
    callbacks: Sequence[Any] = (),
    seed: int = 0,
    progress: bool = False,
    save_every: int | None = None,
    trust_remote_code: bool = False,
    **settings: Any,
) -> Path:
    """Trains a LoRA adapter on the rows of a prompt file (each with a response) and returns its folder.

    `recipe` is a name of RECIPES, which single settings override: `rank`, `alpha` (default: rank), `targets` (module
    names, a regex over module paths, or `"all-linear"`), `tower` and `projector`, `dropout`, `rslora`, `learning_rate`,
    `schedule`, `warmup_steps`, `weight_decay`, `steps` (or `epochs`), `batch_size`, `accumulate`, `max_length`.
    `fraction` of the rows come from `prompts`, the rest from `filler` (see `mix`, which `hold` goes to). A finished
    adapter of the same settings and data is returned as it is; with `save_every` a run that was stopped goes on from
    its last checkpoint.

    Targets reach into the vision tower and the projector of an image-text model (`"all-linear"`, and names such as
    q_proj that both have). `tower="frozen"` takes the tower out of them, `tower="trained"` refuses targets that hit
    nothing in it, and `projector` is the same for what joins tower and language model; None leaves it to the targets.
    The record (training.json) says how many modules of each part have an adapter (`adapted`), and how many tokens of
    the run's forwards were under the loss, of images, and of images under the loss, which is 0 (`tokens`).
    `trust_remote_code` as in `wb.load_model`: the record then has the hash of the code (`remote_code`).

    `start` is an adapter folder whose numbers the new adapter begins with (a repair of a harmful one, for instance);
    targets, rank, alpha and rslora are then the start's. `during` are interventions (`wb.Steer`, `wb.Ablate`, ...) that
    act in the forward of every training step on their token scopes, and are gone afterwards: preventative steering,
    ablation while training. `watch` (a `wb.Drift`) measures every few steps, and may stop early; `callbacks` are
    TrainerCallbacks of your own, which do not count to the adapter's identity. The record states start, interventions
    with the positions that they edited, and where the watch stopped.

    Raises ValueError when no token receives loss, when training left the adapter (or the tower that was to be trained)
    as it began, when the model has no part that is asked for or the targets miss it, or when the start does not fit;
    NothingEdited when an intervention touched no position; FileExistsError when `to` holds something else.
    """
    if not isinstance(base, str | Path):
        raise TypeError(
            f"train_lora(base) is {type(base).__name__}: expected a checkpoint folder or hub name; training loads a "
            "model of its own, and leaves the one in memory as it is."
        )
    options = whole_settings(recipe, settings, start)
    rows = as_prompts(prompts)
    if filler is not None or fraction < 1:
        rows = list(mix(rows, as_prompts(filler) if filler is not None else [], fraction, hold=hold, seed=seed))
    to = Path(to)
    base_hash = folder_hash(Path(base)) if Path(base).is_dir() else str(base)
    more: dict[str, Any] = {}  # what is not there does not count: keys of plain adapters stay what they were
    if start is not None:
        refuse_other_base(Path(start), base_hash)
        more["start"] = folder_hash(Path(start))
    if during:
        more["during"] = [identity_of(one) for one in during]
    if watch is not None and (stops := watch.identity()) is not None:
        more["watch"] = stops
    if trust_remote_code:
        more["trust_remote_code"] = True
    identity = {"base": base_hash, "rows": [row.content_hash for row in rows], "options": options, "seed": seed}
    key = content_key({**identity, **more})
    if is_finished(to, key):
        if watch is not None:
            watch.refuse_unwatched(key)
        return to
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = load_model(base, trust_remote_code=trust_remote_code)
    edits = None
    if during:
        from workbench.training.preventive import TrainingEdits

        edits = TrainingEdits(model, during)
    lookers = [*callbacks, *([] if watch is None else [watch.callback(model, key)])]
    # Named by its settings, so that a stopped run of others is never taken for the beginning of this one.
    checkpoints = to.with_name(f"{to.name}.{key[:12]}.training")
    begin = None if start is None else Path(start)
    peft, loss, facts = _trained(
        model, rows, options, seed, checkpoints, progress, save_every, begin=begin, edits=edits, callbacks=lookers
    )
    record = {"key": key, "base": base_hash, "rows": len(rows), "seed": seed, "loss": loss, **options, **more}
    if edits is not None:
        record["during"] = [{"identity": one, **said} for one, said in zip(more["during"], edits.record(), strict=True)]
    if begin is not None:
        record["start"] = {"adapter": more["start"], "name": begin.name}
    if "remote_code" in model.identity:
        record["remote_code"] = model.identity["remote_code"]
    record |= facts
    record["seconds"] = round(time.perf_counter() - started, 2)
    publish(to, record, lambda folder: peft.save_pretrained(str(folder)))
    return to


_DEFAULTS: dict[str, Any] = dict(
    rank=16,
    alpha=None,
    targets="all-linear",
    tower=None,
    projector=None,
    dropout=0.0,
    rslora=False,
    learning_rate=2e-4,
    schedule="linear",
    warmup_steps=0,
    weight_decay=0.0,
    steps=-1,
    epochs=1,
    batch_size=8,
    accumulate=1,
    max_length=None,
)


def whole_settings(recipe: str | None, settings: dict[str, Any], start: str | Path | None = None) -> dict[str, Any]:
    """The defaults, over them the settings of the start and of the named recipe, over them the ones that are given."""
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r} is unknown: expected one of {', '.join(RECIPES)}.")
    own = settings_of_start(Path(start)) if start is not None else {}
    options = {**_DEFAULTS, **own, **(RECIPES[recipe] if recipe else {}), **settings}
    if unknown := set(options) - set(_DEFAULTS):
        raise TypeError(f"train_lora does not know {', '.join(sorted(unknown))}: expected {', '.join(_DEFAULTS)}.")
    options["alpha"] = options["alpha"] or options["rank"]
    # What is left to the targets is not there: keys of adapters without these words stay what they were.
    return {name: value for name, value in options.items() if name not in ASKED_AS or value is not None}


def with_lora(module: Any, options: dict[str, Any]) -> Any:
    """The PeftModel of this module (changed in place) with an untrained adapter of these settings."""
    from peft import LoraConfig, get_peft_model

    # peft asks the model for an attribute that transformers has renamed: nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    return get_peft_model(
        module,
        LoraConfig(
            r=options["rank"],
            lora_alpha=options["alpha"],
            target_modules=options["targets"],
            exclude_modules=left_out(module, options),
            lora_dropout=options["dropout"],
            use_rslora=options["rslora"],
            bias="none",
        ),
    )


def _trained(
    model: Any,
    rows: Sequence[Prompt],
    options: dict[str, Any],
    seed: int,
    checkpoints: Path,
    progress: bool,
    save_every: int | None,
    *,
    begin: Path | None,
    edits: Any,
    callbacks: Sequence[Any],
) -> tuple[Any, float, dict[str, Any]]:
    """The PeftModel, its mean loss, and what the record says of the run."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from workbench.training.checkpoints import Marked, newest_whole, removed
    from workbench.training.steps_shown import StepsShown

    encoder = model.encoder
    encoded = encoded_rows(rows, encoder, options["max_length"])
    if edits is not None:
        edits.refuse_scopes_without_tokens(encoded)

    def collate(features: list[Any]) -> dict[str, Any]:
        batch = encoder.collate(features)
        inputs: dict[str, Any] = with_labels(batch)
        if not (inputs["labels"] != NO_LOSS).any(dim=1).all():
            raise ValueError(
                "a training row has no token that receives loss: expected at least one response token in every row."
            )
        refuse_lost_mask(inputs, features, encoder.image_token_id)
        return inputs if edits is None else {**inputs, edits.travels_as: batch}

    peft = with_lora(model.module, options)
    adapted = adapted_parts(peft, options)
    if begin is not None:
        begin_from(peft, begin)
    begun = {name: weight.detach().clone() for name, weight in peft.named_parameters() if _writes(name)}
    make_folder(checkpoints)  # where it cannot be made, this is said before the first step
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=options["steps"],
        num_train_epochs=options["epochs"],
        per_device_train_batch_size=options["batch_size"],
        gradient_accumulation_steps=options["accumulate"],
        learning_rate=options["learning_rate"],
        lr_scheduler_type=options["schedule"],
        warmup_steps=options["warmup_steps"],
        weight_decay=options["weight_decay"],
        seed=seed,
        data_seed=seed,
        report_to=[],
        save_strategy="steps" if save_every else "no",
        save_steps=save_every or 500,
        logging_strategy="no",
        disable_tqdm=True,  # its bar writes over itself in a log
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    given: dict[str, Any] = dict(model=peft, args=arguments, train_dataset=encoded, data_collator=collate)
    trainer = Trainer(**given) if edits is None else edits.trainer(**given)
    trainer.remove_callback(PrinterCallback)  # it prints raw dicts where no progress bar is wanted
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.add_callback(Marked(checkpoints))
    trainer.add_callback(StepsShown(show=progress))
    begun_before = newest_whole(checkpoints) if save_every else None
    tally = LossTally(peft, encoder.image_token_id)
    result = trainer.train(resume_from_checkpoint=None if begun_before is None else str(begun_before))
    tokens = tally.finish()
    removed(checkpoints)
    if edits is not None:
        edits.refuse_idle()
    moved = [name for name, weight in peft.named_parameters() if _writes(name) and _differs(weight, begun[name])]
    if not moved:
        still = "zero" if begin is None else "that of the start"
        raise ValueError(
            f"training changed nothing: every lora_B is still {still}. Expected a learning rate and steps above zero."
        )
    refuse_unmoved(peft, moved, options)
    facts = {"adapted": adapted, "tokens": tokens, "trained_steps": trainer.state.global_step}
    return peft.eval(), float(result.training_loss), facts


def _differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    return not torch.equal(one.cpu(), other.cpu())


def _writes(name: str) -> bool:
    return "lora_B" in name or "lora_embedding_B" in name
