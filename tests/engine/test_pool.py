"""Worker threads: every clip gets its own answer, whatever its neighbours do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.networks import usable_cpus
from voiceprint_nb.engine.pool import EnginePool
from voiceprint_nb.errors import RowError, UsageError

Clip = NDArray[np.float32]


def tone(index: int) -> Clip:
    t = np.arange(8_000 + 700 * (index % 30)) / 16_000
    harmonics = sum(np.sin(2 * np.pi * (110 + 7 * index) * k * t) / k for k in range(1, 8))
    return (0.1 * np.asarray(harmonics)).astype(np.float32)


def loader(clip: Clip) -> Callable[[], Clip]:
    return lambda: clip


def refuse() -> Clip:
    raise RowError("not_audio", "These bytes are not audio: pass a recording.")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def test_each_of_many_concurrent_submissions_gets_its_own_answer(embedder: Embedder) -> None:
    with EnginePool(lambda: embedder, threads=3, batch=5) as pool, ThreadPoolExecutor(8) as callers:

        def submit(index: int) -> Future[Clip]:
            if index % 7 == 3:
                return pool.submit(refuse)
            return pool.submit(loader(np.zeros(800, np.float32) if index % 7 == 5 else tone(index)))

        futures = list(callers.map(submit, range(64)))
        wait(futures, timeout=60)
    for index, future in enumerate(futures):
        if index % 7 in (3, 5):
            error = future.exception(timeout=0)
            assert isinstance(error, RowError)
            assert error.code == ("not_audio" if index % 7 == 3 else "silent")
        else:
            np.testing.assert_allclose(future.result(timeout=0), embedder.embed(tone(index)), atol=1e-5)


def test_canceled_clips_are_never_loaded(embedder: Embedder) -> None:
    started, release, loaded = threading.Event(), threading.Event(), []

    def hold() -> Clip:
        started.set()
        release.wait(30)
        return tone(1)

    def note() -> Clip:
        loaded.append(1)
        return tone(2)

    with EnginePool(lambda: embedder, threads=1, batch=1) as pool:
        first = pool.submit(hold)
        assert started.wait(30)
        second, third = pool.submit(note), pool.submit(loader(tone(3)))
        assert second.cancel()
        assert not first.cancel()
        release.set()
        assert third.result(timeout=30).shape == (256,)
    with pytest.raises(CancelledError):
        second.result(timeout=0)
    assert not loaded


class Overwhelmed(Embedder):
    """Fails on more than one clip at once, and on clips of one certain length."""

    def embed_windows(self, clips: Sequence[Clip]) -> Clip:
        if len(clips) > 1 or len(clips[0]) == 3:
            raise MemoryError("too much at once")
        return super().embed_windows(clips)


def test_a_failing_run_fails_only_the_clip_at_fault() -> None:
    gate = threading.Event()

    def gated() -> Clip:
        gate.wait(30)
        return tone(0)

    with EnginePool(Overwhelmed, threads=1, batch=8) as pool:
        lengths = [16_000, 16_000, 70_000, 16_000]  # the third has three windows
        futures = [pool.submit(gated)]
        futures += [pool.submit(loader(np.resize(tone(5), length))) for length in lengths]
        gate.set()
        wait(futures, timeout=30)
    failed = [isinstance(future.exception(timeout=0), MemoryError) for future in futures]
    assert failed == [False, False, False, True, False]


def test_the_pool_outlives_whatever_a_clip_raises(embedder: Embedder) -> None:
    def leave() -> Clip:
        raise SystemExit(3)

    with EnginePool(lambda: embedder, threads=1) as pool:
        assert isinstance(pool.submit(leave).exception(timeout=30), SystemExit)
        assert pool.submit(loader(tone(1))).result(timeout=30).shape == (256,)


def test_a_network_that_does_not_load_is_each_clips_failure() -> None:
    def broken() -> Embedder:
        raise UsageError("damaged: reinstall")

    with EnginePool(broken, threads=2) as pool:
        futures = [pool.submit(loader(tone(index))) for index in range(5)]
        assert all(isinstance(future.exception(timeout=30), UsageError) for future in futures)


def test_threads_start_on_submit_and_end_on_close(embedder: Embedder) -> None:
    def workers() -> int:
        return sum(thread.name.startswith("voiceprint-engine") for thread in threading.enumerate())

    before = workers()
    pool = EnginePool(lambda: embedder, threads=2)
    assert workers() == before
    futures = [pool.submit(loader(tone(index))) for index in range(10)]
    assert workers() <= before + 2
    pool.close()
    assert workers() == before
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(refuse)
    pool.close()


def test_closing_without_waiting_cancels_the_queue(embedder: Embedder) -> None:
    started, release = threading.Event(), threading.Event()

    def hold() -> Clip:
        started.set()
        release.wait(30)
        return tone(1)

    pool = EnginePool(lambda: embedder, threads=1, batch=1)
    first = pool.submit(hold)
    assert started.wait(30)
    second = pool.submit(loader(tone(2)))
    pool.close(wait=False)
    assert second.cancelled()
    release.set()
    assert first.result(timeout=30).shape == (256,)


def test_usable_cpus_is_at_least_one() -> None:
    assert usable_cpus() >= 1
