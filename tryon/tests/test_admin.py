"""The operator's screens."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.files.storage import Storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import localize
from PIL import Image
from pytest_django import Settings

from tryon.conf import MAX_AMOUNT
from tryon.credits import CreditsBackend, LedgerCredits, get_credits
from tryon.models import ApiKey, CreditAccount, CreditEntry, TryOn

from .shop import Shop, content, jpeg

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

MODELS = ["apikey", "creditaccount", "creditentry", "tryon", "usagerecord"]
ACCOUNTS = "admin:tryon_creditaccount_changelist"
NEW_ACCOUNT = "admin:tryon_creditaccount_add"
KEYS = "admin:tryon_apikey_changelist"
RUNS = "admin:tryon_tryon_changelist"
RUN = "admin:tryon_tryon_change"
THUMBNAIL = "admin:tryon_tryon_thumbnail"
PICTURE = '" alt="" height="'
"""Of a picture on a run's page; the icons for yes and no have texts."""


class OtherCredits(CreditsBackend):
    """The shop's own balances: the app's accounts are not in use."""


class BonusCredits(LedgerCredits):
    """The app's balances, with something on top."""


class BrokenStorage(Storage):
    """A bucket whose credentials have expired."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise OSError("no credentials")


@pytest.fixture
def newcomer(shop: Shop) -> User:
    """A user who has no account yet."""
    return get_user_model().objects.create_user("grace")


@pytest.fixture
def broken_storage(settings: Settings, tryon: Callable[..., None]) -> Callable[[], None]:
    """Call it, and the pictures' storage fails whatever is asked of it."""

    def break_it() -> None:
        settings.STORAGES = {**settings.STORAGES, "broken": {"BACKEND": f"{__name__}.BrokenStorage"}}
        tryon(STORAGE="broken")

    return break_it


@pytest.mark.parametrize("model", MODELS)
def test_lists_search_and_show_no_secret(shop: Shop, operator: Client, model: str) -> None:
    assert shop.post().status_code == 200
    hashed = ApiKey.objects.get().hashed_key
    for query in ("", "?q=ada", "?q=nobody"):
        page = operator.get(reverse(f"admin:tryon_{model}_changelist") + query)
        assert page.status_code == 200
        for secret in (shop.key, hashed):
            assert secret not in page.content.decode()


