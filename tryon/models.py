"""The app's tables: keys, credits and their ledger, runs and their usage."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.files.storage import Storage, storages
from django.db import connections, models, router, transaction
from django.db.models import Case, Q, When
from django.utils import timezone
from django.utils.deconstruct import deconstructible
from django.utils.translation import gettext_lazy as _

from .conf import conf

if TYPE_CHECKING:
    from django.contrib.auth.models import User


MOST_DEAD_CONNECTIONS: Final = 100
"""More than a pool has. Whoever still has none that works hears of it from the next query."""


def database() -> str:
    """Alias of the database that holds runs and credits; their transactions are its own."""
    return router.db_for_write(TryOn)


def outlives_us() -> bool:
    """Whether that database is still there when this process has died; one in memory is not, nor has it other readers.

    It is what test suites use, and a thread of ours would get in the way of their transactions.
    """
    connection: Any = connections[database()]
    return connection.vendor != "sqlite" or not connection.is_in_memory_db()


def connect() -> None:
    """Have a connection to that database that works, or raise its ``OperationalError``.

    Each of those that a pool keeps may have died since it was used, where the server was started anew. Django's
    CONN_HEALTH_CHECKS looks as well, but psycopg's pool then sleeps between two dead ones, for seconds in the end.
    """
    connection = connections[database()]
    for _attempt in range(MOST_DEAD_CONNECTIONS):
        connection.ensure_connection()
        if connection.in_atomic_block or connection.is_usable():
            return
        connection.close()


def _has_field(model: type[models.Model], name: str) -> bool:
    return any(field.name == name for field in model._meta.concrete_fields)


@deconstructible
class ResultStorage(Storage):
    """The storage that ``TRYON["STORAGE"]`` names, looked up at each use and not when models are imported."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name in ("deconstruct", "_constructor_args"):
            return super().__getattribute__(name)
        return getattr(storages[conf.STORAGE], name)


