"""The command line: what it prints, what it exits with, what it charges."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.files import File
from django.core.files.storage import Storage, storages
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError, SystemCheckError
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from providers.fake import FakeProvider
from providers.local import models as local_models
from sakura_inference.management.commands import quickstart
from tryon.management._failures import interruptible
from tryon.models import ApiKey, TryOn

from .shop import Shop, jpeg

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


def manage(*arguments: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments that name two photos on disk."""
    person, garment = tmp_path / "person.jpg", tmp_path / "garment.jpg"
    person.write_bytes(jpeg())
    garment.write_bytes(jpeg(color="navy"))
    return [f"--user-image={person}", f"--catalog-image={garment}"]


def test_generate_tryon_writes_a_file_and_charges_the_user(shop: Shop, files: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    printed = manage("generate_tryon", *files, "--user=ada", "--catalog-id=c-1", f"--output={output}")
    tryon = TryOn.objects.get()
    assert printed.splitlines()[0] == str(output)
    assert f"fake (fake), {tryon.latency_ms} ms, 1 credit(s)" in printed
    assert output.read_bytes() == Path(tryon.image.path).read_bytes()
    assert (shop.balance(), tryon.catalog_id) == (2, "c-1")


def test_generate_tryon_without_a_user_is_free_and_prints_the_stored_path(shop: Shop, files: list[str]) -> None:
    printed = manage("generate_tryon", *files)
    assert Path(printed.splitlines()[0]).is_file()
    assert shop.balance() == 3


def test_generate_tryon_takes_urls_and_prints_json(shop: Shop) -> None:
    printed = manage(
        "generate_tryon",
        f"--user-image={shop.body['user_image_url']}",
        f"--catalog-image={shop.body['catalog_image_url']}",
        "--json",
    )
    answer = json.loads(printed)
    assert answer["status"] == "success"
    assert Path(answer["path"]).is_file()
    assert (answer["provider"], answer["credits"]) == ("fake", 0)


def test_generate_tryon_demo_uses_the_demo_photos(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    manage("generate_tryon", "--demo", "--prompt=in the rain", "--category=tops")
    call = provider.calls[0]
    assert (call.prompt, call.category) == ("in the rain", "tops")
    assert (call.person.width, call.garment.width) != (0, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--user-image and --catalog-image, or --demo"),
        (["--user-image=/no/such.jpg", "--catalog-image=/no/such.jpg"], "--user-image /no/such.jpg: No such file"),
        (["--demo", "--user=nobody"], "no user with username 'nobody'"),
        (["--demo", "--provider=nobody"], "no provider 'nobody'"),
        (["--demo", "--output=/no/such/folder/x.png"], "no folder /no/such/folder"),
        (["--demo", "--output=/dev"], "--output /dev is a folder. Name a file in it."),
        (["--demo", "--user="], "The user is empty. Give a username."),
        (["--demo", "--user= "], "The user is empty. Give a username."),
        (["--demo", f"--catalog-id={'x' * 201}"], "argument --catalog-id: Ensure this value has at most 200 char"),
        (["--demo", "--catalog-id=a\0b"], "argument --catalog-id: Null characters are not allowed."),
        (["--demo", "--catalog-id=\udcff"], "argument --catalog-id: This is no valid text."),
        (["--demo", f"--user-image={__file__}"], "--user-image: not an image of a known type."),
        (["--demo", f"--catalog-image={__file__}", "--json"], "--catalog-image: not an image of a known type."),
        (["--demo", "--user-image=http://127.0.0.1:1/"], "--user-image: The image could not be fetched."),
        (["--demo", "--user-image=http://127.0.0.1:1/"], "The reason: port 1 is not allowed"),
    ],
)
def test_generate_tryon_fails_with_one_clear_line(shop: Shop, arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError) as caught:
        manage("generate_tryon", *arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "_image_url" not in str(caught.value), "the API's name of an option"
    assert not TryOn.objects.filter(status="succeeded").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("provider_unavailable", "please try again shortly. The reason: Fake was told to fail with provider_unav"),
        ("provider_misconfigured", "Nothing was charged. The reason: Fake was told to fail with provider_misconf"),
        ("image_unusable", "Fake was told to fail with image_unusable."),
    ],
)
def test_generate_tryon_says_what_the_provider_said_and_charges_nothing(
    shop: Shop, files: list[str], fake: Callable[..., FakeProvider], error: str, says: str
) -> None:
    fake(error=error)
    with pytest.raises(CommandError) as caught:
        manage("generate_tryon", *files, "--user=ada")
    assert says in str(caught.value)
    assert str(caught.value).count("Fake was told") == 1
    assert shop.balance() == 3


