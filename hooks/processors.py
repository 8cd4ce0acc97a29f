"""Processors: what turns a prompt and its pictures into a model's inputs, with pillow alone wherever that is possible.

`AutoProcessor` stops at three places where torchvision is missing, though pictures need none of it: a processor that
holds a *video* processor, a processor that states torchvision without using it (Pixtral), and num2words, which SmolVLM
asks for to name the length of a video. There the processor is put together from its parts, without videos.
The only file that knows torchvision.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

INSTALL = "pip install -e '.[vision]'"


class NoVideos(dict[str, Any]):
    """Stands where a video processor would: it has the settings that a chat template asks for, and reads no video. A
    dict, because transformers writes the settings of a processor's parts as JSON."""

    num_frames = fps = _auto_class = None
    model_input_names: tuple[str, ...] = ()

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise ImportError(f"videos need torchvision: expected `{INSTALL}` (pictures do without).")


def load_processor(name: str, revision: str | None = None, *, trusted: bool = False) -> Any:
    """The processor of a checkpoint folder or hub name; it reads text and pictures.

    Raises ImportError with the mend where the installed torchvision does not match torch, and where a family's pictures
    cannot be read without torchvision.
    """
    has_torchvision = torchvision_matches()
    from transformers import AutoProcessor

    try:
        kind = processor_class(name, revision, trusted=trusted)
        if kind is None or (has_torchvision and not _asks_for_num2words(kind)):
            return AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=trusted)
        return _pictures_only(kind, name, _from(revision, trusted))
    except (ImportError, ValueError) as error:
        if has_torchvision or "torchvision" not in str(error):
            raise
        raise ImportError(
            f"the pictures of {name} cannot be read with pillow alone ({_first_line(error)}): expected torchvision, by "
            f"`{INSTALL}`."
        ) from error
    except OSError as error:
        if not Path(name).is_dir():
            raise
        said = _first_line(error).partition(". ")[0][:200]
        raise FileNotFoundError(
            f"{name} reads pictures, and has no processor of them ({said}): expected "
            "preprocessor_config.json or processor_config.json beside its config.json (a fine-tune that was saved "
            "without takes those of its base), or load_model(..., processor=...)."
        ) from error


def torchvision_matches() -> bool:
    """False where torchvision is not installed. Raises ImportError where it is, and does not fit the installed
    torch."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        import torch

        raise ImportError(
            f"your torchvision does not match your torch ({torch.__version__}): {_first_line(error)}. Expected the "
            "pair that was built together: install torchvision again from where torch came from (beside a CPU torch, "
            "its CPU build), or take it out with `pip uninstall torchvision` (most models' pictures are then read with "
            "pillow)."
        ) from error
    return True


def pictures_identity(processor: Any) -> dict[str, str]:
    """What decides the pixels that a model sees: `{"pictures": class and sha256 of its settings}`, or nothing. The
    pillow and the torchvision class of one family give slightly different pixels."""
    reader = getattr(processor, "image_processor", None)
    if reader is None:
        return {}
    settings = json.dumps(reader.to_dict(), sort_keys=True, default=str)
    return {"pictures": f"{type(reader).__name__} {hashlib.sha256(settings.encode()).hexdigest()[:16]}"}


def processor_class(name: str, revision: str | None = None, *, trusted: bool = False) -> Any:
    """The class that the checkpoint states for its processor, or that its model type has; None when there is none."""
    import transformers
    from transformers import AutoConfig, ProcessorMixin
    from transformers.models.auto import processing_auto

    stated = ProcessorMixin.get_processor_dict(name, **_from(revision))[0].get("processor_class")
    by_type: Any = getattr(processing_auto, "PROCESSOR_MAPPING_NAMES", {})
    stated = stated or by_type.get(AutoConfig.from_pretrained(name, **_from(revision, trusted)).model_type)
    kind = getattr(transformers, stated or "", None)
    if kind is not None and getattr(kind, "is_dummy", False):
        # transformers put a placeholder in its place, for a requirement; the class itself stands in its module.
        kind = getattr(_imported(kind.__module__), kind.__name__)
    return kind


def _imported(name: str) -> ModuleType:
    """The module; where it borrows from its family's torchvision image processor, from the pillow one instead."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package, _, file = name.rpartition(".")
        theirs, pillow = (
            f"{package}.image_{file}",
            f"{package}.image_{file.replace('processing_', 'processing_pil_', 1)}",
        )
        if theirs in sys.modules or importlib.util.find_spec(pillow) is None:
            raise
        sys.modules[theirs] = importlib.import_module(pillow)
        try:
            return importlib.import_module(name)
        finally:
            del sys.modules[theirs]


def _pictures_only(kind: Any, name: str, options: dict[str, Any]) -> Any:
    """The processor from its parts: an image processor over pillow, a tokenizer, and no video processor."""
    from transformers import AutoTokenizer

    # From its own file: transformers 5.17 puts a placeholder in place of all that lies in one which names torchvision.
    auto: Any = importlib.import_module("transformers.models.auto.image_processing_auto")
    parts = {"image_processor": auto.AutoImageProcessor, "tokenizer": AutoTokenizer}
    wanted = kind.get_attributes()
    if unknown := [part for part in wanted if part not in (*parts, "video_processor")]:
        raise ImportError(f"{kind.__name__} needs {', '.join(unknown)}")
    arguments = [
        NoVideos() if part == "video_processor" else parts[part].from_pretrained(name, **options) for part in wanted
    ]

    def check(self: Any, part: str, given: Any) -> Any:
        return NoVideos if isinstance(given, NoVideos) else kind.check_argument_for_proper_class(self, part, given)

    # A subclass, so that transformers' own class stays what it is for everybody else.
    accepting = type(kind.__name__, (kind,), {"check_argument_for_proper_class": check, "__module__": kind.__module__})
    settings, _ = kind.get_processor_dict(name, **options)
    settings.pop("video_processor", None)
    with _without_num2words(kind):
        return accepting.from_args_and_dict(arguments, settings)


@contextmanager
def _without_num2words(kind: Any) -> Iterator[None]:
    """Lets a processor that names the length of videos in words be made without that package."""
    module = sys.modules[kind.__module__]
    if not _asks_for_num2words(kind):
        yield
        return
    module.num2words = NoVideos.__call__  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.num2words = None  # type: ignore[attr-defined]


def _asks_for_num2words(kind: Any) -> bool:
    return getattr(sys.modules[kind.__module__], "num2words", ...) is None


def _from(revision: str | None, trusted: bool = False) -> dict[str, Any]:
    return {"trust_remote_code": trusted} | ({} if revision is None else {"revision": revision})


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
