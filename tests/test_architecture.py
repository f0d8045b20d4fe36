"""The house: rooms of few files, short files, and imports that go round nowhere."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "napari_hrdv2"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDER_LIMIT, FILE_LIMIT = 16, 400
LONG = {"core/backbones/vit/model.py"}  # one network, read from top to bottom


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in FILES}


def _imports(module: str) -> set[str]:
    """Return the modules that a file imports, those under TYPE_CHECKING included."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level]
            start = ".".join(parts) if node.level else ""
            base = ".".join(filter(None, (start, node.module)))
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= (names & set(MODULES)) or {base}
    return (found & set(MODULES)) - {module}


def test_no_folder_has_more_files_than_a_reader_can_hold() -> None:
    counts = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in FILES)
    crowded = {name: count for name, count in counts.items() if count > FOLDER_LIMIT}
    assert crowded == {}
    assert counts["core"] <= 8


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_a_file_is_one_idea(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LIMIT or path.relative_to(PACKAGE).as_posix() in LONG


def test_no_imports_go_round() -> None:
    waiting = {module: _imports(module) for module in MODULES}
    while True:  # take away what imports nothing that is left
        free = {module for module, needs in waiting.items() if not needs}
        if not free:
            break
        waiting = {m: needs - free for m, needs in waiting.items() if m not in free}
    used = set().union(*waiting.values()) if waiting else set()
    assert {module for module in waiting if module in used} == set()