@pytest.mark.parametrize("model", ["creditaccount", "creditentry", "tryon", "usagerecord"])
def test_money_and_runs_cannot_be_edited(shop: Shop, operator: Client, model: str) -> None:
    shop.post()
    if model != "creditaccount":
        assert operator.get(reverse(f"admin:tryon_{model}_add")).status_code == 403
    rows: dict[str, Any] = {"creditaccount": CreditAccount.objects.get(), "tryon": TryOn.objects.get()}
    if row := rows.get(model):
        page = reverse(f"admin:tryon_{model}_change", args=[row.pk])
        assert operator.post(page, {"balance": 99}).status_code == 403
        assert operator.post(reverse(f"admin:tryon_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert shop.balance() == 2


def test_a_new_key_is_shown_once(shop: Shop, operator: Client) -> None:
    url = reverse("admin:tryon_apikey_add")
    page = operator.post(url, {"user": shop.user.pk, "name": "by hand"}, follow=True).content.decode()
    match = re.search(r"tryon_[\w-]{43}", page)
    assert match
    key = ApiKey.objects.get(name="by hand")
    assert key.matches(match[0])
    assert match[0] not in operator.get(reverse("admin:tryon_apikey_change", args=[key.pk])).content.decode()
    assert shop.post(shop.body | {"api_key": match[0]}).status_code == 200


@pytest.mark.parametrize("chosen_from", ["", "?state=valid"])
def test_keys_are_revoked_by_an_action(shop: Shop, operator: Client, chosen_from: str) -> None:
    key = ApiKey.objects.get()
    page = content(operator, reverse(KEYS) + chosen_from, {"action": "revoke", "_selected_action": [key.pk]})
    assert "1 key revoked." in page
    assert shop.post().status_code == 401
    assert LogEntry.objects.get().get_change_message() == "Revoked."


def test_a_revoked_key_keeps_the_time_of_its_end(shop: Shop, operator: Client) -> None:
    long_ago = timezone.now() - timedelta(days=9)
    ApiKey.objects.update(revoked_at=long_ago)
    key = ApiKey.objects.get()
    page = content(operator, reverse(KEYS), {"action": "revoke", "_selected_action": [key.pk]})
    assert "0 keys revoked." in page
    key.refresh_from_db()
    assert key.revoked_at == long_ago
    assert not LogEntry.objects.exists()


def test_who_may_only_view_keys_cannot_revoke_them(shop: Shop, staff: Callable[..., Client]) -> None:
    clerk = staff("view_apikey")
    revoke = {"action": "revoke", "_selected_action": [ApiKey.objects.get().pk]}
    assert "Revoke the selected keys" not in content(clerk, reverse(KEYS))
    content(clerk, reverse(KEYS), revoke)
    assert shop.post().status_code == 200


def test_who_may_change_keys_may_revoke_them(shop: Shop, staff: Callable[..., Client]) -> None:
    clerk = staff("view_apikey", "change_apikey")
    content(clerk, reverse(KEYS), {"action": "revoke", "_selected_action": [ApiKey.objects.get().pk]})
    assert shop.post().status_code == 401


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("valid", {"forever", "tomorrow"}),
        ("revoked", {"revoked", "revoked and expired"}),
        ("expired", {"expired"}),
        ("", {"forever", "tomorrow", "revoked", "revoked and expired", "expired"}),
    ],
)
def test_keys_are_filtered_by_state(shop: Shop, operator: Client, state: str, expected: set[str]) -> None:
    ApiKey.objects.all().delete()
    now = timezone.now()
    yesterday, tomorrow = now - timedelta(days=1), now + timedelta(days=1)
    for name, expires_at, revoked_at in [
        ("forever", None, None),
        ("tomorrow", tomorrow, None),
        ("expired", yesterday, None),
        ("revoked", tomorrow, now),
        ("revoked and expired", yesterday, now),
    ]:
        key, _ = ApiKey.create_key(shop.user, name=name, expires_at=expires_at)
        ApiKey.objects.filter(pk=key.pk).update(revoked_at=revoked_at)
    page = operator.get(reverse(KEYS, query={"state": state}))
    assert {key.name for key in page.context["cl"].result_list} == expected
    if state:
        states = re.findall(r'field-state">(\w+)<', page.content.decode())
        assert set(states) == {state}, "the column and the filter agree"


def chosen(account: CreditAccount, **data: Any) -> dict[str, Any]:
    """The form of the action "grant" for one account."""
    return {"action": "grant", "_selected_action": [account.pk], **data}


def test_credits_are_granted_with_a_reason_that_is_logged(shop: Shop, operator: Client) -> None:
    account = shop.user.credit_account
    assert 'name="reason"' in content(operator, reverse(ACCOUNTS), chosen(account))
    assert shop.balance() == 3

    page = content(operator, reverse(ACCOUNTS), chosen(account, apply="1", credits=5, reason="goodwill"))

    assert "“ada” now has 8 credits." in page
    assert shop.balance() == 8
    assert shop.ledger()[-1] == ("grant", 5)
    assert CreditEntry.objects.latest("pk").reason == "goodwill"
    assert LogEntry.objects.get().get_change_message() == "Granted 5 credits: goodwill"


def test_a_balance_of_one_is_told_in_the_singular(shop: Shop, operator: Client) -> None:
    data = chosen(shop.user.credit_account, apply="1", credits=-2, reason="mistake")
    assert "“ada” now has 1 credit." in content(operator, reverse(ACCOUNTS), data)


