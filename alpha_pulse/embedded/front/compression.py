"""Compression on the wire: HTTP content encodings, and ClickHouse's own blocks.

A block is: checksum (16 bytes), method (1), size with this 9-byte header (4), size of the content
(4), the content. Sizes are little-endian.
"""

import zlib

import lz4.block
import lz4.frame
from backports import zstd

BLOCK_BYTES = 1024 * 1024
_CHECKSUM_BYTES, _HEADER_BYTES = 16, 9
_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90


def decompress_content(body: bytes, encoding: str) -> bytes:
    """Undo a request's Content-Encoding; gzip, deflate, br and zstd were undone by the HTTP server.

    Raises: ValueError.
    """
    if encoding.lower() != "lz4":
        return body
    try:
        return bytes(lz4.frame.decompress(body))
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def compress_content(body: bytes, accept_encoding: str) -> tuple[bytes, str]:
    """Return the body in the best encoding that the client accepts, and that encoding's name."""
    accepted = {part.split(";")[0].strip().lower() for part in accept_encoding.split(",")}
    if "zstd" in accepted:
        return zstd.compress(body, 1), "zstd"
    if "lz4" in accepted:
        return lz4.frame.compress(body), "lz4"
    if "gzip" in accepted:
        packer = zlib.compressobj(1, wbits=31)
        return packer.compress(body) + packer.flush(), "gzip"
    if "deflate" in accepted:
        return zlib.compress(body, 1), "deflate"
    return body, ""


def decompress_blocks(body: bytes) -> bytes:
    """Undo ClickHouse's own block compression (`decompress=1`).

    Raises: ValueError when the blocks are cut or unknown.
    """
    parts = []
    at = 0
    while at < len(body):
        start = at + _CHECKSUM_BYTES
        if start + _HEADER_BYTES > len(body):
            raise ValueError("a compressed block is cut short")
        method = body[start]
        packed_bytes = int.from_bytes(body[start + 1 : start + 5], "little")
        content_bytes = int.from_bytes(body[start + 5 : start + 9], "little")
        content = body[start + _HEADER_BYTES : start + packed_bytes]
        if packed_bytes < _HEADER_BYTES or len(content) != packed_bytes - _HEADER_BYTES:
            raise ValueError("a compressed block is cut short")
        if method == _LZ4:
            try:
                parts.append(lz4.block.decompress(content, content_bytes))
            except lz4.block.LZ4BlockError as error:
                raise ValueError(str(error)) from error
        elif method == _ZSTD:
            try:
                parts.append(zstd.decompress(content))
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from error
        elif method == _NONE:
            parts.append(content)
        else:
            raise ValueError(f"compression method 0x{method:02x} is unknown")
        at = start + packed_bytes
    return b"".join(parts)
