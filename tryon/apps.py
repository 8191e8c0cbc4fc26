from django.apps import AppConfig
from django.core.checks import Tags, register
from django.core.signals import setting_changed
from django.utils.translation import gettext_lazy as _


class TryOnConfig(AppConfig):
    name = "tryon"
    verbose_name = _("Virtual try-on")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, dispatch, receivers

        register(checks.check_settings, "tryon")
        register(checks.check_providers, "tryon")
        register(checks.check_throttle, Tags.caches)
        register(checks.check_database, Tags.database)
        receivers.connect()
        setting_changed.connect(dispatch.forget_providers, dispatch_uid="tryon.dispatch.forget_providers")
