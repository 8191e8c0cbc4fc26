"""The API's schema, put to the test: what it allows, and much that it does not, is answered as it says.

Every operation that is in the schema is tried, by schemathesis. A new one is tried as soon as it is in there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import schemathesis
from django.core.asgi import get_asgi_application
from hypothesis import HealthCheck, settings

from providers.fake import FakeProvider
from tryon.body_limit import BodyLimit
from tryon.credits import get_credits
from tryon.lifespan import Lifespan

from .hostile_bodies import GARMENT, PERSON, uri
from .shop import Shop

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

EXAMPLES: Final = 100
"""Of each operation, besides those that schemathesis derives from the schema's bounds."""
CREATE_IMAGE: Final = "POST /api/v1/create-image"

CONFIG: Final = {
    "seed": 1,
    "generation": {"deterministic": True, "database": "none"},
    "continue-on-failure": True,
    "checks": {
        # No schema can say that a text is a photo, nor that two fields exclude each other.
        "positive_data_acceptance": {"enabled": False},
        # Every request has a good key, beside those that are made up.
        "ignored_auth": {"enabled": False},
        # An id that is a number is taken for its text.
        "negative_data_rejection": {"enabled": False},
    },
}
application = Lifespan(BodyLimit(get_asgi_application()))
schema = schemathesis.openapi.from_asgi("/api/schema", application, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture
def key(shop: Shop, fake: Callable[..., FakeProvider]) -> str:
    fake(size="16x16")
    get_credits().grant(shop.user, 10_000, reason="test")
    return shop.key


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, Counter[int]]]:
    """How often each operation had which status."""
    found: dict[str, Counter[int]] = defaultdict(Counter)
    yield found
    if CREATE_IMAGE in found:
        assert found[CREATE_IMAGE][200] > 20, "it is not only refused"
        assert found[CREATE_IMAGE].keys() >= {200, 400, 401, 405, 415, 422}


def with_photos(case: schemathesis.Case[Any]) -> None:
    """Put real photos into some of the bodies that fit the schema, and leave the key to the header."""
    body: Any = case.body
    if case.operation.label == CREATE_IMAGE and case.meta and case.meta.generation.mode.is_positive:
        left_out = ("user_id", "api_key", "user_image_url", "catalog_image_url", "size", "pictures")
        kept = {name: value for name, value in body.items() if name not in left_out}
        photos: Any = {"user_image": PERSON, "catalog_image": GARMENT}
        if case.media_type != "multipart/form-data":
            photos = {name: uri(photo) for name, photo in photos.items()}
        case.body = kept | photos
        case.headers.pop("Idempotency-Key", None)


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_keeps_to_its_schema(case: schemathesis.Case[Any], key: str, answers: dict[str, Counter[int]]) -> None:
    if len(repr(case.body)) % 2:
        with_photos(case)
    response = case.call_and_validate(headers={"X-API-Key": key})
    assert response.status_code < 500
    answers[case.operation.label][response.status_code] += 1
