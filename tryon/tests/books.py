"""Whether money, runs, files and reports agree, as the database and the storage have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from django.db.models import Sum

from tryon.models import CreditAccount, CreditEntry, TryOn, UsageRecord


def assert_books_balance(media: Path, picture: bytes, about: str = "") -> None:
    """Every run has ended, announced and recorded; was charged if its picture is there, complete, and only then.

    ``picture`` is what every file must hold; ``about`` says what came before.
    """
    problems = [*_accounts(), *_runs(), *_reports(), *_files(media, picture)]
    assert not problems, "\n".join([about, *problems])


def _accounts() -> Iterator[str]:
    for account in CreditAccount.objects.annotate(total=Sum("entries__amount")):
        if not account.balance == (account.total or 0) >= 0:
            yield f"{account.user}: the balance is {account.balance}, the ledger says {account.total}"


def _runs() -> Iterator[str]:
    entries: dict[UUID | None, list[tuple[str, int]]] = defaultdict(list)
    for key, kind, amount in CreditEntry.objects.exclude(key=None).order_by("pk").values_list("key", "kind", "amount"):
        entries[key].append((kind, amount))
    for run in TryOn.objects.all():
        end = ("capture", 0) if run.status == TryOn.Status.SUCCEEDED else ("release", run.credits)
        wanted = [("hold", -run.credits), end] if run.user_id else []
        found = entries.pop(run.pk, [])
        if run.status in TryOn.UNFINISHED:
            yield f"{run}: still {run.status}, with {found}"
        elif found != wanted:
            yield f"{run}: {run.status}, with {found}"
        elif run.announced_at is None:
            yield f"{run}: {run.status}, and nobody was told"
        elif run.has_leftovers:
            yield f"{run}: {run.status}, and may have left a file"
    for key, found in entries.items():
        yield f"{key}: no run, but {found}"


def _reports() -> Iterator[str]:
    runs = {run.pk: (run.status, run.credits if run.status == "succeeded" else 0) for run in TryOn.objects.all()}
    records = UsageRecord.objects.values_list("tryon_id", "status", "credits")
    reports = {run: (status, charged) for run, status, charged in records}
    for run in runs.keys() | reports.keys():
        if runs.get(run) != reports.get(run):
            yield f"{run}: it is {runs.get(run)}, its usage record says {reports.get(run)}"


def _files(media: Path, picture: bytes) -> Iterator[str]:
    images = dict(TryOn.objects.exclude(image="").values_list("image", "pk"))
    files = {str(path.relative_to(media)): path for path in media.rglob("*") if path.is_file()}
    for name in images.keys() - files.keys():
        yield f"{images[name]}: no file {name}"
    for name in files.keys() - images.keys():
        yield f"{name}: nobody's picture"
    for name in files.keys() & images.keys():
        if files[name].read_bytes() != picture:
            yield f"{images[name]}: {name} is not the vendor's picture"
