"""The forms of the fine-tune pages. Whether what they hold is allowed is the acts' to say, and `refuse` shows it at its field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.conf import settings
from django.template.defaultfilters import filesizeformat
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Publisher, User
from store.catalog.listings import LANGUAGE_TAGS
from store.catalog.models import Listing, Version
from store.errors import DomainError, NotFound
from store.jobs import pretraining
from store.jobs.checkpoints import Checkpoint
from store.jobs.evaluations import MAX_LIMIT
from store.jobs.finetunes import OF_ADAPTERS, SETTINGS, defaults, trainable_bases
from store.jobs.models import Upload, UploadedFile
from store.jobs.suites import offered_for
from store.jobs.uploads import arrived_sha256, find, piece_bytes

OFFERED_FILES = 50


class RefusableForm(forms.Form):
    def refuse(self, error: DomainError) -> None:
        self.add_error(error.param if error.param in self.fields else None, str(error))


class FileForm(RefusableForm):
    """A form that brings a file: in the form itself, or in pieces beforehand. Then `upload` names them and the field `file` is empty.

    `begun` is an upload to go on with, perhaps complete.
    """

    file = forms.FileField()
    # Kept by no browser: what it would fill in when one comes back would stand for a file that nobody sees.
    upload = forms.CharField(required=False, max_length=40, widget=forms.HiddenInput(attrs={"autocomplete": "off"}))

    @property
    def piece_bytes(self) -> int:
        return piece_bytes(settings.MAX_UPLOAD_BYTES)

    def __init__(self, *args: Any, user: User, begun: Upload | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user
        self.begun = None if begun is None or begun.is_complete or self.is_bound else begun
        if begun is not None and begun.is_complete:
            self.initial["upload"] = begun.public_id
        if (self.data if self.is_bound else self.initial).get("upload", "").strip():
            self.fields["file"].required = False

    @property
    def begun_sha256(self) -> str:
        return arrived_sha256(self.begun) if self.begun is not None else ""

    @property
    def uploaded(self) -> Upload | None:
        """What was brought in pieces and is complete: as the form was opened with it, or as it was sent, once it is checked."""
        public_id = getattr(self, "cleaned_data", self.initial).get("upload")
        try:
            upload = find(self._user, public_id) if public_id else None
        except NotFound:
            return None
        return upload if upload and upload.is_complete else None


SCOPES = {
    "adapter": (
        _("An adapter"),
        _(
            "Some megabytes beside weights that stay as they are. It takes the least memory and time, and answers together with other "
            "adapters of its base. Right for a style, a format or a task."
        ),
    ),
    "weights": (
        _("All weights"),
        _(
            "A model of its own, as large as its base: it takes several times the memory to train, and an engine of its own to answer. "
            "Worth it for much data, such as a new language or a field of knowledge."
        ),
    ),
    "nothing": (
        _("A new model, from nothing"),
        _(
            "A small GPT with a tokenizer of its own that has read nothing but your texts. It needs no base, and plain text, the "
            "more the better. It goes on as such texts do; it has never seen a conversation."
        ),
    ),
}


def _explained(name: str | Promise, about: str | Promise) -> SafeString:
    """The label of a choice, in one piece beside its button."""
    return format_html("<span><b>{}</b> {}</span>", name, about)


class DataForm(FileForm):
    """What to train, and on what: a file brought now or one that is here already."""

    base = forms.ChoiceField(label=_("Base"))
    scope = forms.ChoiceField(label=_("What is trained"), widget=forms.RadioSelect)
    file = forms.FileField(
        label=_("New data file"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".jsonl,.json,.csv,.txt"}),
    )
    earlier = forms.ChoiceField(label=_("Or a file from before"), required=False)

    def __init__(self, *args: Any, user: User, publisher: Publisher, **kwargs: Any) -> None:
        super().__init__(*args, user=user, **kwargs)
        self.bases = {version.public_id: version for version in trainable_bases(user)}
        files = UploadedFile.objects.filter(publisher=publisher, purpose=UploadedFile.Purpose.FINETUNE)[:OFFERED_FILES]
        self.earlier_files = {file.public_id: file for file in files}
        self.fields["base"].required = bool(self.bases) and self.data.get("scope") != "nothing"
        self._choices("base", [(name, version.full_name) for name, version in self.bases.items()])
        named = [(name, f"{file.name} · {filesizeformat(file.size_bytes)}") for name, file in self.earlier_files.items()]
        self._choices("earlier", [("", _("None")), *named])
        self._choices("scope", [(name, _explained(label, about)) for name, (label, about) in SCOPES.items()])
        self.fields["file"].help_text = _("JSONL, CSV or plain text, at most %(size)s.") % {
            "size": filesizeformat(settings.MAX_UPLOAD_BYTES)
        }

    def _choices(self, name: str, choices: list[tuple[Any, Any]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not any(cleaned.get(name) for name in ("file", "upload", "earlier")) and "file" not in self.errors:
            self.add_error("file", _("Choose a file to train on."))
        if cleaned.get("scope") in ("adapter", "weights") and not cleaned.get("base") and "base" not in self.errors:
            self.add_error("base", _("There is no base that may be fine-tuned."))
        return cleaned


class TrainingForm(RefusableForm):
    """How something is trained, the settings that most people look at before the others."""

    first: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (kind, low, high, _default) in SETTINGS.items():
            if name in self.fields:
                self.fields[name].widget.attrs |= {"min": low, "max": high, "step": 1 if kind is int else "any"}

    @property
    def further(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in self.first]

    @property
    def foremost(self) -> list[forms.BoundField]:
        return [self[name] for name in self.first]

    def clean_prompts(self) -> list[str]:
        return str(self.cleaned_data["prompts"]).splitlines()


class SettingsForm(TrainingForm):
    """How it is trained. The bounds are those of `finetunes.SETTINGS`; every default is a good first try."""

    method = forms.ChoiceField(
        label=_("What the examples say"),
        choices=[
            ("supervised", _("What to answer")),
            ("preference", _("Which of two answers is better (DPO)")),
            ("text", _("How a text goes on")),
        ],
        widget=forms.RadioSelect,
        help_text=_(
            "For the second, every line has a prompt, a chosen and a rejected answer; a tenth of the usual learning rate is a good start. "
            "For the third, the file is plain text, or has “text” in every line."
        ),
    )
    epochs = forms.IntegerField(
        label=_("Epochs"), help_text=_("How often every example is read. More learns the data better, and sooner or later by heart.")
    )
    learning_rate = forms.FloatField(
        label=_("Learning rate"), help_text=_("The highest, reached after a short rise. Lower it when the held-out loss rises early.")
    )
    batch_size = forms.IntegerField(label=_("Examples per step"), help_text=_("More makes each step steadier and slower."))
    rank = forms.IntegerField(label=_("Rank"), help_text=_("The size of the adapter. 8 suits style and format, 32 new knowledge."))
    alpha = forms.FloatField(label=_("Alpha"), help_text=_("How strongly the adapter speaks; twice the rank is usual."))
    rank_stabilised = forms.BooleanField(
        label=_("Rank-stabilised"),
        required=False,
        help_text=_("Divides alpha by the rank's root: for ranks from 32, which else learn little."),
    )
    targets = forms.ChoiceField(
        label=_("Where the adapter is"),
        choices=[("all", _("Beside all layers of the model")), ("attention", _("Beside its attention alone"))],
        help_text=_("All learns best; the attention alone makes a smaller adapter."),
    )
    max_length = forms.IntegerField(
        label=_("Longest example"), help_text=_("In tokens. Longer examples are left out, never cut, and counted.")
    )
    validation_share = forms.FloatField(
        label=_("Held out"),
        help_text=_("The share of examples kept aside to measure on, at most 100. What does best on them is kept."),
    )
    prompts = forms.CharField(
        label=_("Ask it on the way"),
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Up to three prompts, one in each line, answered by the base and at each checkpoint. Empty: some of the data's own."),
    )
    dropout = forms.FloatField(label=_("Dropout"), help_text=_("A little, such as 0.05, helps against learning few examples by heart."))
    beta = forms.FloatField(
        label=_("Beta"),
        help_text=_("Of preferences: how near the model stays to the one it began as. Lower learns more of them, and forgets more."),
    )
    patience = forms.IntegerField(
        label=_("Patience"),
        help_text=_("So many measurements in a row without a better one end the training early; 0 never does. Its best is kept."),
    )
    recompute = forms.BooleanField(
        label=_("Save memory"),
        required=False,
        help_text=_("Computes what is inside each layer twice rather than keeping it. Slower, with the same result; for large bases."),
    )
    seed = forms.IntegerField(
        label=_("Seed"), help_text=_("The same seed, data and settings give the same result on the same kind of machine.")
    )

    first = ("method", "epochs", "learning_rate", "batch_size", "prompts")

    def __init__(self, *args: Any, scope: str = "adapter", **kwargs: Any) -> None:
        """`scope` is what is trained, chosen in the step before."""
        suited = defaults(scope)
        before = {name: value for name, value in kwargs.get("initial", {}).items() if name in suited or name == "prompts"}
        kwargs["initial"] = suited | {"prompts": ""} | before | {"scope": scope}
        super().__init__(*args, **kwargs)
        for name in OF_ADAPTERS - suited.keys():
            del self.fields[name]


SIZES = {
    "small": (_("Small"), _("About 5 million parameters. For a first try, and where there is no GPU.")),
    "medium": (_("Medium"), _("About 16 million parameters: learns more of the same texts, with three times the work.")),
    "large": (_("Large"), _("About 30 million parameters, with six times the work: for much text, and best on a GPU.")),
}


class PretrainingForm(TrainingForm):
    """How large a new model is and how it is trained. The bounds are those of `pretraining` and `finetunes`."""

    size = forms.ChoiceField(label=_("Size of the model"), widget=forms.RadioSelect)
    vocabulary = forms.TypedChoiceField(
        label=_("Vocabulary"),
        coerce=int,
        choices=[(size, size) for size in sorted(pretraining.CHOICES["vocabulary"])],
        help_text=_("The most tokens its tokenizer learns from your texts. More make texts shorter and the model larger."),
    )
    epochs = forms.IntegerField(
        label=_("Epochs"),
        help_text=_("How often every text is read. A small corpus is worth reading several times."),
    )
    learning_rate = forms.FloatField(
        label=_("Learning rate"), help_text=_("The highest, reached after a short rise. Lower it when the held-out loss rises early.")
    )
    batch_size = forms.IntegerField(
        label=_("Pieces per step"), help_text=_("Each of at most 512 tokens. More makes each step steadier and slower.")
    )
    prompts = forms.CharField(
        label=_("Ask it on the way"),
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Up to three beginnings, one in each line, which it goes on with at each checkpoint. Empty: some of the data's own."),
    )
    validation_share = forms.FloatField(
        label=_("Held out"), help_text=_("The share of pieces kept aside to measure on, at most 100. What does best on them is kept.")
    )
    patience = forms.IntegerField(
        label=_("Patience"),
        help_text=_("So many measurements in a row without a better one end the training early; 0 never does. Its best is kept."),
    )
    seed = forms.IntegerField(
        label=_("Seed"), help_text=_("The same seed, data and settings give the same result on the same kind of machine.")
    )

    first = ("size", "vocabulary", "epochs", "prompts")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        before = {name: value for name, value in kwargs.get("initial", {}).items() if name in pretraining.SUITED or name == "prompts"}
        kwargs["initial"] = pretraining.SUITED | {"prompts": ""} | before
        super().__init__(*args, **kwargs)
        size = self.fields["size"]
        assert isinstance(size, forms.ChoiceField)
        size.choices = [(name, _explained(label, about)) for name, (label, about) in SIZES.items()]


class EvaluationForm(FileForm):
    """On which of the store's suites a version is measured, and on which of the publisher's own."""

    suites = forms.MultipleChoiceField(label=_("Suites"), required=False, widget=forms.CheckboxSelectMultiple)
    file = forms.FileField(label=_("A suite of your own"), required=False, widget=forms.FileInput(attrs={"accept": ".jsonl,.json"}))
    earlier = forms.ChoiceField(label=_("Or one from before"), required=False)
    limit = forms.IntegerField(
        label=_("Items of a suite, at most"),
        required=False,
        min_value=1,
        max_value=MAX_LIMIT,
        help_text=_("For a quick look. With a limit the numbers stay on the job's page and are not kept on the version."),
    )

    def __init__(self, *args: Any, publisher: Publisher, version: Version, **kwargs: Any) -> None:
        offered = offered_for(version)
        kwargs["initial"] = {"suites": list(offered)} | kwargs.get("initial", {})
        super().__init__(*args, **kwargs)
        kept = UploadedFile.objects.filter(publisher=publisher, purpose=UploadedFile.Purpose.EVALUATION)[:OFFERED_FILES]
        self.earlier_files = {file.public_id: file for file in kept}
        earlier, suites = self.fields["earlier"], self.fields["suites"]
        assert isinstance(earlier, forms.ChoiceField)
        assert isinstance(suites, forms.MultipleChoiceField)
        named = [(name, f"{file.name} · {filesizeformat(file.size_bytes)}") for name, file in self.earlier_files.items()]
        earlier.choices = [("", _("None")), *named]
        suites.choices = [(name, _explained(suite.label, suite.about)) for name, suite in offered.items()]
        size = filesizeformat(settings.MAX_UPLOAD_BYTES)
        self.fields["file"].help_text = _("JSONL, at most %(size)s and %(items)s items.") % {"size": size, "items": MAX_LIMIT}


class VersionForm(RefusableForm):
    """A draft version of a GPT that is there, or of a new one."""

    step = forms.TypedChoiceField(
        label=_("Checkpoint"),
        coerce=int,
        help_text=_("Chosen is what did best on held-out examples, or the end."),
    )
    listing = forms.ChoiceField(label=_("GPT"), required=False)
    slug = forms.CharField(
        label=_("Name in addresses"), max_length=48, required=False, help_text=_("For a new GPT: lower-case, it stays as it is.")
    )
    name = forms.CharField(label=_("Name"), max_length=60, required=False)
    summary = forms.CharField(label=_("Summary"), max_length=200, required=False, help_text=_("What it does, in one sentence."))
    licence = forms.CharField(label=_("Licence"), max_length=60, required=False, help_text=_("An SPDX identifier, for example Apache-2.0."))
    languages = forms.MultipleChoiceField(
        label=_("Languages"), required=False, choices=[(tag, tag) for tag in LANGUAGE_TAGS], widget=forms.CheckboxSelectMultiple
    )
    number = forms.CharField(label=_("Version"), max_length=20, initial="1.0.0", help_text=_("Three numbers, for example 1.0.0."))
    change_log = forms.CharField(label=_("What changed"), max_length=4000, required=False, widget=forms.Textarea(attrs={"rows": 2}))

    def __init__(
        self,
        *args: Any,
        publisher: Publisher,
        points: Sequence[Checkpoint] = (),
        result: int | None = None,
        from_nothing: bool = False,
        **kwargs: Any,
    ) -> None:
        """`points` from which to choose; `result` is the step of the run's own. Only what was made from nothing has no base to
        take licence and languages from.
        """
        super().__init__(*args, **kwargs)
        self.needed = ("slug", "name", "summary", *(("licence", "languages") if from_nothing else ()))
        if not from_nothing:
            del self.fields["licence"], self.fields["languages"]
        if points:
            step = self.fields["step"]
            assert isinstance(step, forms.TypedChoiceField)
            step.choices = [(point.step, point.choice) for point in reversed(points)]
            step.initial = result
        else:
            del self.fields["step"]
        self.listings = {listing.public_id: listing for listing in Listing.objects.filter(publisher=publisher).order_by("slug")}
        field = self.fields["listing"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", _("A new GPT"))] + [(public_id, listing.slug) for public_id, listing in self.listings.items()]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not cleaned.get("listing"):
            for name in self.needed:
                if not cleaned.get(name) and name not in self.errors:
                    self.add_error(name, _("A new GPT needs this."))
        return cleaned


def version_of(form: DataForm) -> Version:
    return form.bases[form.cleaned_data["base"]]
