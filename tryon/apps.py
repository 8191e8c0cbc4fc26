from django.apps import AppConfig
from django.core.checks import Tags, register
from django.core.signals import setting_changed
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class TryOnConfig(AppConfig):
    name = "tryon"
    verbose_name = _("Virtual try-on")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import append_only, checks, dispatch, erasing, receivers

        register(checks.check_settings, "tryon")
        register(checks.check_providers, "tryon")
        register(checks.check_prices, "tryon")
        register(checks.check_offers, "tryon")
        register(checks.check_keys, "tryon")
        register(checks.check_secret_key, "tryon", deploy=True)
        register(checks.check_models, "tryon_models")
        register(checks.check_throttle, Tags.caches)
        register(checks.check_circuits, Tags.caches)
        register(checks.check_database, Tags.database)
        receivers.connect()
        erasing.connect()
        post_migrate.connect(append_only.after_migrate, sender=self, dispatch_uid="tryon.append_only.after_migrate")
        setting_changed.connect(dispatch.forget_providers, dispatch_uid="tryon.dispatch.forget_providers")