class ApiKey(models.Model):
    """A user's key. Only its hash is stored: the key is shown once, when it is made.

    The key is 256 random bits, so one round of SHA-256 protects it; a slow hash would only slow the API down.
    """

    PREFIX_LENGTH: ClassVar[int] = 16
    LAST_USED_RESOLUTION: ClassVar[timedelta] = timedelta(minutes=1)

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="tryon_api_keys",
        verbose_name=_("user"),
    )
    name = models.CharField(_("name"), max_length=100, blank=True)
    prefix = models.CharField(
        _("prefix"), max_length=16, unique=True, editable=False, help_text=_("The visible start of the key.")
    )
    hashed_key = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.prefix}…"

    @classmethod
    def create_key(cls, user: User, *, name: str = "", expires_at: datetime | None = None) -> tuple[ApiKey, str]:
        """Make a key for ``user`` and return it with its text, which cannot be read again."""
        key = cls(user=user, name=name, expires_at=expires_at)
        text = key.set_new_key()
        key.save()
        return key, text

    def set_new_key(self) -> str:
        """Give this row a new random key and return its text; save() is the caller's."""
        text = f"tryon_{secrets.token_urlsafe(32)}"
        self.prefix, self.hashed_key = self.prefix_of(text), self.hash_of(text)
        return text

    @classmethod
    def prefix_of(cls, text: str) -> str:
        return text[: cls.PREFIX_LENGTH]

    @staticmethod
    def hash_of(text: str) -> str:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def find(cls, text: str, now: datetime) -> ApiKey | None:
        """The key ``text``, if it is valid and its user active. One query, with the user and the user's account.

        Whatever is wrong with a key, the query finds nothing: all wrong keys take the same time.
        """
        valid = (Q(expires_at=None) | Q(expires_at__gt=now)) & Q(revoked_at=None)
        if _has_field(get_user_model(), "is_active"):
            valid &= Q(user__is_active=True)
        try:
            key = cls.objects.select_related("user__credit_account").get(
                valid, prefix=cls.prefix_of(text), hashed_key=cls.hash_of(text)
            )
        except cls.DoesNotExist:
            return None
        return key if key.matches(text) and key.is_valid(now) and key.user.is_active else None

    def matches(self, text: str) -> bool:
        """Whether this is the key ``text``, compared in constant time."""
        return secrets.compare_digest(self.hashed_key, self.hash_of(text))

    def is_valid(self, now: datetime) -> bool:
        """Neither revoked nor expired at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def mark_used(self, now: datetime) -> bool:
        """Note the use, at most once a minute however many requests there are; whether this was the one that did."""
        before = now - self.LAST_USED_RESOLUTION
        if self.last_used_at is not None and self.last_used_at > before:
            return False
        due = Q(last_used_at=None) | Q(last_used_at__lte=before)
        return bool(type(self).objects.filter(due, pk=self.pk).update(last_used_at=now))


class CreditAccount(models.Model):
    """A user's credits. ``balance`` always equals the sum of the account's entries."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="credit_account",
        verbose_name=_("user"),
        help_text=_("Empty once the user was deleted: the ledger stays."),
    )
    balance = models.BigIntegerField(_("balance"), default=0, editable=False, help_text=_("Credits."))

    class Meta:
        verbose_name = _("credit account")
        verbose_name_plural = _("credit accounts")
        constraints = [
            models.CheckConstraint(condition=Q(balance__gte=0), name="tryon_balance_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.user or _('deleted user')}: {self.balance}"


def lock_account(user_id: Any, using: str) -> None:
    """Keep others from changing this user's balance, or deleting the account, until the transaction ends.

    Lines may be added to it, as for a picture that is charged. Whoever locks runs as well does this first, or two of
    them would wait for each other.
    """
    features = connections[using].features
    if features.has_select_for_update:
        accounts = CreditAccount.objects.using(using).filter(user_id=user_id)
        list(accounts.select_for_update(no_key=features.has_select_for_no_key_update).values_list("pk"))


class CreditEntry(models.Model):
    """One line of the ledger. Lines are added, never changed: the database itself refuses it (append_only.py)."""

    class Kind(models.TextChoices):
        GRANT = "grant", _("Grant")
        HOLD = "hold", _("Hold")
        CAPTURE = "capture", _("Capture")
        RELEASE = "release", _("Release")
        REFUND = "refund", _("Refund")

    account = models.ForeignKey(
        CreditAccount, on_delete=models.PROTECT, related_name="entries", verbose_name=_("account")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    amount = models.BigIntegerField(
        _("amount"),
        help_text=_("Credits added to the balance: negative for a hold, 0 for a capture, which makes it final."),
    )
    key = models.UUIDField(
        _("run"),
        null=True,
        blank=True,
        help_text=_("Id of the run that a hold, capture, release or refund is about."),
    )
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("credit entry")
        verbose_name_plural = _("credit entries")
        ordering = ["-id"]
        indexes = [models.Index(fields=["key"], name="tryon_entry_by_run")]
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(kind="hold"), name="tryon_one_hold_per_run"),
            models.UniqueConstraint(
                fields=["key"], condition=Q(kind__in=["capture", "release"]), name="tryon_one_end_per_run"
            ),
            models.UniqueConstraint(fields=["key"], condition=Q(kind="refund"), name="tryon_one_refund_per_run"),
            models.CheckConstraint(
                condition=Q(kind="hold", amount__lte=0, key__isnull=False)
                | Q(kind="capture", amount=0, key__isnull=False)
                | Q(kind="release", amount__gte=0, key__isnull=False)
                | Q(kind="refund", amount__gt=0, key__isnull=False)
                | Q(kind="grant", key__isnull=True),
                name="tryon_entry_amount_fits_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.amount:+d}"


class TryOnQuerySet(models.QuerySet["TryOn"]):
    """Queries by what a run's state means."""

    def unfinished(self) -> TryOnQuerySet:
        return self.filter(status__in=TryOn.UNFINISHED)

    def dead(self, now: datetime) -> TryOnQuerySet:
        """Runs whose process did not live to end them."""
        return self.unfinished().filter(lease_until__lt=now)

    def unannounced(self, now: datetime) -> TryOnQuerySet:
        """Runs that ended a lease ago without anybody being told; whoever takes their lease is about to."""
        ended = now - timedelta(seconds=conf.LEASE)
        return self.filter(announced_at=None, finished_at__lt=ended, lease_until__lt=now)

    def with_leftovers(self) -> TryOnQuerySet:
        """Runs without a picture that may have left a file."""
        return self.filter(has_leftovers=True)

    def of(self, user: User) -> TryOnQuerySet:
        """What a user may see: their own runs, but for those that are about to be erased."""
        return self.filter(user=user, to_erase=False)

    def flag(self) -> int:
        """Have these runs erased (erasing.py), from now on unseen; how many had not been flagged before."""
        with transaction.atomic(using=self.in_order().db, savepoint=False):
            # Those too that are flagged are locked: whoever deletes the user changes all.
            return self.locked().filter(to_erase=False).update(to_erase=True)

    def erasable(self) -> TryOnQuerySet:
        """Runs to erase that have ended. No process writes files of theirs any more, but for a very slow one."""
        return self.filter(to_erase=True, finished_at__isnull=False)

    def with_key(self, user: User, key: str) -> TryOnQuerySet:
        """The user's runs under an Idempotency-Key: the one that made or makes its picture, then the failed ones."""
        failed = Case(When(status__in=["failed", "cancelled"], then=1), default=0)
        return self.filter(user=user, idempotency_key=key).order_by(failed, "-created_at")

    def forget_keys(self, before: datetime) -> int:
        """Free the Idempotency-Keys of ended runs made before a moment; how many."""
        old = self.exclude(idempotency_key="").filter(created_at__lt=before, finished_at__isnull=False)
        return old.update_in_order(idempotency_key="", fingerprint="")

    def in_order(self) -> TryOnQuerySet:
        """The same runs, as they are locked: by users, in whose order Django deletes several."""
        return self.using(self._db or database()).order_by("user_id", "pk")  # type: ignore[attr-defined]

    def locked(self) -> TryOnQuerySet:
        """These runs, which others cannot change until the transaction ends; no run that begins in the meantime.

        Whoever changes several asks for them like this: in one order, or two would wait for each other.
        """
        runs = self.in_order()
        features = connections[runs.db].features
        if not features.has_select_for_update:
            return runs
        no_key = features.has_select_for_no_key_update
        return runs.filter(pk__in=list(runs.select_for_update(no_key=no_key).values_list("pk", flat=True)))

    def update_in_order(self, **fields: Any) -> int:
        """Update several runs beside others who do; how many."""
        with transaction.atomic(using=self.in_order().db, savepoint=False):
            return self.locked().update(**fields)


class TryOn(models.Model):
    """One run, from request to picture: the only truth about it.

    A run moves ``queued -> running -> succeeded | failed | cancelled`` and never back (``MOVES``); each move is a
    conditional update, so that of two processes only one can make it.
    """

    class Status(models.TextChoices):
        QUEUED = "queued", _("Queued")
        """Admitted and paid for, waiting for a process to take it."""
        RUNNING = "running", _("Running")
        """A process works on it and holds its lease."""
        SUCCEEDED = "succeeded", _("Succeeded")
        """The picture is stored and charged."""
        FAILED = "failed", _("Failed")
        """No picture, no charge."""
        CANCELLED = "cancelled", _("Cancelled")
        """The client went away: no picture, no charge."""

    UNFINISHED: ClassVar[tuple[Status, ...]] = (Status.QUEUED, Status.RUNNING)
    MOVES: ClassVar[dict[Status, tuple[Status, ...]]] = {
        Status.RUNNING: (Status.QUEUED,),
        Status.SUCCEEDED: (Status.RUNNING,),
        Status.FAILED: UNFINISHED,
        Status.CANCELLED: UNFINISHED,
    }
    """Where a run may come from, for each state it may move to."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="tryons",
        verbose_name=_("user"),
        help_text=_("Empty for runs of the operator, and once the user was deleted."),
    )
    catalog_id = models.CharField(_("catalogue id"), max_length=200, blank=True)
    request_id = models.CharField(_("request id"), max_length=64, blank=True, db_index=True)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.QUEUED)
    credits = models.PositiveIntegerField(_("credits"), help_text=_("Held when the run begins, charged on success."))
    provider = models.CharField(_("provider"), max_length=50, blank=True)
    model = models.CharField(_("model"), max_length=100, blank=True)
    provider_job = models.CharField(
        _("provider's job"),
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text=_("Id by which a picture that is still being made can be asked for again."),
    )
    provider_request_id = models.CharField(_("provider's request id"), max_length=200, blank=True)
    file_stem = models.CharField(
        max_length=200, blank=True, editable=False, help_text=_("Name of the picture's file, without its type.")
    )
    pictures = models.PositiveSmallIntegerField(
        _("pictures"), default=1, db_default=1, help_text=_("How many were asked for.")
    )
    image = models.FileField(_("image"), storage=ResultStorage(), max_length=255, blank=True)
    more_images = models.JSONField(
        _("more images"),
        default=list,
        db_default=[],
        blank=True,
        help_text=_("Names in the storage of the other pictures, where several were asked for."),
    )
    video = models.FileField(
        _("video"),
        storage=ResultStorage(),
        max_length=255,
        blank=True,
        default="",
        db_default="",
        help_text=_("A clip whose still is the image."),
    )
    inputs = models.JSONField(
        _("inputs"),
        default=list,
        db_default=[],
        blank=True,
        help_text=_("Names in the storage of the photos that were sent, where they are kept."),
    )
    no_store = models.BooleanField(
        _("not kept"),
        default=False,
        db_default=False,
        help_text=_("The picture was only in the answer; its file is gone."),
    )
    ai_generated = models.BooleanField(
        _("AI-generated"), null=True, blank=True, help_text=_("Whether a generative model made the picture.")
    )
    content_type = models.CharField(_("content type"), max_length=50, blank=True)
    width = models.PositiveIntegerField(_("width"), null=True, blank=True, help_text=_("Pixels."))
    height = models.PositiveIntegerField(_("height"), null=True, blank=True, help_text=_("Pixels."))
    seed = models.BigIntegerField(_("seed"), null=True, blank=True, help_text=_("By which it can be made again."))
    warnings = models.JSONField(_("warnings"), default=list, blank=True)
    confidence = models.FloatField(
        _("confidence"),
        null=True,
        blank=True,
        help_text=_("How sure the provider is that the picture is right, 0 to 1; empty where it does not say."),
    )
    usage = models.JSONField(_("usage"), default=dict, blank=True, help_text=_("The provider's own counters."))
    cost_usd = models.DecimalField(
        _("cost"), max_digits=12, decimal_places=6, null=True, blank=True, help_text=_("US dollars.")
    )
    attempts = models.JSONField(
        _("attempts"),
        default=list,
        db_default=[],
        blank=True,
        help_text=_("Each time that a provider was asked, or passed over, in their order."),
    )
    error_code = models.CharField(_("error code"), max_length=50, blank=True)
    error_detail = models.TextField(_("error"), blank=True, help_text=_("For the operator; names no secret."))
    latency_ms = models.PositiveIntegerField(_("latency"), null=True, blank=True, help_text=_("Milliseconds."))
    idempotency_key = models.CharField(_("idempotency key"), max_length=255, blank=True, default="", db_default="")
    fingerprint = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text=_("Hash of what was asked for under the key."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    lease_until = models.DateTimeField(
        _("lease until"), help_text=_("Its process renews it; when it runs out, the process is dead.")
    )
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    announced_at = models.DateTimeField(
        _("announced at"), null=True, blank=True, help_text=_("When the receivers were told of the end.")
    )
    has_leftovers = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text=_("Its file may be in the storage although there is no picture."),
    )
    to_erase = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text=_("Its files are about to be deleted, and then the run."),
    )

    unkept: Sequence[bytes] = ()
    """The pictures of a run that keeps none, the first one first, while its answer is made. Not in the database."""
    unkept_video: bytes = b""

    objects = TryOnQuerySet.as_manager()

    class Meta:
        verbose_name = _("try-on")
        verbose_name_plural = _("try-ons")
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["user", "-created_at"], name="tryon_by_user"),
            models.Index(fields=["-created_at"], name="tryon_by_time"),
            models.Index(
                fields=["lease_until"], condition=Q(status__in=["queued", "running"]), name="tryon_unfinished"
            ),
            models.Index(
                fields=["finished_at"],
                condition=Q(announced_at=None, finished_at__isnull=False),
                name="tryon_unannounced",
            ),
            models.Index(fields=["finished_at"], condition=Q(has_leftovers=True), name="tryon_leftovers"),
            models.Index(
                fields=["user", "idempotency_key", "-created_at"],
                condition=~Q(idempotency_key=""),
                name="tryon_by_key",
            ),
            models.Index(fields=["finished_at"], condition=Q(to_erase=True), name="tryon_to_erase"),
        ]
        constraints = [
            models.UniqueConstraint(
                # A run that failed does not keep its key from being tried again.
                fields=["user", "idempotency_key"],
                condition=~Q(idempotency_key="") & Q(status__in=["queued", "running", "succeeded"]),
                name="tryon_one_run_per_key",
            ),
            models.CheckConstraint(
                condition=Q(has_leftovers=False) | Q(status__in=["failed", "cancelled"]) | Q(no_store=True),
                name="tryon_leftovers_only_without_picture",
            ),
            models.CheckConstraint(
                condition=Q(status="succeeded") & ~Q(image="") | ~Q(status="succeeded") & Q(image=""),
                name="tryon_image_only_on_success",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running"], finished_at__isnull=True)
                | Q(status__in=["succeeded", "failed", "cancelled"], finished_at__isnull=False),
                name="tryon_finished_at_fits_status",
            ),
            models.CheckConstraint(
                condition=Q(confidence__gte=0, confidence__lte=1), name="tryon_confidence_from_0_to_1"
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    def move(self, status: TryOn.Status, **fields: Any) -> bool:
        """Go to ``status``, with these fields, from where ``MOVES`` allows it; whether this call did it.

        A run that is to be erased does not succeed.
        """
        fields |= {"status": status}
        runs = type(self).objects.filter(pk=self.pk, status__in=self.MOVES[status])
        if status == self.Status.SUCCEEDED:
            runs = runs.filter(to_erase=False)  # it is not wanted any more
        moved = runs.update(**fields) == 1
        if moved:
            self.assign(**fields)
        return moved

    def finish(self, status: TryOn.Status, **fields: Any) -> bool:
        """End the run if it has not ended yet; whether this call did it."""
        return self.move(status, finished_at=timezone.now(), **fields)

    def take_over(self, until: datetime) -> bool:
        """Take a dead run, or one that ended unannounced. Of several processes one gets it; whether this did."""
        unchanged = type(self).objects.filter(pk=self.pk, lease_until=self.lease_until, announced_at=None)
        return unchanged.update(lease_until=until) == 1

    def note_job(self, job: str, **found: Any) -> bool:
        """Write down the vendor's job id, and what was ``found``, if the run has not ended; whether it had not."""
        running = type(self).objects.filter(pk=self.pk, status=self.Status.RUNNING)
        return running.update(provider_job=job, **found) == 1

    def assign(self, **fields: Any) -> None:
        """Set fields of this instance, and nothing in the database."""
        for name, value in fields.items():
            setattr(self, name, value)

    def stored_image(self) -> str:
        """Name of the file that the database says was stored and charged as the picture; ``""`` if none was."""
        runs = type(self).objects.using(database()).filter(pk=self.pk)
        return runs.values_list("image", flat=True).first() or ""


class UsageRecord(models.Model):
    """One line of usage for each run that ended, for reports. Written by a receiver, not money."""

    tryon = models.OneToOneField(
        TryOn,
        on_delete=models.SET_NULL,
        null=True,
        related_name="usage_record",
        verbose_name=_("run"),
        help_text=_("Empty once the run was deleted: usage stays."),
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="tryon_usage",
        verbose_name=_("user"),
    )
    catalog_id = models.CharField(_("catalogue id"), max_length=200, blank=True)
    status = models.CharField(_("status"), max_length=10, choices=TryOn.Status.choices)
    provider = models.CharField(_("provider"), max_length=50, blank=True)
    model = models.CharField(_("model"), max_length=100, blank=True)
    credits = models.PositiveIntegerField(_("credits"), help_text=_("Charged."))
    cost_usd = models.DecimalField(_("cost"), max_digits=12, decimal_places=6, null=True, blank=True)
    latency_ms = models.PositiveIntegerField(_("latency"), null=True, blank=True)
    error_code = models.CharField(_("error code"), max_length=50, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("usage record")
        verbose_name_plural = _("usage records")
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["user", "created_at"], name="tryon_usage_by_user")]

    def __str__(self) -> str:
        return f"{self.tryon_id}: {self.status}"
