"""What an intervention is, as a hash that no model is needed for and that survives a refit of its directions."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hooks.positions import scope_name
from stores import content_key


def identity_of(part: Any) -> str:
    """sha256 of a dataclass of numbers, texts, arrays and dataclasses (an intervention, directions). Arrays count to
    five digits of their largest entry: linear algebra gives other last bits from run to run, and a training that is
    begun again must know its own. Raises TypeError for anything that has no such identity."""
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        raise TypeError(
            f"{type(part).__name__} has no identity to record: expected a dataclass, such as Steer, Ablate or Clamp."
        )
    return content_key(_plain(part))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare}
        return {"is": type(value).__name__, **named}
    if isinstance(value, np.ndarray):
        return _digits(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, re.Pattern):
        return scope_name(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a {type(value).__name__} inside an intervention has no identity to record: expected plain data.")


def _digits(values: np.ndarray) -> str:
    exact = np.nan_to_num(np.asarray(values, np.float64))
    scale = float(np.abs(exact).max(initial=0.0)) or 1.0
    rounded = np.round(exact / scale * 1e5).astype(np.int64)
    return f"{values.shape} {scale:.4e} {hashlib.sha256(rounded.tobytes()).hexdigest()}"
