"""The values that a run passes around: what is asked, where, and how each row ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from voiceprint_nb.audio import AudioFacts
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import JobCreated, VoiceprintRequest
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake.clips import Clip, Fit
from voiceprint_nb.intake.quality import MEASURES, Embed

if TYPE_CHECKING:
    from voiceprint_nb.client.jobs import Events

_BLOCK = 256  # rows; the memory that building a block takes for a moment is not given back


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one row ended.

    The code decides the status (`errors.ROW_CODES`), and while a job is open, the row is ``pending``.

    Attributes
    ----------
    status : str
        ``succeeded``, ``invalid``, ``failed``, ``canceled``, ``pending``; ``ok`` for a mere check.
    voiceprint : str or None
        The voiceprint text of a succeeded row.
    error_code, error : str or None
        Stable code and one sentence that says what to do.
    warning : str or None
        What lowers the quality, in a sentence.
    job_id : str or None
        The service's name for the job.
    source : str or None
        ``new`` or ``reused`` for succeeded rows.
    duration_s : float or None
        Seconds of audio that are used.
    facts : AudioFacts or None
        What the file's header says, where it was looked at.
    n_bytes : int or None
        Size of the file that is submitted.
    speech_s, level_dbfs, clipped, snr_db, voice_spread : float or None
        As in `voiceprint_nb.intake.quality.Quality`, where that was asked for and there is a file.
    """

    status: str
    voiceprint: str | None = field(default=None, repr=False)
    error_code: str | None = None
    error: str | None = None
    warning: str | None = None
    job_id: str | None = None
    source: str | None = None
    duration_s: float | None = None
    facts: AudioFacts | None = None
    n_bytes: int | None = None
    speech_s: float | None = None
    level_dbfs: float | None = None
    clipped: float | None = None
    snr_db: float | None = None
    voice_spread: float | None = None

    @classmethod
    def of_error(cls, error: RowError, *, job_id: str | None = None) -> Outcome:
        """A row that cannot go on."""
        duration_s = error.facts.duration_s if error.facts else None
        return cls(
            error.status,
            error_code=error.code,
            error=str(error),
            job_id=job_id,
            duration_s=duration_s,
            facts=error.facts,
        )

    @classmethod
    def of_clip(cls, clip: Clip) -> Outcome:
        """A row whose clip would be admitted."""
        return cls(
            "ok",
            warning=clip.warning,
            duration_s=clip.duration_s,
            facts=clip.facts,
            n_bytes=clip.n_bytes,
            **_measured(clip),
        )

    def with_clip(self, clip: Clip) -> Outcome:
        """The same, with what is known of its clip."""
        told = " ".join(sentence for sentence in (clip.warning, self.warning) if sentence)
        return replace(self, warning=told or None, duration_s=clip.duration_s, **_measured(clip))

    def without_packed(self) -> Outcome:
        """What many rows have in common: without what `Outcomes` packs."""
        return Outcome(  # in half the time that `replace` takes
            self.status,
            error_code=self.error_code,
            error=self.error,
            warning=self.warning,
            source=self.source,
            facts=self.facts,
            n_bytes=self.n_bytes,
        )

    @property
    def state(self) -> str:
        """The tally's name for the status."""
        return "reused" if self.source == "reused" else self.status


def _measured(clip: Clip) -> dict[str, Any]:
    return {} if clip.quality is None else {name: getattr(clip.quality, name) for name in MEASURES}


class Outcomes(Mapping[int, Outcome]):
    """Outcomes by position, of rows that have ended; one thread ends rows, any may read.

    What differs from row to row is packed in blocks, of which the columns of frames are made without a copy;
    equal rests are one object.

    Parameters
    ----------
    n_rows : int
        Rows in all.
    ended : iterable, optional
        Positions and outcomes of rows that have ended already.
    measured : bool
        Whether the clips' quality is packed, too.

    Examples
    --------
    >>> outcomes = Outcomes(2, [(1, Outcome("succeeded", "AAEC"))])
    >>> {position: outcome.voiceprint for position, outcome in outcomes.items()}
    {1: 'AAEC'}
    """

    def __init__(
        self, n_rows: int, ended: Iterable[tuple[int, Outcome]] = (), *, measured: bool = False
    ) -> None:
        self._names = (*_PACKED, *(MEASURES if measured else ()))
        self._rests: list[Outcome | None] = [None] * n_rows
        self._kinds: dict[Outcome, Outcome] = {}
        sizes = [min(_BLOCK, n_rows - start) for start in range(0, max(n_rows, 1), _BLOCK)]
        self._blocks: list[dict[str, Any]] = [{name: [None] * size for name in self._names} for size in sizes]
        self._n_left = sizes
        self._n_ended = 0
        self._lock = threading.Lock()
        for position, outcome in ended:
            self.end(position, outcome)

    def end(self, position: int, outcome: Outcome) -> None:
        """Keep how a row has ended; once for each."""
        number, place = divmod(position, _BLOCK)
        rest = outcome.without_packed()
        with self._lock:
            self._rests[position] = self._kinds.setdefault(rest, rest)
            for name, values in self._blocks[number].items():
                values[place] = getattr(outcome, name)
            self._n_ended += 1
            self._n_left[number] -= 1
            if not self._n_left[number]:
                self._blocks[number] = {name: _packed(name, v) for name, v in self._blocks[number].items()}

    def kinds(self) -> list[Outcome]:
        """The outcomes that there are, each once, without what is packed."""
        return list(self._kinds)

    def snapshot(self) -> tuple[list[Outcome], dict[str, Any]]:
        """All rows at one moment: outcomes without what is packed, and that as arrays.

        Returns
        -------
        list of Outcome
            ``pending`` for rows that go on.
        dict of ExtensionArray, (rows,)
            ``voiceprint`` and ``job_id`` of dtype string, ``duration_s`` and measures of dtype float64;
            missing where there is none.
        """
        with self._lock:
            rests = [rest or _PENDING for rest in self._rests]
            blocks = [{name: values.copy() for name, values in block.items()} for block in self._blocks]
        columns = {
            name: pd.concat([pd.Series(_packed(name, block[name])) for block in blocks], ignore_index=True)
            for name in self._names
        }
        return rests, {name: column.array for name, column in columns.items()}

    def __contains__(self, position: object) -> bool:
        if not isinstance(position, int) or not 0 <= position < len(self._rests):
            return False
        return self._rests[position] is not None

    def __getitem__(self, position: int) -> Outcome:
        number, place = divmod(position, _BLOCK)
        with self._lock:
            if position not in self or (rest := self._rests[position]) is None:
                raise KeyError(position)
            found = {name: values[place] for name, values in self._blocks[number].items()}
        own: dict[str, Any] = {name: None if pd.isna(value) else value for name, value in found.items()}
        return replace(rest, **own)

    def __iter__(self) -> Iterator[int]:
        return (position for position, rest in enumerate(self._rests) if rest is not None)

    def __len__(self) -> int:
        return self._n_ended


