"""A picture of one pixel for each value, as PNG: for more cells than a page can have elements."""

from __future__ import annotations

import base64
import struct
import zlib

import torch
from jaxtyping import UInt8


def png(colours: UInt8[torch.Tensor, "row column 3"]) -> bytes:
    """The file (RFC 2083): 8 bits of red, green and blue, no filter."""
    height, width, _ = colours.shape
    lines = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), colours.reshape(height, width * 3)], dim=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(lines.numpy().tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def data_url(colours: UInt8[torch.Tensor, "row column 3"]) -> str:
    """The same, for an `img`."""
    return f"data:image/png;base64,{base64.b64encode(png(colours)).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
