from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.config import Settings, load_settings, read_agents
from service.errors import BadConfig

GOOD = '[[agent]]\nuser = "15000"\npassword = "p"\n'


def test_agents_come_from_a_file_and_never_show_their_password(tmp_path: Path) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(GOOD + '\n[[agent]]\nuser = "15001"\npassword = "q"\nlogin = true\n')
    first, second = read_agents(file)
    assert (first.user, first.login, second.login) == ("15000", False, True)
    assert first.password.get_secret_value() == "p"
    assert "'p'" not in repr(first)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "has no"),
        ("agent = 3", "has no"),
        ("[[agent]]\nuser = \n", "line 2"),
        (
            "# agents\n\n" + GOOD + GOOD.replace("password", "pasword"),
            "line 8, agent 2: pasword|line 6, agent 2: password",
        ),
        ('[[agent]]\nuser = "a"', "line 1, agent 1: password"),
        (GOOD + '\n[[agent]]\nuser = "b"\npassword = 7', "line 7, agent 2: password"),
        (GOOD + "\n" + GOOD, "line 6, agent 2: user"),
        ('[[agent]]\nuser = "a"', "agent 1: password"),
        (GOOD + '[[agent]]\nuser = "b"\npassword = "p"\ncolour = 1', "agent 2: colour"),
        (GOOD + GOOD, "agent 2: user"),
        ('[[agent]]\nuser = ""\npassword = "p"', "agent 1: user"),
        ('[[agent]]\nuser = "a\\u0000"\npassword = "p"', "agent 1: user"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_place(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(text)
    with pytest.raises(BadConfig, match=named) as caught:
        read_agents(file)
    assert str(file) in str(caught.value)


def test_a_wrong_setting_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLTRAIL_PORT", "many")
    with pytest.raises(BadConfig, match="CALLTRAIL_PORT"):
        load_settings()


def test_a_single_agent_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLTRAIL_USER", "15000")
    with pytest.raises(BadConfig, match="CALLTRAIL_PASSWORD"):
        load_settings().agents()
    monkeypatch.setenv("CALLTRAIL_PASSWORD", "p")
    [agent] = load_settings().agents()
    assert agent.user == "15000"


def test_the_documentation_tells_every_setting_and_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "_" in line[:14]
    ]
    told = {row[0].strip("`"): row for row in rows if len(row) == 4}
    names = {
        "DATABASE_URL" if name == "database_url" else f"CALLTRAIL_{name.upper()}": field
        for name, field in Settings.model_fields.items()
    }
    assert told.keys() == names.keys()
    for name, field in names.items():
        _, meaning, unit, default = told[name]
        assert meaning
        assert unit
        assert not name.endswith("_S") or unit == "seconds"
        assert not name.endswith("_BYTES") or unit == "bytes"
        value = field.get_default(call_default_factory=True)
        if value is not None and name not in {"CALLTRAIL_DATA_DIR", "CALLTRAIL_POSTGRES_OPTIONS"}:
            assert default.strip("`") == (value if isinstance(value, str) else json.dumps(value)), name
