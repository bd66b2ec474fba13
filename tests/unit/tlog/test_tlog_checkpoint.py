from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import CHECKPOINT_8, LOG_SIGNER, LOG_VERIFIER, ORIGIN, ROOTS

from service.errors import Malformed, SignatureRefused
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.keys import SignatureType, SignerKey
from service.tlog.note import Ed25519Signer, Ed25519Verifier, Note

EIGHT = Checkpoint(ORIGIN, 8, ROOTS[8])
ROOT_TEXT = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="


def test_the_checkpoint_of_the_published_inputs() -> None:
    data = EIGHT.sign([LOG_SIGNER]).encode()
    assert data == CHECKPOINT_8
    assert len(data) == 189
    assert sha256(data).hexdigest() == "cc9e2edc2c48116d47c6ee7c59995fc61f0dfdc3084581bcfcd4ff28352e6b97"
    assert verify_checkpoint(Note.decode(data), ORIGIN, [LOG_VERIFIER]) == EIGHT


def test_the_checkpoint_of_the_empty_log() -> None:
    data = Checkpoint(ORIGIN, 0, ROOTS[0]).sign([LOG_SIGNER]).encode()
    assert data.decode().split("\n")[1:3] == ["0", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
    assert sha256(data).hexdigest() == "f2c40048d03275f00699df0dfdf87fa4b3719bef22aa561397e4a1e9aa263ab0"


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1),
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(exclude_characters="\n"), min_size=1), max_size=3),
)
def test_a_checkpoint_reads_back(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@given(st.text(max_size=60))
def test_reading_any_text_succeeds_or_says_malformed(text: str) -> None:
    for checkpoint in (text, f"origin\n{text}", f"origin\n8\n{text}", f"origin\n{text}\n{ROOT_TEXT}\n"):
        try:
            read = Checkpoint.parse(checkpoint)
        except Malformed:
            continue
        assert read.text == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n\n",
        "origin\n8\n",
        f"origin\n8\n{ROOT_TEXT}",
        f"\n8\n{ROOT_TEXT}\n",
        f"origin\n8\n{ROOT_TEXT}\n\n",
        f"origin\n8\n{ROOT_TEXT}\nextension",
        f"origin\n8\n{ROOT_TEXT}\n\nextension\n",
        f"origin\n08\n{ROOT_TEXT}\n",
        f"origin\n00\n{ROOT_TEXT}\n",
        f"origin\n-8\n{ROOT_TEXT}\n",
        f"origin\n+8\n{ROOT_TEXT}\n",
        f"origin\n 8\n{ROOT_TEXT}\n",
        f"origin\n8 \n{ROOT_TEXT}\n",
        f"origin\n\n{ROOT_TEXT}\n",
        f"origin\n0x8\n{ROOT_TEXT}\n",
        f"origin\n1_0\n{ROOT_TEXT}\n",
        f"origin\n\u0668\n{ROOT_TEXT}\n",
        f"origin\n8\r\n{ROOT_TEXT}\n",
        f"origin\n9223372036854775808\n{ROOT_TEXT}\n",
        f"origin\n{'9' * 10_000}\n{ROOT_TEXT}\n",
        f"origin\n8\n{ROOT_TEXT[:-1]}\n",
        f"origin\n8\n{ROOT_TEXT[:-2]}h=\n",
        f"origin\n8\n{ROOT_TEXT} \n",
        "origin\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz-Nw7_RgQyg=\n",
        "origin\n8\nAAAA\n",
        "origin\n8\n\n",
        f"origin\n0\n{ROOT_TEXT}\n",
    ],
)
def test_a_checkpoint_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="checkpoint"):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 8, ROOTS[8], ()),
        ("two\nlines", 8, ROOTS[8], ()),
        (ORIGIN, -1, ROOTS[8], ()),
        (ORIGIN, 2**63, ROOTS[8], ()),
        (ORIGIN, 8, ROOTS[8][:31], ()),
        (ORIGIN, 8, b"", ()),
        (ORIGIN, 0, ROOTS[8], ()),
        (ORIGIN, 8, ROOTS[8], ("",)),
        (ORIGIN, 8, ROOTS[8], ("two\nlines",)),
    ],
)
def test_a_checkpoint_that_cannot_be_is_not_made(
    origin: str, size: int, root: bytes, extensions: tuple[str, ...]
) -> None:
    with pytest.raises(Malformed, match="checkpoint"):
        Checkpoint(origin, size, root, extensions)


def test_extension_lines_are_kept_and_signed() -> None:
    extended = Checkpoint(ORIGIN, 8, ROOTS[8], ("one", "two"))
    note = Note.decode(extended.sign([LOG_SIGNER]).encode())
    assert verify_checkpoint(note, ORIGIN, [LOG_VERIFIER]) == extended


def test_both_keys_sign_while_one_replaces_the_other() -> None:
    new = Ed25519Signer(SignerKey(ORIGIN, SignatureType.ED25519, bytes(range(64, 96))))
    note = Note.decode(EIGHT.sign([LOG_SIGNER, new]).encode())
    assert verify_checkpoint(note, ORIGIN, [LOG_VERIFIER]) == EIGHT
    assert verify_checkpoint(note, ORIGIN, [Ed25519Verifier(new.key.verifier_key)]) == EIGHT


def test_a_key_of_another_name_does_not_sign_for_this_log() -> None:
    stranger = Ed25519Signer(SignerKey("stranger.example", SignatureType.ED25519, bytes(32)))
    with pytest.raises(Malformed, match=r"stranger\.example"):
        EIGHT.sign([LOG_SIGNER, stranger])


def test_a_checkpoint_of_another_log_is_refused_even_when_its_key_is_trusted() -> None:
    other = Note.sign(Checkpoint("other.example/log", 8, ROOTS[8]).text, [LOG_SIGNER])
    with pytest.raises(SignatureRefused, match=r"other\.example/log"):
        verify_checkpoint(other, ORIGIN, [LOG_VERIFIER])


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(Malformed, match="checkpoint"):
        verify_checkpoint(Note.sign("hello\n", [LOG_SIGNER]), ORIGIN, [LOG_VERIFIER])


def test_an_unsigned_checkpoint_is_refused() -> None:
    with pytest.raises(SignatureRefused):
        verify_checkpoint(Note.decode(CHECKPOINT_8), ORIGIN, [])
