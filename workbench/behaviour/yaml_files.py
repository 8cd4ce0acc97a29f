"""read_yaml: a YAML file as plain data; the one place that reads YAML, and what guards it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LARGEST_FILE = 4 * 2**20  # bytes
MOST_NODES = 200_000  # with every alias written out: ten lines of aliases of aliases can stand for billions


class YamlError(ValueError):
    """A YAML file that is not used; the message names the file and what is wrong with it."""


def read_yaml(path: str | Path) -> Any:
    """The plain data of a YAML file: no object of any other kind is ever made of it.

    Anchors and aliases are read, up to MOST_NODES nodes when written out. Raises FileNotFoundError, and YamlError for
    files above LARGEST_FILE bytes, broken YAML, tags of Python objects, a key that stands twice in one mapping (YAML
    would silently take the last), and aliases that contain themselves.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a YAML file.")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise YamlError(f"{path} has {size:,} bytes: expected at most {LARGEST_FILE:,}.")
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, path)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise YamlError(f"{path} is not UTF-8 text ({error.reason}): expected UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        place = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise YamlError(f"{path}{place}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise error if isinstance(error, YamlError) else YamlError(f"{path}: {error}.") from None
    except RecursionError:
        raise YamlError(f"{path} is nested too deeply; expected a list of entries.") from None


def _check(root: Any, path: Path) -> None:
    """Refuses repeated keys, and aliases that would be too much if they were written out."""
    sizes: dict[int, int | None] = {}  # node -> nodes when written out; None while it is being counted

    def size(node: Any) -> int:
        line = node.start_mark.line + 1
        if id(node) in sizes:
            if (known := sizes[id(node)]) is None:
                raise YamlError(f"{path}, line {line}: an anchor contains itself; expected entries written one by one.")
            return known
        sizes[id(node)] = None
        below: list[Any] = []
        if node.id == "mapping":
            keys = [key.value for key, _ in node.value if key.id == "scalar"]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise YamlError(f"{path}, line {line}: the key {twice[0]!r} stands twice in one mapping: remove one.")
            below = [part for pair in node.value for part in pair]
        elif node.id == "sequence":
            below = node.value
        total = 1 + sum(size(part) for part in below)
        if total > MOST_NODES:
            raise YamlError(
                f"{path}, line {line}: more than {MOST_NODES:,} entries once its aliases are "
                "written out; expected entries written one by one."
            )
        sizes[id(node)] = total
        return total

    size(root)
