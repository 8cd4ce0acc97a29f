"""Hostile YAML: objects, bombs, repeated keys, sizes."""

from __future__ import annotations

import time

import pytest

from workbench.behaviour import yaml_files
from workbench.behaviour.yaml_files import YamlError, read_yaml


def given(folder, text):
    (folder / "a.yaml").write_text(text) if isinstance(text, str) else (folder / "a.yaml").write_bytes(text)
    return folder / "a.yaml"


def test_plain_data_with_anchors_is_read(tmp_path):
    read = read_yaml(given(tmp_path, "a: &x [1, two]\nb: *x\nc: {<<: &m {d: 3}, e: 4}\n"))
    assert read == {"a": [1, "two"], "b": [1, "two"], "c": {"d": 3, "e": 4}}
    assert read_yaml(given(tmp_path, "\ufeffa: 1\n")) == {"a": 1} and read_yaml(given(tmp_path, "")) is None


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!python/object/apply:os.system ['touch owned']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        (BOMB, "more than 200,000 entries once its aliases are written out"),
        (MERGES, "more than 200,000 entries"),
        ("a: &a [*a]", "an anchor contains itself"),
        ("a: &a {b: *a}", "an anchor contains itself"),
        ("- system: one\n  x: 1\n  system: two\n", "line 1: the key 'system' stands twice"),
        ("a: [1", "line 1: expected"),
        ("a: 1\n--- \nb: 2\n", "another document"),
        ("[" * 5000, "nested too deeply"),
        (b"a: \xff\xfe", "not UTF-8"),
        (b"a: \x00", "special characters are not allowed"),
        ("a: 2026-99-99", "month must be in"),
    ],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused_at_once(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = given(tmp_path, text)
    start = time.process_time()
    with pytest.raises(YamlError, match=f"(?s)a.yaml.*{says}"):
        read_yaml(path)
    assert time.process_time() - start < 20  # a bomb that went off would take years
    assert not (tmp_path / "owned").exists()


def test_size_is_looked_at_before_the_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "LARGEST_FILE", 10)
    with pytest.raises(YamlError, match="has 12 bytes: expected at most 10"):
        read_yaml(given(tmp_path, "a: 456789012"))
    with pytest.raises(FileNotFoundError, match="expected a YAML file"):
        read_yaml(tmp_path / "none.yaml")


def test_aliases_up_to_the_bound_are_read(tmp_path):
    """The meta-test of the bomb: it is the size that is refused, not the aliases."""
    text = "\n".join(BOMB.splitlines()[:12])
    assert read_yaml(given(tmp_path, text))["a11"][0][1][0][1][0][1][0][1][0][1][0] == ["x", "x"]
