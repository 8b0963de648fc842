"""Strict JSON and YAML: one meaning per document, or a refusal that says why."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.documents import read_json, read_json_or_yaml, read_yaml
from app.errors import InvalidParameter

MOST = 1000
HALF = "\\ud83d"  # as JSON and YAML write it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ('{"a": "\U0001f600"}', {"a": "\U0001f600"}),
        ('{"a": 1e-400}', {"a": 0.0}),
        ('{"a": -9223372036854775808, "b": 18446744073709551615}', {"a": -(1 << 63), "b": (1 << 64) - 1}),
        ('{"a": "1:30", "no": null}', {"a": "1:30", "no": None}),
        ("[" * 31 + "1" + "]" * 31, 31),
    ],
)
def test_json_keeps_its_meaning(text: str, value: Any) -> None:
    """JSON keeps its meaning: emoji written as two escapes, byte order marks, 64-bit integers."""
    found = read_json(text, MOST)
    if value == 31:
        for _ in range(31):
            (found,) = found
        value = 1
    assert found == value
    assert read_json(text.encode(), MOST) == read_json(text, MOST)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 1}', "the key 'a' is given twice"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' is given twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": 1e400}', "1e400 is out of range"),
        ('{"a": 18446744073709551616}', "out of range"),
        ('{"a": 1' + "0" * 400 + "}", "a number of 401 characters"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5000 characters"),
        (f'{{"a": "{HALF}"}}', "lone surrogate"),
        (f'{{"a": ["{HALF} x"]}}', "lone surrogate"),
        (f'{{"{HALF}": 1}}', "lone surrogate"),
        ("[" * 1500 + "]" * 1500, "nested deeper than 32 levels"),
        ("[" * 200_000 + "]" * 200_000, "more than 1000 values"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than 32 levels"),
        ("[" + "1," * 2000 + "1]", "more than 1000 values"),
        ('{"a": ', "no JSON: line 1, column 7"),
        ("", "no JSON"),
        ("{'a': 1}", "no JSON"),
    ],
)
def test_json_without_one_meaning_is_refused(text: str, words: str) -> None:
    """Duplicate keys, numbers beyond 64 bits, lone surrogates, depth and size are errors that say so, briefly."""
    with pytest.raises(InvalidParameter, match=words) as caught:
        read_json(text, MOST)
    assert len(caught.value.detail) < 200


def test_json_that_is_not_utf_8_is_refused() -> None:
    """UTF-16, Latin-1 and surrogates in UTF-8 are no JSON text."""
    for data in ('{"a": 1}'.encode("utf-16"), b'{"a": "\xe9"}', b'{"a": "\xed\xa0\xbd"}'):
        with pytest.raises(InvalidParameter, match="not UTF-8 at byte"):
            read_json(data, MOST)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("190:20:30", "190:20:30"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("=", "="),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\U0001F600"', "\U0001f600"),
        ("\U0001f600", "\U0001f600"),
        ("'007'", "007"),
    ],
)
def test_yaml_has_the_values_of_yaml_1_2(scalar: str, value: Any) -> None:
    """Words, times and dates are text; only what looks like a number to everybody is a number."""
    found = read_yaml(f"a: {scalar}\n", MOST)
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "the key 'a' is given twice"),
        ("{a: 1, b: {c: 1, c: 1}}", "the key 'c' is given twice"),
        ('{a: 1, "a": 2}', "the key 'a' is given twice"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "aliases"),
        ("a: !!int '1'\n", "tags"),
        ("a: !!binary aGk=\n", "tags"),
        ("a: !!python/name:os.system x\n", "tags"),
        ("!x {a: 1}\n", "tags"),
        ("1: a\n", "the key 1 is no text"),
        ("null: a\n", "the key None is no text"),
        ("[a]: b\n", "is no text"),
        ("{a: b}: c\n", "is no text"),
        ("a: .inf\n", ".inf is not a number"),
        ("a: -.INF\n", "is not a number"),
        ("a: .nan\n", ".nan is not a number"),
        ("a: 1e400\n", "out of range"),
        ("a: 1" + "0" * 400 + "\n", "a number of 401 characters"),
        ("a: " + "9" * 5000 + "\n", "a number of 5000 characters"),
        ("a: 0x" + "f" * 4000 + "\n", "a number of 4002 characters"),
        ("a: 0o" + "7" * 30 + "\n", "out of range"),
        (f'a: "{HALF}"\n', "lone surrogate"),
        ('a: "\\ude00\\ud83d"\n', "lone surrogate"),
        (f'"{HALF}": 1\n', "lone surrogate"),
        ('a: "\\Uffffffff"\n', "no YAML"),
        ('a: "\\U00110000"\n', "no YAML"),
        ("[" * 60_000, "nested deeper|no YAML"),
        ("- " * 60_000, "nested deeper|no YAML"),
        ("? " * 60_000, "nested deeper|no YAML"),
        ("a: [" + "x," * 3000 + "]", "more than 1000 values"),
        ("a: 1\n---\nb: 1\n", "no YAML: line"),
        ("a: [", "no YAML: line 1, column 5"),
        ("a: 'x", "no YAML"),
        ("a: \x00", "no YAML"),
        ("%YAML 9.9\n---\na: 1", "no YAML"),
    ],
)
def test_yaml_without_one_meaning_is_refused(text: str, words: str) -> None:
    """Every construct that hides its size or its meaning is an error, in our words and at once."""
    started = time.process_time()
    with pytest.raises(InvalidParameter, match=words) as caught:
        read_yaml(text, MOST)
    assert len(caught.value.detail) < 200
    assert time.process_time() - started < 20


def test_a_merge_key_is_an_ordinary_key() -> None:
    """`<<` merges nothing, so that whoever looks at the keys sees it."""
    assert read_yaml("a: {<<: {b: 1}}\n", MOST) == {"a": {"<<": {"b": 1}}}


def test_a_tab_or_an_emoji_in_json_is_read_as_json() -> None:
    """JSON is not read by the rules of YAML, which forbid tabs and know no pairs of escapes."""
    assert read_json_or_yaml('\n{\t"a": "\\ud83d\\ude00"}', MOST) == {"a": "\U0001f600"}


def test_a_flow_mapping_is_yaml() -> None:
    """A text that begins like JSON and is none is read as YAML."""
    assert read_json_or_yaml("{a: [no, 1]}", MOST) == {"a": ["no", 1]}


def test_json_is_not_tried_a_second_time_as_yaml() -> None:
    """JSON that is refused is not rescued by YAML's other rules."""
    for text in ('{"a": NaN}', '{"a": 1, "a": 2}', '{"a": ' + "9" * 50 + "}"):
        with pytest.raises(InvalidParameter):
            read_json_or_yaml(text, MOST)
