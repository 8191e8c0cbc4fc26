"""Refunds: once, of what was paid, to whom it was taken from, with a reason."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tryon.admin import MOST_AT_ONCE
from tryon.credits import CreditsBackend, LedgerCredits
from tryon.models import CreditAccount, CreditEntry, TryOn

from .shop import Shop, content
from .test_credits import assert_consistent, parallel

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

RUNS = "admin:tryon_tryon_changelist"
RUN = "admin:tryon_tryon_change"


class OtherCredits(CreditsBackend):
    """The shop's own balances, which know no refunds."""


@pytest.fixture
def paid(shop: Shop) -> TryOn:
    """A run that cost 1 credit of 3."""
    assert shop.post().status_code == 200
    return TryOn.objects.get()


def refund(tryon: TryOn, reason: str = "") -> bool:
    return LedgerCredits().refund(tryon.pk, tryon.user, tryon.credits, reason=reason)


def chosen(*tryons: TryOn, **data: Any) -> dict[str, Any]:
    """The form of the action "refund"."""
    return {"action": "refund", "_selected_action": [tryon.pk for tryon in tryons], **data}


# The backend


def test_a_refund_pays_back_once_what_was_paid(shop: Shop, paid: TryOn, tryon: Callable[..., None]) -> None:
    tryon(PRICE=2)  # not what it cost then
    assert refund(paid, "the hem is missing")
    assert shop.balance() == 3
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0), ("refund", 1)]
    line = CreditEntry.objects.get(kind="refund")
    assert (line.key, line.reason) == (paid.pk, "the hem is missing")

    assert not refund(paid, "again")
    assert shop.balance() == 3
    assert_consistent()


def test_what_was_not_paid_is_not_refunded(shop: Shop) -> None:
    held, released = uuid.uuid4(), uuid.uuid4()
    for key in (held, released):
        LedgerCredits().hold(key, shop.user, 1)
    LedgerCredits().release(released, shop.user, 1)
    before = shop.ledger()
    for key in (held, released, uuid.uuid4()):
        assert not LedgerCredits().refund(key, shop.user, 1)
    assert shop.ledger() == before
    assert_consistent()


def test_a_refunded_hold_is_not_released_too(shop: Shop, paid: TryOn) -> None:
    assert refund(paid)
    assert not LedgerCredits().release(paid.pk, shop.user, 1)
    assert shop.balance() == 3


def test_a_free_picture_has_nothing_to_refund(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PRICE=0)
    assert shop.post().status_code == 200
    assert not refund(TryOn.objects.get())
    assert shop.ledger() == [("grant", 3), ("hold", 0), ("capture", 0)]


def test_a_refund_goes_to_the_account_that_paid_though_its_user_is_gone(shop: Shop, paid: TryOn) -> None:
    shop.user.delete()
    paid.refresh_from_db()
    assert paid.user is None
    assert refund(paid)
    assert CreditAccount.objects.get().balance == 3
    assert_consistent()


def test_a_refund_goes_to_the_account_that_paid_and_to_no_other(
    shop: Shop, paid: TryOn, django_user_model: type[User]
) -> None:
    grace = django_user_model.objects.create_user("grace")
    LedgerCredits().grant(grace, 5)
    assert LedgerCredits().refund(paid.pk, grace, 4)
    assert (shop.balance(), LedgerCredits().balance(grace)) == (3, 5)
    assert_consistent()


def test_of_many_refunds_at_once_one_is_paid(shop: Shop) -> None:
    for _ in range(3):
        assert shop.post().status_code == 200
    runs = list(TryOn.objects.all())
    paid = parallel(8, lambda number: [refund(tryon) for tryon in runs])
    assert sum(map(sum, paid)) == 3
    assert shop.balance() == 3
    assert CreditEntry.objects.filter(kind="refund").count() == 3
    assert_consistent()


@pytest.mark.one_database
def test_a_backend_that_knows_no_refunds_says_so(shop: Shop) -> None:
    with pytest.raises(NotImplementedError, match=r"OtherCredits must implement refund\(\)\."):
        OtherCredits().refund(uuid.uuid4(), shop.user, 1)