_PENDING = Outcome("pending")
_PACKED = ("voiceprint", "job_id", "duration_s")
_TEXTS = ("voiceprint", "job_id")


def _packed(name: str, values: Any) -> Any:
    return pd.array(values, dtype="string" if name in _TEXTS else "float64")


@dataclass(frozen=True)
class Request:
    """What is asked for every row.

    Attributes
    ----------
    bases : tuple of Path
        Folders for relative paths.
    fit : {"error", "best", "head"}
        What happens to clips longer than the limit.
    model : str or None
        Model to ask for.
    sign : callable, optional
        Turns the address of an object (``s3://bucket/key``) into an https link; by default obstore does.
    max_new : int, optional
        So many voiceprints are bought at most; other rows end without.
    compress : bool
        Whether clips are uploaded as 16 kHz mono FLAC where that is smaller.
    n_bought : int
        So many of ``max_new`` are bought already.
    embed : callable, optional
        Gives the network's vectors of windows: with it, the quality of every clip that has a file is
        measured.
    """

    bases: tuple[Path, ...] = ()
    fit: Fit = "error"
    model: str | None = None
    sign: Callable[[str], str] | None = field(default=None, repr=False)
    max_new: int | None = None
    compress: bool = False
    n_bought: int = 0
    embed: Embed | None = field(default=None, repr=False)


def deadline_s(duration_s: float, n_open: int) -> float:
    """How long a job may take before its row hears that it is late, in seconds; not a sign of the usual.

    Jobs on 30 s have been seen to take 5 to 20 s, and stuck ones to stay so for over 30 minutes.

    Examples
    --------
    >>> deadline_s(4.0, 0), deadline_s(30.0, 200)
    (300.0, 600.0)
    """
    return max(300.0, 10.0 * duration_s, 3.0 * n_open)


@dataclass(frozen=True)
class Service:
    """How to reach a service.

    Attributes
    ----------
    open_api : callable
        Makes the (unopened) client.
    identity : str
        Name under which the ledger keeps results: service and account.
    poll_s : float
        Pause between rounds of asking for jobs, in seconds.
    sweep_s : float
        The same while events tell of the ends of jobs: only lost ones are looked for.
    in_flight : int
        Rows worked on at the same time.
    sees_private_hosts : bool
        Whether the service can fetch addresses of this machine and its network.
    sees_files : bool
        Whether the service reads this machine's files by their ``file://`` address: then nothing is copied.
    decoded : Decoded, optional
        Where it takes samples of this machine's files from that were decoded already.
    deadline_s : callable
        Bound on the wait for one job, in seconds, from the clip's length in seconds and how many jobs of the
        run are open before it.
    settle_s : float
        Pause before the job list is asked what became of a submission whose answer was lost, in seconds.
    accept : callable, optional
        Creates a job at once and without the wire, for which nothing is owed; None where the wire is to tell
        why not, or to wait.
    events : Events, optional
        Tells of the ends of jobs: waits end by it, not by asking.
    webhook_url : str, optional
        Where the service is to send them, if it must be told.
    """

    open_api: Callable[[], Api]
    identity: str
    poll_s: float
    in_flight: int
    sees_private_hosts: bool
    sees_files: bool = False
    decoded: Decoded | None = None
    deadline_s: Callable[[float, int], float] = deadline_s
    settle_s: float = 1.0
    accept: Callable[[VoiceprintRequest], JobCreated | None] | None = None
    events: Events | None = None
    webhook_url: str | None = field(default=None, repr=False)  # its path is a secret
    sweep_s: float = 60.0


@dataclass(frozen=True)
class Kept:
    """Stands in for a cell whose audio was in memory when its run was recorded."""
