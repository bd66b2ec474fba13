from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import CHECKPOINT_8, LOG_SIGNER, LOG_VERIFIER, ORIGIN, WITNESS_KEY

from service.errors import Malformed, SignatureRefused
from service.tlog.keys import SignatureType, SignerKey, VerifierKey
from service.tlog.note import Ed25519Signer, Ed25519Verifier, Note, NoteSignature

DASH = "\N{EM DASH}"
OTHER_SIGNER = Ed25519Signer(SignerKey("other.example", SignatureType.ED25519, bytes(32)))
OTHER_VERIFIER = Ed25519Verifier(OTHER_SIGNER.key.verifier_key)
LINE = f"{DASH} name AAAAAAA="

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters=[chr(code) for code in range(32) if code != 10]),
    max_size=60,
).map(lambda text: f"{text}\n")


def test_a_note_published_by_others_verifies() -> None:
    key = VerifierKey.decode("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    note = Note.decode(
        f"This is an example message.\n\n{DASH} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Z"
        "tg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n".encode()
    )
    assert [line.name for line in note.verify([Ed25519Verifier(key)])] == ["example.com/foo"]


@given(TEXTS)
def test_a_signed_note_reads_back_and_verifies(text: str) -> None:
    note = Note.sign(text, [LOG_SIGNER, OTHER_SIGNER])
    read = Note.decode(note.encode())
    assert read == note
    assert read.text == text
    assert read.verify([LOG_VERIFIER, OTHER_VERIFIER]) == note.signatures


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CHECKPOINT_8) - 1))
    changed = bytearray(CHECKPOINT_8)
    changed[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != CHECKPOINT_8[at]))
    with pytest.raises((Malformed, SignatureRefused)):
        Note.decode(bytes(changed)).verify([LOG_VERIFIER])


@given(st.one_of(st.binary(max_size=80), TEXTS.map(str.encode)))
def test_reading_any_bytes_succeeds_or_says_malformed(data: bytes) -> None:
    for note in (
        data,
        b"text\n\n" + data,
        f"text\n\n{DASH} ".encode() + data,
        f"text\n\n{DASH} n ".encode() + data,
    ):
        try:
            read = Note.decode(note)
        except Malformed:
            continue
        assert read.encode() == note


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        f"text\n{LINE}\n",
        f"text\n\n{LINE}",
        f"text\n\n{LINE}\n\n",
        f"text\n\n{LINE}\r\n",
        f"text\r\n\r\n{LINE}\r\n",
        f"te\txt\n\n{LINE}\n",
        f"te\x00xt\n\n{LINE}\n",
        f"text\n\n {LINE}\n",
        f"text\n\n{LINE} \n",
        "text\n\n- name AAAAAAA=\n",
        f"text\n\n{DASH}name AAAAAAA=\n",
        f"text\n\n{DASH} AAAAAAA=\n",
        f"text\n\n{DASH}  AAAAAAA=\n",
        f"text\n\n{DASH} na+me AAAAAAA=\n",
        f"text\n\n{DASH} na\u00a0me AAAAAAA=\n",
        f"text\n\n{DASH} na\u2003me AAAAAAA=\n",
        f"text\n\n{DASH} na\u0085me AAAAAAA=\n",
        f"text\n\n{DASH} name AAAAAAA\n",
        f"text\n\n{DASH} name AAAAAA==\n",
        f"text\n\n{DASH} name AAAAAAB=\n",
        f"text\n\n{DASH} name AAAA-AA=\n",
        f"text\n\n{DASH} name \n",
        f"text\n\n{LINE}\nmore\n",
    ],
)
def test_a_note_in_any_other_form_is_refused(note: str) -> None:
    with pytest.raises(Malformed, match="note|signature line"):
        Note.decode(note.encode())


def test_a_note_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Malformed, match="not UTF-8"):
        Note.decode(b"te\xffxt\n\n" + f"{LINE}\n".encode())


def test_the_last_empty_line_separates() -> None:
    text = f"first\n\n{LINE}\n\nlast\n"
    note = Note.sign(text, [LOG_SIGNER])
    assert Note.decode(note.encode()).text == text


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "half a pair \ud800\n"])
def test_a_text_that_no_note_can_hold_is_not_signed(text: str) -> None:
    with pytest.raises(Malformed, match="note"):
        Note(text, (NoteSignature("name", bytes(4), bytes(64)),))


