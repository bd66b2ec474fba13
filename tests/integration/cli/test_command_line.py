from __future__ import annotations

import csv
import io
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from program import COMMAND, DEADLINE_S, environment
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from service import cli
from service.log import EventLog
from service.projections.histories import Histories

RUNNER = CliRunner()
LISTS = (
    "calls --all",
    "history CALL",
    "transfers",
    "reasons",
    "sessions",
    "coverage",
    "projections",
    "redactions",
    "hold list",
    "diff 0 50",
    "doctor",
)
NOBODY = "01a21023-c281-8588-8a3c-d01a00000001"
ANSWERS = (
    (0, "calls"),
    (0, "transfers --reason nobody-gave-it"),
    (1, "history nobody-made-it"),
    (1, f"transfer {NOBODY}"),
    (1, "coverage nobody"),
    (1, "prove 99999999"),
    (1, f"hold release {NOBODY} --why closed"),
    (2, "calls --as-of yesterday"),
    (2, "calls --as-of 99999999"),
    (2, "calls --json --csv"),
    (2, "transfers --sort sideways"),
    (2, "transfers --data nothing"),
    (2, "reasons --by nothing"),
    (2, "replay"),
    (2, "rebuild nothing"),
    (2, "prove 0 --out /no/such/folder/event.json"),
    (2, "export audit --out /no/such/folder/a.zip"),
    (2, "--log-level SHOUTING calls"),
    (2, "serve --agents-file /no/such/file"),
    (2, "nothing"),
)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, with its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(typer.main.get_command(cli.app)))


def calltrail(words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words.split()],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def status(words: str) -> int:
    """The exit status of a command, in this process."""
    result = RUNNER.invoke(cli.app, words.split())
    if isinstance(result.exception, cli.CalltrailError):
        return cli.exit_status(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, database_url: URL, log: EventLog, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("CALLTRAIL_DATA_DIR", str(tmp_path))


@pytest.fixture
async def some_calls(data: None, log: EventLog) -> str:
    """A log with a few calls; the id of one of them."""
    events = list(itertools.islice(Histories(live=4, agents=5).events(), 100))
    await log.append(events)
    return events[0].stream.removeprefix("call-")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_says_what_it_does_and_gives_an_example(words: tuple[str, ...]) -> None:
    result = RUNNER.invoke(cli.app, [*words, "--help"], terminal_width=100)
    assert result.exit_code == 0
    said = ALL[words].help
    assert said
    assert len(said.splitlines()[0]) > 20
    examples = [line.strip() for line in result.output.splitlines() if "calltrail " in line]
    assert any(line.startswith(f"calltrail {' '.join(words)}".removesuffix(" show")) for line in examples)


def test_the_documentation_names_no_command_that_is_not_there() -> None:
    root = Path(__file__).parents[3]
    known = {words[0] for words in ALL}
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        code = code_of(page.read_text())
        assert set(re.findall(r"^ *(?:\$ )?calltrail ([a-z]+)", code, re.MULTILINE)) <= known, page


def code_of(text: str) -> str:
    """The lines of a page's blocks and the bits between its backquotes."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|((?:^ {4}.*\n)+)", text, re.MULTILINE | re.DOTALL)
    bits = re.findall(r"`(calltrail [^`]*)`", text)
    return "\n".join([*(one for pair in blocks for one in pair if one), *bits])


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    unexplained = [
        one.name for one in ALL[words].params if not (getattr(one, "help", None) or one.name == "help")
    ]
    assert unexplained == []


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
def test_every_list_comes_as_table_json_and_csv(some_calls: str, form: str) -> None:
    for words in LISTS:
        result = RUNNER.invoke(cli.app, [*words.replace("CALL", some_calls).split(), *form.split()])
        broken = words == "doctor"  # the server of the tests trades durability for speed
        assert result.exit_code == broken, (words, result.output, result.exception)
        if form == "--json":
            assert isinstance(json.loads(result.output), dict)
        if form == "--csv":
            rows = list(csv.reader(io.StringIO(result.output)))
            assert len({len(row) for row in rows}) <= 1, words


def test_of_many_legs_the_newest_are_shown_and_the_rest_is_mentioned(some_calls: str) -> None:
    def listed(words: str) -> tuple[list[int], str]:
        result = RUNNER.invoke(cli.app, words.split())
        calls = json.loads(result.stdout)["calls"]
        return sorted(leg["from_position"] for call in calls for leg in call["legs"]), result.stderr

    every, told = listed("calls --all --json")
    assert len(every) > 3
    assert told == ""
    assert listed(f"calls --all --json --limit {len(every)}") == (every, "")
    newest, told = listed("calls --all --json --limit 3")
    assert newest == every[-3:]
    assert "more than 3 legs" in told
    assert "--limit" in told


def test_exit_statuses(some_calls: str) -> None:
    assert {words: status(words) for _, words in ANSWERS} == {words: code for code, words in ANSWERS}


def test_the_database_is_away() -> None:
    done = calltrail("calls", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("calltrail: Postgres cannot be reached")


def test_the_shell_completes() -> None:
    done = calltrail("", _CALLTRAIL_COMPLETE="complete_bash", COMP_WORDS="calltrail trans", COMP_CWORD="1")
    assert done.stdout.split() == ["transfers", "transfer"]
