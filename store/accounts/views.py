"""The account pages: profile, security, API keys, publishers and their members. Each view calls one act."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from store.accounts import domains, invitations, keys, profiles, publishers
from store.accounts.forms import DomainForm, InvitationForm, KeyForm, MemberForm, ProfileForm
from store.accounts.models import ApiKey, Invitation, Membership, Publisher, User
from store.errors import DomainError, NotFound, TooMany

form_view = require_http_methods(["GET", "HEAD", "POST"])


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # every view here asks for a signed-in person
    return request.user


@login_required
@form_view
def settings(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    form = ProfileForm(request.POST or None, initial={"name": user.first_name, "language": user.language})
    if request.method == "POST" and form.is_valid():
        try:
            profiles.edit_profile(user, **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            with translation.override(form.cleaned_data["language"]):
                messages.success(request, _("Saved."))
                return redirect("accounts:settings")
    return render(request, "accounts/settings.html", {"form": form}, status=400 if form.errors else 200)


@login_required
@require_safe
def security(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    kinds = list(Authenticator.objects.filter(user=user).values_list("type", flat=True))
    context = {
        "email": EmailAddress.objects.get_primary(user),
        "has_totp": Authenticator.Type.TOTP in kinds,
        "has_recovery_codes": Authenticator.Type.RECOVERY_CODES in kinds,
        "passkeys": kinds.count(Authenticator.Type.WEBAUTHN),
        "sessions": UserSession.objects.filter(user=user).count(),
    }
    return render(request, "accounts/security.html", context)


# ---------------------------------------------------------------- API keys


@login_required
@never_cache
@form_view
def api_keys(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    form = KeyForm(request.POST or None)
    made: ApiKey | None = None
    secret = ""
    if request.method == "POST" and form.is_valid():
        try:
            made, secret = keys.create_key(user, name=form.cleaned_data["name"])
            form = KeyForm()
        except DomainError as error:
            form.refuse(error)
    context = {
        "form": form,
        "keys": ApiKey.objects.filter(user=user, revoked_at__isnull=True),
        "revoked": ApiKey.objects.filter(user=user, revoked_at__isnull=False).count(),
        "made": made,
        "secret": secret,  # in this one answer and nowhere else
    }
    return render(request, "accounts/keys.html", context, status=201 if made else 400 if form.errors else 200)


@login_required
@require_POST
def revoke_key(request: HttpRequest, key: str) -> HttpResponse:
    user = _user(request)
    found = ApiKey.objects.filter(user=user, public_id=key).first()
    if found is None:
        raise NotFound
    keys.revoke_key(user, found)
    messages.success(request, _("The key is revoked. Whatever used it is refused from now on."))
    return redirect("accounts:keys")


# ---------------------------------------------------------------- publishers and members


@login_required
@require_safe
def my_publishers(request: HttpRequest) -> HttpResponse:
    memberships = Membership.objects.filter(user=_user(request)).select_related("publisher").order_by("publisher__slug")
    waiting = [(invitation, invitations.token_of(invitation)) for invitation in invitations.waiting_for(_user(request))]
    return render(request, "accounts/publishers.html", {"memberships": memberships, "waiting": waiting})


def _publisher(request: HttpRequest, slug: str) -> Publisher:
    found = Publisher.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound
    publishers.require_role(request.user, found)
    return found


@login_required
@form_view
def members(request: HttpRequest, slug: str) -> HttpResponse:
    user, publisher = _user(request), _publisher(request, slug)
    form = MemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        added: dict[str, Any] = form.member()
        try:
            publishers.add_member(user, publisher, **added)
        except DomainError as error:
            if error.status in (403, 404):
                raise
            form.refuse(error)
        else:
            messages.success(request, _("%(name)s is a member now.") % {"name": added["user"].username})
            return redirect("accounts:members", publisher.slug)
    return render(request, "accounts/members.html", _team(user, publisher, form=form), status=400 if form.errors else 200)


def _team(user: User, publisher: Publisher, **bound: Any) -> dict[str, Any]:
    """The context of the members' page; `bound` replaces a fresh form by the one that was refused."""
    is_owner = publisher.role_of(user) == publishers.OWNER
    return {
        "publisher": publisher,
        "memberships": publisher.memberships.select_related("user").order_by("created_at"),
        "is_owner": is_owner,
        "invitations": invitations.pending().filter(publisher=publisher) if is_owner else [],
        "form": MemberForm(),
        "invitation_form": InvitationForm(auto_id="id_invitation_%s"),
        **bound,
    }


