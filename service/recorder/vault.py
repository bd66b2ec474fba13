"""Seals what must not lie open in the database: client ids, cookies and CSRF tokens are credentials.

AES-256-GCM with a key of this machine, in a file of mode 0600; the agent's name is sealed in with it, so that
one agent's secret cannot be put in another's place. Who has the database alone has nothing.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import BadConfig

KEY_FILE = "sessions.key"
KEY_BYTES = 32
NONCE_BYTES = 12


class Vault:
    """Seals and opens with the key of `data_dir`, which is drawn when there is none yet.

    Processes on other machines go on with each other's sessions if they are given the same key file.
    """

    def __init__(self, data_dir: Path) -> None:
        self._cipher = AESGCM(load_key(data_dir / KEY_FILE))

    def __repr__(self) -> str:
        return "Vault()"

    def seal(self, agent: str, secret: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, agent.encode())

    def unseal(self, agent: str, sealed: bytes) -> bytes | None:
        """The secret; None if it was sealed with another key or for another agent."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], agent.encode())
        except (InvalidTag, ValueError):
            return None


def load_key(path: Path) -> bytes:
    """Read the key, or draw it; of several processes that draw at once the first one's counts.

    Raises:
        BadConfig: the file is open to others, or not a key.

    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    if path.stat().st_mode & 0o077:
        raise BadConfig(str(path), "can be read by others", f"Say chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise BadConfig(
            str(path), f"is not a key of {KEY_BYTES} bytes", "Remove it: open sessions begin anew, with a gap"
        )
    return key
