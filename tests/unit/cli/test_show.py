from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from rich.console import Console

from service.cli import show

TRANSFERS = [
    {
        "transfer_id": f"01a21023-c37{number}-826b-a649-891600000000",
        "requested_at": datetime(2026, 11, 24, 9, number, tzinfo=UTC),
        "agent": "15000",
        "destination": "15002",
        "reason": "DataProtection",
        "outcome": "confirmed",
    }
    for number in range(3)
]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Print the transfers as on a terminal, or as into a pipe."""

    def print_them(width: int, *, terminal: bool) -> str:
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=terminal, highlight=False)
        monkeypatch.setattr(show, "console", console)
        show.print_transfers("Transfers", TRANSFERS)
        return file.getvalue()

    return print_them


def test_a_narrow_terminal_gets_short_ids_that_still_differ(printed: Callable[..., str]) -> None:
    lines = printed(80, terminal=False).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 3 + len(TRANSFERS)
    ids = [line.split()[0] for line in lines[3:]]
    assert all("…" in one and one.endswith("0000") for one in ids)
    assert len(set(ids)) == len(TRANSFERS)


def test_a_terminal_that_is_too_narrow_wraps_everything_and_cuts_nothing(printed: Callable[..., str]) -> None:
    text = printed(60, terminal=False)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("confirmed") == text.count("15002") == text.count("09:0") == len(TRANSFERS)


def test_a_wide_terminal_and_a_pipe_get_whole_ids(printed: Callable[..., str]) -> None:
    for text in (printed(120, terminal=True), printed(show.UNBOUNDED, terminal=False)):
        assert all(one["transfer_id"] in text for one in TRANSFERS)


def test_a_pipe_gets_no_colours(printed: Callable[..., str]) -> None:
    assert "\x1b[" in printed(120, terminal=True)
    assert "\x1b" not in printed(show.UNBOUNDED, terminal=False)


def test_cells_of_csv_hold_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"reason": "=HYPERLINK(1)", "transfers": -3, "keys": ["a", "b"]}]
    show.print_list(rows, lambda: None, document={}, nothing="", as_json=False, as_csv=True)
    [read] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert read == {"reason": "'=HYPERLINK(1)", "transfers": "-3", "keys": '["a","b"]'}


def test_nothing_is_said_in_words_only_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json, as_csv, said in ((False, False, "No transfer"), (True, False, "[]"), (False, True, "")):
        show.print_list(
            [], lambda: None, document={"rows": []}, nothing="No transfer", as_json=as_json, as_csv=as_csv
        )
        out = capsys.readouterr().out
        assert said in out
        assert ("No transfer" in out) is (said == "No transfer")
