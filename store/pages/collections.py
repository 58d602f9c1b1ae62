"""The pages of a person's collections, and the menu on a listing's page that puts it into one."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Exists, OuterRef, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from store.accounts.forms import ActForm
from store.accounts.models import User
from store.catalog import collections as acts
from store.catalog.models import Collection, CollectionItem, Listing
from store.errors import DomainError
from store.pages import front


class CollectionForm(ActForm):
    name = forms.CharField(
        label=gettext_lazy("Name"), max_length=Collection.NAME_CHARS, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    about = forms.CharField(label=gettext_lazy("What this collection is for"), max_length=Collection.ABOUT_CHARS, required=False)
    is_public = forms.BooleanField(
        label=gettext_lazy("Shared"),
        required=False,
        help_text=gettext_lazy(
            "Whoever has its address can see it. It appears in no search engine; the store may show it on its home page."
        ),
    )


def for_listing(user: User | AnonymousUser, listing: Listing) -> list[Collection]:
    """The person's collections, each with `holds_it`. One query, none for a visitor."""
    if not isinstance(user, User):
        return []
    holds = CollectionItem.objects.filter(collection=OuterRef("pk"), listing=listing)
    return list(Collection.objects.filter(user=user).annotate(holds_it=Exists(holds)).order_by("name")[: acts.MOST])


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def mine(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    form = CollectionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = acts.create(request.user, **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            return redirect("pages:collection", made.public_id)
    rows = Collection.objects.filter(user=request.user).annotate(size=Count("items"))
    return render(request, "pages/collections.html", {"form": form, "rows": rows}, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def collection(request: HttpRequest, public_id: str) -> HttpResponse:
    """For its owner and, when it is shared, for whoever has the address. Only its owner changes it."""
    if request.method == "POST":
        return _edit(request, public_id)
    person = request.user if isinstance(request.user, User) else None
    found = Collection.objects.filter(Q(is_public=True) | Q(user=person) if person else Q(is_public=True), public_id=public_id).first()
    if found is None:
        raise Http404
    return _shown(request, found, None)


@login_required
def _edit(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    found = get_object_or_404(Collection, public_id=public_id, user=request.user)
    form = CollectionForm(request.POST)
    if form.is_valid():
        try:
            acts.edit(request.user, public_id, **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Saved."))
            return redirect("pages:collection", public_id)
    return _shown(request, found, form)


def _shown(request: HttpRequest, found: Collection, form: CollectionForm | None) -> HttpResponse:
    """Others see what is listed; its owner also what they alone can reach, and the names of what nobody can."""
    is_mine = request.user.pk == found.user_id
    items = {item.listing_id: item for item in found.items.select_related("listing__publisher")[: acts.MOST_ITEMS]}
    seen = Listing.objects.reachable_by(request.user) if is_mine else Listing.objects.listed()
    loaded = {listing.pk: listing for listing in front.cards(seen.filter(pk__in=items))}
    listings = [loaded[pk] for pk in items if pk in loaded]
    initial = {"name": found.name, "about": found.about, "is_public": found.is_public}
    context = {
        "collection": found,
        "is_mine": is_mine,
        "listings": listings,
        "items": [(items[listing.pk], listing) for listing in listings],
        "gone": [item.listing for pk, item in items.items() if pk not in loaded] if is_mine else [],
        "compared": [listing.full_name for listing in listings if listing.current_version][:4],
        "form": form or CollectionForm(initial=initial),
    }
    return render(request, "pages/collection.html", context, status=422 if form is not None else 200)


@login_required
@require_POST
def delete(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    acts.delete(request.user, public_id)
    messages.success(request, _("The collection is deleted."))
    return redirect("pages:collections")


@login_required
@require_POST
def take_out(request: HttpRequest, public_id: str, listing: str) -> HttpResponse:
    assert isinstance(request.user, User)
    acts.take_out(request.user, public_id, listing)
    return redirect("pages:collection", public_id)


@login_required
@require_POST
def arrange(request: HttpRequest, public_id: str, listing: str) -> HttpResponse:
    """Moves one of its GPTs, or keeps why it is there."""
    assert isinstance(request.user, User)
    by = {"up": -1, "down": 1}.get(request.POST.get("move", ""), 0)
    if by:
        acts.move(request.user, public_id, listing, by=by)
    else:
        acts.annotate(request.user, public_id, listing, note=request.POST.get("note", ""))
    return redirect("pages:collection", public_id)


@login_required
@require_POST
def collect(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """From a listing's page: into one of the person's collections, out of it, or into a new one that is named."""
    assert isinstance(request.user, User)
    reachable = Listing.objects.reachable_by(request.user).select_related("publisher")
    listing = get_object_or_404(reachable, publisher__slug=publisher, slug=slug)
    if out_of := request.POST.get("out_of", ""):
        acts.take_out(request.user, out_of, listing.public_id)
        messages.success(request, _("It was taken out of the collection."))
    else:
        into = request.POST.get("into", "") or acts.create(request.user, name=request.POST.get("name", "")).public_id
        kept = acts.put(request.user, into, listing)
        messages.success(request, _("It is in your collection “%(name)s”.") % {"name": kept.name})
    return redirect("pages:listing", publisher, slug)
