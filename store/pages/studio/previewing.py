"""What texts will look like, while they are being written, and the headings that a description should have."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from store.catalog.revisions import LIMITS


@login_required
@require_POST
def preview(request: HttpRequest) -> HttpResponse:
    """A piece of a page: name, summary and description as the GPT's page shows them. Nothing is kept."""
    texts = {name: request.POST.get(name, "")[:limit] for name, limit in LIMITS.items()}
    return render(request, "pages/studio/preview.html", texts)


def card_template(language: str) -> str:
    """Markdown to begin a description with, in that language whatever the page's is."""
    with translation.override(language):
        parts = (
            (_("Intended use"), _("Who it is for, what for, and one question it answers well.")),
            (_("Limits"), _("What it gets wrong, what it was not made for, and what nobody should use it for.")),
            (_("Data"), _("What it was trained on or told, where that comes from, and what allows its use.")),
            (_("Licence"), _("What people may do with its answers and, where they can be downloaded, with its weights.")),
            (_("Evaluation"), _("What was measured, on which examples, and how it compares with its base.")),
        )
        return "\n\n".join(f"## {heading}\n\n{hint}" for heading, hint in parts) + "\n"