def test_a_note_without_a_trusted_signature_is_refused() -> None:
    note = Note.decode(CHECKPOINT_8)
    with pytest.raises(SignatureRefused, match=f"no trusted key has signed this note, only: {ORIGIN}"):
        note.verify([OTHER_VERIFIER])
    with pytest.raises(SignatureRefused):
        note.verify([])
    assert note.signed_by([OTHER_VERIFIER]) == ()


def test_signatures_of_unknown_keys_are_ignored() -> None:
    unknown = (
        NoteSignature(ORIGIN, bytes(4), bytes(64)),
        NoteSignature("x", LOG_VERIFIER.key.key_id, bytes(64)),
    )
    note = Note(Note.decode(CHECKPOINT_8).text, unknown + Note.decode(CHECKPOINT_8).signatures)
    assert note.verify([LOG_VERIFIER]) == Note.decode(CHECKPOINT_8).signatures


def test_one_wrong_signature_of_a_trusted_key_spoils_the_note() -> None:
    note = Note.sign("text\n", [LOG_SIGNER]).with_signatures(Note.sign("other\n", [OTHER_SIGNER]).signatures)
    assert note.verify([LOG_VERIFIER])
    with pytest.raises(SignatureRefused, match=r"other\.example"):
        note.verify([LOG_VERIFIER, OTHER_VERIFIER])


def test_a_second_line_of_a_key_counts_once_and_must_still_be_right() -> None:
    [right] = Note.sign("text\n", [LOG_SIGNER]).signatures
    [wrong] = Note.sign("other\n", [LOG_SIGNER]).signatures
    assert Note("text\n", (right, right)).verify([LOG_VERIFIER]) == (right,)
    with pytest.raises(SignatureRefused):
        Note("text\n", (right, wrong)).verify([LOG_VERIFIER])


def test_while_a_key_is_replaced_either_key_verifies() -> None:
    new = Ed25519Signer(SignerKey(ORIGIN, SignatureType.ED25519, bytes(range(64, 96))))
    note = Note.decode(Note.sign("text\n", [LOG_SIGNER, new]).encode())
    assert len(note.verify([LOG_VERIFIER])) == 1
    assert len(note.verify([Ed25519Verifier(new.key.verifier_key)])) == 1
    assert len(note.verify([LOG_VERIFIER, Ed25519Verifier(new.key.verifier_key)])) == 2


@pytest.mark.parametrize("length", [0, 63, 65, 72])
def test_a_signature_of_another_length_is_wrong(length: int) -> None:
    note = Note("text\n", (NoteSignature(ORIGIN, LOG_VERIFIER.key.key_id, bytes(length)),))
    with pytest.raises(SignatureRefused):
        note.verify([LOG_VERIFIER])


def test_a_hundred_signatures_are_read_and_no_more() -> None:
    assert len(Note.decode(f"text\n\n{LINE}\n".encode() + f"{LINE}\n".encode() * 99).signatures) == 100
    with pytest.raises(Malformed, match="101 signatures"):
        Note.decode(f"text\n\n{LINE}\n".encode() + f"{LINE}\n".encode() * 100)
    with pytest.raises(Malformed, match="0 signatures"):
        Note("text\n", ())


def test_a_note_beyond_a_million_bytes_is_neither_read_nor_written() -> None:
    end = f"\n\n{LINE}\n".encode()
    longest = b"a" * (1_000_000 - len(end)) + end
    assert Note.decode(longest).encode() == longest
    with pytest.raises(Malformed, match="1000001 bytes"):
        Note.decode(b"a" + longest)
    with pytest.raises(Malformed, match="at most 1000000"):
        Note("a" * 1_000_000 + "\n", Note.decode(longest).signatures).encode()


def test_the_shortest_signature_has_five_bytes() -> None:
    assert NoteSignature.decode(f"{DASH} name {b64encode(bytes(5)).decode()}").signature == bytes(1)
    with pytest.raises(Malformed, match="too short"):
        NoteSignature.decode(f"{DASH} name {b64encode(bytes(4)).decode()}")


def test_a_cosigning_key_does_not_sign_notes() -> None:
    with pytest.raises(Malformed, match="type 0x04"):
        Ed25519Signer(WITNESS_KEY)
    with pytest.raises(Malformed, match="type 0x04"):
        Ed25519Verifier(WITNESS_KEY.verifier_key)
