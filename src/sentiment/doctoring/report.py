"""Findings as a table of 80 columns with advice below it, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict

from sentiment.doctoring.findings import Finding
from sentiment.shown import pad, printable

_WIDTH = 80
_NAME_WIDTH = 16
_VERDICT_WIDTH = 4


def row(name: str, finding: Finding) -> str:
    """A line of the table, or several where more was found than fits one."""
    width = _WIDTH - _NAME_WIDTH - _VERDICT_WIDTH - 2
    first, *others = textwrap.wrap(printable(finding.found), width) or [""]
    lines = [f"{pad(name, _NAME_WIDTH)}{pad(first, width)}  {finding.verdict}"]
    return "\n".join(lines + [" " * _NAME_WIDTH + each for each in others])


def advice(findings: Mapping[str, Finding]) -> str:
    """What to do about each finding that is not ok: what must be mended first."""
    paragraphs = [
        textwrap.fill(
            f"{verdict}  {name}: {printable(finding.advice)}",
            _WIDTH,
            subsequent_indent=" " * (_VERDICT_WIDTH + 2),
            break_long_words=False,  # commands and paths are there to be copied
            break_on_hyphens=False,
        )
        for verdict in ("mend", "note")
        for name, finding in findings.items()
        if finding.verdict == verdict
    ]
    return "\n".join(paragraphs)


def as_json(findings: Mapping[str, Finding]) -> str:
    """The same for programs."""
    checks = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
    return json.dumps({"is_sound": not num_to_mend(findings), "checks": checks}, indent=2)


def num_to_mend(findings: Mapping[str, Finding]) -> int:
    """How many findings must be mended."""
    return sum(finding.verdict == "mend" for finding in findings.values())
