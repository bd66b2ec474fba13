"""The report that a person reads, as HTML and as PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

from service.audit.record import plain
from service.errors import BadInput

MOST_IN_PDF = 5_000
"""Transfers in a PDF: it is laid out in memory, and nobody reads more on paper."""

_templates = Environment(
    loader=PackageLoader("service.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@dataclass(frozen=True)
class About:
    """What a report says of itself.

    `origin`, `size` and `root` (hex) are of the checkpoint that it rests on, if it does on any.
    """

    since_text: str
    until_text: str
    asked: str
    by: str
    created: str
    version: str
    transfers: int
    population: int
    outcomes: Mapping[str, int]
    gaps: Sequence[Mapping[str, Any]] = field(default_factory=list)
    origin: str = ""
    size: int = 0
    root: str = ""

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Report(Protocol):
    """A report in the making: its head is written, then one transfer after another, then its end."""

    def add(self, row: Mapping[str, Any]) -> None: ...

    def close(self, redactions: Sequence[Mapping[str, Any]]) -> None: ...


class HtmlReport:
    """One page that needs nothing from elsewhere and runs no script."""

    def __init__(self, path: Path, about: About) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._about = about
        parts: Any = _templates.get_template("report.html").module
        self._parts = parts
        self._file.write(self._parts.head(about))

    def add(self, row: Mapping[str, Any]) -> None:
        self._file.write(self._parts.transfer({name: plain(value) for name, value in row.items()}))

    def close(self, redactions: Sequence[Mapping[str, Any]]) -> None:
        self._file.write(self._parts.tail(self._about, redactions))
        self._file.close()


class PdfReport:
    """The same on A4. Its fonts know Latin letters; others are written as their code points.

    Raises:
        BadInput: the library for it is not installed, or there are more than `MOST_IN_PDF` transfers.

    """

    def __init__(self, path: Path, about: About) -> None:
        try:
            from reportlab.lib.styles import getSampleStyleSheet
            from reportlab.platypus import Paragraph
        except ImportError:
            raise BadInput(
                "format", "pdf needs reportlab, which is not installed", "pip install 'calltrail[export]'"
            ) from None
        if about.transfers > MOST_IN_PDF:
            raise BadInput(
                "format",
                f"pdf holds at most {MOST_IN_PDF:,} transfers, here are {about.transfers:,}",
                "Choose a shorter time, or html, csv or a bundle",
            )
        self._path = path
        self._about = about
        self._flowable: Any = Paragraph
        self._styles: Any = getSampleStyleSheet()
        self._story: list[Any] = self._head()

    def _paragraph(self, text: str, style: str = "BodyText") -> Any:
        return self._flowable(markup(text), self._styles[style])

    def _head(self) -> list[Any]:
        about = self._about
        lines = [
            f"{about.since_text} to {about.until_text}, times in UTC. Asked for: {about.asked}.",
            f"{about.transfers:,} transfers of {about.population:,} in the record.",
            f"Made by {about.by}, {about.created}, calltrail {about.version}.",
        ]
        if about.origin:
            lines.append(
                f"Rests on the checkpoint of {about.origin} at {about.size:,} events, root {about.root}."
            )
        summary = [f"{outcome}: {count:,}" for outcome, count in about.outcomes.items()]
        gaps = [
            f"{gap['agent']}: {gap['kind']} from {gap['from']} to {gap['to'] or 'now'}, {gap['why']}"
            for gap in about.gaps
        ]
        return [
            self._paragraph("Call transfers", "Title"),
            *map(self._paragraph, lines),
            self._paragraph("Summary", "Heading2"),
            *map(self._paragraph, summary or ["No transfer in this time."]),
            self._paragraph("Is the record complete?", "Heading2"),
            *map(self._paragraph, gaps or ["No known gaps."]),
            self._paragraph("Transfers", "Heading2"),
        ]

    def add(self, row: Mapping[str, Any]) -> None:
        from reportlab.platypus import KeepTogether

        title = f"{row['agent']} to {row['destination'] or 'unknown destination'}: {row['outcome']}"
        steps = ", ".join(f"{step['step']} at {step['position']}" for step in row["steps"]) or "only observed"
        settled = plain(row["settled_at"]) or "not yet"
        gaps = "; ".join(f"{gap['kind']} from {gap['from']} to {gap['to'] or 'now'}" for gap in row["gaps"])
        facts = (
            ("Why", row["reason"] or "no reason given"),
            ("Asked by", row["caller"] or "nobody through us: only observed"),
            ("Call", f"{row['call_id']}, connId {row['conn_id'] or 'unknown'}"),
            ("When", plain(row["requested_at"])),
            ("By our clock", f"recorded {plain(row['recorded_at'])}, settled {settled}"),
            ("Because", row["grade"] or row["message"] or "nothing known"),
            ("Steps (positions)", steps),
            ("Evidence (positions)", ", ".join(map(str, row["evidence"])) or "none"),
            ("Gaps", gaps or "no known gaps"),
            ("Transfer", row["transfer_id"]),
        )
        lines = [self._paragraph(f"{name}: {value}") for name, value in facts]
        self._story.append(KeepTogether([self._paragraph(title, "Heading4"), *lines]))

    def close(self, redactions: Sequence[Mapping[str, Any]]) -> None:
        from reportlab.lib.pagesizes import A4
        from reportlab.platypus import SimpleDocTemplate

        said = [f"{one['position']}: {one['at']} by {one['who']}, {one['why']}" for one in redactions]
        self._story += [
            self._paragraph("Redactions", "Heading2"),
            *map(self._paragraph, said or ["None of the events that this report rests on was redacted."]),
        ]
        SimpleDocTemplate(str(self._path), pagesize=A4, title="Call transfers", author="calltrail").build(
            self._story
        )


def markup(text: str) -> str:
    """Text as reportlab's paragraphs take it: no markup of its own, nothing that the fonts do not have."""
    latin = "".join(one if one.isprintable() and ord(one) < 256 else f"U+{ord(one):04X}" for one in text)
    return latin.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
