"""The operator's screens. Money and runs are read-only; what may be done is an action with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from .credits import get_credits
from .exceptions import InsufficientCredits
from .models import ApiKey, CreditAccount, CreditEntry, TryOn, UsageRecord

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin, TabularInline = admin.ModelAdmin, admin.TabularInline

USERNAME = f"user__{get_user_model().USERNAME_FIELD}"
"""The lookup for a user's name, whatever the host's user model calls it."""


class ReadOnlyAdmin(ModelAdmin):
    """Rows that only the program writes."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ("__str__", "user", "name", "state", "created_at", "expires_at", "last_used_at")
    list_filter = ("revoked_at", "created_at", "expires_at")
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
            return str(_("revoked"))
        return str(_("valid") if key.is_valid(timezone.now()) else _("expired"))

    @admin.action(description=_("Revoke the selected keys"))
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = queryset.filter(revoked_at=None).update(revoked_at=timezone.now())
        for key in queryset:
            self.log_change(request, key, "Revoked.")
        self.message_user(request, _("%(count)d key(s) revoked.") % {"count": count})


class GrantForm(forms.Form):
    """How many credits, and why."""

    credits = forms.IntegerField(label=_("Credits"), help_text=_("Negative to take credits away."))
    reason = forms.CharField(label=_("Reason"), max_length=200)


class CreditEntryInline(TabularInline):
    model = CreditEntry
    fields = ("created_at", "kind", "amount", "key", "reason")
    readonly_fields = fields
    can_delete = False
    extra = 0
    max_num = 0

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditEntry]:
        return super().get_queryset(request).order_by("-pk")


@admin.register(CreditAccount)
class CreditAccountAdmin(ReadOnlyAdmin):
    list_display = ("user", "balance")
    search_fields = (USERNAME,)
    list_select_related = ("user",)
    actions = ("grant",)

    @admin.action(description=_("Grant credits to the selected accounts"))
    def grant(self, request: HttpRequest, queryset: QuerySet[CreditAccount]) -> HttpResponse | None:
        if not request.user.has_perm("tryon.add_creditentry"):
            self.message_user(request, _("You may not grant credits."), messages.ERROR)
            return None
        form = GrantForm(request.POST if "apply" in request.POST else None)
        if form.is_valid():
            self._grant(request, queryset, form.cleaned_data["credits"], form.cleaned_data["reason"])
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Grant credits"),
            "form": form,
            "accounts": queryset,
            "opts": self.opts,
            "checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return render(request, "admin/tryon/grant_credits.html", context)

    def _grant(self, request: HttpRequest, queryset: QuerySet[CreditAccount], amount: int, reason: str) -> None:
        for account in queryset.select_related("user"):
            if account.user is None:
                continue
            try:
                balance = get_credits().grant(account.user, amount, reason=reason)
            except InsufficientCredits as error:
                self.message_user(request, f"{account.user}: {error}", messages.ERROR)
                continue
            self.log_change(request, account, f"Granted {amount} credits: {reason}")
            self.message_user(request, f"{account.user}: {balance}")


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "user", "kind", "amount", "key", "reason")
    list_filter = ("kind", "created_at")
    search_fields = (f"account__{USERNAME}", "key", "reason")
    date_hierarchy = "created_at"
    list_select_related = ("account__user",)

    @admin.display(description=_("user"), ordering="account__user")
    def user(self, entry: CreditEntry) -> str:
        return str(entry.account.user)


@admin.register(TryOn)
class TryOnAdmin(ReadOnlyAdmin):
    list_display = (
        "thumbnail", "created_at", "user", "catalog_id", "status", "provider", "model", "latency_ms", "credits",
        "error_code",
    )  # fmt: skip
    list_filter = ("status", "provider", "model", "error_code", "created_at")
    search_fields = ("id", USERNAME, "catalog_id", "request_id", "provider_request_id")
    date_hierarchy = "created_at"
    list_select_related = ("user",)

    @admin.display(description=_("picture"))
    def thumbnail(self, tryon: TryOn) -> str:
        if not tryon.image:
            return ""
        return format_html('<img src="{}" alt="" height="96" loading="lazy">', tryon.image.url)

    def get_fields(self, request: HttpRequest, obj: TryOn | None = None) -> Any:
        return ["thumbnail", *(field.name for field in TryOn._meta.fields)]


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at", "user", "catalog_id", "status", "provider", "model", "credits", "cost_usd", "latency_ms",
    )  # fmt: skip
    list_filter = ("status", "provider", "model", "created_at")
    search_fields = (USERNAME, "catalog_id", "tryon__id")
    date_hierarchy = "created_at"
    list_select_related = ("user",)
