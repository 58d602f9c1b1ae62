"""The forms of the studio. They shape what people type; whether it is allowed is the acts' to say, and `refuse` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Self

from django import forms
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Publisher, User
from store.billing import prices
from store.catalog import editing, licences, versions
from store.catalog.errors import InvalidVersion
from store.catalog.listings import LANGUAGE_TAGS, LEAST_MONTHLY, MOST_MONTHLY
from store.catalog.models import Listing, UseCase, Version
from store.errors import DomainError
from store.jobs import finetunes
from store.pages.figures import offer
from store.pages.studio.previewing import card_template
from store.pages.templatetags.ui import bcp47, language_name

MICRO = 1_000_000
PARAMETERS = ("temperature", "top_p", "max_tokens")
TEXT_LANGUAGES = {"en": "en", "zh": "zh-hans"}


class ActForm(forms.Form):
    """A form whose act may refuse: the refusal stands at the field it is about."""

    params: dict[str, str] = {}  # an act's name of a field → the form's

    def refuse(self, error: DomainError) -> None:
        field = self.params.get(error.param or "", error.param or "")
        self.add_error(field if field in self.fields else None, str(error))


class PublisherForm(ActForm):
    name = forms.CharField(label=_("Name"), max_length=80, help_text=_("As people see it, for example Harbour Works."))
    slug = forms.CharField(
        label=_("Name in addresses"), max_length=48, help_text=_("Lower-case letters, digits and hyphens. It stays as it is.")
    )
    kind = forms.ChoiceField(label=_("Kind"), choices=Publisher.Kind.choices, initial=Publisher.Kind.PERSON)
    about = forms.CharField(label=_("About"), max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 3}))


class TextsForm(ActForm):
    """Name, summary and description in both languages of the store."""

    params = {f"{tag}.{field}": f"{field}_{short}" for short, tag in TEXT_LANGUAGES.items() for field in ("name", "summary", "card")}

    name_en = forms.CharField(label=_("Name"), max_length=60, required=False)
    summary_en = forms.CharField(label=_("Summary"), max_length=200, required=False, help_text=_("What it does, in one sentence."))
    card_en = forms.CharField(
        label=_("Description"),
        max_length=20_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text=_("Markdown. Say what it is good at, what it is not, and how to ask it."),
    )
    name_zh = forms.CharField(label=_("Name"), max_length=60, required=False)
    summary_zh = forms.CharField(label=_("Summary"), max_length=200, required=False, help_text=_("What it does, in one sentence."))
    card_zh = forms.CharField(
        label=_("Description"), max_length=20_000, required=False, widget=forms.Textarea(attrs={"rows": 6}), help_text=_("Markdown.")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.template_en, self.template_zh = (card_template(tag) for tag in TEXT_LANGUAGES.values())
        for short, tag in TEXT_LANGUAGES.items():
            for field in ("name", "summary", "card"):
                self.fields[f"{field}_{short}"].widget.attrs["lang"] = bcp47(tag)

    def texts(self) -> dict[str, dict[str, str]]:
        values = self.cleaned_data
        return {tag: {field: values[f"{field}_{short}"] for field in ("name", "summary", "card")} for short, tag in TEXT_LANGUAGES.items()}


class EditedTextsForm(TextsForm):
    """The texts of a listing that is there. `seen` remembers what the form was opened on."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    @classmethod
    def of(cls, texts: Mapping[str, str], *, stored: Mapping[str, str]) -> Self:
        """With these texts to go on with, over those that are `stored` now; both as {"<language>.<field>": text}."""
        initial = {cls.params[name]: text for name, text in texts.items()}
        return cls(initial={**initial, "seen": editing.fingerprints(stored)})


class PricesForm(ActForm):
    params = {"input_price_micro": "input_price", "output_price_micro": "output_price", "monthly_price_micro": "monthly_price"}

    input_price = forms.DecimalField(label=_("Price of 1M input tokens, $"), min_value=0, max_value=1000, decimal_places=6, initial=0)
    output_price = forms.DecimalField(label=_("Price of 1M output tokens, $"), min_value=0, max_value=1000, decimal_places=6, initial=0)
    monthly_price = forms.DecimalField(
        label=_("Price of 30 days, $"),
        min_value=0,
        max_value=1000,
        decimal_places=6,
        required=False,
        help_text=_("Instead of your price per token, for who pays it once. Empty: not offered."),
    )
    monthly_tokens = forms.IntegerField(
        label=_("Tokens within the 30 days"),
        min_value=LEAST_MONTHLY,
        max_value=MOST_MONTHLY,
        required=False,
        help_text=_("Fair use, read and written together. After that the price per token holds again."),
    )

    def prices(self) -> dict[str, int]:
        values = self.cleaned_data
        micro = {f"{name}_micro": int((values[name] or 0) * MICRO) for name in ("input_price", "output_price", "monthly_price")}
        return micro | {"monthly_tokens": values["monthly_tokens"] or 0}


