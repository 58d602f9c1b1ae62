"""The style sheet in production: one file, hashed, with everything its imports named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command

CSS = Path(settings.BASE_DIR) / "static" / "css"


def test_collectstatic_puts_the_parts_in_place_of_the_imports(tmp_path: Path, settings: pytest.FixtureRequest) -> None:
    settings.STATIC_ROOT = tmp_path  # type: ignore[attr-defined]
    settings.STORAGES = {"staticfiles": {"BACKEND": "store.static_files.BundledStaticFilesStorage"}}  # type: ignore[attr-defined]

    call_command("collectstatic", interactive=False, verbosity=0)

    manifest = json.loads((tmp_path / "staticfiles.json").read_text())["paths"]
    sheet = (tmp_path / manifest["css/site.css"]).read_text()
    assert "@import" not in sheet
    for part in CSS.rglob("*.css"):
        if part.name != "site.css":
            assert part.read_text() in sheet, part
    assert (tmp_path / f"{manifest['css/site.css']}.gz").stat().st_size < 30_000


def test_every_part_of_the_style_sheet_is_imported_once() -> None:
    imported = re.findall(r'@import "([^"]+)"', (CSS / "site.css").read_text())

    assert sorted(imported) == sorted(str(path.relative_to(CSS)) for path in CSS.rglob("*.css") if path.name != "site.css")


def test_no_class_is_laid_out_in_two_parts() -> None:
    began: dict[str, str] = {}
    for path in CSS.rglob("*.css"):
        for name in set(re.findall(r"^  \.([\w-]+) \{", path.read_text(), re.MULTILINE)):
            assert began.setdefault(name, path.name) == path.name, name


def test_raw_colours_stand_in_the_tokens_only() -> None:
    for path in CSS.rglob("*.css"):
        if path.name not in ("tokens.css", "glyph.css"):
            assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(", path.read_text()), path


def test_every_icon_the_templates_name_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'id="i-([a-z]+)"', (CSS.parent / "icons.svg").read_text()))
    named: set[str] = set()
    for template in (Path(settings.BASE_DIR) / "templates").rglob("*.html"):
        named |= set(re.findall(r'{% icon "([a-z-]+)"', template.read_text()))
        named |= set(re.findall(r'icon_name="([a-z-]+)"', template.read_text()))

    assert named <= sprite
