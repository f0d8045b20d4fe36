"""Links of the Markdown pages lead somewhere, and their Python examples are right."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

from micrographs import make_sample

TOP = Path(__file__).parents[1]
PAGES = [
    *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((TOP / "docs").glob("**/*.md")),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def _name(page: Path) -> str:
    return str(page.relative_to(TOP))


def _prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """The names that GitHub gives headings."""
    headings = HEADING.findall(_prose(page))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def _python(page: Path) -> list[str]:
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    return [code for language, code in blocks if language in ("python", "pycon")]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in map("".join, LINK.findall(_prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_examples_can_be_parsed(page: Path) -> None:
    for code in _python(page):
        if ">>>" not in code:
            ast.parse(code, filename=_name(page))


def test_the_readme_s_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_sample("particles", (64, 80))
    names = {"image": sample.image, "labels": sample.scribbles}
    monkeypatch.chdir(tmp_path)
    for code in _python(TOP / "README.md"):
        exec(compile(code, "README.md", "exec"), names)
    assert names["segmentation"].shape == (64, 80)
    assert names["probability"].shape == (2, 64, 80)
    assert (tmp_path / "alloy.safetensors").is_file()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_examples_with_prompts_give_what_they_show(page: Path) -> None:
    text = "\n\n".join(code for code in _python(page) if ">>>" in code)
    test = doctest.DocTestParser().get_doctest(text, {}, _name(page), str(page), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def _source_modules() -> list[str]:
    """Modules of the package with examples, but for those that need Qt."""
    package = TOP / "src" / "napari_hrdv2"
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if ">>>" in path.read_text(encoding="utf-8") and parts[1] != "widgets":
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", _source_modules())
def test_examples_in_docstrings_give_what_they_show(name: str) -> None:
    module = importlib.import_module(name)
    failures, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failures == 0
