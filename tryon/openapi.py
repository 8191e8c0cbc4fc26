"""drf-spectacular's decorator where it is installed; the app does not need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

try:
    from drf_spectacular.extensions import OpenApiAuthenticationExtension
    from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_field

    def request_examples(**body: str) -> list[Any]:
        """An example that works as it is with a key in a header: without the fields of a key in the body."""
        return [OpenApiExample("With a key in a header", value=body, request_only=True)]

    def request_header(name: str, description: str, pattern: str, longest: int) -> list[Any]:
        """A header that a client may send, of this pattern and at most so many characters."""
        kind = {"type": "string", "minLength": 1, "maxLength": longest, "pattern": f"^{pattern}$"}
        return [OpenApiParameter(name, kind, OpenApiParameter.HEADER, description=description)]

    def response_header(name: str, description: str, *statuses: int) -> list[Any]:
        """A header of the answers with these statuses."""
        return [OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description, response=[*statuses])]

    def path_parameter(name: str, description: str) -> list[Any]:
        """A part of the address."""
        return [OpenApiParameter(name, str, OpenApiParameter.PATH, description=description)]

    def response_examples(status: int, body: dict[str, Any]) -> list[Any]:
        """An answer with this status."""
        return [OpenApiExample("Answer", value=body, response_only=True, status_codes=[str(status)])]

    class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        """Tells the schema how a key is sent. Registered by being defined."""

        target_class = "tryon.authentication.ApiKeyAuthentication"
        name = ["bearer", "header"]

        def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
            return [
                {"type": "http", "scheme": "bearer"},
                {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            ]

        def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
            # One of them, or the key in the body, where there is one.
            return [{"bearer": []}, {"header": []}, *([{}] if auto_schema.method == "POST" else [])]

except ImportError:

    def extend_schema_field(field: Any) -> Callable[[T], T]:  # type: ignore[misc]
        """Leave the class as it is."""
        return lambda cls: cls

    def extend_schema(**kwargs: Any) -> Callable[[F], F]:  # type: ignore[misc]
        """Leave the method as it is: nobody is there to read the schema."""
        return lambda method: method

    def request_examples(**body: str) -> list[Any]:
        """None: nobody is there to read them."""
        return []

    def request_header(name: str, description: str, pattern: str, longest: int) -> list[Any]:
        """None, either."""
        return []

    def response_header(name: str, description: str, *statuses: int) -> list[Any]:
        """None, either."""
        return []

    def path_parameter(name: str, description: str) -> list[Any]:
        """None, either."""
        return []

    def response_examples(status: int, body: dict[str, Any]) -> list[Any]:
        """None, either."""
        return []


__all__ = [
    "extend_schema",
    "extend_schema_field",
    "path_parameter",
    "request_examples",
    "request_header",
    "response_examples",
    "response_header",
]
