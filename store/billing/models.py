"""Money in integer micro-units (a millionth of the store's currency): double-entry ledger and reservations.

A transaction is named by its cause and its entries sum to zero; neither is ever changed or deleted. Money held for a
generation or a job that is under way is a reservation: it lowers what can be spent and is settled or voided once.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Publisher
from store.accounts.public_ids import PublicIdField


class Account(models.Model):
    class Kind(models.TextChoices):
        WALLET = "wallet", _("Wallet")  # a person's credit
        EARNINGS = "earnings", _("Earnings")  # what a publisher is owed
        PLATFORM = "platform", _("Platform")  # the store's share
        GRANTS = "grants", _("Grants")  # credit given by operators: negative by what was given

    public_id = PublicIdField("acc")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="wallet")
    publisher = models.OneToOneField(Publisher, on_delete=models.PROTECT, null=True, blank=True, related_name="earnings")
    balance_micro = models.BigIntegerField(default=0)  # sum of its entries, kept in the same transaction
    held_micro = models.BigIntegerField(default=0)  # sum of its open reservations, likewise
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        permissions = [("grant_credit", "Can grant credit")]
        constraints = [
            models.UniqueConstraint(
                fields=["kind"], condition=Q(kind__in=["platform", "grants"]), name="one_platform_and_one_grants_account"
            ),
            models.CheckConstraint(
                condition=(
                    Q(kind="wallet", user__isnull=False, publisher__isnull=True)
                    | Q(kind="earnings", user__isnull=True, publisher__isnull=False)
                    | Q(kind__in=["platform", "grants"], user__isnull=True, publisher__isnull=True)
                ),
                name="account_has_the_owner_of_its_kind",
            ),
            models.CheckConstraint(condition=~Q(kind="wallet") | Q(balance_micro__gte=F("held_micro")), name="wallet_covers_what_is_held"),
            models.CheckConstraint(condition=Q(held_micro__gte=0), name="nothing_negative_is_held"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.user or self.publisher or ''}".strip()

    @property
    def available_micro(self) -> int:
        return self.balance_micro - self.held_micro


class Transaction(models.Model):
    class Kind(models.TextChoices):
        GRANT = "grant", _("Credit granted")
        GENERATION = "generation", _("Generation")
        JOB = "job", _("Job")
        BATCH = "batch", _("Batch")
        ACCESS = "access", _("Monthly access")
        REFUND = "refund", _("Refund")

    public_id = PublicIdField("txn")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    cause = models.CharField(max_length=120, unique=True)  # "generation:req_…": one transaction per cause, whatever is retried
    memo = models.CharField(max_length=200, blank=True)  # what a receipt calls it: the listing and version that was used
    detail = models.JSONField(default=dict, blank=True)  # measured: {"prompt_tokens": …, "completion_tokens": …}
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.cause


class Entry(models.Model):
    class Reason(models.TextChoices):
        USAGE = "usage", _("Usage")
        CREDIT = "credit", _("Credit granted")
        PLATFORM_SHARE = "platform share", _("The store's share")
        LISTING_SHARE = "listing share", _("Your GPT was used")
        ANCESTOR_SHARE = "ancestor share", _("A GPT built on yours was used")

    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, related_name="entries")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    amount_micro = models.BigIntegerField()  # added to the account's balance
    reason = models.CharField(max_length=40, choices=Reason.choices)
    version = models.ForeignKey("catalog.Version", on_delete=models.PROTECT, null=True, blank=True, related_name="+")  # whose share it is

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "entries"
        indexes = [models.Index(fields=["account", "-transaction"], name="entries_of_an_account")]
        constraints = [models.CheckConstraint(condition=~Q(amount_micro=0), name="no_entry_of_nothing")]

    def __str__(self) -> str:
        return f"{self.amount_micro} on {self.account_id}"


class Reservation(models.Model):
    class State(models.TextChoices):
        HELD = "held", _("Held")
        SETTLED = "settled", _("Settled")
        VOIDED = "voided", _("Voided")

    public_id = PublicIdField("rsv")
    cause = models.CharField(max_length=120, unique=True)  # the cause of the transaction that will settle it
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="reservations")
    amount_micro = models.PositiveBigIntegerField()  # the most it can cost
    asks = models.JSONField(default=dict, blank=True)  # what each GPT of the lineage asked then: {version: [input, output]}
    settled_micro = models.PositiveBigIntegerField(null=True, blank=True)
    state = models.CharField(max_length=8, choices=State.choices, default=State.HELD)
    expires_at = models.DateTimeField()  # voided by the reconciler after this
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["state", "expires_at"])]
        constraints = [
            models.CheckConstraint(
                condition=Q(settled_micro__isnull=True) | Q(settled_micro__lte=F("amount_micro")), name="never_more_than_reserved"
            )
        ]

    def __str__(self) -> str:
        return f"{self.cause}: {self.state}"


class Access(models.Model):
    """30 days of a GPT without its price per token, as it was bought. `store.billing.access` says what that means."""

    public_id = PublicIdField("acs")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    listing = models.ForeignKey("catalog.Listing", on_delete=models.PROTECT, related_name="+")
    price_micro = models.PositiveBigIntegerField()
    tokens = models.PositiveBigIntegerField()  # read and written together, that it covers
    tokens_used = models.PositiveBigIntegerField(default=0)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    renews = models.BooleanField(default=False)
    refunded_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)  # its buyer was told, and it was renewed where that was wanted

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "accesses"
        indexes = [
            models.Index(fields=["user", "listing", "ends_at"], name="access_of_a_person"),
            models.Index(fields=["ends_at"], condition=Q(ended_at__isnull=True), name="access_to_end"),
        ]

    def __str__(self) -> str:
        return self.cause

    @property
    def cause(self) -> str:
        """Names its reservation and its transaction."""
        return f"access:{self.public_id}"

    @property
    def is_used_up(self) -> bool:
        return self.tokens_used >= self.tokens
