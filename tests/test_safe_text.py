"""JSON from others: what Python's parser would take, or die of, is refused by name."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores import Limits, StoreCorrupted, StoreMissing, UnsafeFile, safe_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_whatever_python_writes_comes_back(value):
    assert safe_text.parsed(json.dumps(value), "it") == value
    assert safe_text.parsed(json.dumps(value, indent=1).encode(), "it") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 65 + b"]" * 65, "it nests its JSON more than 64 deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "more than 64 deep"),
        (b'["' + b'\\"' * 9 + b'", ' + b"[" * 66 + b"]" * 67, "more than 64 deep"),
        (b"[" * 500_000, "500000 lists and objects in 500000 bytes"),
        (b"[NaN]", "NaN is no JSON"),
        (b"[-Infinity]", "-Infinity is no JSON"),
        (b"[1e999]", "1e999 is beyond every float"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands there twice"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"[1, 2", "not JSON"),
        (b"", "not JSON"),
    ],
    ids=lambda case: case[:20].decode("latin-1") if isinstance(case, bytes) else "",
)
def test_what_is_no_json_or_harms_is_refused(text, words):
    with pytest.raises((UnsafeFile, StoreCorrupted), match=words):
        safe_text.parsed(text, "it")


@pytest.mark.parametrize("text", ['["' + "[" * 200 + '"]', '["' + '\\"[' * 200 + '"]', '"\\\\' + "[" * 99 + '"'])
def test_brackets_inside_of_texts_are_no_depth(text):
    assert safe_text.parsed(text, "it") == json.loads(text)


def test_depth_and_size_are_limits():
    assert safe_text.parsed(b"[" * 100 + b"]" * 100, "it", Limits(text_depth=100))
    with pytest.raises(UnsafeFile, match="more than 2 deep"):
        safe_text.parsed(b'[[["[[["]]]', "it", Limits(text_depth=2))
    with pytest.raises(UnsafeFile, match="10 bytes of JSON, expected at most 9"):
        safe_text.parsed(b"[1,2,3,4 ]", "it", Limits(text_bytes=9))


def test_a_bomb_is_refused_before_it_fills_the_memory():
    bomb = b"[" + b"[]," * 1_000_000 + b"0]"
    tracemalloc.start()
    with pytest.raises(UnsafeFile, match="bomb"):
        safe_text.parsed(bomb, "it")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_files_are_read_by_their_own_name_only(tmp_path):
    (tmp_path / "real.json").write_text('{"a": 1}')
    assert safe_text.read_json(tmp_path / "real.json") == {"a": 1}
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("link.json", "pipe.json", ".", "nul\0"):
        with pytest.raises(UnsafeFile, match="regular file"):
            safe_text.read_json(tmp_path / name)
    with pytest.raises(StoreMissing):
        safe_text.read_json(tmp_path / "nothing.json")
    with pytest.raises(UnsafeFile, match=r"8 bytes: expected at most 7.*text_bytes"):
        safe_text.read_json(tmp_path / "real.json", Limits(text_bytes=7))


def test_a_folder_is_a_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    assert safe_text.plain_folder(tmp_path) and not safe_text.plain_folder(tmp_path / "nothing")
    for name, words in (("link", "symbolic link"), ("file", "no folder"), ("file/inside", "cannot be looked at")):
        with pytest.raises(UnsafeFile, match=words):
            safe_text.plain_folder(tmp_path / name)
