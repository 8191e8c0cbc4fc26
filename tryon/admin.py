"""The operator's screens. Money and runs are read-only: credits are granted or refunded for a reason, keys revoked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import display_for_value
from django.contrib.admin.widgets import AdminIntegerFieldWidget, AdminTextInputWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy

from . import circuit, headers, images, signed_urls
from .conf import MAX_AMOUNT
from .credits import LedgerCredits, get_credits
from .dispatch import aliases_in_use
from .exceptions import InsufficientCredits
from .models import ApiKey, CreditAccount, CreditEntry, TryOn, UsageRecord, database

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[CreditAccount]
else:
    ModelAdmin, ModelForm = admin.ModelAdmin, forms.ModelForm

logger = logging.getLogger("tryon.admin")

USERNAME: Final = f"user__{get_user_model().USERNAME_FIELD}"
"""The lookup for a user's name, whatever the host's user model calls it."""

THUMBNAIL_HEIGHT: Final = 96
"""CSS pixels of a picture in the list; it has twice as many of its own, for sharp screens."""

PICTURE_HEIGHT: Final = 640
"""CSS pixels of a picture on its run's page, at most."""

PICTURE_HEADERS: Final = {
    # A day: then a picture that was deleted is gone from the operator's browser, too.
    "Cache-Control": "private, max-age=86400, immutable",
    **headers.COMMON,
    headers.POLICY: headers.MEDIA,
}

MOST_AT_ONCE: Final = 900
"""Rows of one action that asks for a reason: its form names each in a field, of which Django takes 1000."""

Column = Callable[[Any], str]


def cut(name: str, description: Any, *, ordering: str = "", length: int = 16) -> Column:
    """A column with the first characters of a text, the whole of which shows under the pointer."""

    @admin.display(description=description, ordering=ordering or name)
    def column(row: Any) -> str:
        value = attrgetter(name)(row)
        if not value:
            return ""
        return format_html('<span title="{}">{}</span>', value, Truncator(value).chars(length))

    column.__name__ = name.replace(".", "_")
    return column


def when(name: str, description: Any) -> Column:
    """A column with a time, on two lines where it is narrow; Django keeps dates on one."""

    @admin.display(description=description, ordering=name)
    def column(row: Any) -> str:
        return str(display_for_value(getattr(row, name), ""))

    column.__name__ = name
    return column


def address(tryon: TryOn, name: str) -> str:
    """Where a file of a run can be seen; empty if the storage does not say, which is logged."""
    try:
        return signed_urls.address(tryon, name)
    except Exception:
        logger.exception("The storage gives no address for %s.", name)
        return ""


def links(tryon: TryOn, names: Iterable[str]) -> str:
    """A line for each of these files of a run, with a link where the storage says its address."""
    urls = ((address(tryon, name), name) for name in names if not tryon.no_store)
    lines = ((format_html('<a href="{}">{}</a>', url, name) if url else name,) for url, name in urls)
    return format_html_join(mark_safe("<br>"), "{}", lines)


def cells(number: int, attempt: dict[str, Any]) -> str:
    """A row of the table of attempts."""
    duration, cost = attempt.get("duration_ms"), attempt.get("cost_usd")
    values = (
        number,
        attempt.get("provider", ""),
        attempt.get("model", ""),
        clock(attempt.get("started", "")),
        "" if duration is None else duration,
        breakable(attempt.get("outcome", "")),
        pieces(attempt.get("request_id", "")),
        "" if cost is None else cost,
    )
    return format_html_join("", "<td>{}</td>", ((value,) for value in values))


def clock(moment: str) -> str:
    """A time in ISO format, in the time zone of the page and to the second."""
    try:
        local = timezone.localtime(datetime.fromisoformat(moment))
    except ValueError:
        return moment
    return format_html('<span class="nowrap">{}</span> {}', date_format(local, "Y-m-d"), date_format(local, "H:i:s"))


def breakable(text: str) -> str:
    """A code such as ``provider_unavailable``, which may take several lines."""
    return format_html_join(mark_safe("_<wbr>"), "{}", ((word,) for word in text.split("_")))


def pieces(text: str, length: int = 12) -> str:
    """A text without spaces, which may take several lines."""
    return format_html_join(mark_safe("<wbr>"), "{}", ((text[i : i + length],) for i in range(0, len(text), length)))


