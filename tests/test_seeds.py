"""Everything that draws takes a seed: public functions, and every random generator that the code makes."""

from __future__ import annotations

import ast

from test_errors import FILES, ROOT

import workbench as wb

DRAWS = {"draws", "resamples", "splits", "shuffles", "controls", "temperature", "samples"}
# Words of the same name that draw nothing, with why.
NO_DRAWS = {
    "Subspace": "holds how many draws its null had",
    "sweep_routes": "hands its options to sweep, the seed among them",
}
# Constants on purpose: what is drawn must be the same whoever asks.
FIXED = {
    "hooks/asked.py": "a check-up of a model gives the same verdict each time",
    "workbench/behaviour/shift_summary.py": "the share of an isotropic vector, a reference for the eye",
    "workbench/interventions/maps_folds.py": "all maps and their shuffles meet the same folds",
    "workbench/planning/dry_run.py": "a plan does not depend on the values",
}


def test_public_functions_that_draw_take_a_seed():
    asked = {name: parameters(name) for name in wb.__all__}
    assert {name for name, given in asked.items() if given & DRAWS and not given & {"seed", "seeds"}} == set(NO_DRAWS)
    assert {"draws", "seed"} <= asked["pca"] and "seed" in asked["generate"]


def parameters(name: str) -> set[str]:
    """The arguments of a public function, the fields of a class; read from its file, not imported."""
    file = ROOT / f"{wb._HOME[name].replace('.', '/')}.py"
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}
    return set()


def constants(source: str) -> list[int]:
    """Lines that make a generator from a number that stands there, or from none."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("default_rng", "manual_seed", "RandomState", "Random")
        and not any(isinstance(part, ast.Name | ast.Attribute) for given in node.args for part in ast.walk(given))
    ]


def test_generators_are_made_from_seeds():
    found = {str(file.relative_to(ROOT)) for file in FILES if constants(file.read_text())}
    assert found == set(FIXED)


def test_a_generator_without_a_seed_is_noticed():
    assert constants("rng = np.random.default_rng()") == [1] and constants("torch.manual_seed(0)") == [1]
    assert constants("np.random.default_rng([0, 1])") == [1]
    assert constants("np.random.default_rng(seed)") == constants("torch.manual_seed(self.seed + 5)") == []
