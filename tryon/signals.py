"""What the app announces, in place of a webhook.

Signals are sent after the database transaction is committed, robustly: a receiver that fails is logged and
hurts nobody. Money and state never depend on a receiver. Every signal carries the same keyword arguments:

``tryon_id`` (UUID), ``user_id`` (primary key or None), ``user`` (the value clients send as ``user_id``),
``catalog_id``, ``request_id``, ``status``, ``provider``, ``model``, ``credits`` (charged; 0 unless it
succeeded), ``latency_ms`` (None before the end), ``image`` (name in the storage or ""), ``image_url``,
``error_code`` ("" unless it failed), ``error`` (the operator's text, names no secret), ``cost_usd``,
``ai_generated`` (whether a generative model made the picture; None where there is none, or nobody knows),
``confidence`` (how sure the provider is of the picture, 0 to 1; None where it does not say) and ``repeated``.

An end is announced at least once: where the process died before it could tell, recovery does, with ``repeated``
True. Some receivers may have heard of it before then; ``tryon_id`` tells a receiver whether it has.
"""

from django.dispatch import Signal

try_on_started = Signal()
"""A run was admitted and its price is held."""

try_on_succeeded = Signal()
"""The picture is stored and charged."""

try_on_failed = Signal()
"""The run failed or was cancelled; nothing was charged."""

provider_alert = Signal()
"""A provider needs its operator: a bad key or no quota left, or its circuit opened (``code`` ``circuit_open``).

Keyword arguments: ``provider`` (alias), ``model``, ``code``, ``error`` (the operator's text, names no secret),
``status`` (the vendor's HTTP status or None) and ``request_id`` (the vendor's). Sent at most once in five minutes for
each provider and code; the log has every case.
"""