CREATED = when("created_at", _("created at"))
USER = cut("user", _("user"), ordering=USERNAME)
CATALOG_ID = cut("catalog_id", _("catalogue id"))


class ReadOnlyAdmin(ModelAdmin):
    """Rows that only the program writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CreditsAdmin(ReadOnlyAdmin):
    """Rows for which credits are given or paid back, by an action that first asks for a reason."""

    def has_credits_permission(self, request: HttpRequest) -> bool:
        """Whether the user may give credits, and the balances of these pages are the ones in use."""
        return request.user.has_perm("tryon.add_creditentry") and isinstance(get_credits(), LedgerCredits)

    def ask(
        self,
        request: HttpRequest,
        form: ReasonForm,
        queryset: QuerySet[Any],
        *,
        action: str,
        title: Any,
        label: Callable[[Any], str] = str,
    ) -> HttpResponse | None:
        """The page that asks, of each row by its ``label``. It posts to ``action`` once more, with "apply"."""
        count = queryset.count()
        if count > MOST_AT_ONCE:
            text = _("Choose at most %(most)d at once, not %(count)d. Nothing was done.")
            self.message_user(request, text % {"most": MOST_AT_ONCE, "count": count}, messages.ERROR)
            return None
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "rows": [(row.pk, label(row)) for row in queryset],
            "action": action,
            "opts": self.opts,
            "media": self.media,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "changelist_url": request.get_full_path(),
        }
        return TemplateResponse(request, "admin/tryon/ask_for_reason.html", context)

    def ledger_link(self, text: str, **query: Any) -> str:
        """A link to the lines of the ledger that fit ``query``."""
        url = reverse("admin:tryon_creditentry_changelist", query=query, current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, text)


class KeyState(models.TextChoices):
    """What a key is good for now."""

    VALID = "valid", _("valid")
    REVOKED = "revoked", _("revoked")
    EXPIRED = "expired", _("expired")


class KeyStateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return KeyState.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        revoked, expired = Q(revoked_at__isnull=False), Q(expires_at__lte=timezone.now())
        states: dict[str, Q] = {
            KeyState.VALID: ~revoked & ~expired,
            KeyState.REVOKED: revoked,
            KeyState.EXPIRED: ~revoked & expired,
        }
        return queryset.filter(states.get(str(self.value()), Q()))


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = (
        "__str__", USER, cut("name", _("name")), "state", CREATED, when("expires_at", _("expires at")),
        when("last_used_at", _("last used at")),
    )  # fmt: skip
    list_filter = (KeyStateFilter,)
    list_select_related = ("user",)
    search_fields = ("prefix", "name", USERNAME)
    raw_id_fields = ("user",)
    readonly_fields = ("prefix", "created_at", "revoked_at", "last_used_at")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        shown = ["prefix", "created_at", "last_used_at", "revoked_at"] if obj else []
        return ["user", "name", "expires_at", *shown]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "user") if obj else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        text = obj.set_new_key()
        obj.save()
        messages.warning(request, _("The key, shown only this once: %(key)s") % {"key": text})

    @admin.display(description=_("state"))
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return str(KeyState.REVOKED.label)
        return str(KeyState.VALID.label if key.is_valid(timezone.now()) else KeyState.EXPIRED.label)

    @admin.action(description=_("Revoke the selected keys"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        with transaction.atomic(using=database()):
            # Listed first: in a list of valid keys no revoked one is found again.
            keys = list(queryset.filter(revoked_at=None))
            ApiKey.objects.filter(pk__in=[key.pk for key in keys]).update(revoked_at=timezone.now())
            for key in keys:
                self.log_change(request, key, "Revoked.")
        text = ngettext("%(count)d key revoked.", "%(count)d keys revoked.", len(keys))
        self.message_user(request, text % {"count": len(keys)})


class ReasonForm(forms.Form):
    """Why."""

    required_css_class = "required"
    reason = forms.CharField(
        label=_("Reason"), max_length=200, widget=AdminTextInputWidget, help_text=_("It stands in the ledger.")
    )


class GrantForm(ReasonForm):
    """How many credits, and why."""

    field_order = ("credits", "reason")
    credits = forms.IntegerField(
        label=_("Credits"),
        min_value=-MAX_AMOUNT,
        max_value=MAX_AMOUNT,
        widget=AdminIntegerFieldWidget,
        help_text=_("Negative to take credits away."),
    )

    def clean_credits(self) -> int:
        amount: int = self.cleaned_data["credits"]
        if not amount:
            raise ValidationError(_("Nothing would change: give at least 1 credit, or take one."))
        return amount


class AccountForm(ModelForm):
    """A user's first credits, which open the account, and why."""

    credits = forms.IntegerField(label=_("Credits"), min_value=1, max_value=MAX_AMOUNT, widget=AdminIntegerFieldWidget)
    reason = forms.CharField(
        label=_("Reason"), max_length=200, widget=AdminTextInputWidget, help_text=_("It stands in the ledger.")
    )

    class Meta:
        help_texts = {"user": _("Someone without an account. The others are granted credits in the list.")}
        error_messages = {"user": {"unique": _("This user has an account: grant credits to it in the list.")}}


