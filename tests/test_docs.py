"""What the code and the README point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("nektar", "indexer", "processors", "dashboards", "devnet", "cli")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_runbook_entry_that_an_error_names_exists() -> None:
    named = {
        anchor
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for anchor in re.findall(r"docs/RUNBOOK\.md#([\w-]+)", file.read_text("utf-8"))
    }
    assert named
    assert named <= anchors(ROOT / "docs" / "RUNBOOK.md")


def said(text: str) -> list[str]:
    """The words of a message between what differs: names, paths, numbers and what others say."""
    differs = r"process \d+|[A-Z]{3,}\S*|0x…|\S*\d\S*|\w*:?…|[();]|: "
    return [words for part in re.split(differs, text) if len(words := part.strip(" :;,")) >= 10]


def test_every_message_that_the_runbook_quotes_is_one_that_the_code_says() -> None:
    code = "".join(f.read_text("utf-8") for package in PACKAGES for f in (ROOT / package).rglob("*.py"))
    # Texts that are written over several lines are one.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    entries = re.split(r"^## ", (ROOT / "docs" / "RUNBOOK.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    for entry in entries:
        quoted = re.findall(r"^    (?:nektar: |\w+ [EW] [\w.]+: )?(.*)$", entry, re.MULTILINE)
        assert quoted, f"{entry.splitlines()[0]}: quotes no message"
        for words in (words for line in quoted for words in said(line)):
            assert words in code, words


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/DESIGN.md", "deploy/README.md"])
def test_every_file_that_a_page_links_to_exists(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf-8")):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_every_command_that_the_readme_shows_exists() -> None:
    help_text = (ROOT / "cli" / "main.py").read_text("utf-8")
    shown = set(re.findall(r"\.venv/bin/nektar (\w+)", (ROOT / "README.md").read_text("utf-8")))
    assert shown
    for command in shown:
        assert f"def {command}(" in help_text
