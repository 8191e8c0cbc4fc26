"""Jobs at vendors: made once, asked for again after trouble, and cancelled when nobody wants them any more."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers.base import TryOnResult
from providers.errors import InvalidProviderResponse, ProviderUnavailable
from providers.tests.vendor import Answer, Call, VendorServer, json_answer
from providers.tests.vendors.fashn import Fashn
from tryon import dispatch, pipeline, recovery, request_id
from tryon.dispatch import RetryBudget
from tryon.exceptions import ShuttingDown
from tryon.models import TryOn
from tryon.recovery import Recovered, recover

from .dead import dead_run, later, order_of
from .queue_provider import Queue, QueueProvider
from .shop import CHARGED, RELEASED, Shop, png
from .test_disconnect import hang_up
from .vendors_in_use import DOWN, HANG, RESET, SHORT, asked, attempts, fake_entry, openai_at

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


class JobProvider(QueueProvider):
    """As the queue's, and it can be told that a job is not wanted; jobs may fail; and not all answers are JSON."""

    async def resume(self, job: str) -> TryOnResult:
        while not (answer := await self._call("GET", f"/jobs/{job}")).get("picture"):
            if "failed" in answer:
                raise ProviderUnavailable("The job failed.", job_is_over=True)
            await asyncio.sleep(0.001)
        return await super().resume(job)

    async def cancel(self, job: str) -> None:
        await self._call("DELETE", f"/jobs/{job}")

    async def _call(self, method: str, path: str) -> Any:
        try:
            return await super()._call(method, path)
        except ValueError as error:
            raise InvalidProviderResponse("The queue did not answer in JSON.") from error

    @property
    def model(self) -> str:
        return "queue-1"


class JobVendor(VendorServer):
    """A queue whose first polls of a job, and first orders, can go wrong."""

    def __init__(self) -> None:
        super().__init__(self._answer_one)
        self.queue = Queue()
        self.orders: Iterator[Answer] = iter(())
        """In place of the first new jobs."""
        self.polls: Iterator[Answer] = iter(())
        """In place of what is true of a job."""
        self.cancelling: Answer | None = None
        self.is_quick = True
        """A job is done when it is first asked for."""

    def _answer_one(self, call: Call) -> Answer:
        if call.method == "DELETE":
            return self.cancelling or Answer(body=b"{}")
        answer = next(self.orders if call.method == "POST" else self.polls, None)
        if answer is not None:
            self.queue.polled.set()
            return answer
        if self.is_quick and call.method == "GET":
            self.queue.pictures[call.path.rpartition("/")[2]] = png()
        return self.queue(call)

    def methods(self) -> list[str]:
        """Of the calls, without the polls that found the job under way."""
        return [call.method for call in self.calls]

    def cancelled(self) -> list[str]:
        return [call.path.rpartition("/")[2] for call in self.calls if call.method == "DELETE"]


def jobs_at(vendor: VendorServer, **entry: Any) -> dict[str, Any]:
    return {"BACKEND": f"{__name__}.JobProvider", "OPTIONS": {"url": vendor.base_url}, **entry}


@pytest.fixture
def jobs(tryon: Callable[..., None]) -> Iterator[JobVendor]:
    """The vendor of the provider in use, "jobs"; "backup" stands in for it."""
    with JobVendor() as vendor:
        tryon(
            PROVIDER="jobs",
            PROVIDERS={"jobs": jobs_at(vendor), "backup": fake_entry()},
            FALLBACK_PROVIDERS=["backup"],
        )
        yield vendor


FAILED_JOB = json_answer({"failed": True, "picture": ""})


TROUBLE = {
    "500": Answer(status=500),
    "reset": RESET,
    "closed": Answer(raw=b"", end="close"),
    "html": Answer(body=b"<html>working</html>"),
    "truncated": Answer(body=b'{"picture": "iVBOR', missing=100, end="close"),
    "reset in the body": Answer(body=b'{"picture": "iVBOR', missing=100, end="reset"),
    "empty": Answer(),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_trouble_while_a_job_is_under_way_never_makes_a_second_one(
    shop: Shop, jobs: JobVendor, trouble: Answer
) -> None:
    """It is asked for again, more often than a call that costs is made, until its picture is there."""
    jobs.polls = iter([trouble] * 5)
    response = shop.post()
    assert (response.status_code, response.json()["provider"]) == (200, "jobs")
    assert jobs.methods() == ["POST", *["GET"] * (5 + 2)]
    assert {call.path for call in jobs.calls if call.method == "GET"} == {"/v1/jobs/job-1"}
    assert [attempt["request_id"] for attempt in TryOn.objects.get().attempts] == ["job-1"] * 6
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *CHARGED]


