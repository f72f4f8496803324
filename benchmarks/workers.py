"""Voiceprints by workers of Dask against the same clips without Dask: seconds, and ratios of the medians.

::

    python -m benchmarks.workers [--rows 1600] [--rounds 3]

Workers have one thread each, and run on this machine. They are measured as Dask starts them, and then with an
allocator that keeps its memory, as the README recommends. All ways take turns in every round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
from distributed import Client, LocalCluster

import voiceprint_nb as vp
from benchmarks.whole_path import make_rows

N_PARTS = 16
KEPT = {"MALLOC_TRIM_THRESHOLD_": 2**28, "MALLOC_MMAP_THRESHOLD_": 2**25, "OMP_NUM_THREADS": 1}


def without_dask(frame: pd.DataFrame) -> None:
    """The local path, with a thread for each CPU."""
    vp.voiceprints(frame, service="local", progress=False, ledger=False)


def with_dask(client: Client, frame: pd.DataFrame) -> None:
    """The same rows in parts."""
    parts = dd.from_pandas(frame, npartitions=N_PARTS)
    client.compute(vp.voiceprints(parts, service="local")).result()


@contextlib.contextmanager
def workers(n_workers: int, *, kept: bool) -> Iterator[Client]:
    """So many processes of one thread each."""
    environment = {"distributed.nanny.pre-spawn-environ": KEPT} if kept else {}
    with (
        dask.config.set(environment),
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def measured(frame: pd.DataFrame, rounds: int, *, kept: bool) -> dict[str, float]:
    """Median seconds of each way; a first turn, not counted, loads the network everywhere."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        ways: dict[str, Callable[[pd.DataFrame], None]] = {"without Dask": without_dask}
        for name, n_workers in (("1 worker", 1), ("2 workers", 2)):
            client = stack.enter_context(workers(n_workers, kept=kept))
            ways[name] = lambda rows, client=client: with_dask(client, rows)  # type: ignore[misc]
        for turn in range(rounds + 1):
            for name, way in ways.items():
                began_s = time.perf_counter()
                way(frame if turn else frame.head(2 * N_PARTS))
                if turn:
                    seconds[name].append(time.perf_counter() - began_s)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_rows(Path(folder), options.rows)
        frame = pd.DataFrame({"audio": sorted(map(str, Path(folder).glob("*.flac")))})
        for kept in (False, True):
            taken_s = measured(frame, options.rounds, kept=kept)
            print("memory kept" if kept else "as Dask starts workers")
            for name, median_s in taken_s.items():
                print(f"  {name:14} {median_s:6.2f} s  {options.rows / median_s:6.1f} clips/s")
            two_s = taken_s["2 workers"]
            print(f"  2 workers: {taken_s['1 worker'] / two_s:.2f} times 1 worker (asked for: 1.8)")
            pace = taken_s["without Dask"] / two_s
            print(f"  2 workers: {pace:.2f} of the pace without Dask (asked for: 0.9)")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
