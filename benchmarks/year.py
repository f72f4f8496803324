"""A year of audio on a cluster, simulated: where time and money go, and what breaks first.

::

    python -m benchmarks.year [--clips 10000000] [--workers 100] [--rows 100 1000 10000]

No cluster is needed. What the engine costs is measured here, on one core, at the start; everything else is an
assumption, printed with the results and changed by an option. One event-driven run for each number of rows in
a partition, and for each way to keep results:

- "written": each partition is written when it is done (``to_parquet``); a worker that dies loses what it
  works on, nothing else.
- "in memory": results stay on the workers until all are there (``persist``, ``compute``); a worker that dies
  takes its finished partitions with it, and they are computed again.

A worker computes a partition on all of its cores, and fetches clips ahead while it computes. The scheduler
hands out partitions one after the other; the object store answers so many requests a second for each prefix
(S3: 5,500 GET, docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html). Worker lives are
exponential, clips lognormal; a partition's time is the sum over its clips, by the central limit theorem. The
table says how much of the workers' time they compute, wait for clips, and lose by dying; then how busy the
scheduler is, and how often the store is asked.

What it says of 10 million clips of 6 s and 100 workers of 2 cores: the engine needs 0.17 hours, less than
it takes to start such a cluster by hand. The store breaks first: one prefix feeds a third of these workers,
which makes it 0.5 hours, and 16 prefixes 0.19. Then comes the size of partitions: below 100 rows the
scheduler is the limit, above 10,000 the last ones to end. Deaths cost less than a hundredth while lives are
hours, whether results are written or not. Four fifths of the money go to GET requests, not to cores.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from dataclasses import dataclass

import numpy as np

from voiceprint_nb import audio
from voiceprint_nb.engine.embedder import Embedder

STORE_GETS_PER_S = 5_500
RESULT_BYTES = 1_600  # a voiceprint text and its row
SEED = 5


@dataclass(frozen=True)
class World:
    """Assumptions; times in seconds."""

    clips: int
    workers: int
    cores: int
    clip_s: float
    clip_sigma: float
    engine_share: float
    bytes_per_s: float
    latency_s: float
    bandwidth_bytes_per_s: float
    ahead: int
    life_h: float
    restart_s: float
    task_s: float
    slow_share: float
    prefixes: int

    @property
    def cpu_s(self) -> float:
        """Of one clip on all cores of a worker, in the mean."""
        return self.clip_s * self.engine_share / self.cores

    @property
    def fetch_s(self) -> float:
        """Of one clip, in the mean: latency, the worker's line, or the store, whichever takes longest."""
        transfer_s = self.clip_s * self.bytes_per_s / self.bandwidth_bytes_per_s
        turn_s = self.workers / (STORE_GETS_PER_S * self.prefixes)
        return max(self.latency_s / self.ahead, transfer_s, turn_s)


@dataclass
class Told:
    """What a simulated year came to; all but the first are sums over the workers."""

    wall_s: float = 0.0
    computing_s: float = 0.0
    fetching_s: float = 0.0
    lost_s: float = 0.0
    n_deaths: int = 0
    n_tasks: int = 0


def engine_share(seconds: float = 6.0, n_clips: int = 40) -> float:
    """Seconds of one core for each second of audio, decoding included."""
    random = np.random.default_rng(SEED)
    embedder = Embedder()
    noise = [random.normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32) for _ in range(n_clips)]
    embedder.embed_many(noise[:2])
    began_s = time.thread_time()
    embedder.embed_many(noise)
    decode = audio.encode_flac(noise[0], 16_000)
    return (time.thread_time() - began_s) / (seconds * n_clips) + _decode_share(decode, seconds)


def _decode_share(data: bytes, seconds: float, n_times: int = 20) -> float:
    import io

    import soundfile

    began_s = time.thread_time()
    for _ in range(n_times):
        soundfile.read(io.BytesIO(data), dtype="float32")
    return (time.thread_time() - began_s) / (seconds * n_times)


