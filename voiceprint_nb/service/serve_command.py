"""``voiceprint-nb serve``: its options; the server itself is imported when it is to run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from voiceprint_nb.service.options import Options


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``serve``; what it parses is for `serve`."""
    does = "serve voiceprints to other processes, machines and languages"
    parser = commands.add_parser("serve", help=does, description=f"serve: {does}.")
    add = parser.add_argument
    add("--host", help="address to listen on; others than loopback need keys")
    add("--port", type=int, help="0 takes a free one (default: %(default)s)")
    add("--data-dir", type=Path, help="folder of jobs, media and keys (default: the user's own)")
    add("--workers", type=int, help="engine threads (default: one per CPU); of a cluster, batches at once")
    add("--compute", metavar="dask://HOST:PORT", help="Dask cluster that computes in place of this machine")
    add(
        "--model",
        help="robust, compatible, fast, or with :bfloat16 or :cuda; a network of your own as FILE.onnx or "
        "FILE.onnx:FEATURES, say mine.onnx:fbank80 (default: %(default)s)",
    )
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain in PEM, with --tls-key")
    add("--tls-key", type=Path, metavar="FILE", help="its private key in PEM")
    add(
        "--behind-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy whose X-Forwarded-For and -Proto are believed; may be repeated",
    )
    add("--public-url", metavar="URL", help="base address of presigned links (default: the request's)")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host in a private network that clips may come from and webhooks go to; may be repeated",
    )
    add("--plain-webhooks", action="store_true", help="take webhook addresses with http, not only https")
    limit = "for a team and endpoint, 0 for no limit"
    add("--writes-per-minute", type=int, metavar="N", help=limit)
    add("--reads-per-minute", type=int, metavar="N", help=limit)
    add(
        "--max-waiting",
        type=int,
        metavar="N",
        help="accepted jobs that have not ended",
    )
    add(
        "--shutdown-s",
        type=float,
        metavar="S",
        help="time for running jobs to end at SIGTERM",
    )
    add("--redeliver", metavar="JOB", help="send the webhook of this job again, and end")
    parser.set_defaults(**{**vars(Options()), "behind_proxy": [], "allow_host": []})


def serve(**options: Any) -> int:
    """Serve as the options say."""
    from voiceprint_nb.service import server

    return server.serve(**options)
