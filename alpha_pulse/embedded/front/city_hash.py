"""CityHash128 of version 1.0.2: the checksum of ClickHouse's compressed blocks.

ClickHouse kept this version when CityHash moved on, so no newer implementation fits. Written from
the published algorithm; the tests hold it to blocks that the engine itself made.
"""

import struct

_MASK = (1 << 64) - 1
_K0, _K1 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273
_K2, _K3 = 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69


def city_hash_128(content: bytes) -> bytes:
    """Return the 16 bytes as they stand before a block."""
    length = len(content)
    if length >= 16:
        low, high = _with_seed(content[16:], _u64(content, 0) ^ _K3, _u64(content, 8))
    elif length >= 8:
        low, high = _with_seed(
            b"", _u64(content, 0) ^ (length * _K0 & _MASK), _u64(content, length - 8) ^ _K1
        )
    else:
        low, high = _with_seed(content, _K0, _K1)
    return struct.pack("<QQ", low, high)


def _u64(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")


def _rotate(value: int, shift: int) -> int:
    return ((value >> shift) | (value << (64 - shift))) & _MASK


def _mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash_16(low: int, high: int) -> int:
    a = ((low ^ high) * _MUL) & _MASK
    a ^= a >> 47
    b = ((high ^ a) * _MUL) & _MASK
    b ^= b >> 47
    return (b * _MUL) & _MASK


def _hash_0_to_16(content: bytes) -> int:
    length = len(content)
    if length > 8:
        a, b = _u64(content, 0), _u64(content, length - 8)
        return _hash_16(a, _rotate((b + length) & _MASK, length)) ^ b
    if length >= 4:
        a = int.from_bytes(content[:4], "little")
        return _hash_16((length + (a << 3)) & _MASK, int.from_bytes(content[-4:], "little"))
    if length > 0:
        y = content[0] + (content[length >> 1] << 8)
        z = length + (content[-1] << 2)
        return (_mix(((y * _K2) ^ (z * _K3)) & _MASK) * _K2) & _MASK
    return _K2


def _weak_32(w: int, x: int, y: int, z: int, a: int, b: int) -> tuple[int, int]:
    a = (a + w) & _MASK
    b = _rotate((b + a + z) & _MASK, 21)
    c = a
    a = (a + x + y) & _MASK
    b = (b + _rotate(a, 44)) & _MASK
    return (a + z) & _MASK, (b + c) & _MASK


def _weak_at(content: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = struct.unpack_from("<4Q", content, at)
    return _weak_32(w, x, y, z, a, b)


def _murmur(content: bytes, a: int, b: int) -> tuple[int, int]:
    length = len(content)
    left = length - 16
    if left <= 0:
        a = (_mix(a * _K1 & _MASK) * _K1) & _MASK
        c = (b * _K1 + _hash_0_to_16(content)) & _MASK
        d = _mix((a + (_u64(content, 0) if length >= 8 else c)) & _MASK)
    else:
        c = _hash_16((_u64(content, length - 8) + _K1) & _MASK, a)
        d = _hash_16((b + length) & _MASK, (c + _u64(content, length - 16)) & _MASK)
        a = (a + d) & _MASK
        at = 0
        while left > 0:
            a = ((a ^ (_mix(_u64(content, at) * _K1 & _MASK) * _K1 & _MASK)) * _K1) & _MASK
            b ^= a
            c = ((c ^ (_mix(_u64(content, at + 8) * _K1 & _MASK) * _K1 & _MASK)) * _K1) & _MASK
            d ^= c
            at += 16
            left -= 16
    a, b = _hash_16(a, c), _hash_16(d, b)
    return a ^ b, _hash_16(b, a)


def _with_seed(content: bytes, low: int, high: int) -> tuple[int, int]:
    length = len(content)
    if length < 128:
        return _murmur(content, low, high)
    x, y = low, high
    z = (length * _K1) & _MASK
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _u64(content, 0)) & _MASK
    v1 = (_rotate(v0, 42) * _K1 + _u64(content, 8)) & _MASK
    w0 = (_rotate((y + z) & _MASK, 35) * _K1 + x) & _MASK
    w1 = (_rotate((x + _u64(content, 88)) & _MASK, 53) * _K1) & _MASK
    at = 0
    while length - at >= 128:
        for _ in range(2):
            x = (_rotate((x + y + v0 + _u64(content, at + 16)) & _MASK, 37) * _K1) & _MASK
            y = (_rotate((y + v1 + _u64(content, at + 48)) & _MASK, 42) * _K1) & _MASK
            x ^= w1
            y ^= v0
            z = _rotate(z ^ w0, 33)
            v0, v1 = _weak_at(content, at, v1 * _K1 & _MASK, (x + w0) & _MASK)
            w0, w1 = _weak_at(content, at + 32, (z + w1) & _MASK, y)
            z, x = x, z
            at += 64
    y = (y + _rotate(w0, 37) * _K0 + z) & _MASK
    x = (x + _rotate((v0 + z) & _MASK, 49) * _K0) & _MASK
    left = length - at
    done = 0
    while done < left:
        done += 32
        y = (_rotate((y - x) & _MASK, 42) * _K0 + v1) & _MASK
        w0 = (w0 + _u64(content, length - done + 16)) & _MASK
        x = (_rotate(x, 49) * _K0 + w0) & _MASK
        w0 = (w0 + v0) & _MASK
        v0, v1 = _weak_at(content, length - done, v0, v1)
    x, y = _hash_16(x, v0), _hash_16(y, w0)
    return (_hash_16((x + v1) & _MASK, w1) + y) & _MASK, _hash_16(
        (x + w1) & _MASK, (y + v1) & _MASK
    )
