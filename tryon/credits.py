"""Who pays: the credits backend, chosen by ``TRYON["CREDITS_BACKEND"]``.

A run first *holds* its price, then either *captures* it (the picture is stored) or *releases* it (anything
else). Each call is made inside the database transaction that also moves the run, so money and state cannot
disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.db import transaction
from django.db.models import F
from django.utils.module_loading import import_string

from providers.base import AIProvider

from .conf import MAX_AMOUNT, conf
from .exceptions import InsufficientCredits
from .models import CreditAccount, CreditEntry, database

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def price_names(provider: AIProvider, size: str = "") -> tuple[str, ...]:
    """The keys of PRICES about ``provider``, for a request's ``size`` or its own, the most particular first."""
    alias, model, size = provider.alias, provider.model, size or provider.size
    return (f"{alias}/{model}/{size}", f"{alias}//{size}", f"{alias}/{model}", alias)


def price_of(provider: AIProvider, size: str = "") -> int:
    """Credits that one picture of ``provider`` costs: the most particular of PRICES, else PRICE."""
    for name in price_names(provider, size):
        if name in conf.PRICES:
            return conf.PRICES[name]
    return conf.PRICE


class CreditsBackend:
    """What the pipeline needs of a place that keeps balances. Amounts are whole credits.

    ``key`` is the run's id. A backend must refuse a second hold of the same key, and must make ``release`` and
    ``refund`` safe to call twice. ``user`` is None when the user was deleted in the meantime.
    """

    def balance(self, user: User) -> int:
        """Credits the user can spend now."""
        raise NotImplementedError(f"{type(self).__name__} must implement balance().")

    def hold(self, key: UUID, user: User, amount: int) -> None:
        """Take ``amount`` away for the run ``key``, or raise ``InsufficientCredits`` and take nothing."""
        raise NotImplementedError(f"{type(self).__name__} must implement hold().")

    def capture(self, key: UUID, user: User | None, amount: int) -> None:
        """Make the hold of ``key`` final."""
        raise NotImplementedError(f"{type(self).__name__} must implement capture().")

    def release(self, key: UUID, user: User | None, amount: int) -> bool:
        """Give the hold of ``key`` back, if it is still held; whether this call did it."""
        raise NotImplementedError(f"{type(self).__name__} must implement release().")

    def refund(self, key: UUID, user: User | None, amount: int, *, reason: str = "") -> bool:
        """Pay the captured hold of ``key`` back, if it was not paid back before; whether this call did it."""
        raise NotImplementedError(f"{type(self).__name__} must implement refund().")

    def grant(self, user: User, amount: int, *, reason: str = "") -> int:
        """Add ``amount`` credits, or take them when negative; the new balance.

        Raise ``InsufficientCredits`` rather than let the balance become negative, and ``ValueError``, with a sentence,
        for an amount that makes no sense to this backend.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement grant().")


class LedgerCredits(CreditsBackend):
    """The app's own balances: ``CreditAccount``, explained line by line by ``CreditEntry``."""

    def balance(self, user: User) -> int:
        return CreditAccount.objects.filter(user=user).values_list("balance", flat=True).first() or 0

    def hold(self, key: UUID, user: User, amount: int) -> None:
        account_id = self._account_id(user)
        if not account_id and not amount:  # a free picture is for those who never had a credit, too
            account_id = CreditAccount.objects.get_or_create(user=user)[0].pk
        # The condition is part of the UPDATE: two requests cannot both spend the last credit.
        changed = CreditAccount.objects.filter(pk=account_id, balance__gte=amount).update(
            balance=F("balance") - amount
        )
        if not changed:
            raise InsufficientCredits(f"This picture costs {amount} credit(s); your balance is {self.balance(user)}.")
        CreditEntry.objects.create(account_id=account_id, kind=CreditEntry.Kind.HOLD, amount=-amount, key=key)

    def capture(self, key: UUID, user: User | None, amount: int) -> None:
        # One end per run is a unique constraint: capturing a released hold fails the whole transaction.
        CreditEntry.objects.create(
            account_id=self._account_id(user) or self._held(key).account_id,
            kind=CreditEntry.Kind.CAPTURE,
            amount=0,
            key=key,
        )

    def release(self, key: UUID, user: User | None, amount: int) -> bool:
        entries = {entry.kind: entry for entry in CreditEntry.objects.using(database()).filter(key=key)}
        hold = entries.pop(CreditEntry.Kind.HOLD, None)
        if hold is None or entries:
            return False
        CreditEntry.objects.create(
            account_id=hold.account_id, kind=CreditEntry.Kind.RELEASE, amount=-hold.amount, key=key
        )
        CreditAccount.objects.filter(pk=hold.account_id).update(balance=F("balance") - hold.amount)
        return True

    def refund(self, key: UUID, user: User | None, amount: int, *, reason: str = "") -> bool:
        lines = CreditEntry.objects.using(database()).filter(key=key)
        hold = lines.filter(kind=CreditEntry.Kind.HOLD, amount__lt=0).first()  # a free picture was not paid for
        if hold is None or not lines.filter(kind=CreditEntry.Kind.CAPTURE).exists():
            return False
        with transaction.atomic(using=database()):
            # One refund per run is a unique constraint: of two at once, the second finds the first one's.
            _, is_new = CreditEntry.objects.get_or_create(
                key=key,
                kind=CreditEntry.Kind.REFUND,
                defaults={"account_id": hold.account_id, "amount": -hold.amount, "reason": reason},
            )
            if is_new:
                CreditAccount.objects.filter(pk=hold.account_id).update(balance=F("balance") - hold.amount)
        return is_new

    def grant(self, user: User, amount: int, *, reason: str = "") -> int:
        if not 0 < abs(amount) <= MAX_AMOUNT:
            raise ValueError(f"The amount is {amount}. Give 1 to {MAX_AMOUNT:,} credits, negative to take them.")
        with transaction.atomic(using=database()):
            account, _ = CreditAccount.objects.get_or_create(user=user)
            changed = CreditAccount.objects.filter(pk=account.pk, balance__gte=-amount).update(
                balance=F("balance") + amount
            )
            if not changed:
                raise InsufficientCredits(f"Cannot take {-amount} credits: the balance is {self.balance(user)}.")
            CreditEntry.objects.create(account=account, kind=CreditEntry.Kind.GRANT, amount=amount, reason=reason)
        return self.balance(user)

    @staticmethod
    def _account_id(user: User | None) -> int:
        """The user's account, from the user's cached relation where authentication already loaded it; 0 if none."""
        try:
            return user.credit_account.pk if user is not None else 0
        except ObjectDoesNotExist:
            return 0

    @staticmethod
    def _held(key: UUID) -> CreditEntry:
        return CreditEntry.objects.using(database()).get(key=key, kind=CreditEntry.Kind.HOLD)


def get_credits() -> CreditsBackend:
    """The backend that the settings name."""
    where = f'TRYON["CREDITS_BACKEND"] is {conf.CREDITS_BACKEND!r}'
    advice = "Give the dotted path of a tryon.credits.CreditsBackend subclass."
    try:
        cls = import_string(conf.CREDITS_BACKEND)
    except ImportError as error:
        raise ImproperlyConfigured(f"{where}, which cannot be imported: {error}. {advice}") from error
    if not (isinstance(cls, type) and issubclass(cls, CreditsBackend)):
        raise ImproperlyConfigured(f"{where}, which is not one. {advice}")
    return cls()