@pytest.mark.parametrize("credits", ["0", str(MAX_AMOUNT + 1), str(-MAX_AMOUNT - 1), "9" * 30, "9" * 5000, "1.5", ""])
def test_amounts_that_cannot_be_granted_are_a_forms_error(shop: Shop, operator: Client, credits: str) -> None:  # noqa: A002
    data = chosen(shop.user.credit_account, apply="1", credits=credits, reason="goodwill")
    page = operator.post(reverse(ACCOUNTS), data)
    assert page.status_code == 200
    assert list(page.context["form"].errors) == ["credits"]
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.parametrize("reason", ["", "  \t ", "x" * 201])
def test_a_grant_without_a_reason_is_a_forms_error(shop: Shop, operator: Client, reason: str) -> None:
    data = chosen(shop.user.credit_account, apply="1", credits=5, reason=reason)
    page = operator.post(reverse(ACCOUNTS), data)
    assert page.status_code == 200
    assert list(page.context["form"].errors) == ["reason"]
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.parametrize("credits", [MAX_AMOUNT, -3])
def test_the_largest_amounts_can_be_granted(shop: Shop, operator: Client, credits: int) -> None:  # noqa: A002
    content(operator, reverse(ACCOUNTS), chosen(shop.user.credit_account, apply="1", credits=credits, reason="x"))
    assert shop.balance() == 3 + credits


def test_more_than_the_balance_is_not_taken_and_the_others_get_theirs(
    shop: Shop, operator: Client, newcomer: User
) -> None:
    get_credits().grant(newcomer, 9)
    data = chosen(shop.user.credit_account, apply="1", credits=-5, reason="mistake")
    data["_selected_action"] = list(CreditAccount.objects.values_list("pk", flat=True))
    page = content(operator, reverse(ACCOUNTS), data)
    assert "“ada”: Cannot take 5 credits: the balance is 3." in page
    assert "“grace” now has 4 credits." in page
    assert shop.ledger() == [("grant", 3)]
    assert LogEntry.objects.get().object_id == str(newcomer.credit_account.pk)


