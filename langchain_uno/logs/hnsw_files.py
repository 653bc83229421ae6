"""Whether the files of Chroma's vector index fit each other, before native code reads them.

A save writes the header first and the links last, in place. A process killed between the two leaves
a header that counts more elements than ``link_lists.bin`` has; hnswlib reads on past its end, takes
what lies in memory for sizes, and the next save seeks by them: a file of gigabytes to terabytes
(measured here with Chroma 1.5.9: 66 GB on the disk from an index of 3 MB; others met 17 TB). So the
files are compared before they are opened. Layout: hnswlib's ``persistDirty`` and ``loadLinkLists``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["hnsw_trouble"]

_FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin")
_SIZE = struct.Struct("<I")


class _Header(NamedTuple):
    version: int
    level0_at: int
    room: int
    elements: int
    size: int
    """Bytes of an element on level 0: its links, its vector, its label."""
    label_at: int
    vector_at: int
    top: int
    entry: int
    upper: int
    """Links that an element may have on each upper level."""
    lower: int
    """And on level 0."""


_HEADER = struct.Struct("<i6QiIQQ")


def hnsw_trouble(folder: Path) -> str | None:
    """Return what is wrong with the vector index in an embedded Chroma folder; None: nothing.

    An index that was never saved has no files, which is fine: Chroma has it in its log.
    """
    for segment in sorted(p for p in folder.iterdir() if p.is_dir()):
        missing = [name for name in _FILES if not (segment / name).is_file()]
        if len(missing) == len(_FILES):
            continue
        if missing:
            return f"lacks {', '.join(missing)}"
        try:
            trouble = _segment_trouble(segment)
        except OSError as error:
            return f"can't be read ({error.strerror or error})"
        if trouble:
            return trouble
    return None


def _segment_trouble(segment: Path) -> str | None:
    header, level0, lengths, links = (segment / name for name in _FILES)
    raw = header.read_bytes()
    if len(raw) < _HEADER.size:
        return "has a header that was cut short"
    h = _Header(*_HEADER.unpack_from(raw))
    if h.version != 1 or h.elements == 0:
        return None  # nothing in it; or a layout that we do not know: the probe has to do
    in_order = 4 * h.lower + 4 <= h.vector_at < h.size
    if not in_order or h.entry >= h.elements or h.elements > h.room or not 0 <= h.top < 64:
        return "has a header that makes no sense"
    if level0.stat().st_size < h.elements * h.size:
        return "has vectors that were cut short"
    if lengths.stat().st_size < 4 * h.elements:
        return "has lengths that were cut short"
    table = np.memmap(level0, dtype=np.uint8, mode="r", shape=(h.elements, h.size))
    lower = np.ascontiguousarray(table[:, : 4 * h.lower + 4]).view("<u4")
    if _points_outside(lower, h.elements):
        return "has links to elements that are not there"
    most = h.elements * (_SIZE.size + h.top * (4 * h.upper + 4))
    if links.stat().st_size > most:  # gigabytes, it may be: not to be read
        return "has more links than its elements can have"
    return _link_trouble(links.read_bytes(), h)


def _link_trouble(data: bytes, h: _Header) -> str | None:
    """Walk the upper levels: each element's size in bytes, then that many bytes of links."""
    per_level = 4 * h.upper + 4
    at, rows = 0, list[bytes]()
    for _ in range(h.elements):
        if at + _SIZE.size > len(data):
            return "has links that were cut short"
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if size % per_level or size > h.top * per_level:
            return "has links of a size that makes no sense"
        if at + size > len(data):
            return "has links that were cut short"
        if size:
            rows.append(data[at : at + size])
            at += size
    upper = np.frombuffer(b"".join(rows), dtype="<u4").reshape(-1, h.upper + 1)
    return (
        "has links to elements that are not there" if _points_outside(upper, h.elements) else None
    )


def _points_outside(rows: np.ndarray[tuple[int, ...], np.dtype[np.uint32]], count: int) -> bool:
    """Each row is a count (its low 16 bits) and that many ids, then room."""
    n = (rows[:, 0] & 0xFFFF).astype(np.int64)
    if int(n.max(initial=0)) >= rows.shape[1]:
        return True
    used = np.arange(rows.shape[1] - 1)[None, :] < n[:, None]
    return bool((rows[:, 1:][used] >= count).any())
