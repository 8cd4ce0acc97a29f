"""Who may import whom: between the rooms, inside workbench from the ground up, and heavy packages only where needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "hooks": set(),
    "stores": set(),
    "workbench": {"hooks", "stores"},
    "experiments": {"workbench"},
}
# Inside workbench, from the ground up: a module imports its own room and lower floors. A new module gets a floor here.
FLOORS = (
    {"statistics", "units", "parts", "progress", "sources", "parallel"},
    {"captures", "actors", "shared_work"},
    {"subspace", "training"},
    {"interventions", "organisms", "streaming_plan"},
    {"capturing", "given_answers"},
    {"behaviour", "inputs", "places", "streaming"},
    {"reporting", "planning", "study_record"},
    {"study"},
    {"domain_study", "demonstration"},
    {"commands", "installed"},  # from here on public names are used
    {"cli", "__main__"},
)
# Packages that cost seconds, or that not everybody has: the only files that may import them, and never at import time.
ONLY_IN = {
    "matplotlib": "workbench/reporting/*.py",
    "sklearn": "workbench/subspace/probe.py",
    "peft": ("workbench/training/adapters.py", "hooks/load.py", "hooks/adapter_files.py"),
    "transformer_lens": "hooks/backends/lens.py",
    "nnsight": "hooks/backends/nns.py",
    "pandas": (
        "stores/frames.py",
        "stores/printed.py",
        "stores/results.py",
        "stores/view.py",
        "stores/all_rows.py",
        "stores/named_arrays.py",
        "workbench/behaviour/judged.py",
    ),
    "yaml": "workbench/behaviour/yaml_files.py",
    "openai": "workbench/behaviour/endpoint_client.py",
    "ray": "workbench/parallel.py",
}
WITHOUT_TORCH = ("stores", "hooks.site", "hooks.prompt", "workbench.statistics", "workbench.subspace")


def imported(tree: ast.AST) -> list[str]:
    """Every module that the code imports, wherever it stands; `from workbench import x` counts as `workbench.x`."""
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names += [f"workbench.{alias.name}" for alias in node.names] if module == "workbench" else [module]
    return names


def at_import_time(tree: ast.Module) -> list[str]:
    """What is imported when the module is: outside functions, and not under `if TYPE_CHECKING`."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                yield statement
            elif isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.dump(statement.test):
                yield from statements([*statement.body, *statement.orelse])
            elif isinstance(statement, ast.Try | ast.With | ast.ClassDef):
                yield from statements(statement.body)

    return imported(ast.Module(list(statements(tree.body)), []))


def room_faults(room: str, source: str) -> set[str]:
    """Other rooms that this source of `room` imports and may not; a relative import hides where it leads."""
    names = imported(ast.parse(source))
    rooms = {name.split(".")[0] for name in names} & MAY_IMPORT.keys()
    return rooms - MAY_IMPORT[room] - {room} | {name for name in names if name.startswith(".")}


def floor_of(part: str) -> int:
    found = [n for n, floor in enumerate(FLOORS) if part in floor]
    assert found, f"workbench/{part} has no floor: expected it in FLOORS of {Path(__file__).name}"
    return found[0]


def floor_faults(part: str, source: str) -> set[str]:
    """Parts of workbench that this source of `part` imports although they stand on its floor or above."""
    parts = [name.split(".") for name in imported(ast.parse(source)) if name.split(".")[0] == "workbench"]
    top = part in FLOORS[-2] | FLOORS[-1]
    bare = set() if top else {"workbench itself" for names in parts if len(names) == 1}
    others = {names[1] for names in parts if len(names) > 1 and names[1] != part}
    public = others - set().union(*FLOORS) if top else set()
    return bare | {other for other in others - public if floor_of(other) >= floor_of(part)}


def package_faults(file: str, source: str) -> set[str]:
    tree = ast.parse(source)
    faults = set()
    for package, homes in ONLY_IN.items():
        homes = (homes,) if isinstance(homes, str) else homes
        if any(name.split(".")[0] == package for name in at_import_time(tree)):
            faults.add(f"{package} at import time")
        if any(name.split(".")[0] == package for name in imported(tree)) and not any(map(Path(file).match, homes)):
            faults.add(f"{package} outside {', '.join(homes)}")
    return faults


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_each_room_imports_only_what_it_may(room):
    assert room == "experiments" or files_of(room)
    for file in files_of(room):
        extra = room_faults(room, file.read_text())
        may = sorted(MAY_IMPORT[room]) or "no other room"
        assert not extra, f"{file.relative_to(ROOT)} imports {sorted(extra)}; '{room}' may import {may}"


def test_workbench_is_built_from_the_ground_up():
    for file in files_of("workbench"):
        part = file.relative_to(ROOT / "workbench").parts[0].removesuffix(".py")
        if part != "__init__":  # the facade names every part, and imports none before it is used
            extra = floor_faults(part, file.read_text())
            assert not extra, f"{file.relative_to(ROOT)} imports {sorted(extra)}, which stand on its floor or above"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_heavy_packages_are_imported_only_where_they_are_used(room):
    for file in files_of(room):
        faults = package_faults(str(file.relative_to(ROOT)), file.read_text())
        assert not faults, f"{file.relative_to(ROOT)}: {sorted(faults)}"


