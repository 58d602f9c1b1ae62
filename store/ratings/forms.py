"""Forms about ratings; the acts check again what they ask for."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from store.ratings.rating import MAX_REPLY, MAX_TEXT, REASONS


def _star_choices() -> list[tuple[int, str]]:
    return [(count, ngettext("%(stars)s star", "%(stars)s stars", count) % {"stars": count}) for count in range(5, 0, -1)]


class RateForm(forms.Form):
    stars = forms.TypedChoiceField(choices=_star_choices, coerce=int, widget=forms.RadioSelect, label=_("How good is it?"))
    text = forms.CharField(
        required=False, max_length=MAX_TEXT, widget=forms.Textarea(attrs={"rows": 6}), label=_("What should others know?")
    )


class ReplyForm(forms.Form):
    text = forms.CharField(
        max_length=MAX_REPLY,
        widget=forms.Textarea(attrs={"rows": 5}),
        label=_("Your reply"),
        help_text=_("Everybody can read it under the rating, in the name of your publisher."),
    )


class FlagForm(forms.Form):
    reason = forms.ChoiceField(choices=REASONS, widget=forms.RadioSelect, label=_("What is wrong with this rating?"))
