"""Vectors of texts, by domain: from a model's own residual stream, or from a sentence encoder in a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.checkpoint_files import check_folder
from hooks.plain_files import Refused, json_file

Vectors = Float[np.ndarray, "n d"]


def embeddings_by(rows: Any, tag: str, site: Any) -> dict[str, Vectors]:
    """The residuals of one site, split by a tag of their prompts: value -> [n, d_model], float64.

    `rows`: a store of `wb.capture(..., at="response", pool="mean")` or part of it, one row a text. Raises ValueError
    where a text has several rows (tokens that were not pooled), or lacks the tag.
    """
    view = rows.rows() if hasattr(rows, "rows") else rows
    values, groups, ids = view.values(site, np.float64), view.tag(tag), view.prompt_ids
    if len(set(ids)) < len(ids):
        raise ValueError(
            f"{len(ids)} rows of {len(set(ids))} prompts: expected one row a text (pool='mean'), of one variant."
        )
    if None in groups:
        raise ValueError(f"{groups.count(None)} of {len(groups)} rows have no tag {tag!r}: expected one in each.")
    names = np.array([str(each) for each in groups])
    return {str(name): values[names == name] for name in dict.fromkeys(names.tolist())}


def encoded_texts(
    folder: str | Path, texts: Sequence[str], *, max_length: int | None = None, batch: int = 64, device: str = "cpu"
) -> Float[np.ndarray, "n d"]:
    """Mean of an encoder's last hidden states over the tokens of each text, [n, d] in float32; pads take no part.

    `folder` holds a Hugging Face encoder (such as all-MiniLM-L6-v2) and is read locally: nothing is downloaded, no code
    of the folder runs, and weights are read from safetensors. Texts are cut at `max_length` tokens (default: what the
    folder's sentence_bert_config.json says, else the tokenizer's or the model's own limit). Raises FileNotFoundError
    without a config.json, and ValueError for a folder that asks for another pooling, or no texts.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    place = Path(folder)
    if not (place / "config.json").is_file():
        raise FileNotFoundError(
            f"{place} has no config.json: expected the folder of an encoder, downloaded beforehand."
        )
    if not texts:
        raise ValueError("encoded_texts: no texts came, expected at least one.")
    _refuse_other_pooling(place)
    check_folder(place)
    tokenizer: Any = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    model: Any = AutoModel.from_pretrained(
        place, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    model.eval().to(device)
    longest = max_length or _longest(place, tokenizer, model)
    out: list[np.ndarray] = [np.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length share a batch
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            read = tokenizer(
                [texts[i] for i in some], padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(device)
            hidden = model(**read).last_hidden_state.float()
            mask = read["attention_mask"][..., None].float()
            pooled = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy()
            for i, vector in zip(some, pooled, strict=True):
                out[i] = vector
    return np.stack(out).astype(np.float32)


def _refuse_other_pooling(place: Path) -> None:
    file = place / "1_Pooling" / "config.json"
    if file.is_file() and not _settings(file).get("pooling_mode_mean_tokens", False):
        raise ValueError(
            f"{file} asks for another pooling than the mean over tokens, which is all that is known here: "
            "expected a sentence encoder with mean pooling."
        )


def _settings(file: Path) -> dict[str, Any]:
    said = json_file(file, 2**20)
    if not isinstance(said, dict):
        raise Refused(f"{file} is a {type(said).__name__}: expected a JSON object.")
    return said


def _longest(place: Path, tokenizer: Any, model: Any) -> int:
    file = place / "sentence_bert_config.json"
    stated = _settings(file).get("max_seq_length") if file.is_file() else None
    limits = [stated, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), 512]
    return min(int(each) for each in limits if each and each < 10**9)
