"""The Replicate adapter against its double: what it sends, whose links are followed, what it says of licences."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers.replicate import ReplicateProvider
from providers.utils import data_uri

from .asking import failure_of, job_of, resume, run, try_on
from .vendor import Answer, Call, VendorServer, try_on_request
from .vendors import KEY, link
from .vendors.jobs import data_uri as picture_uri
from .vendors.replicate import JOB, PREDICTION, Replicate

PERSON, GARMENT = data_uri(try_on_request().person), data_uri(try_on_request().garment)
FIELDS = {"person": "human", "garment": "cloth"}


def test_request_on_the_wire() -> None:
    with VendorServer(vendor := Replicate()) as server:
        result = try_on(vendor.provider(server))
    assert [(call.method, call.path) for call in server.calls] == [
        ("POST", "/v1/models/acme/try-on/predictions"),
        ("GET", PREDICTION),
        ("GET", PREDICTION),
        ("GET", "/files/out.png"),
    ]
    for call in server.calls[:-1]:
        assert call.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(server.calls[-1].headers)
    assert vendor.asked == {"input": {"human": PERSON, "cloth": GARMENT, "text": "Dress the person."}}
    assert (result.provider_id, result.model) == (JOB, "acme/try-on")


def test_a_version_is_sent_as_one() -> None:
    with VendorServer(vendor := Replicate()) as server:
        try_on(vendor.provider(server, model="acme/try-on:c871bb9b"))
    assert server.calls[0].path == "/v1/predictions"
    assert vendor.asked["version"] == "c871bb9b"
    assert vendor.asked["input"]["human"] == PERSON


def test_request_reaches_the_inputs_of_the_field_map() -> None:
    fields = FIELDS | {"category": "kind", "seed": "seed", "pictures": "n", "output_format": "format"}
    with VendorServer(vendor := Replicate()) as server:
        provider = vendor.provider(
            server,
            fields=fields,
            categories={"tops": "upper_body"},
            max_pictures=3,
            output_formats=("png",),
            inputs={"garment_des": "a shirt"},
        )
        try_on(provider, category="tops", seed=0, pictures=3, output_format="png")
    assert vendor.asked["input"] == {
        "human": PERSON,
        "cloth": GARMENT,
        "kind": "upper_body",
        "seed": 0,
        "n": 3,
        "format": "png",
        "garment_des": "a shirt",
    }


@pytest.mark.parametrize(("most", "read"), [(1, 1), (2, 2), (4, 2)])
def test_of_several_pictures_as_many_are_read_as_the_model_is_said_to_make(most: int, read: int) -> None:
    vendor = Replicate()
    good = vendor.behave

    def answer(call: Call) -> Answer:
        if vendor.step(call) != "get":
            return good(call)
        return vendor.prediction("succeeded", output=[link(call, "/files/out.png"), picture_uri(vendor.picture)])

    with VendorServer(answer) as server:
        fields = {**FIELDS, "pictures": "count"}
        result = try_on(vendor.provider(server, fields=fields, max_pictures=most))
    assert (result.data, *result.more) == (vendor.picture,) * read
    assert result.cost_usd is None


@pytest.mark.parametrize("urls", [None, {}, {"get": "https://api.replicate.com/v1/predictions/x"}, {"get": 7}])
def test_links_elsewhere_are_not_followed_and_the_job_is_found_at_our_server(urls: Any) -> None:
    vendor = Replicate()

    def answer(call: Call) -> Answer:
        good = vendor(call)
        return vendor.prediction("starting", urls=urls) if vendor.step(call) == "create" else good

    with VendorServer(answer) as server:
        job = job_of(vendor.provider(server))
        assert resume(vendor.provider(server), job).data == vendor.picture
        provider = vendor.provider(server)
        run(provider, provider.cancel(job))
    assert server.calls[1].path == PREDICTION
    assert (server.calls[-1].method, server.calls[-1].path) == vendor.cancels


def test_links_to_our_server_are_followed() -> None:
    vendor = Replicate()

    def answer(call: Call) -> Answer:
        good = vendor(call)
        if vendor.step(call) == "create":
            return vendor.prediction("starting", f"{server.base_url}/eu/predictions/p1")
        return good

    with VendorServer(answer) as server:
        try_on(vendor.provider(server))
    assert server.calls[1].path == "/v1/eu/predictions/p1"


@pytest.mark.parametrize("model", ["cuuupid/idm-vton", "cuuupid/idm-vton:0513734a"])
def test_operator_is_told_of_a_licence_without_commercial_use(model: str) -> None:
    (problem,) = ReplicateProvider("replicate", api_key=KEY, model=model).check()
    assert "no commercial use" in problem.message
    assert not problem.fatal


def test_no_model_is_assumed() -> None:
    provider = ReplicateProvider("replicate", api_key=KEY)
    (problem,) = provider.check()
    assert problem.fatal
    assert (problem.message.endswith('["model"] is empty.'), "owner/name" in problem.hint) == (True, True)
    assert failure_of(provider).code == "provider_misconfigured"


def test_other_models_have_no_problem() -> None:
    assert not list(ReplicateProvider("replicate", api_key=KEY, model="acme/try-on", fields=FIELDS).check())


def test_idm_vton_is_known() -> None:
    with VendorServer(vendor := Replicate()) as server:
        try_on(vendor.provider(server, model="cuuupid/idm-vton", fields=None))
    assert vendor.asked["input"] == {"human_img": PERSON, "garm_img": GARMENT}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "try-on", "fields": FIELDS}, r'"model"\] is \'try-on\''),
        ({"model": "acme/try-on/v2", "fields": FIELDS}, r'"model"\]'),
        ({"model": "acme/..", "fields": FIELDS}, r'"model"\]'),
        ({"model": "acme/try-on:", "fields": FIELDS}, r'"model"\]'),
        ({"model": "acme/try-on"}, r'"fields"\] is None. Say which inputs of acme/try-on get what.'),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        ReplicateProvider("replicate", **options)