# The admin


def test_the_operator_refunds_with_a_reason_that_is_logged(shop: Shop, paid: TryOn, operator: Client) -> None:
    page = content(operator, reverse(RUNS), chosen(paid))
    assert 'name="reason"' in page
    assert f"{paid.pk}, ada, 1 credit" in page
    assert shop.balance() == 2

    page = content(operator, reverse(RUNS), chosen(paid, apply="1", reason="the hem is missing"))

    assert "1 run refunded." in page
    assert shop.balance() == 3
    assert CreditEntry.objects.get(kind="refund").reason == "the hem is missing"
    logged = LogEntry.objects.get()
    assert (logged.object_id, logged.get_change_message()) == (
        str(paid.pk),
        "Refunded 1 credits: the hem is missing",
    )


def test_the_page_that_asks_posts_what_the_action_needs(shop: Shop, paid: TryOn, operator: Client) -> None:
    page = content(operator, reverse(RUNS), chosen(paid))
    for field in (
        f'name="_selected_action" value="{paid.pk}"',
        'name="action" value="refund"',
        'name="apply" value="Refund runs"',
    ):
        assert field in page


def test_the_operator_is_told_what_became_of_each_run(shop: Shop, operator: Client) -> None:
    for _ in range(3):
        assert shop.post().status_code == 200
    first, *others = TryOn.objects.all()
    refund(first)
    now = timezone.now()
    failed = TryOn.objects.create(user=shop.user, status="failed", credits=1, lease_until=now, finished_at=now)

    page = content(operator, reverse(RUNS), chosen(first, failed, *others, apply="1", reason="sorry"))

    assert "2 runs refunded." in page
    assert "1 run was refunded before." in page
    assert "1 run was not charged." in page
    assert shop.balance() == 3
    assert {entry.object_id for entry in LogEntry.objects.all()} == {str(run.pk) for run in others}


@pytest.mark.parametrize("reason", ["", "  \t ", "x" * 201])
def test_a_refund_without_a_reason_is_a_forms_error(shop: Shop, paid: TryOn, operator: Client, reason: str) -> None:
    page = operator.post(reverse(RUNS), chosen(paid, apply="1", reason=reason))
    assert list(page.context["form"].errors) == ["reason"]
    assert shop.balance() == 2


def test_the_longest_reason_is_kept(paid: TryOn, operator: Client) -> None:
    content(operator, reverse(RUNS), chosen(paid, apply="1", reason="é" * 200))
    assert CreditEntry.objects.get(kind="refund").reason == "é" * 200


def test_two_operators_at_once_refund_once(shop: Shop, paid: TryOn, admin_user: User) -> None:
    clients = [Client(), Client()]
    for client in clients:
        client.force_login(admin_user)
    form = chosen(paid, apply="1", reason="sorry")
    pages = parallel(2, lambda number: content(clients[number], reverse(RUNS), form))
    assert sorted("1 run refunded." in page for page in pages) == [False, True]
    assert sorted("1 run was refunded before." in page for page in pages) == [False, True]
    assert shop.balance() == 3
    assert LogEntry.objects.count() == 1
    assert_consistent()


def test_nothing_is_refunded_unless_the_reason_is_logged(
    shop: Shop, paid: TryOn, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("the log is full")

    monkeypatch.setattr(LogEntry.objects, "log_actions", fail)
    with pytest.raises(RuntimeError, match="the log is full"):
        operator.post(reverse(RUNS), chosen(paid, apply="1", reason="sorry"))
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("permissions", "may"),
    [(["view_tryon", "change_tryon", "delete_tryon"], False), (["view_tryon", "add_creditentry"], True)],
)
def test_who_may_add_entries_may_refund(
    shop: Shop, paid: TryOn, staff: Callable[..., Client], permissions: list[str], may: bool
) -> None:
    clerk = staff(*permissions)
    assert ("Refund the selected runs" in content(clerk, reverse(RUNS))) == may
    content(clerk, reverse(RUNS), chosen(paid, apply="1", reason="sorry"))
    assert shop.balance() == (3 if may else 2)