def test_output_that_cannot_be_written_costs_nothing_and_leaves_nothing(
    shop: Shop, files: list[str], media: Path
) -> None:
    with pytest.raises(CommandError) as caught:
        manage("generate_tryon", *files, "--user=ada", "--output=/dev/full")
    assert str(caught.value) == "--output /dev/full: No space left on device. Nothing was charged."
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    assert list(media.iterdir()) == []


class Cloud(Storage):
    """A storage without paths."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def exists(self, name: str) -> bool:
        return name in self.names

    def _save(self, name: str, content: File[bytes]) -> str:
        self.names.append(name)
        return name

    def delete(self, name: str) -> None:
        self.names.remove(name)

    def url(self, name: str | None) -> str:
        return f"https://cdn.example/{name}"


class CloudWithoutAddress(Cloud):
    def url(self, name: str | None) -> str:
        raise RuntimeError("no address\nfor you")


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_picture_that_the_storage_does_not_hand_over_costs_nothing(
    shop: Shop, files: list[str], settings: Settings, arguments: list[str]
) -> None:
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": f"{__name__}.CloudWithoutAddress"}}
    with pytest.raises(CommandError) as caught:
        manage("generate_tryon", *files, "--user=ada", *arguments)
    assert str(caught.value) == (
        "The picture was made but could not be handed over: no address for you. Nothing was charged."
    )
    assert shop.balance() == 3
    cloud = storages["default"]
    assert isinstance(cloud, Cloud)
    assert cloud.names == []


def test_storage_that_cannot_store_is_one_clear_line(shop: Shop, files: list[str], media: Path) -> None:
    media.write_bytes(b"a file, where a folder should be")
    with pytest.raises(CommandError, match=r"Nothing was charged; .* The reason: .*media.*"):
        manage("generate_tryon", *files, "--user=ada")
    assert shop.balance() == 3


def test_storage_without_paths_gives_its_address(shop: Shop, files: list[str], settings: Settings) -> None:
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": f"{__name__}.Cloud"}}
    assert manage("generate_tryon", *files).splitlines()[0].startswith("https://cdn.example/anonymous_none_")


@pytest.mark.parametrize("name", ["tryon", "tryon.runs", ""])
def test_log_lines_stay_off_the_terminal_while_a_picture_is_made(
    shop: Shop,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setattr(logging.getLogger("tryon"), "propagate", True)
    file = logging.FileHandler(tmp_path / "log")
    consoles = [logging.StreamHandler(), logging.StreamHandler(sys.stdout)]
    monkeypatch.setattr(logging.getLogger(name), "handlers", [*consoles, file])
    with contextlib.closing(file):
        manage("generate_tryon", *files)
        assert capsys.readouterr() == ("", "")
        assert "try-on succeeded" in (tmp_path / "log").read_text()

        logging.getLogger("tryon.runs").warning("after it")
        assert capsys.readouterr() == ("after it\n", "after it\n")


def test_log_lines_of_a_project_without_handlers_stay_off_the_terminal_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("tryon")
    monkeypatch.setattr(logger, "handlers", [])
    with pytest.raises(CommandError):
        manage("generate_tryon", "--demo", "--user-image=http://127.0.0.1:1/")
    assert capsys.readouterr().err == ""

    logger.warning("after it")
    assert capsys.readouterr().err == "after it\n"


def test_create_api_key_prints_a_key_that_works_and_stores_its_hash(shop: Shop) -> None:
    text = manage("create_api_key", "ada", "--name=ci", "--days=30")
    key = ApiKey.objects.get(name="ci")
    assert key.matches(text)
    assert text not in repr(vars(key))
    assert key.expires_at is not None
    assert (key.expires_at - timezone.now()).days in (29, 30)
    assert shop.post(shop.body | {"api_key": text}).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--days=0"], "argument --days: Ensure this value is greater than or equal to 1."),
        (["--days=36501"], "argument --days: Ensure this value is less than or equal to 36500."),
        (["--days=soon"], "argument --days: Enter a whole number."),
        ([f"--name={'x' * 101}"], "argument --name: Ensure this value has at most 100 characters"),
        (["--name=a\0b"], "argument --name: Null characters are not allowed."),
    ],
)
def test_create_api_key_refuses_what_a_key_cannot_have(shop: Shop, arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError) as caught:
        manage("create_api_key", "ada", *arguments)
    assert says in str(caught.value)
    assert ApiKey.objects.count() == 1, "the shopper's own"


def test_create_api_key_makes_one_for_a_century(shop: Shop) -> None:
    manage("create_api_key", "ada", "--days=36500", "--name=old")
    assert ApiKey.objects.get(name="old").is_valid(timezone.now() + timedelta(days=36_499))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ada", 0, "--reason=x"], "The amount is 0."),
        (["ada", 10**30, "--reason=x"], "argument credits: Ensure this value is less than or equal to 1000000000."),
        (["ada", -(10**30), "--reason=x"], "argument credits: Ensure this value is greater than or equal to -10000"),
        (["ada", "many", "--reason=x"], "argument credits: Enter a whole number."),
        (["ada", 1, "--reason="], "argument --reason: This field is required."),
        (["ada", 1, "--reason= "], "argument --reason: This field is required."),
        (["ada", 1, f"--reason={'x' * 201}"], "argument --reason: Ensure this value has at most 200 characters"),
        (["ada", 1, "--reason=a\0b"], "argument --reason: Null characters are not allowed."),
        (["", 1, "--reason=x"], "The user is empty. Give a username."),
        (["a\0b", 1, "--reason=x"], "There is no user with username 'a\\x00b'."),
    ],
)
def test_grant_credits_refuses_what_a_ledger_cannot_have(shop: Shop, arguments: list[Any], says: str) -> None:
    with pytest.raises(CommandError) as caught:
        manage("grant_credits", *arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.parametrize("arguments", [["create_api_key", "ada"], ["generate_tryon", "--demo", "--user=ada"]])
def test_a_user_who_is_not_active_gets_no_key_and_no_picture(shop: Shop, arguments: list[str]) -> None:
    shop.user.is_active = False
    shop.user.save()
    with pytest.raises(CommandError, match="The user 'ada' is not active"):
        manage(*arguments)
    assert ApiKey.objects.count() == 1
    assert not TryOn.objects.exists()


def test_generate_tryon_reads_no_more_of_a_file_than_a_photo_may_have(
    shop: Shop, files: list[str], tmp_path: Path, tryon: Callable[..., None]
) -> None:
    tryon(MAX_IMAGE_BYTES=1000)
    (tmp_path / "person.jpg").write_bytes(jpeg(2000, 2000))
    with pytest.raises(CommandError, match=r"--user-image: the image has 1,001 bytes; the limit is 1,000"):
        manage("generate_tryon", *files)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for endless in (pipe, "/dev/zero", tmp_path):
        with pytest.raises(CommandError, match=r"--user-image .+ is no file"):
            manage("generate_tryon", f"--user-image={endless}", files[1])


def test_a_run_of_a_command_has_a_request_id(shop: Shop, files: list[str]) -> None:
    manage("generate_tryon", *files)
    assert len(TryOn.objects.get().request_id) == 32


def test_two_users_of_one_name_are_one_line(shop: Shop, tryon: Callable[..., None], django_user_model: Any) -> None:
    for name in ("bob", "eve"):
        django_user_model.objects.create_user(name, email="same@example.com")
    tryon(USER_ID_FIELD="email")
    with pytest.raises(CommandError, match=r"several users with email 'same@example.com'. TRYON\[\"USER_ID_FIELD\"\]"):
        manage("grant_credits", "same@example.com", 1, "--reason=x")


@pytest.fixture
def no_tables(shop: Shop) -> Iterator[None]:
    """A database that was never migrated, as far as the commands can see."""
    models = (get_user_model(), TryOn)
    with connection.schema_editor() as editor:
        for model in models:
            editor.alter_db_table(model, model._meta.db_table, f"gone_{model._meta.db_table}")
    yield
    with connection.schema_editor() as editor:
        for model in models:
            editor.alter_db_table(model, f"gone_{model._meta.db_table}", model._meta.db_table)


@pytest.mark.usefixtures("no_tables")
@pytest.mark.parametrize(
    "arguments",
    [
        ["create_api_key", "ada"],
        ["grant_credits", "ada", 1, "--reason=x"],
        ["recover_tryons"],
        ["clear_idempotency_keys"],
        ["audit_credits"],
        ["generate_tryon", "--demo", "--user=ada"],
        ["generate_tryon", "--demo"],
    ],
)
def test_a_database_without_tables_is_one_line(arguments: list[Any]) -> None:
    with pytest.raises(CommandError) as caught:
        manage(*arguments)
    assert "The database cannot be used: " in str(caught.value)
    assert "manage.py migrate" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_could_not_be_printed_does_not_count(shop: Shop) -> None:
    class Full(StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(CommandError, match=r"No space left on device\. There is none\."):
        call_command("create_api_key", "ada", stdout=Full())
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize(
    "command",
    [
        ["recover_tryons"],
        ["clear_idempotency_keys"],
        ["audit_credits"],
        ["create_api_key", "ada"],
        ["grant_credits", "ada", "1", "--reason=x"],
    ],
)
def test_commands_about_money_and_keys_do_not_wait_for_the_providers_key(
    shop: Shop, tryon: Callable[..., None], command: list[str]
) -> None:
    tryon(PROVIDER="openai", PROVIDERS={"openai": {"BACKEND": "providers.openai.OpenAIProvider"}})
    with pytest.raises(SystemCheckError, match="OPENAI_API_KEY"):
        call_command("check")
    load_command_class("tryon", command[0]).run_from_argv(["manage.py", *command])


def test_grant_credits_says_the_new_balance_and_writes_the_reason(shop: Shop) -> None:
    assert manage("grant_credits", "ada", 7, "--reason=a gift") == "ada has 10 credits."
    assert manage("grant_credits", "ada", -10, "--reason=taken back") == "ada has 0 credits."
    with pytest.raises(CommandError, match="Cannot take 1 credits: the balance is 0"):
        manage("grant_credits", "ada", -1, "--reason=too much")
    assert shop.ledger() == [("grant", 3), ("grant", 7), ("grant", -10)]


def test_recover_tryons_says_what_it_did(shop: Shop) -> None:
    assert manage("recover_tryons") == "0 run(s) recovered, 0 announced, 0 erased."


# Ctrl-C


@pytest.fixture
def _python_handles_sigint() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_python_handles_sigint")
def test_ctrl_c_is_one_line_and_a_second_one_ends_the_process_at_once() -> None:
    with pytest.raises(CommandError, match=r"^Stopped\.$") as caught, interruptible("Stopped."):
        signal.raise_signal(signal.SIGINT)
    assert caught.value.returncode == 130
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


@pytest.mark.usefixtures("_python_handles_sigint")
def test_ctrl_c_while_a_picture_is_made_costs_nothing(
    shop: Shop, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pressed(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeProvider, "generate_image", pressed)
    with pytest.raises(CommandError, match=r"^Cancelled\. A picture that was not finished costs nothing\.$") as caught:
        manage("generate_tryon", *files, "--user=ada")
    assert caught.value.returncode == 130
    assert (TryOn.objects.get().status, shop.balance()) == ("cancelled", 3)


# quickstart


@pytest.fixture
def newcomer(settings: Settings, fake: Callable[..., FakeProvider], tryon: Callable[..., None], shop: Shop) -> None:
    """What quickstart needs, without the seconds of the offline provider."""
    settings.DEBUG = True
    use_as_local(tryon)


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none to fetch."""
    monkeypatch.setattr(local_models, "MODELS", ())


