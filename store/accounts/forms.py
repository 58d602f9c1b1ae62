"""The forms of the account pages. They shape what people type; whether it is allowed is the acts' to say."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import LoginForm
from django import forms
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Membership, User
from store.errors import DomainError


class ActForm(forms.Form):
    def refuse(self, error: DomainError) -> None:
        """Shows what the act refused at the field it is about."""
        self.add_error(error.param if error.param in self.fields else None, str(error))


class SignInForm(LoginForm):
    """Says what it asks for in labels, which stay while somebody types, and in the store's own words."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = _("Username or e-mail")
        self.fields["remember"].label = _("Stay signed in")
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)


class ProfileForm(ActForm):
    name = forms.CharField(label=_("Name"), max_length=80, required=False)
    language = forms.ChoiceField(
        label=_("Language"),
        choices=[("en", "English"), ("zh-hans", "简体中文")],
        help_text=_("Of e-mails and messages. Pages follow the switch in the header."),
    )


class KeyForm(ActForm):
    name = forms.CharField(
        label=_("Name of the new key"),
        max_length=60,
        help_text=_("Where you will use it, for example “laptop”."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class InvitationForm(ActForm):
    OWNERSHIP = "ownership"

    email = forms.EmailField(label=_("E-mail address"), max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(
        label=_("As"),
        choices=[*Membership.Role.choices, (OWNERSHIP, _("Owner in your place"))],
        initial=Membership.Role.MEMBER,
        help_text=_("“Owner in your place” hands the publisher over: once they accept, you are a maintainer."),
    )


class DomainForm(ActForm):
    domain = forms.CharField(
        label=_("Domain"),
        max_length=253,
        help_text=_("Without https, for example example.org."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    way = forms.ChoiceField(
        label=_("Where the line is"),
        choices=[("file", _("In the file")), ("dns", _("In the TXT record"))],
        widget=forms.RadioSelect,
        initial="file",
    )


class ErasureForm(ActForm):
    """The username once more, since a press of a button may be one too many."""

    username = forms.CharField(label=_("Your username"), max_length=150, widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user

    def clean_username(self) -> str:
        given: str = self.cleaned_data["username"]
        if given != self._user.username:
            raise forms.ValidationError(_("This is not your username."))
        return given


class MemberForm(ActForm):
    username = forms.CharField(label=_("Username"), max_length=150, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices, initial=Membership.Role.MEMBER)

    def clean_username(self) -> User:
        user = User.objects.filter(username=self.cleaned_data["username"], is_active=True).first()
        if user is None:
            raise forms.ValidationError(_("Nobody here has this username."))
        return user

    def member(self) -> dict[str, Any]:
        return {"user": self.cleaned_data["username"], "role": self.cleaned_data["role"]}
