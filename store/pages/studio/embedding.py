"""Where a GPT may be shown on other sites: turned on, limited, and the lines to include."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from store.catalog.revisions import EDITORS
from store.errors import DomainError
from store.pages.indexing import site_of
from store.pages.studio.access import form_view, own_listing, person
from store.pages.studio.forms import ActForm
from store.playground import embeds


class EmbedForm(ActForm):
    is_on = forms.BooleanField(label=gettext_lazy("Other sites may show it"), required=False)
    origins = forms.CharField(
        label=gettext_lazy("Which sites"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "https://example.org", "spellcheck": "false"}),
        help_text=gettext_lazy("One on each line, without a path. Browsers show the chat nowhere else."),
    )
    tokens_per_day = forms.IntegerField(
        label=gettext_lazy("Tokens a day"), help_text=gettext_lazy("Of all these sites together, questions and answers. Then it says so.")
    )


@login_required
@form_view
def configure(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    embed = embeds.of_listing(found)
    kept = {"is_on": embed.is_on, "origins": "\n".join(embed.origins), "tokens_per_day": embed.tokens_per_day}
    form = EmbedForm(request.POST or None, initial=kept)
    if request.method == "POST" and form.is_valid():
        try:
            embeds.configure(person(request), found, **form.cleaned_data)
        except DomainError as error:
            if error.status in (403, 404):
                raise
            form.refuse(error)
        else:
            messages.success(request, _("Saved."))
            return redirect("pages:studio_embed", publisher, slug)
    context = {
        "form": form,
        "listing": found,
        "publisher": found.publisher,
        "embed": embed,
        "is_embeddable": embeds.is_embeddable(found),
        "left": embeds.tokens_left(embed) if embed.pk and embed.is_on else None,
        "script": f"{site_of(request)}/embed.js",
    }
    return render(request, "pages/studio/embed.html", context, status=422 if form.errors else 200)
