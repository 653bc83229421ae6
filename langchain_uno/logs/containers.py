"""The rows of a file, one after the other: lines or an array of JSON, CSV, Parquet, gzipped or not.

Nothing is read whole, so memory does not grow with the file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sqlite3
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any, cast

from langchain_uno.errors import InputError
from langchain_uno.logs.readers import READERS
from langchain_uno.logs.readers.base import Reader, TableRow, told_as_input
from langchain_uno.logs.readers.wrappers import rows_in

_BUFFER = 1 << 20
"""Bytes; the first of them tell what the file is."""
_CHUNK = 1 << 20
"""Characters that are read at a time of a value that is longer than a line."""
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_BY_NAME = {".csv": ",", ".tsv": "\t"}
_SEPARATOR = re.compile(r"sep=(.)")
"""A first line that Excel writes and reads."""
_MAX_HEADER = 20_000
_MAX_OPENING = 200
"""Characters of the first line of an object over several lines; a longer one is a broken row."""
_MARGIN = 20
"""So near to the end of what was read an error may only mean that the rest is not there yet."""

Numbered = tuple[int, Any]


def read_rows(path: Path | str) -> Iterator[tuple[int, Any]]:
    """Yield (number, row) for every row of a file; an ``InputError`` in place of a bad row.

    The number is the line's of JSON lines and CSV, else the row's, from 1.

    Args:
        path: the file; ``"-"`` reads standard input.

    Raises:
        InputError: the file can't be read, or is packed in a way that is not known.
    """
    name = str(path)
    try:
        raw = cast(io.RawIOBase, sys.stdin.buffer) if name == "-" else io.FileIO(path)
    except OSError as error:
        raise InputError(f"The file {name!r} can't be read ({error.strerror or error}).") from error
    source = io.BufferedReader(raw, _BUFFER)
    try:
        yield from _unpacked(source, name)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"The file {name!r} is damaged ({error}).") from error
    finally:
        if name == "-":
            source.detach()  # standard input isn't ours to close
        else:
            source.close()


def _unpacked(source: io.BufferedReader[Any], name: str) -> Iterator[Numbered]:
    head = source.peek(4096)
    if head[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=source) as packed:
            inner = io.BufferedReader(cast(io.RawIOBase, packed), _BUFFER)
            yield from _unpacked(inner, name.removesuffix(".gz"))
    elif head[:4] == b"PAR1":
        yield from _unwrapped(_parquet(source, name))
    elif head[4:10] == b"1AY&SY" or head[:4] in (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zX"):
        raise InputError(f"The file {name!r} is packed: unpack it, or pack it with gzip.")
    else:
        yield from _text(source, head, name)


def _text(source: io.BufferedReader[Any], head: bytes, name: str) -> Iterator[Numbered]:
    encoding = _encoding(head)
    start = head.decode(encoding, "ignore").lstrip()
    lines = start.splitlines() or [""]
    told = _SEPARATOR.fullmatch(lines[0])
    if delimiter := told[1] if told else _delimiter(lines[0]) or _BY_NAME.get(name[-4:].lower()):
        if encoding == "utf-8-sig" and not _is_utf8(head):
            encoding = "cp1252"  # as older programs on Windows write it
        yield from _unwrapped(_csv(source, name, encoding, delimiter, skip=bool(told)))
    else:
        one = _is_one_value(start)
        yield from _unwrapped(_Values(source, encoding).rows() if one else _lines(source, encoding))


def _unwrapped(values: Iterator[Numbered]) -> Iterator[Numbered]:
    number = 0
    try:
        for at, value in values:
            for row in rows_in(value, lambda row: any(one.matches(row) for one in READERS)):
                number = max(number + 1, at)
                yield number, row
    except UnicodeDecodeError as error:
        yield number + 1, InputError(f"{error.reason}; the rest of the file was not read")


def _encoding(head: bytes) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) >= 4 and head[1] == 0 and head[3] == 0:
        return "utf-16-le"
    if len(head) >= 4 and head[0] == 0 and head[2] == 0:
        return "utf-16-be"
    return "utf-8-sig"


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return True


# -- JSON ------------------------------------------------------------------------------------------


@contextmanager
def _decoded(source: io.BufferedReader[Any], encoding: str, **how: Any) -> Iterator[IO[str]]:
    text = io.TextIOWrapper(source, encoding, **how)
    try:
        yield text
    finally:
        text.detach()  # whoever opened the file closes it


def _lines(source: io.BufferedReader[Any], encoding: str) -> Iterator[Numbered]:
    with _decoded(source, encoding, errors="surrogateescape", newline="\n") as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield number, _parsed(line)


def _parsed(text: str) -> Any:
    """The value of a line, or the error that says why there is none."""
    if bad := _BAD_BYTE.search(text):  # a bad byte spoils no other row
        return InputError(f"not UTF-8 (byte {len(text[: bad.start()].encode())})")
    try:
        return json.loads(text, parse_constant=_nothing)
    except (ValueError, RecursionError) as error:
        return _not_json(error)


def _not_json(error: Exception) -> InputError:
    if isinstance(error, RecursionError):
        return InputError("nested too deeply")
    if isinstance(error, json.JSONDecodeError):
        return InputError(f"not JSON ({error.msg} at character {error.pos})")
    return InputError(f"not JSON ({error})")  # an integer of thousands of digits


def _nothing(_word: str) -> None:
    """What NaN and Infinity stand for, which pandas writes for a missing value."""


def _is_one_value(start: str) -> bool:
    """Whether the text is an array, or an object over several lines."""
    line = start.split("\n", 1)[0].rstrip()
    if start[:1] == "[":
        # Arrays in lines of their own are rows of JSON lines; one array is the file.
        lines = [line for line in start.splitlines()[:3] if line.strip()]
        one = len(lines) < 2 or lines[1].lstrip()[:1] != "[" or line[-1:] != "]"
        return one and (line == "[" or start[1:].lstrip()[:1] in ("{", "[", "]"))
    return line[:1] == "{" and line[-1:] in ("[", "{", ",") and len(line) <= _MAX_OPENING


class _Values:
    """Reads the elements of one large JSON value, holding one element in memory at a time."""

    def __init__(self, source: io.BufferedReader[Any], encoding: str) -> None:
        self._source = codecs.getreader(encoding)(source)
        self._text = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder(parse_constant=_nothing)

    def rows(self) -> Iterator[Numbered]:
        number = 0
        try:
            for number, row in enumerate(self._top(), 1):
                yield number, row
        except InputError as error:
            yield number + 1, InputError(f"{error}; the rest of the file was not read")

    def _top(self) -> Iterator[Any]:
        """The elements of arrays, and values that stand one after the other."""
        while char := self._peek():
            if char == "[":
                self._at += 1
                yield from self._elements()
            else:
                yield self._value()
            if self._peek() == ",":
                self._at += 1

    def _elements(self) -> Iterator[Any]:
        """The elements of an array whose bracket is read."""
        while (char := self._peek()) != "]":
            if not char:
                raise InputError("not JSON (the array has no end)")
            yield self._value()
            if (char := self._peek()) == ",":
                self._at += 1
            elif char and char != "]":
                raise InputError(f"not JSON ({char!r} after an element of the array)")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        if self._ended:
            return False
        # As much again as there is: one huge element is scanned a few times, not once a chunk.
        chunk = self._source.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not chunk
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return not self._ended

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                cut = isinstance(error, json.JSONDecodeError) and (
                    error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _MARGIN
                )
                if cut and self._more():
                    continue
                raise _not_json(error) from error
            if end < len(self._text) or not self._more():  # a number may go on
                self._at = end
                return value


class Groups:
    """Messages of conversations that come a row each, in any order, in SQLite's temporary file."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute(
            "CREATE TABLE messages (place INTEGER, name TEXT, number INTEGER, body TEXT)"
        )
        self._readers: list[Reader] = []

    def add(self, reader: Reader, name: str, number: int, row: Any) -> None:
        """Keep a row of the conversation ``name``."""
        if reader not in self._readers:
            self._readers.append(reader)
        place = self._readers.index(reader)
        with told_as_input():
            body = json.dumps(row, default=str)
        self._db.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", (place, name, number, body))

    def read(self) -> Iterator[tuple[int, Reader, list[Any]]]:
        """Yield (number of its last row, reader, rows) for each conversation."""
        sql = "SELECT place, name, number, body FROM messages ORDER BY place, name, number"
        for (place, _), group in groupby(self._db.execute(sql), key=lambda row: row[:2]):
            rows = list(group)
            yield rows[-1][2], self._readers[place], [json.loads(row[3]) for row in rows]

    def close(self) -> None:
        """Throw the temporary file away."""
        self._db.close()


