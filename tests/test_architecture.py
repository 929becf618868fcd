"""docs/architecture.md against the code: who imports whom, and what exists at all."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import ROOT

SOURCE = ROOT / "src" / "sentiment"


def table() -> dict[str, set[str]]:
    """The rooms of the table with those they may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)\.py` \|.*\| ([^|]*) \|$", text, flags=re.MULTILINE)
    return {room: set(re.findall(r"[\w/]+", allowed)) for room, allowed in rows}


def rooms() -> dict[str, Path]:
    return {
        str(path.relative_to(SOURCE).with_suffix("")): path
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "__init__.py"
    }


def imports(path: Path) -> set[str]:
    """The rooms that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sentiment"):
            found.add((node.module or "").removeprefix("sentiment").strip(".").replace(".", "/"))
    return found


def is_allowed(room: str, allowed: set[str]) -> bool:
    if "everything" in allowed or room in allowed:
        return True
    return any(room.startswith(f"{each}/") for each in allowed)


def test_the_table_lists_every_room():
    assert set(table()) == set(rooms())


def test_rooms_import_only_what_the_table_allows():
    for room, path in rooms().items():
        for imported in imports(path):
            assert is_allowed(imported, table()[room]), f"{room} imports {imported}"


def test_the_table_allows_nothing_that_is_not_used():
    for room, path in rooms().items():
        used = imports(path)
        for each in table()[room] - {"everything"}:
            assert any(is_allowed(one, {each}) for one in used), f"{room} does not import {each}"


def test_files_and_functions_stay_small():
    for room, path in rooms().items():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, f"{room} is usually two"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = (node.end_lineno or 0) - node.body[0].lineno
                assert body <= 55, f"{room}: {node.name} is usually two"


def test_nothing_imports_the_trainer_but_its_command():
    importers = {room for room, path in rooms().items() if "training/trainer" in imports(path)}
    assert importers == {"commands/train"}


def test_no_import_goes_round_in_a_circle():
    above = {room: imports(path) & set(rooms()) for room, path in rooms().items()}
    while free := [room for room, needed in above.items() if not needed]:
        above = {room: needed - set(free) for room, needed in above.items() if room not in free}
    assert not above
