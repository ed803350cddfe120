"""Threads that work for the event loop: in order, each answer to whoever waits for it, nothing after the end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tornado_backups.workers import Closed, Promise, Workers

gen_test = pytest.mark.gen_test(timeout=10)


@gen_test
async def test_one_thread_works_in_the_order_in_which_it_was_asked() -> None:
    workers, done = Workers("test", 1), []
    await asyncio.gather(*(workers.submit(lambda number=number: done.append(number)) for number in range(50)))
    assert done == list(range(50))
    workers.stop()


@gen_test
async def test_there_are_never_more_threads_than_allowed_nor_more_than_there_was_work_for() -> None:
    workers, prepared = Workers("test", 3, lambda: prepared.append(threading.get_ident())), []
    for _ in range(5):
        await workers.submit(threading.get_ident)
    assert len(prepared) == 1
    gate = threading.Event()
    jobs = [workers.submit(gate.wait) for _ in range(8)]
    gate.set()
    await asyncio.gather(*jobs)
    assert len(set(prepared)) == len(prepared) == 3
    workers.stop()


@gen_test
async def test_what_was_raised_is_raised_to_whoever_waits_and_the_thread_goes_on() -> None:
    workers = Workers("test", 1)
    with pytest.raises(ZeroDivisionError):
        await workers.submit(lambda: 1 // 0)
    assert await workers.submit(lambda: "still there") == "still there"
    workers.stop()


@gen_test
async def test_work_that_was_cancelled_before_it_began_is_not_done() -> None:
    workers, gate, done = Workers("test", 1), threading.Event(), []
    running = workers.submit(gate.wait)
    dropped = workers.submit(lambda: done.append("dropped"))
    dropped.cancel()
    gate.set()
    await running
    await workers.submit(lambda: done.append("next"))
    assert done == ["next"]
    workers.stop()


@gen_test
async def test_after_the_end_what_was_asked_for_is_finished_and_nothing_new_begins() -> None:
    workers, gate = Workers("test", 1), threading.Event()
    running, queued = workers.submit(gate.wait), workers.submit(lambda: "done")
    workers.stop()
    workers.stop()
    with pytest.raises(Closed):
        workers.submit(lambda: None)
    gate.set()
    assert await running
    assert await queued == "done"


@gen_test
async def test_a_promise_is_kept_by_whichever_thread_has_the_answer_after_the_job_returned() -> None:
    workers, returned = Workers("test", 2), []

    def leaves_it(promise: Promise[str]) -> None:
        threading.Timer(0.05, promise.give, ["later"]).start()
        returned.append("first")

    assert await workers.submit_promised(leaves_it) == "later"
    assert returned == ["first"]
    workers.stop()


@gen_test
async def test_two_jobs_of_one_promise_run_side_by_side_and_answer_once() -> None:
    workers, meeting = Workers("test", 2), threading.Barrier(2, timeout=5)

    def meets(promise: Promise[int]) -> None:
        if meeting.wait() == 0:
            promise.give(7)

    assert await workers.submit_promised(meets, meets) == 7
    assert await workers.submit(lambda: "still there") == "still there"
    workers.stop()