@pytest.mark.parametrize("trouble", ["500", "html", "reset"])
def test_a_job_that_cannot_be_asked_for_is_neither_made_anew_nor_elsewhere_and_is_cancelled(
    shop: Shop, jobs: JobVendor, trouble: str
) -> None:
    jobs.polls = itertools.repeat(TROUBLE[trouble])
    response = shop.post()
    code = "provider_invalid_response" if trouble == "html" else "provider_unavailable"
    assert response.json()["code"] == code
    assert jobs.methods() == ["POST", *["GET"] * (1 + dispatch.LOOK_UPS), "DELETE"]
    assert jobs.cancelled() == ["job-1"]
    assert asked("backup") == 0
    run = TryOn.objects.get()
    assert (run.status, run.provider, run.model, run.provider_job) == ("failed", "jobs", "queue-1", "job-1")
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_an_order_that_was_not_taken_is_given_again(shop: Shop, jobs: JobVendor) -> None:
    jobs.orders = iter([Answer(status=500), RESET])
    assert shop.post().status_code == 200
    assert jobs.methods() == ["POST", "POST", "POST", "GET", "GET"]
    assert attempts() == [("jobs", "provider_unavailable")] * 2 + [("jobs", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_order_that_is_never_taken_goes_to_the_fallback(shop: Shop, jobs: JobVendor) -> None:
    jobs.orders = itertools.repeat(Answer(status=500))
    assert shop.post().json()["provider"] == "backup"
    assert jobs.methods() == ["POST"] * 3
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_that_failed_by_itself_is_ordered_again(shop: Shop, jobs: JobVendor) -> None:
    jobs.polls = iter([FAILED_JOB])
    assert shop.post().status_code == 200
    assert [call.path.rpartition("/")[2] for call in jobs.calls] == ["jobs", "job-1", "jobs", "job-2", "job-2"]
    run = TryOn.objects.get()
    assert (run.provider_job, run.provider_request_id) == ("job-2", "job-2")
    assert [attempt["request_id"] for attempt in run.attempts] == ["job-1", "job-2"]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_jobs_that_all_fail_by_themselves_lead_to_the_fallback(shop: Shop, jobs: JobVendor) -> None:
    jobs.polls = itertools.repeat(FAILED_JOB)
    assert shop.post().json()["provider"] == "backup"
    assert jobs.methods() == ["POST", "GET"] * 3, "and there is none left to cancel"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_that_its_vendor_does_not_know_is_an_end(shop: Shop, jobs: JobVendor) -> None:
    jobs.polls = iter([Answer(status=404)])
    assert shop.post().json()["code"] == "provider_rejected_input"
    assert jobs.methods() == ["POST", "GET"]
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_job_takes_longer_than_an_attempt_and_is_looked_up(
    shop: Shop, jobs: JobVendor, tryon: Callable[..., None]
) -> None:
    tryon(PROVIDERS={"jobs": jobs_at(jobs, TIMEOUT=0.4), "backup": fake_entry()})
    jobs.polls = iter([HANG])
    assert shop.post().status_code == 200
    assert jobs.methods() == ["POST", "GET", "GET", "GET"]
    assert attempts() == [("jobs", "provider_timeout"), ("jobs", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_may_take_far_longer_than_all_attempts_of_its_timeout(shop: Shop, tryon: Callable[..., None]) -> None:
    """TIMEOUT is for getting an answer, and the job is one."""
    double = Fashn()
    double.still_working = 25
    with VendorServer(double) as server:
        entry = {"BACKEND": double.backend, "OPTIONS": double.options(server), "TIMEOUT": 0.05}
        tryon(PROVIDER="fashn", PROVIDERS={"fashn": entry})
        assert shop.post().status_code == 200
    assert attempts() == [("fashn", "provider_timeout"), ("fashn", "succeeded")]
    assert [double.step(call) for call in server.calls].count("run") == 1
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_that_is_looked_up_costs_no_retry_of_the_budget(shop: Shop, jobs: JobVendor) -> None:
    while dispatch.budgets.setdefault("jobs", RetryBudget()).spend():
        pass
    jobs.polls = iter([Answer(status=500)] * 5)
    assert shop.post().status_code == 200
    assert shop.balance() == 2


def test_a_client_that_goes_away_cancels_the_job_once(shop: Shop, jobs: JobVendor) -> None:
    jobs.is_quick = False
    hang_up(shop, jobs.queue.polled, threading.Event())
    assert jobs.cancelled() == ["job-1"]
    assert jobs.methods()[-1] == "DELETE", "and nobody asks for it any more"
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_the_deadline_cancels_the_job_once(shop: Shop, jobs: JobVendor, tryon: Callable[..., None]) -> None:
    tryon(DEADLINE=SHORT)
    jobs.is_quick = False
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (504, "provider_timeout")
    assert jobs.cancelled() == ["job-1"]
    assert jobs.methods().count("POST") == 1
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_job_that_is_done_is_not_cancelled(shop: Shop, jobs: JobVendor) -> None:
    assert shop.post().status_code == 200
    assert jobs.cancelled() == []
    assert shop.balance() == 2


def test_a_row_that_cannot_be_written_cancels_the_job(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could ask for it after a crash."""

    def refuse(self: TryOn, job: str, **whose: str) -> bool:
        raise RuntimeError("no rows today")

    monkeypatch.setattr(TryOn, "note_job", refuse)
    assert shop.post().status_code == 500
    assert jobs.methods() == ["POST", "DELETE"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_client_that_goes_away_while_the_job_is_written_down_cancels_it(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting, gone = threading.Event(), threading.Event()
    note = TryOn.note_job

    def be_slow(self: TryOn, job: str, **whose: str) -> bool:
        noting.set()
        assert gone.wait(10)
        return note(self, job, **whose)

    monkeypatch.setattr(TryOn, "note_job", be_slow)
    hang_up(shop, noting, gone)
    assert jobs.methods() == ["POST", "DELETE"]
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_run_that_recovery_gave_up_cancels_its_job(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for dead before it had written the job down."""
    note = TryOn.note_job

    def recover_first(self: TryOn, job: str, **whose: str) -> bool:
        assert len(recover(later()).released) == 1
        return note(self, job, **whose)

    monkeypatch.setattr(TryOn, "note_job", recover_first)
    assert shop.post().json()["code"] == "deadline_exceeded"
    assert jobs.methods() == ["POST", "DELETE"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_server_that_shuts_down_cancels_the_job(shop: Shop, jobs: JobVendor) -> None:
    jobs.is_quick = False

    async def main() -> None:
        run = asyncio.create_task(pipeline.execute(lambda: order_of(shop), lambda tryon: tryon))
        assert await asyncio.to_thread(jobs.queue.polled.wait, 10)
        pipeline.stop()
        with pytest.raises(ShuttingDown):
            await run

    asyncio.run(main())
    assert jobs.cancelled() == ["job-1"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_job_is_cancelled_under_the_id_of_its_request(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which the log's lines about it are found."""
    ids = []

    async def look(self: JobProvider, job: str) -> None:
        ids.append(request_id.current.get())

    monkeypatch.setattr(JobProvider, "cancel", look)
    jobs.polls = itertools.repeat(Answer(status=500))
    response = shop.post()
    assert ids == [TryOn.objects.get().request_id] == [response.headers["X-Request-ID"]]
    assert shop.balance() == 3


class Oops(Exception):
    """Of an adapter with a bug."""


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (Oops("bug"), "deadline"),
        (Oops("bug"), "trouble"),
        (KeyError("job"), "trouble"),
        (TimeoutError(), "trouble"),
        (asyncio.CancelledError(), "trouble"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_cancel_that_fails_changes_nothing(
    shop: Shop,
    jobs: JobVendor,
    tryon: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    ends: str,
) -> None:
    tried = []

    async def fail(self: JobProvider, job: str) -> None:
        tried.append(job)
        raise error

    monkeypatch.setattr(JobProvider, "cancel", fail)
    if ends == "deadline":
        tryon(DEADLINE=SHORT)
        jobs.is_quick = False
    else:
        jobs.polls = itertools.repeat(Answer(status=500))
    response = shop.post()
    code = "provider_timeout" if ends == "deadline" else "provider_unavailable"
    assert response.json()["code"] == code
    assert tried == ["job-1"]
    run = TryOn.objects.get()
    assert (run.status, run.error_code) == ("failed", code)
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize(
    "answer",
    [Answer(status=500), RESET, Answer(status=404), Answer(body=b"<html>")],
    ids=["500", "reset", "404", "html"],
)
def test_a_vendor_that_does_not_cancel_changes_nothing(
    shop: Shop, jobs: JobVendor, log: pytest.LogCaptureFixture, answer: Answer
) -> None:
    jobs.polls = itertools.repeat(Answer(status=500))
    jobs.cancelling = answer
    assert shop.post().json()["code"] == "provider_unavailable"
    assert jobs.cancelled() == ["job-1"]
    assert "Job job-1 of 'jobs' could not be cancelled" in log.text
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_vendor_whose_cancel_hangs_holds_nobody_up_for_long(
    shop: Shop, jobs: JobVendor, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CANCEL_TIMEOUT", 0.1)
    jobs.polls = itertools.repeat(Answer(status=500))
    jobs.cancelling = HANG
    assert shop.post().json()["code"] == "provider_unavailable"
    assert jobs.hung_up.wait(10)
    assert "Job job-1 of 'jobs' could not be cancelled: no answer" in log.text
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_client_that_goes_away_while_the_job_is_cancelled_changes_little(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CANCEL_TIMEOUT", 0.2)
    cancelling = threading.Event()
    cancel = JobProvider.cancel

    async def tell(self: JobProvider, job: str) -> None:
        cancelling.set()
        await cancel(self, job)

    monkeypatch.setattr(JobProvider, "cancel", tell)
    jobs.polls = itertools.repeat(Answer(status=500))
    jobs.cancelling = HANG
    hang_up(shop, cancelling, threading.Event())
    assert jobs.cancelled() == ["job-1"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_fallbacks_job_stands_on_the_row_as_its_own_before_it_is_waited_for(
    shop: Shop,
    vendor: VendorServer,
    jobs: JobVendor,
    tryon: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = {"openai": openai_at(vendor.base_url), "jobs": jobs_at(jobs)}
    tryon(PROVIDER="openai", PROVIDERS=entries, FALLBACK_PROVIDERS=["jobs"])
    vendor.answer = DOWN
    rows = []
    resume = JobProvider.resume

    async def look(self: JobProvider, job: str) -> TryOnResult:
        rows.append(await TryOn.objects.aget())
        return await resume(self, job)

    monkeypatch.setattr(JobProvider, "resume", look)
    assert shop.post().status_code == 200
    assert [(row.status, row.provider, row.model, row.provider_job) for row in rows] == [
        ("running", "jobs", "queue-1", "job-1")
    ]
    asked = rows[0].attempts[-1]
    assert (asked["provider"], asked["outcome"], asked["request_id"]) == ("jobs", "asked", "job-1")
    assert [outcome for _, outcome in attempts(rows[0])][:-1] == ["provider_unavailable"] * 3, "and those before it"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_of_a_process_that_was_killed_the_fallback_is_asked_for_its_job(
    shop: Shop, vendor: VendorServer, jobs: JobVendor, tryon: Callable[..., None]
) -> None:
    entries = {"openai": openai_at(vendor.base_url), "jobs": jobs_at(jobs)}
    tryon(PROVIDER="openai", PROVIDERS=entries, FALLBACK_PROVIDERS=["jobs"])
    dead = dead_run(shop)
    assert dead.note_job("job-1", provider="jobs", model="queue-1")
    jobs.queue.pictures["job-1"] = png()
    assert recover() == Recovered(captured=[dead])
    dead.refresh_from_db()
    assert (dead.provider, dead.provider_request_id) == ("jobs", "job-1")
    assert not vendor.calls
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_dead_processs_job_that_failed_by_itself_gives_the_credit_back_at_once(shop: Shop, jobs: JobVendor) -> None:
    """There is nothing to wait for, however retryable it is."""
    dead = dead_run(shop)
    assert dead.note_job("job-1")
    jobs.polls = iter([FAILED_JOB])
    assert recover() == Recovered(released=[dead])
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_dead_processs_job_is_asked_for_again_after_any_trouble(shop: Shop, jobs: JobVendor) -> None:
    dead = dead_run(shop)
    assert dead.note_job("job-1")
    jobs.polls = iter([Answer(status=500)])
    assert recover() == Recovered()
    assert recover(later() + recovery.LOOK_UP_TIMEOUT) == Recovered(captured=[dead])
    assert shop.ledger() == [("grant", 3), *CHARGED]
