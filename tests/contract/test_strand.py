"""Pieces of work in their order, whichever thread brings them, and no thread that waits."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tornado_backups.storage.strand import Strand


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_done_one_after_the_other_in_the_order_of_their_numbers(seed: int) -> None:
    strand, done, at_once = Strand(), [], threading.Lock()

    def piece(number: int) -> None:
        assert at_once.acquire(blocking=False), "two at a time"
        done.append(number)
        at_once.release()

    numbers = list(range(2000))
    random.Random(seed).shuffle(numbers)
    with ThreadPoolExecutor(8) as threads:
        brought = [threads.submit(strand.bring, number, partial(piece, number)) for number in numbers]
    assert [each.exception() for each in brought] == [None] * len(numbers)
    assert done == list(range(2000))


def test_who_brings_a_piece_while_another_is_done_does_not_wait_and_leaves_it_to_that_thread() -> None:
    strand, gate, begun, done = Strand(), threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert gate.wait(10)
        done.append((0, threading.get_ident()))

    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(strand.bring, 0, first)
        assert begun.wait(10)
        strand.bring(1, lambda: done.append((1, threading.get_ident())))
        assert done == []
        gate.set()
        busy.result(10)
    assert [number for number, _ in done] == [0, 1]
    assert len({thread for _, thread in done}) == 1
    assert threading.get_ident() not in dict(done).values()


def test_a_piece_whose_predecessor_is_missing_waits_for_it_and_its_thread_does_not() -> None:
    strand, done = Strand(), []
    strand.bring(1, lambda: done.append(1))
    assert done == []
    strand.bring(0, lambda: done.append(0))
    assert done == [0, 1]
