"""The form that begins a batch. Whether what it holds is allowed is the acts' to say, and `refuse` shows it at its field."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from store.errors import DomainError
from store.jobs.forms import FileForm


class BatchForm(FileForm):
    file = forms.FileField(label=_("File of requests"), widget=forms.FileInput(attrs={"accept": ".jsonl"}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bounds = {"size": filesizeformat(settings.MAX_UPLOAD_BYTES), "lines": settings.MAX_BATCH_LINES}
        self.fields["file"].help_text = _("JSONL, at most %(size)s and %(lines)s requests.") % bounds

    def refuse(self, error: DomainError) -> None:
        self.add_error("file" if error.param in ("file", "input_file_id") else None, str(error))
