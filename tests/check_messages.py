"""Holds the Chinese messages against the sources: none missing, empty, fuzzy or left over, and the compiled file is current.

Run by `make test`; `python tests/check_messages.py --write` brings new messages from the sources into the catalogue.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "store" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"


def extracted() -> polib.POFile:
    """What the sources say now."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("store", "templates"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "migrations", "locale"))
        (copy / "store" / "locale").mkdir()
        command = [sys.executable, str(ROOT / "manage.py"), "makemessages", "-l", "zh_Hans", "--no-obsolete", "--no-location", "--no-wrap"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "store.settings"}
        code = (
            "import sys, django; from django.conf import settings; django.setup(); "
            f"settings.LOCALE_PATHS = [{str(copy / 'store' / 'locale')!r}]; "
            f"from django.core.management import execute_from_command_line; execute_from_command_line({command[1:]!r})"
        )
        subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, check=True, stdout=subprocess.DEVNULL)
        return polib.pofile(str(copy / "store" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"))


def unseen() -> list[str]:
    """Imports under a name that the extraction does not look for: what is said through them is never translated."""
    imported = re.compile(r"^\s*from django\.utils\.translation import .*gettext\w* as (?!_$)\w+", re.MULTILINE)
    return [
        f"not looked for in {path.relative_to(ROOT)}: {found.group().strip()!r}"
        for path in sorted((ROOT / "store").rglob("*.py"))
        for found in imported.finditer(path.read_text(encoding="utf-8"))
    ]


def key(entry: polib.POEntry) -> tuple[str, str]:
    return entry.msgctxt or "", entry.msgid


def problems() -> list[str]:
    catalogue, source = polib.pofile(str(CATALOGUE)), extracted()
    known, wanted = {key(e): e for e in catalogue if not e.obsolete}, {key(e): e for e in source if not e.obsolete}
    found = [f"not translated: {message!r}" for _, message in sorted(wanted.keys() - known.keys())]
    found += [f"no longer in the sources: {message!r}" for _, message in sorted(known.keys() - wanted.keys())]
    for entry in known.values():
        texts = list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]
        if not all(text.strip() for text in texts):
            found.append(f"empty: {entry.msgid!r}")
        if entry.fuzzy:
            found.append(f"fuzzy: {entry.msgid!r}")
    compiled = {key(e): e for e in polib.mofile(str(CATALOGUE.with_suffix(".mo")))}
    stale = [
        e.msgid
        for k, e in known.items()
        if k not in compiled or (compiled[k].msgstr, compiled[k].msgstr_plural) != (e.msgstr, e.msgstr_plural)
    ]
    return found + unseen() + [f"django.mo is older than django.po: {message!r}" for message in stale]


def write() -> None:
    """Adds what is new in the sources to the catalogue, drops what is gone, and compiles it."""
    source = extracted()
    CATALOGUE.parent.mkdir(parents=True, exist_ok=True)
    old_catalogue = polib.pofile(str(CATALOGUE)) if CATALOGUE.exists() else source
    known = {key(e): e for e in old_catalogue}
    for entry in source:
        if (old := known.get(key(entry))) is not None:
            entry.msgstr, entry.msgstr_plural = old.msgstr, old.msgstr_plural
        entry.flags = [flag for flag in entry.flags if flag != "fuzzy"]
    source.header, source.metadata, source.metadata_is_fuzzy = old_catalogue.header, old_catalogue.metadata, False
    source.save(str(CATALOGUE))
    source.save_as_mofile(str(CATALOGUE.with_suffix(".mo")))


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
        sys.exit(0)
    found = problems()
    print("\n".join(found) or "messages: complete")
    sys.exit(1 if found else 0)