def test_credits_are_not_granted_unless_the_reason_is_logged(
    shop: Shop, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("the log is full")

    monkeypatch.setattr(LogEntry.objects, "log_actions", fail)
    data = chosen(shop.user.credit_account, apply="1", credits=5, reason="goodwill")
    with pytest.raises(RuntimeError, match="the log is full"):
        operator.post(reverse(ACCOUNTS), data)
    assert shop.ledger() == [("grant", 3)]


def test_an_account_whose_user_was_deleted_gets_nothing(shop: Shop, operator: Client) -> None:
    account = shop.user.credit_account
    shop.user.delete()
    page = content(operator, reverse(ACCOUNTS), chosen(account, apply="1", credits=5, reason="goodwill"))
    assert f"The user of account {account.pk} was deleted: nothing granted." in page
    account.refresh_from_db()
    assert account.balance == 3


def test_the_grant_page_leads_back_to_the_list_it_came_from(shop: Shop, operator: Client) -> None:
    url = reverse(ACCOUNTS, query={"q": "ada", "has_credits": "yes"})
    page = content(operator, url, chosen(shop.user.credit_account))
    back = url.replace("&", "&amp;")
    assert f'<a href="{back}" class="closelink">' in page, "the cancel link"
    assert f'<a href="{back}">Credit accounts</a>' in page, "the breadcrumb"
    assert f'<a href="{reverse("admin:app_list", args=["tryon"])}">Virtual try-on</a>' in page


def test_who_may_not_add_entries_cannot_grant(shop: Shop, staff: Callable[..., Client]) -> None:
    clerk = staff("view_creditaccount", "add_creditaccount", "change_creditaccount")
    assert "Grant credits" not in content(clerk, reverse(ACCOUNTS))
    content(clerk, reverse(ACCOUNTS), chosen(shop.user.credit_account, apply="1", credits=5, reason="to me"))
    assert shop.balance() == 3


def test_who_may_add_entries_can_grant(shop: Shop, staff: Callable[..., Client]) -> None:
    clerk = staff("view_creditaccount", "add_creditentry")
    assert "Grant credits" in content(clerk, reverse(ACCOUNTS))
    content(clerk, reverse(ACCOUNTS), chosen(shop.user.credit_account, apply="1", credits=5, reason="goodwill"))
    assert shop.balance() == 8


def test_an_account_is_opened_with_its_first_credits(operator: Client, newcomer: User) -> None:
    url = reverse(NEW_ACCOUNT)
    for field in ("user", "credits", "reason"):
        assert f'name="{field}"' in content(operator, url)

    data = {"user": newcomer.pk, "credits": 7, "reason": "welcome"}
    page = operator.post(url, data, follow=True)

    assert page.redirect_chain == [(reverse(ACCOUNTS), 302)]
    account = CreditAccount.objects.get(user=newcomer)
    assert account.balance == 7
    entry = account.entries.get()
    assert (entry.kind, entry.amount, entry.reason) == ("grant", 7, "welcome")
    logged = LogEntry.objects.get()
    assert (logged.action_flag, logged.object_id, logged.object_repr) == (ADDITION, str(account.pk), "grace: 7")
    assert logged.get_change_message() == "Granted 7 credits: welcome"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", ""),
        ("user", "999999"),
        ("credits", ""),
        ("credits", "0"),
        ("credits", "-1"),
        ("credits", str(MAX_AMOUNT + 1)),
        ("credits", "9" * 30),
        ("reason", ""),
        ("reason", " \t "),
        ("reason", "x" * 201),
    ],
)
def test_an_account_is_not_opened_by_a_wrong_form(operator: Client, newcomer: User, field: str, value: str) -> None:
    data = {"user": newcomer.pk, "credits": 7, "reason": "welcome", field: value}
    page = operator.post(reverse(NEW_ACCOUNT), data)
    assert list(page.context["adminform"].form.errors) == [field]
    assert not CreditAccount.objects.filter(user=newcomer).exists()
    assert not LogEntry.objects.exists()


def test_a_user_has_one_account_only(shop: Shop, operator: Client) -> None:
    page = operator.post(reverse(NEW_ACCOUNT), {"user": shop.user.pk, "credits": 7, "reason": "again"})
    assert page.context["adminform"].form.errors == {
        "user": ["This user has an account: grant credits to it in the list."]
    }
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.parametrize(
    ("permissions", "status"),
    [
        (["add_creditaccount", "add_creditentry"], 200),
        (["add_creditaccount"], 403),
        (["add_creditentry"], 403),
    ],
)
def test_opening_an_account_needs_both_permissions(
    shop: Shop, staff: Callable[..., Client], permissions: list[str], status: int
) -> None:
    clerk = staff("view_creditaccount", *permissions)
    assert clerk.get(reverse(NEW_ACCOUNT)).status_code == status
    assert (reverse(NEW_ACCOUNT) in content(clerk, reverse(ACCOUNTS))) == (status == 200)


@pytest.mark.parametrize(("backend", "offered"), [(OtherCredits, False), (BonusCredits, True)])
def test_credits_are_granted_here_only_if_the_balances_are_kept_here(
    shop: Shop, operator: Client, tryon: Callable[..., None], backend: type[CreditsBackend], offered: bool
) -> None:
    tryon(CREDITS_BACKEND=f"{__name__}.{backend.__name__}")
    page = content(operator, reverse(ACCOUNTS))
    assert ("Grant credits" in page) == offered
    assert (reverse(NEW_ACCOUNT) in page) == offered
    assert operator.get(reverse(NEW_ACCOUNT)).status_code == (200 if offered else 403)


