"""The command line: what it prints, what it exits with, what it charges."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from providers.fake import FakeProvider
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
        (["--user-image=http://127.0.0.1:1/a.jpg", "--catalog-image=http://127.0.0.1:1/"], "could not be fetched"),
    ],
)
def test_generate_tryon_fails_with_one_clear_line(shop: Shop, arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError) as caught:
        manage("generate_tryon", *arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not TryOn.objects.filter(status="succeeded").exists()


def test_generate_tryon_charges_nothing_when_the_provider_fails(
    shop: Shop, files: list[str], fake: Callable[..., FakeProvider]
) -> None:
    fake(error="provider_unavailable")
    with pytest.raises(CommandError, match="not available"):
        manage("generate_tryon", *files, "--user=ada")
    assert shop.balance() == 3


def test_create_api_key_prints_a_key_that_works_and_stores_its_hash(shop: Shop) -> None:
    text = manage("create_api_key", "ada", "--name=ci", "--days=30")
    key = ApiKey.objects.get(name="ci")
    assert key.matches(text)
    assert text not in repr(vars(key))
    assert key.expires_at is not None
    assert (key.expires_at - timezone.now()).days in (29, 30)
    assert shop.post(shop.body | {"api_key": text}).status_code == 200


def test_grant_credits_says_the_new_balance_and_writes_the_reason(shop: Shop) -> None:
    assert manage("grant_credits", "ada", 7, "--reason=a gift") == "ada has 10 credits."
    assert manage("grant_credits", "ada", -10, "--reason=taken back") == "ada has 0 credits."
    with pytest.raises(CommandError, match="Cannot take 1 credits: the balance is 0"):
        manage("grant_credits", "ada", -1, "--reason=too much")
    assert shop.ledger() == [("grant", 3), ("grant", 7), ("grant", -10)]


def test_recover_tryons_says_what_it_did(shop: Shop) -> None:
    assert manage("recover_tryons") == "0 run(s) recovered."


def test_quickstart_refuses_without_debug(shop: Shop) -> None:
    with pytest.raises(CommandError, match="for development"):
        manage("quickstart", "--no-serve")


def test_quickstart_names_a_taken_port_before_it_does_anything(
    shop: Shop, settings: Any, tryon: Callable[..., None]
) -> None:
    settings.DEBUG = True
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        tryon(PORT=port)
        with pytest.raises(CommandError, match=f"Port {port} cannot be used: Address already in use.*PORT={port + 1}"):
            manage("quickstart")
    assert not ApiKey.objects.filter(name="quickstart").exists()
