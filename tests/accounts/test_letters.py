"""Every letter that sign-in sends has a plain and an HTML part, in the reader's language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from allauth.account.adapter import get_adapter
from allauth.core import context as allauth_context
from django.conf import settings
from django.core import mail
from django.test import RequestFactory
from django.utils import timezone

from tests import making

pytestmark = pytest.mark.django_db
FOLDERS = ("account/email", "mfa/email")
TEMPLATES = Path(settings.BASE_DIR) / "templates"
LETTERS = sorted(f"{folder}/{path.name[:-12]}" for folder in FOLDERS for path in (TEMPLATES / folder).glob("*_message.txt"))
LETTERS = [name for name in LETTERS if not name.endswith("/base")]
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_every_letter_has_both_parts_in_the_readers_language(rf: RequestFactory, language: str) -> None:
    user = making.make_user("wanda", language=language)
    facts: dict[str, Any] = {"user": user, "timestamp": timezone.now(), "activate_url": "https://gpt.example/confirm/a?b=1&c=2"}
    names = dict.fromkeys(("email", "from_email", "to_email", "deleted_email"), "<b>@example.org")
    urls = dict.fromkeys(("password_reset_url", "signup_url"), "https://gpt.example/reset/")
    with allauth_context.request_context(rf.get("/")):
        for name in LETTERS:
            get_adapter().send_mail(name, user.email, {**facts, **names, **urls, "ip": "10.0.0.1", "user_agent": "Browser"})

    assert len(mail.outbox) == len(LETTERS) > 10
    for name, message in zip(LETTERS, mail.outbox, strict=True):
        (html, kind), *others = message.alternatives  # type: ignore[attr-defined]
        assert (kind, others) == ("text/html", [])
        assert "<b>@" not in html
        assert "{{" not in message.body + html, name
        for text in (message.subject, message.body, html):
            assert bool(_CHINESE.search(text)) == (language == "zh-hans"), name
        for url in re.findall(r"https://\S+", str(message.body)):
            assert f'href="{url.replace("&", "&amp;")}"' in html, name