def test_stores_never_mention_torch_and_hooks_never_mention_disk_formats():
    for file in files_of("stores"):
        assert not {"torch", "transformers"} & {name.split(".")[0] for name in imported(ast.parse(file.read_text()))}, (
            file
        )
    for file in files_of("hooks"):
        assert not {"h5py", "xxhash"} & {name.split(".")[0] for name in imported(ast.parse(file.read_text()))}, file


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        (lambda: room_faults("hooks", "def f():\n    from stores.view import Rows"), {"stores"}),
        (lambda: room_faults("stores", "import hooks.site as s"), {"hooks"}),
        (lambda: room_faults("hooks", "from ..stores import Unit"), {"..stores"}),
        (lambda: room_faults("experiments", "from hooks.site import Site"), {"hooks"}),
        (lambda: room_faults("workbench", "import hooks, stores, torch"), set()),
        (lambda: floor_faults("subspace", "from workbench.interventions.ablate import Ablate"), {"interventions"}),
        (lambda: floor_faults("training", "from workbench import subspace"), {"subspace"}),
        (lambda: floor_faults("behaviour", "import workbench as wb"), {"workbench itself"}),
        (lambda: floor_faults("reporting", "from workbench.statistics import wilson"), set()),
        (lambda: floor_faults("cli", "import workbench as wb\nfrom workbench import capture"), set()),
        (lambda: floor_faults("commands", "import workbench as wb\nfrom workbench.cli import main"), {"cli"}),
        (lambda: package_faults("hooks/load.py", "import peft"), {"peft at import time"}),
        (lambda: package_faults("hooks/load.py", "def f():\n    import peft"), set()),
        (lambda: package_faults("workbench/reporting/a.py", "try:\n    import matplotlib.pyplot\nfinally: pass"),
         {"matplotlib at import time"}),
        (lambda: package_faults("workbench/reporting/a.py", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
         set()),
        (lambda: package_faults("workbench/study.py", "def f():\n    import sklearn.decomposition"),
         {"sklearn outside workbench/subspace/probe.py"}),
    ],
)  # fmt: skip
def test_the_import_tests_can_fail(check, faults):
    assert check() == faults


def test_a_module_without_a_floor_is_noticed():
    with pytest.raises(AssertionError, match="workbench/attic has no floor"):
        floor_faults("attic", "import workbench.statistics")


def python(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code) if folder != ROOT else None
    command = [sys.executable, "script.py"] if folder != ROOT else [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


COST = """
import resource
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
before = spent()
import {module}
import sys
print('torch' in sys.modules, spent() - before)
"""


def test_importing_workbench_is_light():
    """No torch, and less than a second of CPU: `workbench --help` must not pay three."""
    torch_came, seconds = python(COST.format(module="workbench")).stdout.split()
    assert torch_came == "False" and float(seconds) < 1
    assert python(COST.format(module="torch")).stdout.split()[0] == "True", "the meta-test"


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_needs_no_torch_does_not_import_it(module):
    done = python(COST.format(module=module))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "False"


def test_every_public_name_is_there_and_none_is_that_of_a_submodule():
    """A function called like a submodule would be replaced by it at the second access."""
    import workbench as wb

    for name in wb.__all__:
        assert getattr(wb, name) is getattr(wb, name), name
    parts = {path.stem for path in (ROOT / "workbench").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not parts & set(wb.__all__)
    with pytest.raises(AttributeError, match=r"module 'workbench' has no attribute 'steer': is .*Steer.* meant"):
        _ = wb.steer


def test_editors_see_the_same_names_as_python():
    """A type checker parses the stub; Python reads it line by line."""
    import workbench as wb

    tree = ast.parse((ROOT / "workbench" / "__init__.pyi").read_text())
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 and len(node.names) == 1 for node in lines), "one name a line"
    assert all(alias.asname == alias.name for node in lines for alias in node.names), "as NAME: exported"
    assert [(alias.name, node.module) for node in lines for alias in node.names] == list(wb._HOME.items())
    assert [name for names in wb._SUBJECTS.values() for name in names] == wb.__all__ and min(
        map(len, wb._SUBJECTS.values())
    ) > 3


def test_help_is_a_map_of_the_public_names():
    import workbench as wb

    text = wb.__doc__ or ""
    assert "\nInterventions: ablation" in text and all(name in text for name in wb.__all__)


@pytest.mark.parametrize("shadow", ["hooks.py", "stores.py", "hooks/__init__.py"])
def test_a_users_file_of_the_same_name_is_refused_by_name(shadow, tmp_path):
    (tmp_path / shadow).parent.mkdir(exist_ok=True)
    (tmp_path / shadow).write_text("")
    done = python("import workbench", tmp_path)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError: workbench needs its own")]
    assert str((tmp_path / shadow).resolve()) in line and "Rename that file or folder" in line


def test_a_folder_without_a_shadow_imports_workbench(tmp_path):
    """The meta-test of the guard: it does not refuse everybody. A data folder called `stores` is no package."""
    (tmp_path / "stores").mkdir()
    done = python("import workbench; print(workbench.Site(3))", tmp_path)
    assert done.stdout.strip() == "resid_post:3", done.stderr


def test_tests_and_experiments_are_no_packages():
    """`tests/hooks/__init__.py` would shadow the real package."""
    for room in ("tests", "experiments"):
        assert not list((ROOT / room).rglob("__init__.py"))
