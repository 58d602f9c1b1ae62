"""The store as an app: what its manifest names is there, and the worker keeps no page of anybody's."""

from __future__ import annotations

import io
import json
import re

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from PIL import Image

from tests import making


@pytest.mark.parametrize(("code", "lang"), [("en", "en"), ("zh-hans", "zh-Hans")])
def test_the_manifest_names_icons_of_the_sizes_it_says(client: Client, code: str, lang: str) -> None:
    said = client.get(f"/{code}/manifest.webmanifest").json()

    assert (said["lang"], said["start_url"], said["id"]) == (lang, f"/{code}/", "/")
    assert {icon["purpose"] for icon in said["icons"]} == {"any", "maskable"}
    for icon in said["icons"]:
        path = finders.find(icon["src"].removeprefix("/static/"))
        with open(str(path), "rb") as file:
            width, height = Image.open(io.BytesIO(file.read())).size
        assert icon["sizes"] == f"{width}x{height}"


@pytest.mark.django_db
def test_the_worker_keeps_the_same_pages_for_everybody(client: Client) -> None:
    script = client.get("/sw.js")
    pages = json.loads(re.findall(r"const PAGES = (.*);", script.text)[0])
    files = json.loads(re.findall(r"const FILES = (.*);", script.text)[0])
    as_visitor = [client.get(page) for page in pages.values()]
    client.force_login(making.make_user("wanda"), backend="django.contrib.auth.backends.ModelBackend")
    as_wanda = [client.get(page) for page in pages.values()]

    assert script["Content-Type"] == "text/javascript; charset=utf-8"
    assert [page.content for page in as_visitor] == [page.content for page in as_wanda]
    assert all(not page.cookies for page in as_visitor)
    assert all(path.startswith("/static/") for path in files)
    assert {path for page in as_visitor for path in re.findall(r'(?:src|href)="(/static/[^"#]+)', page.text)} <= set(files)
