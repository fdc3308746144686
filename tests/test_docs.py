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


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/DESIGN.md", "docs/EVIDENCE.md", "deploy/README.md"]
)
def test_every_file_that_a_page_links_to_exists(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf-8")):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_every_command_that_the_readme_shows_exists() -> None:
    help_text = (ROOT / "cli" / "main.py").read_text("utf-8")
    shown = set(re.findall(r"\.venv/bin/nektar (\w+)", (ROOT / "README.md").read_text("utf-8")))
    assert shown
    for command in shown:
        assert f"def {command}(" in help_text or f'name="{command}"' in help_text
