"""The parts of the HTTP front that need no engine."""

from pathlib import Path

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.embedded.errors import EmbeddedRuntimeError
from alpha_pulse.embedded.front.access import insert_head
from alpha_pulse.embedded.front.compression import (
    BlockEncoder,
    Encoder,
    Lz4Encoder,
    ZlibEncoder,
    ZstdEncoder,
    checksum,
    decompress_blocks,
    decompress_content,
    encoder_for,
)
from alpha_pulse.embedded.front.failures import QueryFailure, from_engine
from alpha_pulse.embedded.front.formats import Pieces
from alpha_pulse.embedded.front.pipe import redirected
from alpha_pulse.embedded.front.users import (
    Login,
    Role,
    Users,
    load_users,
    save_users,
    url_of,
    without_login,
)

PIECES = st.lists(st.binary(max_size=2000), max_size=5)


def packed(encoder: Encoder, pieces: list[bytes]) -> bytes:
    return b"".join(encoder.add(piece) for piece in pieces) + encoder.end()


@given(PIECES)
def test_clickhouses_blocks_come_back_as_they_were(pieces: list[bytes]) -> None:
    assert decompress_blocks(packed(BlockEncoder(), pieces), 100_000) == b"".join(pieces)


@given(PIECES)
def test_lz4_pieces_are_one_frame(pieces: list[bytes]) -> None:
    content = packed(Lz4Encoder(), pieces)
    assert lz4.frame.decompress(content) == b"".join(pieces)
    assert decompress_content(content, "lz4", 100_000) == b"".join(pieces)


@given(st.binary(max_size=200))
def test_rubbish_in_place_of_blocks_is_a_clear_error_or_their_content(rubbish: bytes) -> None:
    for unpack in (decompress_blocks, lambda b, limit: decompress_content(b, "lz4", limit)):
        try:
            unpack(rubbish, 1000)
        except (ValueError, OverflowError):
            continue


def test_what_unpacks_beyond_the_limit_is_refused() -> None:
    zeros = bytes(1_000_000)
    with pytest.raises(OverflowError):
        decompress_content(lz4.frame.compress(zeros), "lz4", 999_999)
    with pytest.raises(OverflowError):
        decompress_blocks(packed(BlockEncoder(), [zeros]), 999_999)


def test_the_best_encoding_that_the_client_accepts_is_taken() -> None:
    assert isinstance(encoder_for("gzip, zstd;q=0.5", False), ZstdEncoder)
    assert isinstance(encoder_for("br, lz4, gzip", False), Lz4Encoder)
    assert isinstance(encoder_for("deflate", False), ZlibEncoder)
    assert isinstance(encoder_for("zstd", True), BlockEncoder)
    assert encoder_for("br", False).name == ""


# Checksum and block, from *.bin files of a MergeTree part: 11, 18, 54 and 332 bytes long.
ENGINE_BLOCKS = [
    ("cab557c22f914940e66f1600f4d0acd2", "820b000000010000001001"),
    ("4854999292db6a74c5da23ed7eb04b3e", "821200000008000000800100000000000000"),
    (
        "b22dc6f5d334828eb093d2627916e224",
        "82360000002b000000f01c54686520717569636b2062726f776e20666f78206a756d7073206f766572207468"
        "65206c617a7920646f67",
    ),
    (
        "f5a9fa0b09613dc173b0c7a9ee34ea3a",
        "824c01000040010000f0ff323432313331454445334137343336333239324341344241344633363945303330"
        "4643384343343034353634443843343538353930463743443344354130344641364243384535303343344439"
        "4641313044333536433736304541433944343245423044344434453645323337443832384239374345363830"
        "3444384643383838413235454446373046464146343734343344344331364543373631433343353137354541"
        "3631344536343131343545353542304633443832443930343041394337423436453437363931304237434232"
        "4233463238354132454633383946323737343333324235323632364530424541343236323237434543464143"
        "4137443745353638333742423645363134363439414444454344434341394236323133393339414642454532"
        "313433374439314237443533353732464231414639323532",
    ),
]


@pytest.mark.parametrize(("expected", "block"), ENGINE_BLOCKS)
def test_checksums_are_those_of_blocks_that_the_engine_wrote(expected: str, block: str) -> None:
    assert checksum(bytes.fromhex(block)).hex() == expected


HEADS = st.sampled_from(
    [
        b"INSERT INTO t FORMAT TSV",
        b"insert into d.t (a, b) format JSONEachRow",
        b"INSERT INTO `d`.`t` (`a`) SETTINGS async_insert = 0, x = 'y' FORMAT RowBinary",
        b"/* note */ INSERT INTO TABLE t (* EXCEPT(a)) FORMAT Native",
        b"-- note\nINSERT INTO t\nFORMAT\n  CSV",
    ]
)


@given(HEADS, st.binary(max_size=300))
def test_rows_behind_an_insert_arrive_byte_for_byte(head: bytes, rows: bytes) -> None:
    found = insert_head(head + b"\n" + rows)
    assert found is not None
    assert bytes(found.rows(head + b"\n" + rows)) == rows
    assert found.text == head


