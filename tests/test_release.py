"""What is released: one version, the files that a release has, and a wheel that works in a clean environment."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import LONG

import workbench as wb

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", "THIRD_PARTY.md")

USER = """
import workbench as wb
from workbench.cli import main

world = wb.organism(to="organism")
model = wb.load_model(world.base, adapter=world.tuned)
store = wb.capture(model, wb.read_prompts(world.prompts)[:8], variants=("base", "tuned"), to="store", progress=False)
v = wb.difference_of_means(store.where(variant="tuned"), store.where(variant="base"))
print(v, wb.__file__)
raise SystemExit(main(["verify", "store", "--deep"]))
"""


def test_the_files_of_a_release_are_there_and_the_version_stands_in_one_place():
    assert [name for name in FILES if not (ROOT / name).is_file()] == []
    assert re.search(r'^dynamic = \["version"\]', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert f"version: {wb.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {wb.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_required_package_has_its_licence_said():
    text = (ROOT / "pyproject.toml").read_text()
    needed = set(re.findall(r'^    "([A-Za-z0-9_-]+)>=', text, flags=re.MULTILINE)) - {"triton"}
    assert len(needed) > 15 and {name for name in needed if name not in (ROOT / "THIRD_PARTY.md").read_text()} == set()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Wheel and sdist, built from a copy of what git knows: nothing that lies around gets in."""
    folder = tmp_path_factory.mktemp("built")
    known = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in known.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    for what in ("wheel", "sdist"):
        code = f"import setuptools.build_meta as backend; backend.build_{what}({str(folder)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=folder / "source", check=True, capture_output=True)
    return folder


@LONG
def test_the_wheel_holds_what_it_needs_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    here = {
        str(file.relative_to(ROOT)) for room in ("workbench", "hooks", "stores") for file in (ROOT / room).rglob("*.py")
    }
    assert (
        here <= names and {"workbench/__init__.pyi", "workbench/py.typed", "hooks/py.typed", "stores/py.typed"} <= names
    )
    assert any(name.startswith("workbench/organisms/weights/seed0/") for name in names)
    assert not [name for name in names if name.split("/")[0] in ("tests", "experiments", "docs")]
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        assert any(name.endswith("/workbench/reporting/page.html") for name in packed.getnames())


@pytest.fixture(scope="module")
def clean(built, tmp_path_factory) -> Path:
    """The python of an environment with the wheel alone; the packages that it needs are those of this one: nothing is
    downloaded."""
    (wheel,) = built.glob("*.whl")
    venv = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = venv.glob("lib/*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "packages_of_the_tests.pth").write_text("\n".join(packages))
    return python


@LONG
def test_the_wheel_works_in_a_clean_environment(clean, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run([str(clean), "user.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "every shard" in done.stdout and str(clean.parent.parent) in done.stdout, done.stdout


@LONG
@pytest.mark.parametrize("installed", ["editable", "wheel"])
def test_the_scripts_of_the_readme_type_check_from_another_folder(installed, request, tmp_path):
    """As an editor would see them; what a user got wrong is seen too."""
    python = sys.executable if installed == "editable" else str(request.getfixturevalue("clean"))
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "user.py").write_text("\n".join(scripts))
    (tmp_path / "wrong.py").write_text("import workbench as wb\nwb.load_model(adaptor=3)\nwb.no_such_name\n")
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "basic"}')
    check = [sys.executable, "-m", "basedpyright", "--pythonpath", python]
    done = subprocess.run([*check, "user.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([*check, "wrong.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "adaptor" in done.stdout and "no_such_name" in done.stdout, done.stdout
