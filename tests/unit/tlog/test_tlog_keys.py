import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import LOG_KEY, LOG_SIGNER_TEXT, LOG_VKEY, ORIGIN, WITNESS_KEY, WITNESS_VKEY

from service.errors import Malformed
from service.tlog.keys import SignatureType, SignerKey, VerifierKey

PUBLIC_KEY = bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")

KEY_NAMES = st.text(min_size=1, max_size=12).filter(
    lambda name: (
        "+" not in name
        and not any(
            character.isspace() or character < " " or "\ud800" <= character <= "\udfff" for character in name
        )
    )
)


def test_the_logs_key() -> None:
    assert LOG_KEY.verifier_key == VerifierKey(ORIGIN, SignatureType.ED25519, PUBLIC_KEY)
    assert LOG_KEY.verifier_key.key_id.hex() == "385e1b1f"
    assert LOG_KEY.verifier_key.encode() == LOG_VKEY
    assert LOG_KEY.encode() == LOG_SIGNER_TEXT
    assert VerifierKey.decode(LOG_VKEY) == LOG_KEY.verifier_key
    assert SignerKey.decode(LOG_SIGNER_TEXT) == LOG_KEY


def test_the_witnesses_key() -> None:
    assert WITNESS_KEY.verifier_key.key_id.hex() == "20324abe"
    assert WITNESS_KEY.verifier_key.encode() == WITNESS_VKEY
    assert VerifierKey.decode(WITNESS_VKEY) == WITNESS_KEY.verifier_key


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ],
)
def test_keys_published_by_others(vkey: str) -> None:
    assert VerifierKey.decode(vkey).encode() == vkey


def test_base64_in_a_key_may_contain_plus_signs() -> None:
    assert LOG_VKEY.count("+") == 3
    assert VerifierKey.decode(LOG_VKEY).public_key == PUBLIC_KEY


def test_a_secret_is_not_shown() -> None:
    assert "seed" not in repr(LOG_KEY)
    assert repr(LOG_KEY.seed) not in repr(LOG_KEY)


@given(KEY_NAMES, st.sampled_from(SignatureType), st.binary(min_size=32, max_size=32))
def test_every_key_reads_back(name: str, type_: SignatureType, seed: bytes) -> None:
    key = SignerKey(name, type_, seed)
    assert SignerKey.decode(key.encode()) == key
    assert VerifierKey.decode(key.verifier_key.encode()) == key.verifier_key


def test_the_same_key_has_another_id_for_another_type_or_name() -> None:
    ids = {
        VerifierKey(name, type_, PUBLIC_KEY).key_id for name in (ORIGIN, "other") for type_ in SignatureType
    }
    assert len(ids) == 4


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+385e1b1f",
        LOG_VKEY.replace("385e1b1f", "385e1b1e"),
        LOG_VKEY.replace("385e1b1f", "385E1B1F"),
        LOG_VKEY.replace("385e1b1f", "385e1b1"),
        LOG_VKEY.replace("calltrail", "calltrai1"),
        LOG_VKEY.replace("+385e", " +385e"),
        LOG_VKEY[1:].removeprefix("alltrail.example/log"),
        LOG_VKEY[:-4],
        LOG_VKEY + "=",
        LOG_VKEY + "\n",
        "example.com/foo+530d903a+",
        "example.com/foo+530d903a+AA==",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ],
)
def test_a_wrong_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(Malformed, match="verifier key"):
        VerifierKey.decode(vkey)


@pytest.mark.parametrize(
    "text",
    [
        "",
        LOG_VKEY,
        LOG_SIGNER_TEXT[:-1],
        LOG_SIGNER_TEXT.replace("385e1b1f", "385e1b1e"),
        LOG_SIGNER_TEXT[8:],
    ],
)
def test_a_wrong_signer_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(Malformed, match="signer key") as refused:
        SignerKey.decode(text)
    assert "AAECAw" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.text(max_size=60))
def test_reading_any_text_as_a_key_succeeds_or_says_malformed(text: str) -> None:
    for decode, start in (
        (VerifierKey.decode, ""),
        (SignerKey.decode, "PRIVATE+KEY+"),
        (VerifierKey.decode, "n+"),
    ):
        with pytest.raises(Malformed):
            decode(start + text)


def test_a_signature_is_for_one_message_and_one_key() -> None:
    signature = LOG_KEY.sign(b"message")
    assert LOG_KEY.verifier_key.verifies(b"message", signature)
    assert not LOG_KEY.verifier_key.verifies(b"massage", signature)
    assert not WITNESS_KEY.verifier_key.verifies(b"message", signature)
    assert not LOG_KEY.verifier_key.verifies(b"message", signature[:63])
    assert not LOG_KEY.verifier_key.verifies(b"message", b"")


@pytest.mark.parametrize("public_key", [bytes(31), bytes(33), b""])
def test_a_public_key_of_another_length_is_refused(public_key: bytes) -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        VerifierKey(ORIGIN, SignatureType.ED25519, public_key)
