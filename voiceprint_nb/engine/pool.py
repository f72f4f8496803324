"""Worker threads around one shared network.

The queue holds functions that decode a clip, not decoded clips: memory is bounded by threads times batch,
however long the queue is. ONNX Runtime, NumPy's FFT and libsndfile release the interpreter lock, so threads
are enough to use every core.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.networks import usable_cpus
from voiceprint_nb.threads import give_way

BATCH = 32
"""Clips that a thread decodes and embeds at once. 16 are 1 % slower; memory grows with it."""

Vector = NDArray[np.float32]
Load = Callable[[], NDArray[np.float32]]
_Task = tuple[Load, "Future[Vector]"]


class Network(Protocol):
    """What threads compute with: an `Embedder`, or something that asks one elsewhere."""

    def windows(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is embedded of a clip, of (samples,) float32 at 16 kHz; raises `RowError`."""
        ...

    def embed_windows(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embeddings, (n, dimensions) float32, of what `windows` returned of several clips."""
        ...


class EnginePool:
    """Decode and embed clips on worker threads, several clips to a network run.

    Threads and network are made on the first `submit`. A clip's failure is its own future's exception;
    nothing that a clip does ends the pool.

    Parameters
    ----------
    make_embedder : callable
        Returns the `Embedder`, or other network, that all threads share.
    threads : int, optional
        Worker threads; by default one per usable CPU. Each computes on one core.
    batch : int
        Clips that a thread decodes and embeds at once, at most.

    Examples
    --------
    >>> tone = np.sin(np.arange(32000) * 0.2).astype(np.float32)
    >>> with EnginePool(threads=1) as pool:
    ...     pool.submit(lambda: tone).result().shape
    (256,)
    """

    def __init__(
        self,
        make_embedder: Callable[[], Network] = Embedder,
        *,
        threads: int | None = None,
        batch: int = BATCH,
    ) -> None:
        self._make_embedder = make_embedder
        self._limit = max(1, usable_cpus() if threads is None else threads)
        self._batch = max(1, batch)
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._embedder: Network | None = None
        self._making = threading.Lock()
        self._busy_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds that the threads have spent on clips, added up."""
        return self._busy_s

    def submit(self, load: Load) -> Future[Vector]:
        """Queue one clip.

        Parameters
        ----------
        load : callable
            Runs on a worker thread and returns the clip, (samples,) float32, 16 kHz mono; what it raises,
            say a `RowError`, becomes the future's exception.

        Returns
        -------
        Future
            Its result is the embedding, (dimensions,) float32, unit length. Until a worker takes it up it
            can be canceled.

        Raises
        ------
        RuntimeError
            The pool is closed.
        """
        future: Future[Vector] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("This engine pool is closed: make a new one.")
            self._tasks.append((load, future))
            if len(self._threads) < self._limit:
                self._start_thread()
            self._changed.notify()
        return future

    def close(self, *, wait: bool = True) -> None:
        """Take no more clips.

        Parameters
        ----------
        wait : bool
            True: finish what is queued, then return. False: cancel what is queued and return at once; clips
            that a thread is working on still finish.
        """
        with self._changed:
            self._closed = True
            abandoned = [] if wait else [future for _, future in self._tasks]
            if not wait:
                self._tasks.clear()
            self._changed.notify_all()
        for future in abandoned:
            future.cancel()
        for thread in self._threads if wait else ():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(wait=error is None)

    def _start_thread(self) -> None:
        name = f"voiceprint-engine-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        give_way()
        while tasks := self._take():
            started_s = time.perf_counter()
            self._answer(tasks)
            with self._changed:
                self._busy_s += time.perf_counter() - started_s
            del tasks  # a waiting thread keeps no clip alive

    def _take(self) -> list[_Task]:
        """A thread's share of what is queued; empty when the pool is closed and done."""
        with self._changed:
            while not self._tasks and not self._closed:
                self._changed.wait()
            share = min(self._batch, math.ceil(len(self._tasks) / self._limit))
            return [self._tasks.popleft() for _ in range(share)]

    def _answer(self, tasks: Sequence[_Task]) -> None:
        """Resolve each task's future, whatever happens."""
        futures, clips = [], []
        for load, future in tasks:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                clips.append(self._shared_embedder().windows(load()))
                futures.append(future)
            except BaseException as error:  # a worker outlives whatever a clip raises
                future.set_exception(error)
        self._embed(futures, clips)

    def _embed(self, futures: Sequence[Future[Vector]], clips: Sequence[NDArray[np.float32]]) -> None:
        """One run for all; when that fails, one run each, so that a clip cannot fail its neighbours."""
        if not futures:
            return
        try:
            vectors = self._shared_embedder().embed_windows(clips)
        except BaseException as error:  # a worker outlives whatever the network raises
            if len(futures) == 1:
                futures[0].set_exception(error)
                return
            for future, clip in zip(futures, clips, strict=True):
                self._embed([future], [clip])
            return
        for future, vector in zip(futures, vectors, strict=True):
            future.set_result(vector.copy())  # a view would keep the whole batch alive

    def _shared_embedder(self) -> Network:
        with self._making:
            if self._embedder is None:
                self._embedder = self._make_embedder()
            return self._embedder