def use_as_local(tryon: Callable[..., None], **options: Any) -> None:
    """The fake provider takes the place of the offline one."""
    tryon(PROVIDER="local", PROVIDERS={"local": {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": options}})


def printed_password(text: str) -> str:
    [password] = re.findall(r"\(user demo, password (.+)\)$", text, re.M)
    return str(password)


def printed_key(text: str) -> str:
    [key] = re.findall(r"^The key of user 'demo', shown only now, good for 30 days: (\S+)$", text, re.M)
    return str(key)


def test_quickstart_prints_a_password_and_a_key_that_work(newcomer: None) -> None:
    text = manage("quickstart", "--no-serve")
    user = User.objects.get(username="demo")
    key = ApiKey.objects.get(user=user)
    assert user.is_superuser
    assert user.check_password(printed_password(text))
    assert key.matches(printed_key(text))
    assert key.expires_at is not None
    assert timedelta(days=29) < key.expires_at - timezone.now() <= timedelta(days=30)
    assert printed_key(text) in json.loads(re.findall(r"-d '(.+)'$", text, re.M)[0])["api_key"]


@pytest.mark.parametrize(("setting", "page"), [("DOCS_ENABLED", "/docs"), ("ADMIN_ENABLED", "/admin/")])
def test_quickstart_names_only_pages_that_are_there(
    newcomer: None, settings: Settings, setting: str, page: str
) -> None:
    assert f"{page} " in manage("quickstart", "--no-serve")
    setattr(settings, setting, False)
    assert f"{page} " not in manage("quickstart", "--no-serve")


def test_quickstart_makes_a_password_once_there_is_an_admin(newcomer: None, settings: Settings) -> None:
    settings.ADMIN_ENABLED = False
    manage("quickstart", "--no-serve")
    settings.ADMIN_ENABLED = True
    text = manage("quickstart", "--no-serve")
    assert User.objects.get(username="demo").check_password(printed_password(text))


def test_quickstart_again_keeps_the_password_and_the_earlier_keys(newcomer: None) -> None:
    first, second = (manage("quickstart", "--no-serve") for _ in range(2))
    user = User.objects.get(username="demo")
    assert user.check_password(printed_password(first))
    assert printed_password(second).startswith("as printed the first time; manage.py changepassword demo")
    valid = [key for key in ApiKey.objects.filter(user=user) if key.is_valid(timezone.now())]
    assert all(any(key.matches(printed_key(text)) for key in valid) for text in (first, second))


def test_quickstart_deletes_its_own_keys_that_expired_and_no_others(newcomer: None) -> None:
    demo, ada = User.objects.create_user("demo"), User.objects.get(username="ada")
    past, future = (timezone.now() + timedelta(days=days) for days in (-1, 1))
    ApiKey.create_key(demo, name="quickstart", expires_at=past)
    kept = [
        ApiKey.create_key(user, name=name, expires_at=expires_at)[0].pk
        for user, name, expires_at in (
            (demo, "quickstart", future),
            (demo, "quickstart", None),
            (demo, "mine", past),
            (ada, "quickstart", past),
        )
    ]
    before = set(ApiKey.objects.values_list("pk", flat=True))
    manage("quickstart", "--no-serve")
    after = set(ApiKey.objects.values_list("pk", flat=True))
    assert set(kept) <= after
    assert len(before - after) == 1
    assert len(after - before) == 1


def test_quickstart_that_fails_says_why_and_the_next_one_prints_the_password(
    newcomer: None, tryon: Callable[..., None]
) -> None:
    use_as_local(tryon, error="provider_misconfigured")
    with pytest.raises(CommandError, match="The reason: Fake was told to fail with provider_misconfigured"):
        manage("quickstart", "--no-serve")
    user = User.objects.get(username="demo")
    assert not user.has_usable_password()
    assert not user.tryon_api_keys.exists()

    use_as_local(tryon)
    text = manage("quickstart", "--no-serve")
    user.refresh_from_db()
    assert user.check_password(printed_password(text))


class ClosedPipe(StringIO):
    """Whoever read has gone."""

    def write(self, text: str) -> int:
        if "The key" in text:
            raise BrokenPipeError
        return super().write(text)


def test_password_and_key_that_nobody_read_do_not_count(newcomer: None) -> None:
    with pytest.raises(BrokenPipeError):
        call_command("quickstart", "--no-serve", stdout=ClosedPipe())
    user = User.objects.get(username="demo")
    assert not user.has_usable_password()
    assert not user.tryon_api_keys.exists()


@pytest.mark.usefixtures("_python_handles_sigint")
@pytest.mark.parametrize("step", ["demo_user", "first_tryon", "explain", "serve"])
def test_ctrl_c_in_quickstart_is_one_line(newcomer: None, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(quickstart.Command, "demand_port", lambda self: None)
    monkeypatch.setattr(quickstart.Command, step, lambda *args: signal.raise_signal(signal.SIGINT))
    with pytest.raises(CommandError, match=r"^Stopped\. Run it again to go on\.$") as caught:
        manage("quickstart")
    assert caught.value.returncode == 130


@pytest.mark.usefixtures("_python_handles_sigint")
@pytest.mark.parametrize("command", [["quickstart", "--no-serve"], ["fetch_local_models"]])
def test_ctrl_c_while_models_are_fetched_is_one_line(
    newcomer: None, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("tryon.management._models.fetch", lambda progress: signal.raise_signal(signal.SIGINT))
    with pytest.raises(CommandError, match=r"^Stopped\. Run it again to go on\.$") as caught:
        manage(*command)
    assert caught.value.returncode == 130
    assert not User.objects.filter(username="demo").exists()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_steps_of_quickstart_are_not_red() -> None:
    terminal = Terminal()
    command = quickstart.Command(stderr=terminal, force_color=True)
    command.stderr.write("an error")
    command.step("Database")
    red, step = terminal.getvalue().split("an error")
    assert red.startswith("\x1b[")
    assert step.endswith("… Database\n")


def test_quickstart_refuses_without_debug(shop: Shop) -> None:
    with pytest.raises(CommandError, match="for development"):
        manage("quickstart", "--no-serve")


def test_quickstart_names_a_taken_port_before_it_does_anything(shop: Shop, settings: Settings) -> None:
    settings.DEBUG = True
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings.PORT = port
        with pytest.raises(CommandError, match=f"Port {port} cannot be used: Address already in use.*PORT={port + 1}"):
            manage("quickstart")
    assert not User.objects.filter(username="demo").exists()
