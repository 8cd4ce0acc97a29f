"""Adapters, checkpoints and arrays that nobody should load, built by code from sound ones."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile_rows import DEEP
from safetensors.torch import load_file, save_file
from tiny_adapters import noisy_adapter
from tiny_models import llama

import workbench as wb

Make = Callable[[Path], Path]
Change = Callable[[Path], object]
RAN = "ran.txt"  # what a file writes that was run


@functools.cache
def _model() -> tuple[Any, Any]:
    return llama(layers=1)[:2]


def sound_model() -> tuple[Any, Any]:
    """A tiny llama of one layer and its tokenizer, nobody else's."""
    return copy.deepcopy(_model()[0]), _model()[1]


@functools.cache
def _sound(kind: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sound-")) / kind
    module, tokenizer = sound_model()
    if kind == "adapter":
        noisy_adapter(folder, module)
    else:
        for part in (module, tokenizer):
            part.save_pretrained(folder)
    return folder


def adapter(folder: Path) -> Path:
    """A sound LoRA of rank 2."""
    return Path(shutil.copytree(_sound("adapter"), folder / "adapter"))


def checkpoint(folder: Path) -> Path:
    """A sound llama of one layer."""
    return Path(shutil.copytree(_sound("checkpoint"), folder / "checkpoint"))


def _of(sound: Make, change: Change) -> Make:
    def make(folder: Path) -> Path:
        path = sound(folder)
        change(path)
        return path

    return make


def settings(name: str, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))

    return change


def written(name: str, data: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def _pipe(name: str) -> Change:
    return lambda folder: ((folder / name).unlink(), os.mkfifo(folder / name))


def _header(told: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = told.encode() if isinstance(told, str) else json.dumps(told).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


class Runs:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.folder / RAN,))


def _pickled(name: str, *instead_of: str) -> Change:
    def change(folder: Path) -> None:
        for old in instead_of:
            (folder / old).unlink()
        torch.save({"a": Runs(folder)}, folder / name)

    return change


SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "a header of a terabyte": (_header({}, length=1 << 40), "no whole .safetensors"),
    "a header of 64 MiB": (_header('{"' + "a" * (1 << 26) + '":1}'), "header of"),
    "a deep header": (_header('{"a":' + DEEP + "}"), "nested too deep"),
    "a tensor of petabytes": (_header({"a": {"dtype": "F32", "shape": [1 << 48], "data_offsets": [0, 1 << 50]}}),
     "hold"),
    "a shape that its bytes do not fill": (_header({"a": {"dtype": "F64", "shape": [1 << 20], "data_offsets": [0, 8]}},
     bytes(8)), "cannot be read|no whole .safetensors"),
    "a negative shape": (_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)), "hold"),
    "a tensor named twice": (_header('{"a":1,"a":2}'), "stands twice"),
    "tensors that overlap": (_header({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"},
     bytes(8)), "no whole .safetensors|describes a model"),
    "a list for a header": (_header([1]), "hold"),
    "no bytes": (b"", "no whole .safetensors"),
}  # fmt: skip
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTERS: dict[str, tuple[Change, str]] = {
    "a pickle for weights": (_pickled("adapter_model.bin", WEIGHTS), "pickle, which may run code"),
    "a module to import": (settings(CONFIG, megatron_config={"a": 1}, megatron_core="os"), "megatron_config"),
    "layers built again": (settings(CONFIG, layer_replication=[[0, 1]] * 10_000), "layer_replication"),
    "a rank of a billion": (settings(CONFIG, r=10**9), "rank 1000000000"),
    "a rank in a pattern": (settings(CONFIG, rank_pattern={"q_proj": 10**9}), "rank 1000000000"),
    "a rank of text": (settings(CONFIG, r="2"), "rank '2'"),
    "a pattern that takes for ever": (settings(CONFIG, target_modules="(([a-z_.0-9])+)+!"), "repeats a group"),
    "repeats without end": (settings(CONFIG, target_modules=".*" * 30 + "!"), "open repeats"),
    "a broken pattern": (settings(CONFIG, target_modules="(q_proj"), "no regular expression"),
    "an unknown kind": (settings(CONFIG, peft_type="EVIL"), "is not used|of the kind EVIL"),
    "a kind that is a list": (settings(CONFIG, peft_type=[1]), "no JSON object of an adapter"),
    "deep settings": (written(CONFIG, '{"a":' + DEEP + "}"), "nested too deep"),
    "settings of 2 MiB": (written(CONFIG, '{"a":"' + "x" * (1 << 21) + '"}'), "expected at most"),
    "a list for settings": (written(CONFIG, "[1]"), "no JSON object of an adapter"),
    "a pipe for settings": (_pipe(CONFIG), "is no adapter"),
    "a pipe for weights": (_pipe(WEIGHTS), "is no adapter"),
    **{f"weights: {name}": (written(WEIGHTS, data), says) for name, (data, says) in SAFETENSORS.items()},
}
MODEL = "model.safetensors"
CODE = f"import pathlib\npathlib.Path(__file__).with_name({RAN!r}).touch()\nclass C: pass\n"


