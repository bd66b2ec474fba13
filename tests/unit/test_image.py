"""The image of `docker-compose.yml`: it is built from files that are copied one by one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_image_is_built_from_all_that_the_wheel_takes() -> None:
    copied = set[str]()
    for line in re.findall(r"COPY (.+) \S+\n", (ROOT / "docker-compose.yml").read_text()):
        copied |= set(line.split())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    taken = {source.partition("/")[0] for source in (*wheel["packages"], *wheel["force-include"])}
    assert taken == {"service", "migrations", "docs"}
    assert taken <= copied