def test_an_accounts_page_shows_the_balance_and_leads_to_its_ledger(
    shop: Shop, operator: Client, newcomer: User
) -> None:
    get_credits().grant(newcomer, 1234)
    get_credits().grant(newcomer, -4, reason="mistake")
    account = CreditAccount.objects.get(user=newcomer)
    page = content(operator, reverse("admin:tryon_creditaccount_change", args=[account.pk]))
    assert localize(1230) in page
    link = re.search(r'<a href="([^"]+)">2 lines</a>', page)
    assert link
    ledger = operator.get(link[1].replace("&amp;", "&"))
    assert [entry.account for entry in ledger.context["cl"].result_list] == [account, account]


@pytest.mark.parametrize(("answer", "names"), [("yes", ["ada"]), ("no", ["grace"]), ("", ["ada", "grace"])])
def test_accounts_are_filtered_by_having_credits(
    shop: Shop, operator: Client, newcomer: User, answer: str, names: list[str]
) -> None:
    CreditAccount.objects.create(user=newcomer)
    page = operator.get(reverse(ACCOUNTS, query={"has_credits": answer}))
    assert sorted(str(account.user) for account in page.context["cl"].result_list) == names


def test_long_texts_are_cut_in_lists_and_whole_under_the_pointer(shop: Shop, operator: Client) -> None:
    shop.user.username = "a" * 150
    shop.user.save()
    catalog_id = "dress-" + "7" * 194
    TryOn.objects.create(user=shop.user, catalog_id=catalog_id, credits=1, lease_until=timezone.now())
    page = content(operator, reverse(RUNS))
    assert f'<span title="{catalog_id}">dress-777777777…</span>' in page
    assert f'<span title="{"a" * 150}">aaaaaaaaaaaaaaa…</span>' in page


def test_an_error_code_may_take_several_lines(shop: Shop, operator: Client) -> None:
    now = timezone.now()
    TryOn.objects.create(
        status="failed", error_code="provider_invalid_response", credits=1, lease_until=now, finished_at=now
    )
    assert "provider_<wbr>invalid_<wbr>response" in content(operator, reverse(RUNS))


def test_what_a_client_typed_is_escaped_in_lists(shop: Shop, operator: Client) -> None:
    TryOn.objects.create(catalog_id='"><script>alert(1)', credits=1, lease_until=timezone.now())
    assert "><script>alert" not in content(operator, reverse(RUNS))


def test_twenty_five_runs_are_shown_at_once(shop: Shop, operator: Client) -> None:
    TryOn.objects.bulk_create(TryOn(credits=1, lease_until=timezone.now()) for _ in range(26))
    assert len(operator.get(reverse(RUNS)).context["cl"].result_list) == 25


def test_the_list_shows_thumbnails_and_a_runs_page_the_picture(shop: Shop, operator: Client) -> None:
    shop.post()
    run = TryOn.objects.get()
    page = content(operator, reverse(RUNS))
    assert f'<img src="{reverse(THUMBNAIL, args=[run.pk])}"' in page
    assert run.image.url not in page
    page = content(operator, reverse(RUN, args=[run.pk]))
    assert f'<a href="{run.image.url}"><img src="{run.image.url}"' in page


@pytest.mark.parametrize(("pixels", "shown"), [(1536, 640), (400, 400), (None, 640)])
def test_a_runs_picture_fits_the_screen_and_is_never_blown_up(
    shop: Shop, operator: Client, pixels: int | None, shown: int
) -> None:
    shop.post()
    TryOn.objects.update(height=pixels)
    page = content(operator, reverse(RUN, args=[TryOn.objects.get().pk]))
    assert re.search(rf'<img src="[^"]+" alt="" height="{shown}">', page)


def test_a_run_without_a_picture_can_be_opened(shop: Shop, operator: Client) -> None:
    run = TryOn.objects.create(credits=1, lease_until=timezone.now())
    page = content(operator, reverse(RUNS))
    assert page.count(f'href="{reverse(RUN, args=[run.pk])}') == 2, "by its time, too"
    assert f"{run.pk}/thumbnail" not in page
    assert PICTURE not in content(operator, reverse(RUN, args=[run.pk]))


