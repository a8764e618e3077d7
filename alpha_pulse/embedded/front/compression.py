"""Compression on the wire: HTTP content encodings, and ClickHouse's own blocks.

A block is: checksum (16 bytes), method (1), size with this 9-byte header (4), size of the content
(4), the content. Sizes are little-endian.
"""

import struct
import zlib
from typing import Protocol

import lz4.block
import lz4.frame
from backports import zstd
from clickhouse_cityhash import cityhash

BLOCK_BYTES = 1024 * 1024
_CHECKSUM_BYTES, _HEADER_BYTES = 16, 9
_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90


def checksum(block: bytes) -> bytes:
    """Return the 16 bytes that stand before a block: CityHash128 of version 1.0.2.

    ClickHouse kept that version when CityHash moved on, so no newer implementation fits.
    """
    number: int = cityhash.CityHash128(block)
    return struct.pack("<QQ", number >> 64, number & (1 << 64) - 1)


def decompress_content(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """Undo a request's Content-Encoding; gzip, deflate, br and zstd were undone by the HTTP server.

    Raises: ValueError; OverflowError when more than `bytes_max` come out.
    """
    if encoding.lower() != "lz4":
        return body
    unpacker = lz4.frame.LZ4FrameDecompressor()
    try:
        content = bytes(unpacker.decompress(body, bytes_max))
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof:
        if len(content) >= bytes_max:
            raise OverflowError
        raise ValueError("the lz4 frame is cut short")
    return content


class Encoder(Protocol):
    """Compresses a body piece by piece."""

    name: str  # of the content encoding; empty where the body shows it by itself

    def add(self, piece: bytes) -> bytes:
        """Return what can be sent after this piece."""

    def end(self) -> bytes:
        """Return what closes the body."""


class PlainEncoder:
    """No compression."""

    name = ""

    def add(self, piece: bytes) -> bytes:
        """Return the piece."""
        return piece

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class ZstdEncoder:
    """HTTP's zstd."""

    name = "zstd"

    def __init__(self) -> None:
        self._packer = zstd.ZstdCompressor(1)

    def add(self, piece: bytes) -> bytes:
        """Return the compressed piece, flushed so that a reader can use it at once."""
        return bytes(self._packer.compress(piece, zstd.ZstdCompressor.FLUSH_BLOCK))

    def end(self) -> bytes:
        """Return the end of the frame."""
        return bytes(self._packer.flush())


class ZlibEncoder:
    """HTTP's gzip and deflate."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._packer = zlib.compressobj(1, wbits=31 if name == "gzip" else 15)

    def add(self, piece: bytes) -> bytes:
        """Return the compressed piece, flushed so that a reader can use it at once."""
        return self._packer.compress(piece) + self._packer.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """Return the end of the stream."""
        return self._packer.flush()


class Lz4Encoder:
    """lz4 frames, as ClickHouse uses them in HTTP."""

    name = "lz4"

    def __init__(self) -> None:
        self._packer = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def add(self, piece: bytes) -> bytes:
        """Return the compressed piece, flushed so that a reader can use it at once."""
        start = b"" if self._begun else self._packer.begin()
        self._begun = True
        return bytes(start + self._packer.compress(piece))

    def end(self) -> bytes:
        """Return the end of the frame."""
        start = b"" if self._begun else self._packer.begin()
        return bytes(start + self._packer.flush())


class BlockEncoder:
    """ClickHouse's own blocks (`compress=1`)."""

    name = ""

    def add(self, piece: bytes) -> bytes:
        """Return the piece as whole blocks."""
        blocks = []
        for at in range(0, len(piece), BLOCK_BYTES):
            content = piece[at : at + BLOCK_BYTES]
            packed = lz4.block.compress(content, store_size=False)
            sizes = struct.pack("<BII", _LZ4, len(packed) + _HEADER_BYTES, len(content))
            block = sizes + packed
            blocks += [checksum(block), block]
        return b"".join(blocks)

    def end(self) -> bytes:
        """Return nothing."""
        return b""


def encoder_for(accept_encoding: str, compress_blocks: bool) -> Encoder:
    """Return the best encoder that a client understands."""
    if compress_blocks:
        return BlockEncoder()
    accepted = {part.split(";")[0].strip().lower() for part in accept_encoding.split(",")}
    if "zstd" in accepted:
        return ZstdEncoder()
    if "lz4" in accepted:
        return Lz4Encoder()
    for name in ("gzip", "deflate"):
        if name in accepted:
            return ZlibEncoder(name)
    return PlainEncoder()


def decompress_blocks(body: bytes, bytes_max: int) -> bytes:
    """Undo ClickHouse's own block compression (`decompress=1`).

    Raises: ValueError when the blocks are cut or unknown; OverflowError when more than `bytes_max`
    come out.
    """
    parts = []
    at = out_bytes = 0
    while at < len(body):
        start = at + _CHECKSUM_BYTES
        if start + _HEADER_BYTES > len(body):
            raise ValueError("a compressed block is cut short")
        method = body[start]
        packed_bytes = int.from_bytes(body[start + 1 : start + 5], "little")
        content_bytes = int.from_bytes(body[start + 5 : start + 9], "little")
        content = body[start + _HEADER_BYTES : start + packed_bytes]
        out_bytes += content_bytes
        if out_bytes > bytes_max:
            raise OverflowError
        if packed_bytes < _HEADER_BYTES or len(content) != packed_bytes - _HEADER_BYTES:
            raise ValueError("a compressed block is cut short")
        if body[at:start] != checksum(body[start : start + packed_bytes]):
            raise ValueError("a compressed block's checksum does not match")
        if method == _LZ4:
            try:
                parts.append(lz4.block.decompress(content, content_bytes))
            except lz4.block.LZ4BlockError as error:
                raise ValueError(str(error)) from error
        elif method == _ZSTD:
            try:
                parts.append(zstd.ZstdDecompressor().decompress(content, content_bytes))
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from error
        elif method == _NONE:
            parts.append(content)
        else:
            raise ValueError(f"compression method 0x{method:02x} is unknown")
        at = start + packed_bytes
    return b"".join(parts)
