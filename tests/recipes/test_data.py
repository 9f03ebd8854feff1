"""Rows from files: every kind is read, and every mistake is named with its file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.errors import UserError
from mora_peft.recipes.data import load_rows

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"prompt": "a", "completion": " b", "id": 7}, {"prompt": "a", "completion": " b"}),
        ({"key": "a", "value": "b"}, {"prompt": "a", "completion": " b"}),
        ({"text": "one"}, {"text": "one"}),
        ({"messages": CHAT}, {"prompt": CHAT[:1], "completion": CHAT[1:]}),
    ],
)
def test_each_kind_of_row_is_read(row, expected, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row)}\n\n{json.dumps(row)}\n")
    assert list(load_rows(str(file))) == [expected, expected]


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_text_survives_jsonl(texts):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=True) for text in texts), encoding="utf-8")
        assert load_rows(str(file))["text"][:] == texts


def test_csv_and_folders_are_read(tmp_path):
    (tmp_path / "facts.csv").write_text('key,value\n"a, b","c\nd"\ne,f\n')
    assert load_rows(str(tmp_path / "facts.csv"))["completion"][:] == [" c\nd", " f"]
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "b.md").write_text("two")
    (tmp_path / "folder" / "deep" / "c.txt").write_text("three")
    (tmp_path / "folder" / "d.pdf").write_text("no")
    assert load_rows(str(tmp_path / "folder"))["text"][:] == ["two", "three"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.jsonl", "", ["a.jsonl holds no rows", "prompt and completion"]),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', ["a.jsonl, line 2", "JSON"]),
        ("a.jsonl", '{"text": "x"}\n\n[1]\n', ["a.jsonl, line 3", "list"]),
        ("a.jsonl", '{"texts": "x"}', ["a.jsonl, line 1", "expected the fields", "texts"]),
        ("a.jsonl", '{"text": "x"}\n{"key": "x", "value": "y"}', ["line 2", "text as in the first row"]),
        ("a.jsonl", '{"key": "x", "value": 3}', ["line 1", "value", "3"]),
        ("a.jsonl", '{"key": " ", "value": "x"}', ["line 1", "key"]),
        ("a.jsonl", '{"messages": []}', ["line 1", "role and content"]),
        ("a.jsonl", json.dumps({"messages": CHAT[::-1]}), ["line 1", "assistant"]),
        ("a.csv", "key,value\na,b\nc\n", ["a.csv, line 3", "2 fields"]),
        ("a.csv", "a,b\n1,2\n", ["a.csv, line 2", "key and value"]),
        ("a.xml", "x", [".xml", ".jsonl or .csv"]),
        ("a.parquet", "x", ["a.parquet", "not Parquet"]),
    ],
)
def test_mistakes_are_named(name, content, words, tmp_path):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(UserError) as raised:
        load_rows(str(file))
    assert "\n" not in str(raised.value)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_bytes_that_are_no_text_are_named_by_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n\xff\n')
    with pytest.raises(UserError, match=r"line 2.*UTF-8"):
        load_rows(str(tmp_path / "a.jsonl"))


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file or folder .*gone\.jsonl"):
        load_rows(str(tmp_path / "gone.jsonl"))
    with pytest.raises(UserError, match=r"without \.txt or \.md"):
        load_rows(str(tmp_path))