@pytest.mark.one_database
def test_refunds_are_made_here_only_if_the_balances_are_kept_here(
    shop: Shop, paid: TryOn, operator: Client, tryon: Callable[..., None]
) -> None:
    tryon(CREDITS_BACKEND=f"{__name__}.OtherCredits")
    assert "Refund the selected runs" not in content(operator, reverse(RUNS))
    content(operator, reverse(RUNS), chosen(paid, apply="1", reason="sorry"))
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@pytest.mark.one_database
@pytest.mark.parametrize("too_many", [False, True])
def test_more_runs_than_a_form_can_name_are_not_asked_about(shop: Shop, operator: Client, too_many: bool) -> None:
    count = MOST_AT_ONCE + too_many
    TryOn.objects.bulk_create(TryOn(credits=1, lease_until=timezone.now()) for _ in range(count))
    page = content(operator, reverse(RUNS), chosen(TryOn.objects.all()[0], select_across="1"))
    assert (f"Choose at most {MOST_AT_ONCE} at once, not {count}. Nothing was done." in page) == too_many
    if not too_many:
        form = chosen(*TryOn.objects.all(), apply="1", reason="sorry")
        assert f"{count} runs were not charged." in content(operator, reverse(RUNS), form)


@pytest.mark.one_database
def test_the_refund_page_leads_back_to_the_list_it_came_from(paid: TryOn, operator: Client) -> None:
    url = reverse(RUNS, query={"q": "ada", "status__exact": "succeeded"})
    assert f'<a href="{url.replace("&", "&amp;")}" class="closelink">' in content(operator, url, chosen(paid))


def test_a_runs_page_shows_its_lines_and_leads_to_them(shop: Shop, paid: TryOn, operator: Client) -> None:
    assert shop.post().status_code == 200  # another run, another's lines
    lines = reverse("admin:tryon_creditentry_changelist", query={"key": paid.pk})
    page = reverse(RUN, args=[paid.pk])
    assert f'<a href="{lines}">Hold -1<br>Capture +0</a>' in content(operator, page)

    refund(paid, "<b>sorry</b>")

    expected = f'<a href="{lines}">Hold -1<br>Capture +0<br>Refund +1: &lt;b&gt;sorry&lt;/b&gt;</a>'
    assert expected in content(operator, page)
    shown = operator.get(lines).context["cl"].result_list
    assert [line.kind for line in shown] == ["refund", "capture", "hold"]
    assert {line.key for line in shown} == {paid.pk}


@pytest.mark.one_database
def test_a_run_that_nobody_paid_for_has_no_lines(shop: Shop, operator: Client) -> None:
    run = TryOn.objects.create(credits=0, lease_until=timezone.now())
    assert "tryon/creditentry/?key" not in content(operator, reverse(RUN, args=[run.pk]))


def test_no_line_can_be_changed_or_deleted_in_the_admin(shop: Shop, paid: TryOn, operator: Client) -> None:
    refund(paid)
    lines = list(CreditEntry.objects.order_by("pk").values_list())
    changelist = reverse("admin:tryon_creditentry_changelist")
    for line in CreditEntry.objects.all():
        change = reverse("admin:tryon_creditentry_change", args=[line.pk])
        delete = reverse("admin:tryon_creditentry_delete", args=[line.pk])
        assert operator.post(change, {"amount": 99, "kind": "grant", "account": line.account_id}).status_code == 403
        assert operator.post(delete, {"post": "yes"}).status_code == 403
        content(operator, changelist, {"action": "delete_selected", "_selected_action": [line.pk], "post": "yes"})
    account = reverse("admin:tryon_creditaccount_delete", args=[CreditAccount.objects.get().pk])
    assert operator.post(account, {"post": "yes"}).status_code == 403
    assert "delete_selected" not in content(operator, changelist)
    assert list(CreditEntry.objects.order_by("pk").values_list()) == lines
