import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Malformed
from service.tlog.encoding import check_utf8, decode_base64, decode_decimal, decode_hash, encode_base64


@given(st.binary(max_size=70))
def test_base64_reads_back(data: bytes) -> None:
    assert decode_base64(encode_base64(data), "here") == data


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QR==", "Q Q==", "QQ==\n", "QQ==QQ==", "=", "_-8=", "\u0391A==", "Q"]
)
def test_any_other_base64_is_refused_by_name(text: str) -> None:
    with pytest.raises(Malformed, match=r"here: .*base64"):
        decode_base64(text, "here")


@pytest.mark.parametrize("length", [0, 12, 31, 33, 64])
def test_a_hash_has_32_bytes(length: int) -> None:
    assert decode_hash(encode_base64(bytes(32)), "here") == bytes(32)
    with pytest.raises(Malformed, match=f"here: holds {length} bytes"):
        decode_hash(encode_base64(bytes(length)), "here")


@given(st.integers(0, 2**63 - 1))
def test_decimals_read_back(number: int) -> None:
    assert decode_decimal(str(number), "here") == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "01",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1_0",
        "1.0",
        "1e3",
        "0x1",
        "\u0661",
        str(2**63),
        "9" * 9_999,
    ],
)
def test_any_other_decimal_is_refused_by_name(text: str) -> None:
    with pytest.raises(Malformed, match="here: is not a decimal"):
        decode_decimal(text, "here")


def test_half_a_surrogate_pair_is_refused_by_name() -> None:
    check_utf8("\N{GRINNING FACE}", "here")
    with pytest.raises(Malformed, match=r"here: .*UTF-8"):
        check_utf8("\ud83d", "here")
