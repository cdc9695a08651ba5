"""The lock of decoding: one at a time, in the order in which they came."""

from __future__ import annotations

import contextlib
import threading
import time

from app.one_at_a_time import OneAtATime


def test_it_is_handed_over_in_order_and_an_error_lets_go_of_it():
    lock, order = OneAtATime(), list[int]()

    def enter(number: int) -> None:
        with lock:
            order.append(number)
            if number % 2:
                raise ValueError("of one of them")

    def enter_quietly(number: int) -> None:
        with contextlib.suppress(ValueError):
            enter(number)

    with lock:
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=enter_quietly, args=(number,)))
            threads[-1].start()
            while len(lock._waiting) <= number:
                time.sleep(0.001)
        assert not order
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    with lock:
        order.append(8)
    assert order[-1] == 8


def test_never_two_at_once():
    lock, inside, most, turns = OneAtATime(), 0, 0, list[int]()

    def work(number: int) -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                turns.append(number)
                inside -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(turns)) == (1, 800)