def _index(name: str) -> Change:
    def change(folder: Path) -> None:
        shutil.move(folder / MODEL, folder.parent / "outside.safetensors")
        held = load_file(folder.parent / "outside.safetensors")
        told = {"metadata": {}, "weight_map": dict.fromkeys(held, name)}
        (folder / f"{MODEL}.index.json").write_text(json.dumps(told))

    return change


def _brings_code(folder: Path) -> None:
    settings("config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.C"})(folder)
    written("own.py", CODE)(folder)


def _tokenizer_brings_code(folder: Path) -> None:
    settings("tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.C", None]})(folder)
    written("own.py", CODE)(folder)


def _missing(folder: Path) -> None:
    save_file({k: v for k, v in load_file(folder / MODEL).items() if "mlp" not in k}, folder / MODEL, {"format": "pt"})


CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "code of its own": (_brings_code, "custom code"),
    "a tokenizer with code": (_tokenizer_brings_code, "custom code"),
    "kernels of a hub": (settings("config.json", attn_implementation="own/kernels"), "fetches and runs code"),
    "a pickle for weights": (_pickled("pytorch_model.bin", MODEL), "may run code"),
    "weights above the folder": (_index("../outside.safetensors"), "files of this folder"),
    "weights by a whole path": (_index("/etc/passwd"), "files of this folder"),
    "weights that are not there": (_index("gone.safetensors"), "does not exist"),
    "a weight less": (_missing, "lacks"),
    "100,000 layers": (settings("config.json", num_hidden_layers=100_000), "expected at most 1000"),
    "1,000 layers": (settings("config.json", num_hidden_layers=1000), "has 1000 layers"),
    "a width of a million": (settings("config.json", hidden_size=10**6), "describes a model of"),
    "a vocabulary of a billion": (settings("config.json", vocab_size=10**9), "describes a model of"),
    "heads as wide as memory": (settings("config.json", head_dim=10**9), "describes a model of"),
    "no heads": (settings("config.json", num_attention_heads=0), "cannot be used"),
    "a type that is a list": (settings("config.json", model_type=[1]), "cannot be used"),
    "an unknown type": (settings("config.json", model_type="own"), "cannot be used"),
    "a rotation that nobody knows": (settings("config.json", rope_parameters={"rope_type": "own"}), "cannot be used"),
    "a deep config": (written("config.json", '{"a":' + DEEP + "}"), "nested too deep"),
    "a config that is a list": (written("config.json", "[]"), "cannot be used"),
    "a broken tokenizer": (written("tokenizer.json", '{"a":'), "cannot be used"),
    "a tokenizer that is a list": (written("tokenizer.json", "[]"), "cannot be used"),
    **{f"weights: {name}": (written(MODEL, data), says) for name, (data, says) in SAFETENSORS.items()},
}


def tensor(folder: Path) -> Path:
    """A sound .pt file of four vectors."""
    torch.save(torch.ones(4, 8), folder / "v.pt")
    return folder / "v.pt"


def _saved(thing: Callable[[Path], Any]) -> Make:
    return lambda folder: (torch.save(thing(folder), folder / "v.pt"), folder / "v.pt")[1]


