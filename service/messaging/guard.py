"""Runs a program for as long as standard input stays open: ``python guard.py PROGRAM [ARGUMENT ...]``.

The kernel closes that pipe however the process at its other end dies, so a SIGKILL leaves nothing behind.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> None:
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603 its parent's own command
    sys.stdin.buffer.read()
    program.terminate()
    program.wait()


if __name__ == "__main__":
    main()