@login_required
@require_POST
def invite(request: HttpRequest, slug: str) -> HttpResponse:
    user, publisher = _user(request), _publisher(request, slug)
    publishers.require_role(user, publisher, publishers.OWNER)
    form = InvitationForm(request.POST, auto_id="id_invitation_%s")
    if form.is_valid():
        email, role = form.cleaned_data["email"], form.cleaned_data["role"]
        try:
            if role == InvitationForm.OWNERSHIP:
                invitations.offer_ownership(user, publisher, email=email)
            else:
                invitations.invite(user, publisher, email=email, role=role)
        except TooMany:
            raise
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("A letter is on its way to %(email)s. Nothing changes until it is accepted.") % {"email": email})
            return redirect("accounts:members", publisher.slug)
    return render(request, "accounts/members.html", _team(user, publisher, invitation_form=form), status=400)


@login_required
@require_POST
def revoke_invitation(request: HttpRequest, slug: str, invitation: str) -> HttpResponse:
    user, publisher = _user(request), _publisher(request, slug)
    publishers.require_role(user, publisher, publishers.OWNER)
    found = publisher.invitations.filter(public_id=invitation).first()
    if found is None:
        raise NotFound
    invitations.revoke(user, publisher, found)
    messages.success(request, _("The invitation of %(email)s is revoked.") % {"email": found.email})
    return redirect("accounts:members", publisher.slug)


@login_required
@never_cache
@form_view
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """What a letter leads to; who has no account yet makes one first and comes back."""
    user, found = _user(request), invitations.by_token(token)
    if request.method == "POST" and request.POST.get("answer") == "accept":
        invitations.accept(user, found)
        messages.success(request, _("You belong to %(name)s now.") % {"name": found.publisher.name})
        return redirect("accounts:members", found.publisher.slug)
    if request.method == "POST":
        invitations.decline(user, found)
        messages.success(request, _("The invitation is declined."))
        return redirect("accounts:publishers")
    context = {
        "invitation": found,
        "is_addressee": invitations.is_addressee(user, found),
        "is_pending": found.state == Invitation.State.PENDING and found.expires_at > timezone.now(),
    }
    return render(request, "accounts/invitation.html", context)


@login_required
@require_POST
def remove_member(request: HttpRequest, slug: str, member: str) -> HttpResponse:
    user, publisher = _user(request), _publisher(request, slug)
    membership = publisher.memberships.select_related("user").filter(user__public_id=member).first()
    if membership is None:
        raise NotFound
    try:
        publishers.remove_member(user, publisher, user=membership.user)
    except publishers.LastOwner as error:
        messages.error(request, str(error))
        return redirect("accounts:members", publisher.slug)
    messages.success(request, _("%(name)s is no longer a member.") % {"name": membership.user.username})
    return redirect("accounts:publishers") if membership.user == user else redirect("accounts:members", publisher.slug)


@login_required
@form_view
def domain(request: HttpRequest, slug: str) -> HttpResponse:
    """The badge by domain: what to serve there, and the act that reads it. For owners."""
    user, publisher = _user(request), _publisher(request, slug)
    publishers.require_role(user, publisher, publishers.OWNER)
    if request.method == "POST" and "give_up" in request.POST:
        domains.give_up(user, publisher)
        messages.success(request, _("The badge is gone."))
        return redirect("accounts:domain", publisher.slug)
    form = DomainForm({"way": "file", **request.POST.dict()} if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            domains.verify(user, publisher, **form.cleaned_data)
        except TooMany:
            raise
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("%(domain)s is shown to be yours. The badge is there.") % {"domain": publisher.domain})
            return redirect("accounts:domain", publisher.slug)
    context = {"publisher": publisher, "form": form, "proof": domains.proof_of(publisher), "path": domains.PATH}
    context |= {
        "record": domains.RECORD,
        "goes_at": publisher.domain_missing_since and publisher.domain_missing_since + domains.MISSED_AT_MOST,
    }
    return render(request, "accounts/domain.html", context, status=422 if form.errors else 200)
