"""LoRA adapters trained through `transformers.Trainer` and peft; loss on response tokens only."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from hooks.encode import Encoder
from hooks.load import folder_hash, load_model
from hooks.prompt import Prompt, as_prompts
from stores import content_key
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.loss_mask import refuse_lost_mask
from workbench.training.mixtures import mix

RECIPE_FILE = "training.json"

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
    seed: int = 0,
    progress: bool = False,
    save_every: int | None = None,
    **settings: Any,
) -> Path:
    """Trains a LoRA adapter on the rows of a prompt file (each with a response) and returns its folder.

    `recipe` is a name of RECIPES, which single settings override: `rank`, `alpha` (default: rank), `targets` (module
    names, a regex over module paths, or `"all-linear"`), `dropout`, `rslora`, `learning_rate`, `schedule`,
    `warmup_steps`, `weight_decay`, `steps` (or `epochs`), `batch_size`, `accumulate`, `max_length`. `fraction` of the
    rows come from `prompts`, the rest from `filler` (see `mix`, which `hold` goes to). A finished adapter of the same
    settings and data is returned as it is; with `save_every` a run that was stopped goes on from its last checkpoint.
    Raises ValueError when no token receives loss, or when training left the adapter as it began.
    """
    options = {**_DEFAULTS, **(RECIPES[recipe] if recipe else {}), **settings}
    if unknown := set(options) - set(_DEFAULTS):
        raise TypeError(f"train_lora does not know {', '.join(sorted(unknown))}: expected {', '.join(_DEFAULTS)}.")
    options["alpha"] = options["alpha"] or options["rank"]
    rows = as_prompts(prompts)
    if filler is not None or fraction < 1:
        rows = list(mix(rows, as_prompts(filler) if filler is not None else [], fraction, hold=hold, seed=seed))
    to = Path(to)
    base_hash = folder_hash(Path(base)) if Path(base).is_dir() else str(base)
    key = content_key({"base": base_hash, "rows": [row.content_hash for row in rows], "options": options, "seed": seed})
    if _finished(to, key):
        return to
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = load_model(base, device=None)
    encoded = encoded_rows(rows, model.encoder, options["max_length"])
    # Named by its settings, so that a stopped run of others is never taken for the beginning of this one.
    checkpoints = to.with_name(f"{to.name}.{key[:12]}.training")
    peft, loss = _trained(model.module, encoded, model.encoder, options, seed, checkpoints, progress, save_every)
    if not any(bool(weight.any()) for name, weight in peft.named_parameters() if "lora_B" in name):
        raise ValueError(
            "training changed nothing: every lora_B is still zero. Expected a learning rate and steps above zero."
        )
    _publish(
        peft,
        to,
        {
            "key": key,
            "base": base_hash,
            "rows": len(rows),
            "seed": seed,
            "loss": loss,
            **options,
            "seconds": round(time.perf_counter() - started, 2),
        },
    )
    return to


_DEFAULTS: dict[str, Any] = dict(
    rank=16,
    alpha=None,
    targets="all-linear",
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


def _trained(
    module: Any,
    encoded: list[Any],
    encoder: Encoder,
    options: dict[str, Any],
    seed: int,
    checkpoints: Path,
    progress: bool,
    save_every: int | None,
) -> tuple[Any, float]:
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainingArguments

    def collate(features: list[Any]) -> dict[str, Any]:
        inputs = with_labels(encoder.collate(features))
        if not (inputs["labels"] != NO_LOSS).any(dim=1).all():
            raise ValueError(
                "a training row has no token that receives loss: expected at least one response token in every row."
            )
        refuse_lost_mask(inputs, features, encoder.image_token_id)
        return inputs

    # peft asks the model for an attribute that transformers has renamed: nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    peft = get_peft_model(
        module,
        LoraConfig(
            r=options["rank"],
            lora_alpha=options["alpha"],
            target_modules=options["targets"],
            lora_dropout=options["dropout"],
            use_rslora=options["rslora"],
            bias="none",
        ),
    )
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
        save_total_limit=1,
        logging_strategy="no",
        disable_tqdm=not progress,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(model=peft, args=arguments, train_dataset=encoded, data_collator=collate)  # type: ignore[arg-type]
    trainer.remove_callback(PrinterCallback)  # it prints raw dicts where no progress bar is wanted
    resumable = save_every is not None and any(checkpoints.glob("checkpoint-*"))
    result = trainer.train(resume_from_checkpoint=resumable or None)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return peft.eval(), float(result.training_loss)


def _finished(to: Path, key: str) -> bool:
    record = to / RECIPE_FILE
    if not record.is_file():
        if to.exists() and any(to.iterdir()):
            raise FileExistsError(f"{to} holds something that is no adapter of ours: expected an empty or new folder.")
        return False
    if json.loads(record.read_text())["key"] == key:
        return True
    raise FileExistsError(
        f"{to} holds an adapter of other settings or data: give another folder, or remove it ({record} says what it "
        "is)."
    )


def _publish(peft: Any, to: Path, record: dict[str, Any]) -> None:
    """Writes beside the target and renames, so that a folder with the target's name is always a whole adapter."""
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    peft.save_pretrained(str(folder))
    (folder / RECIPE_FILE).write_text(json.dumps(record, indent=2))
    if to.exists():
        to.rmdir()
    os.rename(folder, to)