class EditedPricesForm(PricesForm):
    """The prices of a listing that is there. `seen` remembers what the form was opened on."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)


class ClaimsForm(ActForm):
    """What a listing says of itself: what it is for, in which languages, under which licence."""

    use_cases = forms.MultipleChoiceField(label=_("Use cases"), widget=forms.CheckboxSelectMultiple, help_text=_("One to four."))
    languages = forms.MultipleChoiceField(
        label=_("Works in"),
        widget=forms.CheckboxSelectMultiple,
        choices=[(tag, language_name(tag)) for tag in LANGUAGE_TAGS],
        help_text=_("Only languages you have tried it in: the reviewer tries them too."),
    )
    licence = forms.CharField(
        label=_("Licence"),
        max_length=60,
        required=False,
        initial="Apache-2.0",
        widget=forms.TextInput(attrs={"list": "licences", "autocomplete": "off", "spellcheck": "false"}),
        help_text=_("From the SPDX list: type to search it. Several are joined by OR or AND."),
    )
    licence_name = forms.CharField(
        label=_("Name of another licence"), max_length=60, required=False, help_text=_("Only for one that is not on the list.")
    )
    licence_url = forms.CharField(label=_("Address of its text"), max_length=300, required=False, widget=forms.URLInput)

    known_licences = staticmethod(licences.identifiers)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        use_cases = self.fields["use_cases"]
        assert isinstance(use_cases, forms.MultipleChoiceField)
        use_cases.choices = [(use_case.slug, use_case.name) for use_case in UseCase.objects.all()]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("licence_name") and not cleaned.get("licence_url") and "licence_url" not in self.errors:
            self.add_error("licence_url", _("Say where its text can be read."))
        return cleaned


class PromptForm(ActForm):
    """Instructions, starters and default parameters on a base."""

    base = forms.ChoiceField(
        label=_("Base"),
        help_text=_("The model that answers. What it asks is added to your price, and its publisher gets a share of what yours earns."),
    )
    instructions = forms.CharField(
        label=_("Instructions"),
        max_length=8000,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text=_("What the model is told before every conversation. Only your publisher and reviewers see it."),
    )
    starters = forms.CharField(
        label=_("Conversation starters"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=_("One on each line, at most six. People press them to try it."),
    )
    temperature = forms.FloatField(
        label=_("Temperature"), min_value=0, max_value=2, required=False, help_text=_("Low repeats the likeliest words.")
    )
    top_p = forms.FloatField(label=_("Top p"), min_value=0, max_value=1, required=False, help_text=_("1 leaves every word possible."))
    max_tokens = forms.IntegerField(label=_("Longest answer, tokens"), min_value=1, max_value=2048, required=False)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bases = {version.public_id: version for version in usable_bases(user)}
        base = self.fields["base"]
        assert isinstance(base, forms.ChoiceField)
        base.choices = [(public_id, _offered(version)) for public_id, version in self.bases.items()]

    def prompt(self, *, of: Version | None = None) -> dict[str, Any]:
        """What the acts of prompt versions take, apart from the base; parameters of `of` that have no field here are kept."""
        kept = {name: value for name, value in of.parameters.items() if name not in PARAMETERS} if of else {}
        values = self.cleaned_data
        return {
            "instructions": values["instructions"],
            "starters": [line.strip() for line in values["starters"].splitlines() if line.strip()],
            "parameters": {**kept, **{name: values[name] for name in PARAMETERS if values[name] is not None}},
        }


class TriedForm(PromptForm):
    """As a prompt GPT stands in a form that nobody has sent."""

    def parameters(self) -> dict[str, Any]:
        """Raises InvalidVersion that names the field which can't be used."""
        wrong = [name for name in PARAMETERS if name in self.errors]
        if wrong:
            message = f"{self.fields[wrong[0]].label}: {' '.join(map(str, self.errors[wrong[0]]))}"
            raise InvalidVersion(message, param=wrong[0])
        return {name: self.cleaned_data[name] for name in PARAMETERS if self.cleaned_data.get(name) is not None}


class NewGPTForm(PromptForm, ClaimsForm, PricesForm, TextsForm):
    """A prompt GPT from nothing: the listing and its first version together."""

    params = {**TextsForm.params, **PricesForm.params}

    slug = forms.CharField(
        label=_("Name in addresses"),
        max_length=48,
        help_text=_("Lower-case letters, digits and hyphens. It stays as it is."),
    )


class VersionForm(PromptForm):
    """A further version of a prompt GPT, or an edit of a draft."""

    number = forms.CharField(label=_("Version"), max_length=20, help_text=_("Three numbers, higher than the last: 1.1.0."))
    change_log = forms.CharField(label=_("What changed"), max_length=4000, required=False, widget=forms.Textarea(attrs={"rows": 3}))