def test_a_thumbnail_is_small_and_stays_in_the_browser(shop: Shop, operator: Client, settings: Settings) -> None:
    settings.SECURE_CONTENT_TYPE_NOSNIFF = False  # the view's own header, not the middleware's
    shop.post()
    run = TryOn.objects.get()
    with run.image.open("wb") as file:
        file.write(jpeg(1000, 1500))

    response = operator.get(reverse(THUMBNAIL, args=[run.pk]))

    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    directives = set(response.headers["Cache-Control"].split(", "))
    assert directives == {"private", "max-age=86400", "immutable"}
    assert Image.open(io.BytesIO(response.content)).size == (128, 192)


@pytest.mark.parametrize(("permissions", "status"), [(["view_tryon"], 200), (["view_usagerecord"], 403)])
def test_a_thumbnail_is_for_those_who_may_view_runs(
    shop: Shop, staff: Callable[..., Client], permissions: list[str], status: int
) -> None:
    shop.post()
    url = reverse(THUMBNAIL, args=[TryOn.objects.get().pk])
    assert staff(*permissions).get(url).status_code == status


def test_a_thumbnail_is_not_for_shoppers(shop: Shop) -> None:
    shop.post()
    url = reverse(THUMBNAIL, args=[TryOn.objects.get().pk])
    shopper = Client()
    shopper.force_login(shop.user)
    for client in (Client(), shopper):
        assert client.get(url).headers["Location"].startswith(reverse("admin:login"))


def test_there_is_no_thumbnail_without_a_picture(shop: Shop, operator: Client, log: pytest.LogCaptureFixture) -> None:
    run = TryOn.objects.create(credits=1, lease_until=timezone.now())
    for pk in (run.pk, uuid.uuid4()):
        assert operator.get(reverse(THUMBNAIL, args=[pk])).status_code == 404
    assert not [record for record in log.records if record.name == "tryon.admin"]


def test_there_is_no_thumbnail_once_the_file_is_gone(
    shop: Shop, operator: Client, media: Path, log: pytest.LogCaptureFixture
) -> None:
    shop.post()
    next(media.iterdir()).unlink()
    assert operator.get(reverse(THUMBNAIL, args=[TryOn.objects.get().pk])).status_code == 404
    assert not [record for record in log.records if record.name == "tryon.admin"], "deleting pictures is no fault"


def test_a_file_that_is_no_picture_is_logged(
    shop: Shop, operator: Client, media: Path, log: pytest.LogCaptureFixture
) -> None:
    shop.post()
    next(media.iterdir()).write_bytes(b"<svg onload='alert(1)'/>")
    run = TryOn.objects.get()
    assert operator.get(reverse(THUMBNAIL, args=[run.pk])).status_code == 404
    record = next(record for record in log.records if record.name == "tryon.admin")
    assert record.exc_info
    assert str(run.image.name) in record.getMessage()


def test_pages_open_while_the_storage_fails(
    shop: Shop, operator: Client, broken_storage: Callable[[], None], log: pytest.LogCaptureFixture
) -> None:
    shop.post()
    run = TryOn.objects.get()
    broken_storage()

    def failures() -> list[str]:
        return [record.getMessage() for record in log.records if record.name == "tryon.admin"]

    assert operator.get(reverse(RUNS)).status_code == 200
    assert failures() == [], "the list asks nothing of the storage"

    page = content(operator, reverse(RUN, args=[run.pk]))
    assert str(run.image.name) in page
    assert PICTURE not in page
    assert failures() == [f"The storage gives no address for {run.image.name}."]

    assert operator.get(reverse(THUMBNAIL, args=[run.pk])).status_code == 404
    assert failures()[1:] == [f"No thumbnail of {run.image.name}."]
