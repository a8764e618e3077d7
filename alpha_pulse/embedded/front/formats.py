"""Output formats that can be sent in pieces.

The engine formats each piece as a result of its own. For formats of rows the pieces can simply be
joined once the header of all but the first is cut off; others (JSON, Parquet) are made whole.
"""

from collections.abc import Callable

_TEXT = (
    "TabSeparated TSV TabSeparatedRaw TSVRaw Raw CSV JSONCompactEachRow JSONCompactStringsEachRow"
)
_PLAIN = {
    *_TEXT.split(),
    *["JSONEachRow", "JSONLines", "NDJSON", "JSONStringsEachRow", "LineAsString", "MsgPack"],
    *["Native", "Null", "RowBinary", "TSKV"],
}


def _after_lines(lines: int) -> Callable[[bytes], int]:
    def header_bytes(piece: bytes) -> int:
        end = 0
        for _ in range(lines):
            end = piece.find(b"\n", end) + 1
            if end == 0:
                return len(piece)
        return end

    return header_bytes


def _after_csv_records(records: int) -> Callable[[bytes], int]:
    # A quoted name may hold a line break.
    def header_bytes(piece: bytes) -> int:
        end = 0
        for _ in range(records):
            while True:
                line_end = piece.find(b"\n", end) + 1
                if line_end == 0:
                    return len(piece)
                if piece.count(b'"', 0, line_end) % 2 == 0:
                    break
                end = line_end
            end = line_end
        return end

    return header_bytes


def _row_binary_header(with_types: bool) -> Callable[[bytes], int]:
    def header_bytes(piece: bytes) -> int:
        if not piece:
            return 0
        columns, at = read_varint(piece, 0)
        for _ in range(columns * (2 if with_types else 1)):
            length, at = read_varint(piece, at)
            at += length
        return at

    return header_bytes


_ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def _arrow_schema(piece: bytes) -> int:
    # A message: ff ff ff ff, the length of its metadata, the metadata; a schema has no body.
    if len(piece) < 8:
        return len(piece)
    return 8 + int.from_bytes(piece[4:8], "little")


_HEADERS: dict[str, Callable[[bytes], int]] = {"ArrowStream": _arrow_schema}
for _name in _TEXT.split():
    _lines = _after_csv_records if _name == "CSV" else _after_lines
    _HEADERS[f"{_name}WithNames"] = _lines(1)
    _HEADERS[f"{_name}WithNamesAndTypes"] = _lines(2)
_HEADERS["RowBinaryWithNames"] = _row_binary_header(with_types=False)
_HEADERS["RowBinaryWithNamesAndTypes"] = _row_binary_header(with_types=True)


class Pieces:
    """Joins the pieces of one result."""

    def __init__(self, format_name: str) -> None:
        self._header_bytes = _HEADERS.get(format_name)
        self._arrow = format_name == "ArrowStream"
        self._header = b""
        self._first = True

    @staticmethod
    def can_join(format_name: str) -> bool:
        """Tell whether results of a format can be sent in pieces."""
        return format_name in _PLAIN or format_name in _HEADERS

    def add(self, piece: bytes, *, is_last: bool) -> bytes:
        """Return what the next piece adds to the result.

        The last piece holds no rows; it may hold totals, and a header before or behind them.
        """
        if self._header_bytes is not None and piece:
            if self._first:
                self._header = piece[: self._header_bytes(piece)]
            elif is_last:
                piece = piece.removeprefix(self._header).removesuffix(self._header)
            else:
                piece = piece[self._header_bytes(piece) :]
        started = not self._first or bool(piece)
        self._first = not started
        if self._arrow:
            piece = piece.removesuffix(_ARROW_END)
            return piece + _ARROW_END if is_last and started else piece
        return piece


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length number and the position behind it.

    Raises: IndexError when it is cut short.
    """
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