class DraftForm(VersionForm):
    """A draft that is there. `seen` remembers what the form was opened on."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)


class FolderForm(ActForm):
    """What is brought, and what it was made from."""

    kind = forms.ChoiceField(
        label=_("What you bring"),
        widget=forms.RadioSelect,
        initial="adapter",
        choices=[
            ("adapter", _("An adapter: adapter_config.json and adapter_model.safetensors, as PEFT saves them")),
            ("weights", _("Full weights: a Hugging Face folder with config.json, tokenizer.json and safetensors")),
        ],
    )
    base = forms.ChoiceField(
        label=_("Made from"),
        required=False,
        help_text=_(
            "What an adapter belongs to, and what weights were trained from. It is named on your page and shares in what yours earns."
        ),
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bases = {version.public_id: version for version in finetunes.trainable_bases(user)}
        base = self.fields["base"]
        assert isinstance(base, forms.ChoiceField)
        named = [(public_id, _offered(version)) for public_id, version in self.bases.items()]
        base.choices = [("", _("Nothing else in the store")), *named]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("kind") == "adapter" and not cleaned.get("base") and "base" not in self.errors:
            self.add_error("base", _("Choose the weights that the adapter belongs to."))
        return cleaned

    def folder(self) -> dict[str, Any]:
        """What `folders.begin` takes."""
        return {"kind": self.cleaned_data["kind"], "base": self.bases.get(self.cleaned_data["base"])}


class NewFolderForm(FolderForm, ClaimsForm, PricesForm, TextsForm):
    """A GPT from files: the listing, whose first version is made when they are here."""

    params = {**TextsForm.params, **PricesForm.params}

    slug = forms.CharField(
        label=_("Name in addresses"),
        max_length=48,
        help_text=_("Lower-case letters, digits and hyphens. It stays as it is."),
    )


class ReleaseForm(ActForm):
    """The number of a version that is made of files."""

    number = forms.CharField(label=_("Version"), max_length=20, help_text=_("Three numbers, higher than the last: 1.1.0."))
    change_log = forms.CharField(label=_("What changed"), max_length=4000, required=False, widget=forms.Textarea(attrs={"rows": 3}))


class TransferForm(ActForm):
    to = forms.CharField(
        label=_("The other publisher"), max_length=60, help_text=_("Its name in addresses. One of its owners has to accept within a week.")
    )


class RetirementForm(ActForm):
    """What a publisher says of a version that is out."""

    act = forms.ChoiceField(
        label=_("What to do"),
        choices=[("deprecate", _("Deprecate: it still answers")), ("yank", _("Withdraw: it answers nobody any more"))],
    )
    notice = forms.CharField(
        label=_("What people are told"),
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Why, and what to use instead. Everybody can read it."),
    )


class SubmissionForm(ActForm):
    visibility = forms.ChoiceField(
        label=_("When approved"),
        choices=[("public", _("Public: listed for everybody")), ("unlisted", _("Unlisted: for whoever has the address"))],
    )
    note = forms.CharField(label=_("Note to the reviewer"), max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 3}))


def _offered(base: Version) -> str:
    price = prices.of_version(base)
    return base.full_name if price.is_free else f"{base.full_name} · {offer(price)}"


def usable_bases(user: User) -> list[Version]:
    """The current versions of weights and adapters that this user can build on."""
    reachable = Listing.objects.reachable_by(user)
    return list(
        Version.objects.available()
        .filter(kind__in=[Version.Kind.WEIGHTS, Version.Kind.ADAPTER], listing__in=reachable, listing__current_version=F("pk"))
        .select_related("listing__publisher", "base__listing")
        .order_by("kind", "listing__publisher__slug", "listing__slug")
    )


PRICES = ("input_price_micro", "output_price_micro", "monthly_price_micro", "monthly_tokens")
PERMISSIONS = ("allow_finetune", "allow_download")


def prices_of(listing: Listing) -> dict[str, Any]:
    stored = {name: getattr(listing, name) for name in PRICES}
    return {**as_prices(stored), "seen": editing.fingerprints(stored)}


def as_prices(stored: Mapping[str, int]) -> dict[str, Any]:
    """What a listing keeps, as the form holds it."""
    amounts = {name.removesuffix("_micro"): Decimal(stored[name]) / MICRO for name in PRICES[:3]}
    return {**amounts, "monthly_price": amounts["monthly_price"] or None, "monthly_tokens": stored["monthly_tokens"] or None}


def permissions_seen(listing: Listing) -> str:
    return editing.fingerprints({name: getattr(listing, name) for name in PERMISSIONS})


def prompt_of(version: Version) -> dict[str, Any]:
    return {"base": version.base.public_id if version.base else "", **as_typed(versions.editable(version))}


def as_typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an act of versions takes, as the fields of a form hold it."""
    return {
        "instructions": fields.get("instructions", ""),
        "starters": "\n".join(fields["starters"]),
        **{name: fields["parameters"].get(name) for name in PARAMETERS},
    }