def test_the_rows_of_an_insert_get_a_file_of_their_own() -> None:
    found = insert_head(b"INSERT INTO d.t (a) SETTINGS async_insert = 0 FORMAT TSV\n1\n")
    assert found is not None
    assert found.settings == {"async_insert": "0"}
    assert found.statement("/f") == (
        b"INSERT INTO d.t (a) FROM INFILE '/f' SETTINGS async_insert = 0 FORMAT TSV"
    )
    values = insert_head(b"INSERT INTO t VALUES (1), (2)")
    assert values is not None
    assert values.statement("/f") == b"INSERT INTO t FROM INFILE '/f' FORMAT Values"
    assert bytes(values.rows(b"INSERT INTO t VALUES (1), (2)")) == b" (1), (2)"


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1",
        b"INSERT INTO t SELECT * FROM u FORMAT TSV",
        b"INSERT INTO FUNCTION file('x') FORMAT TSV",
        b"INSERT INTO t FROM INFILE 'x' FORMAT TSV",
        b"INSERT INTO t SETTINGS a = f() FORMAT TSV",
        b"WITH x AS (SELECT 1) INSERT INTO t FORMAT TSV",
        b"SELECT 'INSERT INTO t FORMAT TSV'",
    ],
)
def test_nothing_else_is_taken_for_an_insert_of_rows(text: bytes) -> None:
    assert insert_head(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT 1", b"SELECT 1\nINTO OUTFILE '/f' TRUNCATE FORMAT JSON"),
        (b"SELECT 1;\n", b"SELECT 1\nINTO OUTFILE '/f' TRUNCATE FORMAT JSON"),
        (b"SELECT 1 FORMAT XML;", b"SELECT 1 \nINTO OUTFILE '/f' TRUNCATE FORMAT XML"),
        (b"SELECT 1 -- x", b"SELECT 1 -- x\nINTO OUTFILE '/f' TRUNCATE FORMAT JSON"),
        (
            b"SELECT 1 FORMAT XML SETTINGS a = 1, b = 'c'",
            b"SELECT 1 \nINTO OUTFILE '/f' TRUNCATE FORMAT XML SETTINGS a = 1, b = 'c'",
        ),
        (b"SELECT ' FORMAT XML'", b"SELECT ' FORMAT XML'\nINTO OUTFILE '/f' TRUNCATE FORMAT JSON"),
    ],
)
def test_a_query_is_sent_to_a_pipe_before_its_format(text: bytes, expected: bytes) -> None:
    assert redirected(text, "/f", "JSON") == expected


def test_the_header_of_a_result_is_sent_once() -> None:
    pieces = Pieces("CSVWithNames")
    first = pieces.add(b'"a\n""b"\n1\n', is_last=False)
    second = pieces.add(b'"a\n""b"\n2\n', is_last=False)
    totals = pieces.add(b'\n3\n"a\n""b"\n', is_last=True)
    assert first + second + totals == b'"a\n""b"\n1\n2\n\n3\n'
    empty = Pieces("TabSeparatedWithNamesAndTypes")
    assert empty.add(b"a\nUInt8\n", is_last=True) == b"a\nUInt8\n"


def test_a_failure_whose_text_is_no_text_keeps_its_code() -> None:
    try:
        b"Code: 26. DB::Exception: cannot parse \xfe (CANNOT_PARSE)".decode()
    except UnicodeDecodeError as error:
        failure = from_engine(error)
    assert failure.code == 26
    assert "cannot parse" in failure.message


def test_users_come_back_from_their_file_without_passwords(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    save_users(path, [Login('odd "name', "pa:ss", Role.READER), Login("b", "", Role.ADMIN)])
    assert "pa:ss" not in path.read_text()
    users = Users(load_users(path))
    assert users.authenticate('odd "name', "pa:ss").role is Role.READER
    assert users.authenticate("b", "").role is Role.ADMIN
    for name, password in (('odd "name', "pass"), ("b", "x"), ("default", ""), ("", "")):
        with pytest.raises(QueryFailure, match="Authentication failed"):
            users.authenticate(name, password)


@pytest.mark.parametrize(
    "text",
    [
        "[a]\nrole = 'owner'\npassword_sha256_hex = '" + "0" * 64 + "'",
        "[a]\nrole = 'reader'\npassword = 'x'",
        "[a]\nrole = 'reader'\npassword_sha256_hex = 'abc'",
        "a = [",
    ],
)
def test_a_mistake_in_a_users_file_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(text)
    with pytest.raises(EmbeddedRuntimeError, match=str(path)):
        load_users(path)


def test_a_url_for_people_carries_no_password() -> None:
    login = Login("a@b", "p/w:d", Role.ADMIN)
    url = url_of("http://127.0.0.1:8123", login)
    assert url == "http://a%40b:p%2Fw%3Ad@127.0.0.1:8123"
    assert without_login(url) == "http://127.0.0.1:8123"
    assert "p/w:d" not in repr(login)
