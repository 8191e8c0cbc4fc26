from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from django.utils import timezone

from ... import erasing
from ...models import TryOn, TryOnQuerySet, database
from .._arguments import age
from .._failures import database_needed, interruptible
from .._users import find_user


class Command(BaseCommand):
    help = (
        "Erase runs with their files: all that are older, or all of a user. The ledger and the usage records stay. "
        "Run it as a cronjob; safe beside servers and beside itself."
    )
    requires_system_checks = []  # photos go whatever is wrong with the provider

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than", type=age, metavar="AGE", help="Runs made so long ago: 90m (minutes), 12h, 30d or 8w."
        )
        parser.add_argument(
            "--user", help="This user's runs. Those that are still being made are erased when they have ended."
        )
        parser.add_argument("--dry-run", action="store_true", help="Only tell how many it would be.")

    def handle(self, **options: Any) -> str:
        if not options["older_than"] and options["user"] is None:
            raise CommandError("Say what to erase: --older-than 30d, --user NAME, or both.")
        with database_needed(), interruptible("Interrupted. What is flagged is erased by the servers' recovery."):
            tryons = self._chosen(options)
            if options["dry_run"]:
                unfinished = tryons.unfinished().count()
                return f"{tryons.count() - unfinished} run(s) would be erased{self._later(unfinished)}."
            return self._erase(tryons)

    @staticmethod
    def _chosen(options: dict[str, Any]) -> TryOnQuerySet:
        """The runs that are meant; those that have not ended only where their user wants them gone."""
        chosen = Q() if options["user"] is not None else Q(finished_at__isnull=False)
        if options["user"] is not None:
            chosen &= Q(user=find_user(options["user"]))
        if options["older_than"]:
            chosen &= Q(created_at__lt=timezone.now() - options["older_than"])
        return TryOn.objects.using(database()).filter(chosen)

    def _erase(self, tryons: TryOnQuerySet) -> str:
        total, meant = erasing.Erased(), 0
        for ids in _batches(tryons):
            batch = TryOn.objects.using(database()).filter(pk__in=ids)
            batch.flag()
            erased = erasing.erase(batch)
            meant += len(ids)
            total.gone += erased.gone
            total.waiting += erased.waiting
            total.failed += erased.failed
            if erased.is_cut_short:
                break
        gone = len(total.gone)
        if total.failed:
            raise CommandError(
                f"{gone} run(s) erased. {total.failed} could not be, as the log tells"
                f"{', and the rest was not tried' if erased.is_cut_short else ''}. What is flagged is tried again by "
                "the servers' recovery, by recover_tryons and by this command."
            )
        return f"{gone} run(s) erased{self._later(meant - gone)}."

    @staticmethod
    def _later(count: int) -> str:
        return f", {count} as soon as they have ended and were announced" if count else ""


def _batches(tryons: TryOnQuerySet) -> Iterator[list[UUID]]:
    """Their ids, in pieces that any number of runs can be cut into."""
    rest = tryons.order_by("pk")
    while ids := list(rest.values_list("pk", flat=True)[: erasing.AT_ONCE]):
        yield ids
        rest = tryons.filter(pk__gt=ids[-1]).order_by("pk")