class HasCreditsFilter(admin.SimpleListFilter):
    title = _("balance")
    parameter_name = "has_credits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [("yes", _("has credits")), ("no", _("no credits"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[CreditAccount]) -> QuerySet[CreditAccount]:
        has_credits = {"yes": Q(balance__gt=0), "no": Q(balance=0)}
        return queryset.filter(has_credits.get(str(self.value()), Q()))


@admin.register(CreditAccount)
class CreditAccountAdmin(CreditsAdmin):
    """Balances. Only a grant changes them, so that the ledger explains each."""

    form = AccountForm
    list_display = (cut("user", _("user"), ordering=USERNAME, length=40), "balance")
    list_filter = (HasCreditsFilter,)
    search_fields = (USERNAME,)
    list_select_related = ("user",)
    raw_id_fields = ("user",)
    actions = ("grant",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tryon.add_creditaccount") and self.has_credits_permission(request)

    def get_fields(self, request: HttpRequest, obj: CreditAccount | None = None) -> Any:
        return ["user", "balance", "ledger"] if obj else ["user", "credits", "reason"]

    @admin.display(description=_("ledger"))
    def ledger(self, account: CreditAccount) -> str:
        count = account.entries.count()
        text = ngettext("%(count)d line", "%(count)d lines", count) % {"count": count}
        return self.ledger_link(text, account__id__exact=account.pk)

    def save_model(self, request: HttpRequest, obj: CreditAccount, form: Any, change: bool) -> None:
        user, amount, reason = (form.cleaned_data[name] for name in ("user", "credits", "reason"))
        get_credits().grant(user, amount, reason=reason)
        obj.pk = CreditAccount.objects.get(user=user).pk
        obj.refresh_from_db()

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        return self._granted(form.cleaned_data["credits"], form.cleaned_data["reason"])

    @admin.action(description=_("Grant credits to the selected accounts"), permissions=["credits"])
    def grant(self, request: HttpRequest, queryset: QuerySet[CreditAccount]) -> HttpResponse | None:
        form = GrantForm(request.POST if "apply" in request.POST else None)
        if form.is_valid():
            for account in queryset.select_related("user"):
                self._grant(request, account, **form.cleaned_data)
            return None
        accounts = queryset.select_related("user")
        return self.ask(request, form, accounts, action="grant", title=_("Grant credits"))

    def _grant(self, request: HttpRequest, account: CreditAccount, credits: int, reason: str) -> None:  # noqa: A002
        if account.user is None:
            text = _("The user of account %(account)d was deleted: nothing granted.") % {"account": account.pk}
            self.message_user(request, text, messages.ERROR)
            return
        try:
            with transaction.atomic(using=database()):
                balance = get_credits().grant(account.user, credits, reason=reason)
                self.log_change(request, account, self._granted(credits, reason))
        except InsufficientCredits as error:
            self.message_user(request, f"“{account.user}”: {error}", messages.ERROR)
            return
        # In quotes, as Django's own messages: it shows their first letter in upper case.
        text = ngettext("“%(user)s” now has %(count)d credit.", "“%(user)s” now has %(count)d credits.", balance)
        self.message_user(request, text % {"user": account.user, "count": balance}, messages.SUCCESS)

    @staticmethod
    def _granted(amount: int, reason: str) -> str:
        return f"Granted {amount} credits: {reason}"


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnlyAdmin):
    list_display = (
        CREATED, cut("account.user", _("user"), ordering=f"account__{USERNAME}"), "kind", "amount",
        cut("key", _("run"), length=9), cut("reason", _("reason"), length=30),
    )  # fmt: skip
    list_filter = ("kind", "created_at")
    search_fields = (f"account__{USERNAME}", "key", "reason")
    date_hierarchy = "created_at"
    list_select_related = ("account__user",)