def _zipped(name: str, changed: Callable[[str, bytes], bytes] = lambda _, data: data, packed: bool = False) -> Make:
    """The sound .pt file, entry by entry."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(tensor(folder)) as source:
            held = {one: changed(one, source.read(one)) for one in source.namelist()}
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as target:
            for one, data in held.items():
                target.writestr(one, data)
        return folder / name

    return make


def _nested_tuples(depth: int = 60) -> bytes:
    """t = (t, t), sixty times: 400 bytes whose hash visits 2**60 parts, as the key of a dict."""
    steps = b"".join(bytes([104, n, 104, n]) + b"\x86q" + bytes([n + 1]) for n in range(depth))
    return b"\x80\x02K\x01q\x00" + steps + b"}(" + bytes([104, depth]) + b"K\x01u."


TENSORS: dict[str, tuple[Make, str]] = {
    "a pickle that runs": (_saved(lambda folder: {"v": Runs(folder)}), "without running code"),
    "an old pickle that runs": (lambda f: ((f / "v.pt").write_bytes(pickle.dumps(Runs(f))), f / "v.pt")[1], "no zip"),
    "one number stretched to gigabytes": (_saved(lambda _: torch.ones(1, 8).expand(1 << 26, 8)), "and a tensor"),
    "packed zeros": (_zipped("w.pt", lambda n, d: bytes(1 << 26) if n.endswith("data/0") else d, True), "compressed"),
    "tuples of tuples": (_zipped("w.pt", lambda n, d: _nested_tuples() if n.endswith(".pkl") else d), "written out"),
    "broken pickle": (_zipped("w.pt", lambda n, d: b"\x80\x02cos\n" if n.endswith(".pkl") else d), "written out|fail"),
    "no pickle": (_zipped("w.pt", lambda n, d: d[:0] if n.endswith(".pkl") else d), "written out|failed"),
    "complex numbers": (_saved(lambda _: torch.ones(2, 8, dtype=torch.complex64)), "expected floating"),
    "a whole module": (_saved(lambda _: torch.nn.Linear(2, 2)), "without running code"),
    "a pipe": (lambda folder: (os.mkfifo(folder / "v.pt"), folder / "v.pt")[1], "does not exist"),
    "a hole of a terabyte": (lambda folder: (os.truncate(tensor(folder), 1 << 40), folder / "v.pt")[1], "bytes"),
}  # fmt: skip


def directions(folder: Path) -> Path:
    """Sound ones, as save_directions writes them."""
    return wb.save_directions(wb.Directions.of(["resid_post:1"], [3.0, 4.0]), folder / "v.safetensors")


def _file(data: bytes) -> Make:
    return lambda folder: ((folder / "v.safetensors").write_bytes(data), folder / "v.safetensors")[1]


DIRECTIONS: dict[str, tuple[Make, str]] = {
    **{name: (_file(data), says) for name, (data, says) in SAFETENSORS.items()},
    "no header of ours": (_file(_header({})), "was not written by save_directions"),
    "a hole of a terabyte": (lambda f: (os.truncate(directions(f), 1 << 40), f / "v.safetensors")[1], "bytes"),
}


def arrays(folder: Path) -> Path:
    """A sound .npz file."""
    np.savez(folder / "a.npz", a=np.arange(3))
    return folder / "a.npz"


def _npz(write: Callable[[zipfile.ZipFile], object], packed: bool = False) -> Make:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as target:
            write(target)
        return folder / "a.npz"

    return make


def _npy(shape: str, data: bytes = b"", kind: str = "<f8") -> bytes:
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


def _object_array(target: zipfile.ZipFile) -> None:
    np.save(held := io.BytesIO(), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    target.writestr("a.npy", held.getvalue())


ARRAYS: dict[str, tuple[Make, str]] = {
    "pickled objects": (_npz(_object_array), "no whole arrays"),
    "packed zeros": (_npz(lambda z: z.writestr("a.npy", _npy("(8388608,)", bytes(1 << 26))), True), "compressed"),
    "an array of terabytes": (_npz(lambda z: z.writestr("a.npy", _npy("(1099511627776,)"))), "no whole arrays"),
    "an array of gigabytes": (_npz(lambda z: z.writestr("a.npy", _npy("(268435456,)"))), "no whole arrays"),
    "a shape that is code": (_npz(lambda z: z.writestr("a.npy", _npy("(print(1),)"))), "no whole arrays"),
    "one name twice": (_npz(lambda z: [z.writestr("a.npy", _npy("()", bytes(8))) for _ in "ab"]), "one name twice"),
    "no zip": (lambda f: ((f / "a.npz").write_bytes(b"x" * 100), f / "a.npz")[1], "no zip file"),
}
