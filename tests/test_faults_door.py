"""One door for writing: whatever workbench puts on a disk goes through stores/files.py or a store, so that a kill, a
full disk or a power cut leaves whole files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
METHODS = {
    "write_text", "write_bytes", "mkdir", "touch", "symlink_to", "hardlink_to", "savefig", "save_pretrained",
    "save_file", "to_csv", "to_json", "to_parquet", "tofile", "save", "savez", "savez_compressed", "savetxt", "dump",
    "memmap", "File", "fdopen", "open_memmap",
}  # fmt: skip
OF_MODULES = {
    "os": {"open", "replace", "rename", "renames", "link", "symlink", "mkdir", "makedirs", "write", "pwrite"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move"},
    "tempfile": {"mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory"},
}  # fmt: skip
BARE = {"mkstemp", "mkdtemp", "copyfile", "copytree", "save_file"}
# What a library writes by itself, into memory or into a draft that the door publishes.
ALLOWED = {
    ("workbench/behaviour/plain_images.py", "save"): "a PNG into memory",
    ("workbench/behaviour/thumbnails.py", "save"): "a picture into memory",
    ("workbench/organisms/pictures.py", "save"): "a PNG into memory",
    ("workbench/reporting/style.py", "savefig"): "a figure into memory",
    ("workbench/interventions/gating_written.py", "savez"): "arrays into memory",
    ("workbench/training/adapters.py", "save_pretrained"): "into the draft of published.publish",
    ("workbench/organisms/checkpoint.py", "save_pretrained"): "into the draft of drafted_folder",
    ("workbench/organisms/build.py", "save"): "checkpoint.save, which has a draft",
    ("workbench/cli.py", "open"): "the null device, where nobody reads what is printed",
    ("workbench/planning/training.py", "TemporaryDirectory"): "a stand-in Trainer asks for one, and leaves it empty",
}  # fmt: skip


def writes(source: str) -> list[tuple[str, int]]:
    """Calls that may write to a disk, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        opens = name == "open" and any(_mode(value) for value in [*node.args, *(word.value for word in node.keywords)])
        method = name in METHODS and isinstance(node.func, ast.Attribute)
        if opens or method or name in BARE or name in OF_MODULES.get(owner, ()):
            found.append((name, node.lineno))
    return found


def _mode(node: ast.expr) -> bool:
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and set(text) <= set("rwaxbt+") and not set(text).isdisjoint("wax+") and len(text) < 4


FILES = sorted((ROOT / "workbench").rglob("*.py"))


def test_workbench_writes_through_the_door_alone():
    passed, used = [], set()
    for file in FILES:
        where = str(file.relative_to(ROOT))
        for name, line in writes(file.read_text()):
            used.add((where, name))
            if (where, name) not in ALLOWED:
                passed.append(f"{where}:{line} {name}()")
    assert not passed, f"expected stores.files.write_file, drafted_folder, open_log or publish.make_folder: {passed}"
    assert not (unused := set(ALLOWED) - used), f"no longer needed: {sorted(unused)}"


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')", "open(path, mode='ab')", "path.open('x')", "path.write_text(text)", "path.mkdir()",
        "os.open(path, os.O_WRONLY)", "os.replace(a, b)", "shutil.copyfile(a, b)", "tempfile.mkstemp()", "mkdtemp()",
        "figure.savefig(path)", "np.savez(path, a)", "torch.save(a, path)", "json.dump(a, file)", "save_file(a, path)",
        "h5py.File(path, 'w')", "image.save(path)", "os.fdopen(handle, 'w')",
    ],
)  # fmt: skip
def test_each_other_way_would_be_found(line):
    assert writes(line)


@pytest.mark.parametrize(
    "line", ["open(path)", "path.open('rb')", "text.replace('a', 'b')", "write_file(path, text)", "Image.open(path)"]
)
def test_reading_is_no_writing(line):
    assert not writes(line)
