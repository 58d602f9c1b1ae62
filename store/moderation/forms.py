"""The forms of the review pages."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from store.moderation.models import Decision
from store.moderation.reasons import CannedReason

Action = Decision.Action


class DecisionForm(forms.Form):
    action = forms.ChoiceField(
        label=_("Decision"),
        widget=forms.RadioSelect,
        choices=[(Action.APPROVE, _("Approve")), (Action.REQUEST_CHANGES, _("Request changes")), (Action.REJECT, _("Reject"))],
    )
    canned = forms.MultipleChoiceField(
        label=_("Reasons the publisher will read"), required=False, choices=CannedReason.choices, widget=forms.CheckboxSelectMultiple
    )
    note = forms.CharField(
        label=_("Note to the publisher"), required=False, max_length=3000, strip=True, widget=forms.Textarea(attrs={"rows": 5})
    )


class ReasonForm(forms.Form):
    """For what always needs a reason: suspending and restoring."""

    reason = forms.CharField(
        label=_("Reason the publisher will read"), max_length=4000, strip=True, widget=forms.Textarea(attrs={"rows": 3})
    )
