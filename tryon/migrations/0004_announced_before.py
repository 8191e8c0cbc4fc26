from typing import Any

from django.db import migrations
from django.db.models import F


def mark_announced(apps: Any, schema_editor: Any) -> None:
    """Runs that ended before announcements were written down are not announced again."""
    ended = apps.get_model("tryon", "TryOn").objects.using(schema_editor.connection.alias)
    ended.filter(finished_at__isnull=False).update(announced_at=F("finished_at"))


class Migration(migrations.Migration):
    dependencies = [("tryon", "0003_money_and_state")]

    operations = [migrations.RunPython(mark_announced, migrations.RunPython.noop, elidable=True)]
