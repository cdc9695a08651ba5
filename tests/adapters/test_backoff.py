from adapters.backoff import Backoff


def test_longer_each_time_and_never_too_long():
    backoff, now, waits = Backoff(1.0, 10.0), 100.0, []
    assert backoff.due(now)
    for _ in range(6):
        backoff.failed(now)
        begin = now
        while not backoff.due(now):
            now += 0.5
        waits.append(now - begin)
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_what_worked_is_forgotten():
    backoff = Backoff(1.0, 10.0)
    for now in (0.0, 1.0, 3.0):
        backoff.failed(now)
    assert not backoff.due(6.9)
    backoff.worked()
    assert backoff.due(0.0)
    backoff.failed(0.0)
    assert backoff.due(1.0)
