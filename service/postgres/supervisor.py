"""The process that starts an embedded Postgres, keeps it up, and stops it when its last user is gone.

Run as ``python -m service.postgres.supervisor HOME SOCKETS BINARIES UID [NAME=VALUE ...]`` by
`EmbeddedPostgres`, detached. It prints ``ready`` once the server takes connections.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

from service.postgres.embedded import DATABASE, SUPERUSER

POLL_S = 0.2  # how soon a server without users is stopped, and a killed one started again
START_LIMIT_S = 60.0  # a server that is still alive may take longer: crash recovery does


class Server:
    """One Postgres server process on `home`/postgres, run under the account `uid`."""

    def __init__(self, home: Path, sockets: Path, binaries: Path, uid: int, options: list[str]) -> None:
        self.cluster = home / "postgres"
        self.sockets = sockets
        self.binaries = binaries
        self.options = options
        account = pwd.getpwuid(uid)
        self.as_account: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr, "cwd": "/"}
        if uid != os.geteuid():
            self.as_account |= {"user": uid, "group": account.pw_gid, "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Bring the server up and make sure that our database exists."""
        if not (self.cluster / "PG_VERSION").exists():
            self._run(
                "initdb", "-D", str(self.cluster), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale"
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not asyncio.run(self.answers()):
            if self.process is None or self.process.poll() is not None:
                # A killed postmaster's children may hold the shared memory for a moment: start again.
                if time.monotonic() > deadline:
                    raise SystemExit("Postgres does not start; its own messages stand above")
                self._spawn()
            time.sleep(0.02)

    def _spawn(self) -> None:
        command = [str(self.binaries / "postgres"), "-D", str(self.cluster), "-h", ""]
        command += ["-c", f'unix_socket_directories="{self.sockets}"']
        for option in self.options:
            command += ["-c", option]
        self.process = subprocess.Popen(command, **self.as_account)  # noqa: S603 the command is ours

    def is_up(self) -> bool:
        """Whether the postmaster lives, be it our child or one left by a supervisor that was killed."""
        if self.process is not None:
            return self.process.poll() is None
        return asyncio.run(self.answers())

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.cluster), "-m", "fast", "-w", "stop")

    async def answers(self) -> bool:
        """Whether the server takes connections; creates the database at the first time."""
        try:
            connection = await asyncpg.connect(
                host=str(self.sockets), user=SUPERUSER, database="postgres", timeout=5
            )
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([str(self.binaries / program), *arguments], check=True, **self.as_account)  # noqa: S603


def main() -> None:
    home, sockets, binaries, uid, *options = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the commands, not for us
    supervising = os.open(Path(home) / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(supervising, fcntl.LOCK_EX)
    users = os.open(Path(home) / "users.lock", os.O_RDWR)
    server = Server(Path(home), Path(sockets), Path(binaries), int(uid), options)
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.close()
    while not is_deserted(users):
        if not server.is_up():
            server.process = None
            server.start()
        time.sleep(POLL_S)
    server.stop()  # new users wait on users.lock, which we hold until we exit


def is_deserted(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main()
