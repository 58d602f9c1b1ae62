"""The form of what comes by e-mail."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from store.notifications.models import Topic


class PreferencesForm(forms.Form):
    topics = forms.MultipleChoiceField(label=_("By e-mail"), choices=Topic.choices, required=False, widget=forms.CheckboxSelectMultiple)
    rhythm = forms.ChoiceField(
        label=_("How often"),
        choices=[("each", _("At once, one for each message")), ("weekly", _("Once a week, all in one"))],
        required=False,
        widget=forms.RadioSelect,
    )