def simulate(world: World, rows: int, *, written: bool) -> Told:
    """One year with partitions of so many rows."""
    random, told = np.random.default_rng(SEED), Told()
    n_left = math.ceil(world.clips / rows)
    again = 0  # partitions to be done once more
    spread = math.sqrt(math.expm1(world.clip_sigma**2) / rows)  # of a partition's mean clip
    speed = np.where(random.random(world.workers) < world.slow_share, 0.5, 1.0)
    dies_s = random.exponential(world.life_h * 3600, world.workers)
    held = np.zeros(world.workers, np.int64)
    free = [(0.0, worker) for worker in range(world.workers)]
    scheduler_s = 0.0
    while n_left or again:
        now_s, worker = heapq.heappop(free)
        scheduler_s = max(now_s, scheduler_s) + world.task_s
        told.n_tasks += 1
        again, n_left = (again - 1, n_left) if again else (again, n_left - 1)
        size = rows * max(0.1, 1 + spread * random.standard_normal())
        compute_s, fetch_s = size * world.cpu_s / speed[worker], size * world.fetch_s
        took_s = world.latency_s + max(compute_s, fetch_s)
        end_s = scheduler_s + took_s
        if end_s <= dies_s[worker]:
            told.computing_s += compute_s
            told.fetching_s += took_s - compute_s
            held[worker] += 1
            told.wall_s = max(told.wall_s, end_s)
            heapq.heappush(free, (end_s, worker))
            continue
        told.lost_s += max(0.0, dies_s[worker] - scheduler_s)
        again += 1
        told.n_deaths += 1
        if not written:
            told.lost_s += held[worker] * rows * world.cpu_s / speed[worker]
            again += int(held[worker])
        held[worker] = 0
        back_s = max(now_s, dies_s[worker]) + world.restart_s
        dies_s[worker] = back_s + random.exponential(world.life_h * 3600)
        heapq.heappush(free, (back_s, worker))
    return told


def main() -> None:
    """Command line: print assumptions and one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--clips", type=int, default=10_000_000)
    add("--workers", type=int, default=100)
    add("--cores", type=int, default=2, help="of a worker")
    add("--rows", type=int, nargs="+", default=[10, 100, 1_000, 10_000, 50_000], help="of a partition")
    add("--clip-s", type=float, default=6.0, help="mean length of a clip")
    add("--clip-sigma", type=float, default=0.6, help="spread of its logarithm")
    add("--bytes-per-s", type=float, default=16_000, help="of audio (16 kHz mono FLAC)")
    add("--latency-s", type=float, default=0.05, help="until the object store's first byte")
    add("--bandwidth-bytes-per-s", type=float, default=5e7, help="of a worker")
    add("--ahead", type=int, default=16, help="clips that a worker fetches at once")
    add("--life-h", type=float, default=24.0, help="mean life of a worker (spot machines)")
    add("--restart-s", type=float, default=120.0, help="until a new one computes")
    add("--task-s", type=float, default=0.001, help="of the scheduler, for a task")
    add("--slow-share", type=float, default=0.02, help="workers at half speed")
    add("--prefixes", type=int, default=1, help="of the object store that the clips lie under")
    add("--price-worker-hour", type=float, default=0.03, help="in any currency; an example")
    add("--price-1000-gets", type=float, default=0.0004, help="in the same; an example")
    options = vars(parser.parse_args())
    rows, hour, gets = (options.pop(name) for name in ("rows", "price_worker_hour", "price_1000_gets"))
    world = World(engine_share=engine_share(), **options)
    print(f"Engine, measured here: {world.engine_share * 1000:.2f} ms of a core for a second of audio")
    print(", ".join(f"{name} {value:g}" for name, value in options.items()))
    bound_s = world.clips * world.cpu_s / world.workers
    print(f"Bound, all cores computing all the time: {bound_s / 3600:.2f} h\n")
    print(
        "| results | rows | hours | / bound | computing | waiting | lost | scheduler | GET/s | price | died |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for written in (True, False):
        for size in rows:
            _print(
                world, size, simulate(world, size, written=written), bound_s, (hour, gets), written=written
            )
    print(
        f"\nResults on a worker at the end, in memory: "
        f"{world.clips / world.workers * RESULT_BYTES / 1e6:.0f} MB"
    )


def _print(
    world: World, rows: int, told: Told, bound_s: float, prices: tuple[float, float], *, written: bool
) -> None:
    worker_s = told.wall_s * world.workers
    shares = [told.computing_s, told.fetching_s, told.lost_s]
    n_gets = told.n_tasks * rows
    price = told.wall_s / 3600 * world.workers * prices[0] + n_gets / 1000 * prices[1]
    cells = [
        "written" if written else "in memory",
        f"{rows:,}",
        f"{told.wall_s / 3600:.2f}",
        f"{told.wall_s / bound_s:.2f}",
        *(f"{share / worker_s:.1%}" for share in shares),
        f"{told.n_tasks * world.task_s / told.wall_s:.0%}",
        f"{n_gets / told.wall_s:,.0f}",
        f"{price:.0f}",
        str(told.n_deaths),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
