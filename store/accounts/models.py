"""Users, publishers and their members, API keys, and the audit log."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from store.accounts.public_ids import PublicIdField

slug_validator = RegexValidator(
    r"^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$",
    _("Use 1 to 48 lower-case letters, digits and hyphens, beginning and ending with a letter or digit."),
)


class User(AbstractUser):
    public_id = PublicIdField("usr")
    email = models.EmailField(_("e-mail address"), unique=True)
    language = models.CharField(
        _("language"), max_length=10, default="en", choices=[("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
    )

    erasure_due_at = models.DateTimeField(null=True, blank=True, editable=False, db_index=True)  # its owner asked for it to be deleted
    erased_at = models.DateTimeField(null=True, blank=True, editable=False)  # since then it names nobody

    REQUIRED_FIELDS = ["email"]

    @property
    def is_reviewer(self) -> bool:
        return self.has_perm("moderation.review")


class Publisher(models.Model):
    """A person or organisation that lists GPTs. People and organisations share one namespace of slugs."""

    class Kind(models.TextChoices):
        PERSON = "person", _("Person")
        ORGANISATION = "organisation", _("Organisation")

    public_id = PublicIdField("pub")
    slug = models.CharField(_("name in addresses"), max_length=48, unique=True, validators=[slug_validator])
    name = models.CharField(_("name"), max_length=80)
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices, default=Kind.ORGANISATION)
    about = models.TextField(_("about"), blank=True, max_length=2000)
    is_demo = models.BooleanField(_("demo"), default=False, help_text=_("Shown as demo content of this installation."))
    verified_at = models.DateTimeField(_("verified"), null=True, blank=True)
    domain = models.CharField(_("domain"), max_length=253, blank=True, editable=False)  # that it has shown to be its own, in ASCII
    domain_way = models.CharField(max_length=4, choices=[("file", _("a file")), ("dns", _("a TXT record"))], default="file", editable=False)
    domain_checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    domain_missing_since = models.DateTimeField(null=True, blank=True, editable=False)  # its proof is not found any more
    # What its names look like (`store.accounts.lookalikes`), so that no other takes one that looks the same.
    skeleton = models.CharField(max_length=200, blank=True, db_index=True, editable=False)
    folded_skeleton = models.CharField(max_length=200, blank=True, db_index=True, editable=False)
    slug_skeleton = models.CharField(max_length=200, blank=True, db_index=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    members: models.ManyToManyField = models.ManyToManyField(User, through="Membership", related_name="publishers")

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def role_of(self, user: object) -> str | None:
        """The user's role here, or None."""
        if not isinstance(user, User):
            return None
        return Membership.objects.filter(publisher=self, user=user).values_list("role", flat=True).first()


class Membership(models.Model):
    class Role(models.TextChoices):
        OWNER = "owner", _("Owner")  # everything, members and money too
        MAINTAINER = "maintainer", _("Maintainer")  # edits, submits, fine-tunes, replies
        MEMBER = "member", _("Member")  # sees drafts and tries them

    publisher = models.ForeignKey(Publisher, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["publisher", "user"], name="one_membership_per_publisher_and_user")]

    def __str__(self) -> str:
        return f"{self.user} in {self.publisher}: {self.role}"


class Invitation(models.Model):
    """A question to whoever has an e-mail address: will you join this publisher, or take it over?"""

    class State(models.TextChoices):
        PENDING = "pending", _("Waiting")
        ACCEPTED = "accepted", _("Accepted")
        DECLINED = "declined", _("Declined")
        REVOKED = "revoked", _("Revoked")

    public_id = PublicIdField("inv")
    publisher = models.ForeignKey(Publisher, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(_("e-mail address"))  # in lower case
    role = models.CharField(max_length=12, choices=Membership.Role.choices)
    hands_over = models.BooleanField(default=False)  # who invited stops being an owner when it is accepted
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    invited_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["publisher", "email"], condition=models.Q(state="pending"), name="one_pending_invitation_per_address"
            )
        ]

    def __str__(self) -> str:
        return f"{self.email} to {self.publisher}: {self.state}"


class ApiKey(models.Model):
    """A key for the API. Only the sha256 of the secret is kept; `prefix` finds the row and lets its owner recognise it."""

    public_id = PublicIdField("key")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(_("name"), max_length=60)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.prefix}…"


class AuditEntry(models.Model):
    """Who did which privileged act to what. Append-only."""

    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, blank=True, related_name="+")  # null: the store itself
    action = models.CharField(max_length=60, db_index=True)  # "version.suspend"
    target = models.CharField(max_length=40, db_index=True)  # public id
    detail = models.JSONField(default=dict, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.action} {self.target}"