REFUNDED: Final = ngettext_lazy("%d run refunded.", "%d runs refunded.")
REFUNDED_BEFORE: Final = ngettext_lazy("%d run was refunded before.", "%d runs were refunded before.")
NOT_CHARGED: Final = ngettext_lazy("%d run was not charged.", "%d runs were not charged.")


@admin.register(TryOn)
class TryOnAdmin(CreditsAdmin):
    list_display = ("thumbnail", CREATED, USER, CATALOG_ID, "status", "sureness", "wrapped_error_code", "latency_ms")
    list_display_links = ("thumbnail", CREATED)
    list_filter = ("status", "provider", "model", "error_code", "created_at")
    search_fields = ("id", USERNAME, "catalog_id", "request_id", "provider_request_id")
    date_hierarchy = "created_at"
    list_select_related = ("user",)
    list_per_page = 25
    actions = ("refund",)

    def get_fields(self, request: HttpRequest, obj: TryOn | None = None) -> Any:
        # Not "image": Django would ask the storage for its address, and fail with it.
        hidden = ("image", "fingerprint", "has_leftovers", "to_erase")
        instead = {
            "more_images": "other_pictures", "video": "clip", "inputs": "photos", "attempts": "attempts_table"
        }  # fmt: skip
        shown = [instead.get(field.name, field.name) for field in TryOn._meta.fields if field.name not in hidden]
        shown.insert(shown.index("credits") + 1, "ledger")
        return ["picture", *shown]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TryOn]:
        return super().get_queryset(request).filter(to_erase=False)  # what is about to be erased is seen by nobody

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.thumbnail_view, cacheable=True)
        return [path("<uuid:pk>/thumbnail", view, name="tryon_tryon_thumbnail"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # Called by the template: an action that answers without the list asks no cache.
        return super().changelist_view(request, {"circuits": self.circuits, **(extra_context or {})})

    @staticmethod
    def circuits() -> list[tuple[str, str, int]]:
        """Provider, state of its circuit, and seconds for which it stays open, of each provider in use.

        While their cache is away circuits are as good as closed, and that is what they are called.
        """
        states = circuit.states(aliases_in_use())
        return [(alias, state.name, math.ceil(state.wait)) for alias, state in states.items()]

    def thumbnail_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The picture in small, for the list: the whole may be large, and its storage private."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        tryon = get_object_or_404(self.get_queryset(request).filter(no_store=False).exclude(image=""), pk=pk)
        try:
            with tryon.image.open() as file:
                small = images.thumbnail(file.read(), 2 * THUMBNAIL_HEIGHT)
        except FileNotFoundError as error:
            raise Http404("The file is gone.") from error
        except Exception as error:
            logger.exception("No thumbnail of %s.", tryon.image.name)
            raise Http404("The file cannot be read.") from error
        return HttpResponse(small, content_type="image/jpeg", headers=PICTURE_HEADERS)

    @admin.display(description=_("picture"))
    def thumbnail(self, tryon: TryOn) -> str:
        if not tryon.image or tryon.no_store:
            return ""
        url = reverse("admin:tryon_tryon_thumbnail", args=[tryon.pk], current_app=self.admin_site.name)
        return format_html('<img src="{}" alt="{}" height="{}" loading="lazy">', url, _("Picture"), THUMBNAIL_HEIGHT)

    @admin.display(description=_("confidence"), ordering="confidence")
    def sureness(self, tryon: TryOn) -> str:
        return "" if tryon.confidence is None else f"{tryon.confidence:.2f}"

    @admin.display(description=_("error code"), ordering="error_code")
    def wrapped_error_code(self, tryon: TryOn) -> str:
        return breakable(tryon.error_code)

    @admin.display(description=_("picture"))
    def picture(self, tryon: TryOn) -> str:
        if not tryon.image or tryon.no_store:
            return self.get_empty_value_display()
        name = str(tryon.image.name)
        url = address(tryon, name)
        if not url:
            return name
        height = min(tryon.height or PICTURE_HEIGHT, PICTURE_HEIGHT)
        return format_html('<a href="{}"><img src="{}" alt="" height="{}"><br>{}</a>', url, url, height, name)

    @admin.display(description=_("other pictures"))
    def other_pictures(self, tryon: TryOn) -> str:
        return links(tryon, tryon.more_images) or self.get_empty_value_display()

    @admin.display(description=_("clip"))
    def clip(self, tryon: TryOn) -> str:
        return links(tryon, filter(None, [tryon.video.name])) or self.get_empty_value_display()

    @admin.display(description=_("photos that were sent"))
    def photos(self, tryon: TryOn) -> str:
        return links(tryon, tryon.inputs) or self.get_empty_value_display()

    @admin.display(description=_("attempts"))
    def attempts_table(self, tryon: TryOn) -> str:
        """Each time that a provider was asked, or passed over. Much of it is a vendor's word."""
        if not tryon.attempts:
            return self.get_empty_value_display()
        names = (
            _("No."), _("provider"), _("model"), _("started"), _("ms"), _("outcome"), _("vendor's request id"),
            _("US dollars"),
        )  # fmt: skip
        head = format_html_join("", '<th scope="col">{}</th>', ((name,) for name in names))
        rows = ((cells(number, attempt),) for number, attempt in enumerate(tryon.attempts, 1))
        body = format_html_join("", "<tr>{}</tr>", rows)
        table = "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
        return format_html(table, head, body)

    @admin.display(description=_("ledger"))
    def ledger(self, tryon: TryOn) -> str:
        """What was held, charged, given back or refunded."""
        lines = CreditEntry.objects.filter(key=tryon.pk).order_by("pk")
        if not lines:
            return self.get_empty_value_display()
        texts = ((f"{line}: {line.reason}" if line.reason else str(line),) for line in lines)
        return self.ledger_link(format_html_join(mark_safe("<br>"), "{}", texts), key=tryon.pk)

    @admin.action(description=_("Refund the selected runs"), permissions=["credits"])
    def refund(self, request: HttpRequest, queryset: QuerySet[TryOn]) -> HttpResponse | None:
        form = ReasonForm(request.POST if "apply" in request.POST else None)
        tryons = queryset.select_related("user")
        if form.is_valid():
            self._refund(request, list(tryons), form.cleaned_data["reason"])
            return None
        return self.ask(request, form, tryons, action="refund", title=_("Refund runs"), label=self._cost)

    def _refund(self, request: HttpRequest, tryons: list[TryOn], reason: str) -> None:
        refunded = [tryon for tryon in tryons if self._pay_back(request, tryon, reason)]
        others = {tryon.pk for tryon in tryons} - {tryon.pk for tryon in refunded}
        repeated = CreditEntry.objects.filter(kind=CreditEntry.Kind.REFUND, key__in=others).count()
        for count, text, level in (
            (len(refunded), REFUNDED, messages.SUCCESS),
            (repeated, REFUNDED_BEFORE, messages.WARNING),
            (len(others) - repeated, NOT_CHARGED, messages.WARNING),
        ):
            if count:
                self.message_user(request, text % count, level)

    def _pay_back(self, request: HttpRequest, tryon: TryOn, reason: str) -> bool:
        with transaction.atomic(using=database()):
            is_paid = get_credits().refund(tryon.pk, tryon.user, tryon.credits, reason=reason)
            if is_paid:
                self.log_change(request, tryon, f"Refunded {tryon.credits} credits: {reason}")
        return is_paid

    @staticmethod
    def _cost(tryon: TryOn) -> str:
        if tryon.status == TryOn.Status.SUCCEEDED:
            amount = ngettext("%d credit", "%d credits", tryon.credits) % tryon.credits
        else:
            amount = str(_("not charged"))
        return ", ".join(filter(None, [str(tryon), str(tryon.user or ""), amount]))


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    list_display = (CREATED, USER, CATALOG_ID, "status", cut("model", _("model")), "credits", "cost_usd")
    list_filter = ("status", "provider", "model", "created_at")
    search_fields = (USERNAME, "catalog_id", "tryon__id")
    date_hierarchy = "created_at"
    list_select_related = ("user",)
