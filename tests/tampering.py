"""Thirty ways of changing a signed clip: its pixels, its metadata, the order of its boxes, its record, its length."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

RECORD = {"format": "sgi2v-run", "version": 2, "backbone": {"name": "aa"}, "controller": {"name": "bb"}}
"""A record whose JSON can be changed without changing its length."""


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The top-level boxes of an mp4: kind and all bytes."""
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        found.append((kind, data[at : at + size]))
        at += size
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    """An mp4 of its boxes."""
    return b"".join(part for _, part in parts)


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with one bit turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def tampered_mp4(data: bytes, other: bytes) -> Iterator[tuple[str, bytes]]:
    """Twenty-one changes of an mp4; `other` is another signed clip of the same size and record."""
    mdat = data.index(b"mdat") + 4
    length = len(data) - mdat
    for part in (0.02, 0.2, 0.4, 0.6, 0.8, 0.98):
        yield f"pixels at {part}", flipped(data, mdat + int(length * part))
    yield "the sentence", data.replace(b"AI-generated", b"Camera-taken")
    yield "the title's tool", data.replace(b"Lavf", b"Lavg")
    yield "the remark", data.replace(b'"provenance": "on"', b'"provenance": "no"')
    yield "the frame's height", flipped(data, data.index(b"tkhd") + 4 + 79)
    yield "the record", data.replace(b'{"name": "aa"}', b'{"name": "ab"}')
    parts = boxes(data)
    kinds = [kind for kind, _ in parts]
    moov = kinds.index(b"moov")
    yield "moov last", joined([*parts[:moov], *parts[moov + 1 :], parts[moov]])
    yield "mdat first", joined(sorted(parts, key=lambda part: part[0] != b"mdat"))
    yield "a box more", data + struct.pack(">I4s", 16, b"abcd") + bytes(8)
    yield "moov twice", data + parts[moov][1]
    swapped = [other_part if part[0] == b"moov" else part for part, other_part in zip(parts, boxes(other), strict=True)]
    yield "another's moov", joined(swapped)
    swapped = [other_part if part[0] == b"mdat" else part for part, other_part in zip(parts, boxes(other), strict=True)]
    yield "another's pixels", joined(swapped)
    swapped = [other_part if part[0] == b"uuid" else part for part, other_part in zip(parts, boxes(other), strict=True)]
    yield "another's credentials", joined(swapped)
    for part in (0.3, 0.7, 0.99):
        yield f"cut at {part}", data[: mdat + int(length * part)]


def tampered_gif(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Five changes of a gif."""
    yield "the record", data.replace(b'{"name": "bb"}', b'{"name": "bc"}')
    yield "the sentence", data.replace(b"AI-generated", b"Camera-taken")
    yield "the palette", flipped(data, 20)
    yield "pixels", flipped(data, len(data) - 200)
    yield "cut", data[: len(data) * 3 // 4]


def tampered_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    """Four changes of a folder of frames, each undone when the next is asked for."""
    frame, record = folder / "frame_0001.png", folder / "run.json"
    for file, name, change in (
        (frame, "a frame's pixels", lambda data: flipped(data, data.index(b"IDAT") + 200)),
        (frame, "a frame cut", lambda data: data[: len(data) * 2 // 3]),
        (frame, "a frame's sentence", lambda data: data.replace(b"AI-generated", b"Camera-taken")),
        (record, "the record", lambda data: json.dumps({**json.loads(data), "run": {**RECORD, "x": 1}}).encode()),
    ):
        before = file.read_bytes()
        file.write_bytes(change(before))
        yield name, folder
        file.write_bytes(before)
