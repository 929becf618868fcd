"""The code has the layout of docs/architecture.md; links of all pages lead somewhere."""

import ast
import re
from pathlib import Path

import pytest
from helpers.corpus import ROOT

SOURCE = ROOT / "src" / "sentiment"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def layers() -> list[str]:
    """The packages in the page's table, lowest first."""
    _, _, rest = PAGE.partition("lowest first")
    return re.findall(r"^\| `(\w+)` \|", rest, flags=re.MULTILINE)


def imports(path: Path) -> set[str]:
    """Our modules that a file imports, also inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sentiment."):
            module = (node.module or "").removeprefix("sentiment.")
            inner = {f"{module}.{alias.name}" for alias in node.names} & set(MODULES)
            modules |= inner or {module}
    return modules


def test_the_page_is_short_and_names_every_package():
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert sorted(layers()) == sorted(packages)
    assert len(PAGE.splitlines()) < 80


def test_the_page_names_only_files_that_exist():
    for name in re.findall(r"`(\w+/\w+\.py)`", PAGE):
        assert (SOURCE / name).is_file() or (ROOT / name).is_file(), name


def test_packages_import_only_from_themselves_and_from_lower_ones():
    rank = {package: number for number, package in enumerate(layers())}
    for module, path in MODULES.items():
        package = module.split(".")[0]
        for imported in imports(path) if package in rank else ():
            other = imported.split(".")[0]
            if other in rank or imports(MODULES[imported]):  # others stand beside the packages
                assert rank[other] <= rank[package], f"{module} imports {imported}"


def test_imports_have_no_cycles():
    above = {module: imports(path) - {module} for module, path in MODULES.items()}
    while free := [module for module, needed in above.items() if not needed]:
        above = {name: needed - set(free) for name, needed in above.items() if name not in free}
    assert not above


def test_files_and_functions_stay_small():
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, f"{module} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = (node.end_lineno or 0) - node.body[0].lineno
                assert body <= 55, f"{module}: {node.name} is too long"


def test_a_run_is_used_without_the_code_that_trained_it():
    for module, path in MODULES.items():
        if module.split(".")[0] in ("runs", "evaluation", "inference", "explain", "behaviour"):
            assert not any(name.startswith("training") for name in imports(path)), module


def test_no_test_imports_another():
    """What tests share lies in tests/helpers."""
    for path in (ROOT / "tests").rglob("*.py"):
        names = re.findall(
            r"^\s*(?:from|import) (\S+)", path.read_text("utf-8"), flags=re.MULTILINE
        )
        assert not any(name.split(".")[-1].startswith("test_") for name in names), path


PAGES = [
    *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data/README.md", ROOT / "tests/README.md",
    ROOT / "src/sentiment/behaviour/shipped/README.md",
]  # fmt: skip


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