# -- tables ----------------------------------------------------------------------------------------


def _delimiter(line: str) -> str | None:
    """What separates the columns that a first line names; None: it names none."""
    if len(line) > _MAX_HEADER:
        return None
    for delimiter in "\t;,|":
        names = next(csv.reader([line], delimiter=delimiter), [])
        if len(names) > 1 and all(n.strip().replace(" ", "_").isidentifier() for n in names):
            return delimiter
    return None


def _csv(
    source: io.BufferedReader[Any], name: str, encoding: str, delimiter: str, skip: bool
) -> Iterator[Numbered]:
    csv.field_size_limit(1 << 30)
    with _decoded(source, encoding, newline="") as text:
        if skip:
            next(text, None)
        table = csv.DictReader(text, delimiter=delimiter)
        columns = Counter(_column(column) for column in table.fieldnames or ())
        if twice := [column for column, n in columns.items() if column and n > 1]:
            raise InputError(
                f"The header of {name!r} has two columns {twice[0]!r}, and a row would lose the "
                "cell of one: rename it."
            )
        while True:
            try:
                row: Any = next(table, None)
            except csv.Error as error:
                yield table.line_num + skip, InputError(f"not CSV ({error})")
                continue
            if row is None:
                return
            if None in row or None in row.values():
                row = InputError("the row has another number of cells than the header")
            else:
                row = TableRow({_column(k): _cell(v) for k, v in row.items() if v != ""})
            yield table.line_num + skip, row


def _column(name: str) -> str:
    """A column's name as the formats have it: ``Question`` and ``QUESTION`` are ``question``."""
    name = name.strip()
    return name.lower() if name.isupper() or name.istitle() else name


def _cell(text: str) -> Any:
    """A cell's list or object; else its text."""
    if text.lstrip()[:1] in ("[", "{"):
        value = _parsed(text)
        if isinstance(value, list | dict):
            return value
    return text


def _parquet(source: io.BufferedReader[Any], name: str) -> Iterator[Numbered]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            "Reading Parquet needs pyarrow: pip install 'langchain-uno[parquet]'."
        ) from error
    if not source.seekable():
        raise InputError("Parquet can't be read from standard input: give the file's name.")
    try:
        file = ParquetFile(cast(IO[bytes], source))
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield number, TableRow({k: v for k, v in row.items() if v is not None})
    except (ArrowInvalid, OSError) as error:
        raise InputError(f"The file {name!r} is no Parquet file that can be read.") from error
