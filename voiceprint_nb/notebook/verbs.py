"""The verbs: check, voiceprints, voiceprint, submit, resume, runs, forget, compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from voiceprint_nb.contract import VOICEPRINT_MODELS
from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import RowError, UsageError
from voiceprint_nb.notebook import dask_frames, frames, services
from voiceprint_nb.notebook.frames import Data
from voiceprint_nb.notebook.runs import Call, Run, Session, recorded
from voiceprint_nb.notebook.voiceprint import Voiceprint
from voiceprint_nb.settings import HOSTED_URL, Settings, resolve

if TYPE_CHECKING:
    from voiceprint_nb.client.receiver import Receiver

Base = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def check(
    data: Data,
    column: Hashable | None = None,
    *,
    fit: str = "error",
    base: Base | None = None,
    prefix: str = frames.DEFAULT_PREFIX,
    overwrite: bool = False,
    progress: bool = True,
    sign: Callable[[str], str] | None = None,
    quality: bool = False,
) -> pd.DataFrame:
    """Check every clip against the limits, without any service.

    Parameters
    ----------
    data : DataFrame, Series or list
        Rows of audio; never changed. A Dask DataFrame gives a lazy one, whose workers do the work.
    column : hashable, optional
        Column that holds the audio; by default ``audio``, or the only one.
    fit : {"error", "best", "head"}
        What to do with clips over 30 s: refuse, take the most speech-rich 30 s, or the first 30 s.
    base : path or list of paths, optional
        Folders for relative paths; by default the current one.
    prefix : str
        Start of the new columns' names.
    overwrite : bool
        Replace columns of these names.
    progress : bool
        Show progress.
    sign : callable, optional
        Turns the address of an object (``s3://bucket/key``) into an https link, in threads; by default the
        extra ``cloud`` signs with the usual credentials.
    quality : bool
        Measure how good each clip is for a voiceprint, which decodes it whole and runs the local network
        over it; links are copied for it. ``vp_warning`` says what hurts and what to do about it.

    Returns
    -------
    DataFrame
        The rows with ``vp_status`` (``ok`` or ``invalid``), ``vp_error_code``, ``vp_error``, ``vp_warning``,
        ``vp_duration_s``, ``vp_sample_rate_hz``, ``vp_channels``, ``vp_format``, ``vp_n_bytes``. With
        ``quality``, also, of what is used of the clip:

        - ``vp_speech_s``: seconds of speech-like sound, without pauses
        - ``vp_level_dbfs``: its RMS level in dB relative to full scale
        - ``vp_clipped``: share of clipped samples, 0 to 1
        - ``vp_snr_db``: estimate of its power over the noise's, in dB
        - ``vp_voice_spread``: 0 to 2, how far apart the two voices are into which it can be split at best;
          above 0.23 there may be two indeed. Voices that speak at once are not found.

    Raises
    ------
    UsageError
        The call itself is wrong.

    Examples
    --------
    >>> out = check(["no-such-file.wav"], progress=False)
    >>> out.vp_error_code.tolist()
    ['file_not_found']
    """
    if frames.is_dask(data):
        return dask_frames.check(
            data, column, fit=fit, base=base, prefix=prefix, overwrite=overwrite, sign=sign, quality=quality
        )
    from voiceprint_nb.batch.bridge import loop_thread
    from voiceprint_nb.batch.inspecting import check_all
    from voiceprint_nb.batch.outcomes import Request
    from voiceprint_nb.batch.progress import Tally
    from voiceprint_nb.notebook import services, views

    frame, column = frames.as_frame(data, column)
    names = frames.check_names(prefix, quality=quality)
    frame = frames.without_taken(frame, column, names, overwrite=overwrite)
    tally = Tally(len(frame), title="check")
    embed = services.embed_of_quality() if quality else None
    request = Request(frames.bases_of(base), frames.fit_of(fit), embed=embed)
    meter = views.meter_for(progress, "")
    background = loop_thread().start(check_all(frames.cells_of(frame, column), request, tally, sign=sign))
    outcomes = background.wait(tick=(lambda: meter.show(tally.snapshot())) if meter else None)
    return frames.with_outcomes(frame, outcomes, names)


def voiceprints(
    data: Data,
    column: Hashable | None = None,
    *,
    service: str | None = None,
    api_key: str | None = None,
    model: str | Model | None = None,
    fit: str = "error",
    base: Base | None = None,
    prefix: str = frames.DEFAULT_PREFIX,
    overwrite: bool = False,
    progress: bool = True,
    ledger: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
    receiver: Receiver | None = None,
    sign: Callable[[str], str] | None = None,
    max_new: int | None = None,
    compress: bool = False,
    quality: bool = False,
) -> pd.DataFrame:
    """A voiceprint for every row; blocks until all rows have ended.

    Rows that cannot be used say why in their columns; nothing that was finished once is bought again.

    Parameters
    ----------
    data, column, fit, base, prefix, overwrite, progress, sign
        As in `check`.
    service : str, optional
        ``"local"``, ``"pyannoteai"`` or an address. By default hosted if there is a key, else local.
    api_key : str, optional
        Key of the hosted service; by default from ``PYANNOTEAI_API_KEY``.
    model : str or Model, optional
        Hosted: the model to ask for, such as ``"precision-2"``; by default the service's own choice. Local: a
        `Model`, the name of a packaged one (``"robust"``, ``"compatible"``, ``"fast"``), or the path of your
        own, which ends in ``.onnx`` (`Model.from_onnx`); ``robust`` by default. Prints of different models
        do not compare.
    ledger : bool
        Keep results on disk, so that they are reused and the run can be resumed.
    data_dir : path, optional
        Folder of the ledger; by default the user's data folder.
    receiver : Receiver, optional
        Takes the service's webhooks, so that jobs are not asked for; started here unless it is.
    max_new : int, optional
        Buy at most so many voiceprints; rows beyond end ``canceled`` with code ``max_new``, and `resume` goes
        on with them.
    compress : bool
        Upload clips as 16 kHz mono FLAC where that is smaller; the service turns them into that anyway.
    quality : bool
        Measure the clips as `check` does, and add its columns; not of links that the service fetches itself.
        `resume` does it again where the audio is still there.

    Returns
    -------
    DataFrame
        The rows with ``voiceprint``, ``vp_status``, ``vp_error_code``, ``vp_error``, ``vp_warning``,
        ``vp_job_id``, ``vp_duration_s`` and ``vp_source``; ``attrs["voiceprint_nb"]`` tells about the run.

    Raises
    ------
    UsageError
        The call itself is wrong.
    ServiceError
        No row can go on (key, credit, service down); its ``partial`` holds the finished rows.

    Examples
    --------
    >>> out = voiceprints(["no-such-file.wav"], service="local", progress=False, ledger=False)
    >>> out.vp_status.tolist()
    ['invalid']
    """
    if frames.is_dask(data):
        return dask_frames.voiceprints(
            data,
            column,
            service=service,
            api_key=api_key,
            model=model,
            fit=fit,
            base=base,
            prefix=prefix,
            overwrite=overwrite,
            sign=sign,
            quality=quality,
            unused={
                "data_dir": data_dir,
                "receiver": receiver,
                "max_new": max_new,
                "compress": compress or None,
            },
        )
    settings = resolve(service=service, api_key=api_key, model=services.model_text(model), data_dir=data_dir)
    session = _session(
        data,
        column,
        settings,
        fit=fit,
        base=base,
        prefix=prefix,
        overwrite=overwrite,
        keep=ledger,
        receiver=_started(receiver, settings),
        sign=sign,
        max_new=max_new,
        compress=compress,
        quality=quality,
    )
    return session.block(progress=progress)


def submit(
    data: Data,
    column: Hashable | None = None,
    *,
    service: str | None = None,
    api_key: str | None = None,
    model: str | Model | None = None,
    fit: str = "error",
    base: Base | None = None,
    prefix: str = frames.DEFAULT_PREFIX,
    overwrite: bool = False,
    progress: bool = True,
    ledger: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
    receiver: Receiver | None = None,
    sign: Callable[[str], str] | None = None,
    max_new: int | None = None,
    compress: bool = False,
    quality: bool = False,
) -> Run:
    """As `voiceprints`, but returns at once with a `Run` that goes on in the background.

    Parameters
    ----------
    data, column, service, api_key, model, fit, base, prefix, overwrite, progress, ledger, data_dir, receiver,
    sign, max_new, compress, quality
        As in `voiceprints`.

    Returns
    -------
    Run
        To be awaited, or asked for ``partial()`` and ``result()``.

    Raises
    ------
    UsageError
        The call itself is wrong. What the service refuses is raised by the run.

    Examples
    --------
    >>> run = submit(["no-such-file.wav"], service="local", progress=False, ledger=False)
    >>> run.result().vp_error_code.tolist()
    ['file_not_found']
    """
    settings = resolve(service=service, api_key=api_key, model=services.model_text(model), data_dir=data_dir)
    session = _session(
        data,
        column,
        settings,
        fit=fit,
        base=base,
        prefix=prefix,
        overwrite=overwrite,
        keep=ledger,
        receiver=_started(receiver, settings),
        sign=sign,
        max_new=max_new,
        compress=compress,
        quality=quality,
    )
    return Run(session, progress=progress)


def resume(
    run_id: str | None = None,
    *,
    api_key: str | None = None,
    progress: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
    receiver: Receiver | None = None,
    sign: Callable[[str], str] | None = None,
    max_new: int | None = None,
) -> pd.DataFrame:
    """Go on with a run after a crash, a closed tab, another day; nothing is bought twice.

    Parameters
    ----------
    run_id : str, optional
        As `runs` lists it; by default the newest unfinished run, else the newest.
    api_key, progress, data_dir, receiver, sign, max_new
        As in `voiceprints`; the service is the run's own.

    Returns
    -------
    DataFrame
        As `voiceprints`, with all columns of the run's frame; of frames over 64 MiB the ledger keeps the
        audio column only.

    Raises
    ------
    UsageError
        There is no such run, its frame was not kept, or others can change the ledger.
    """
    folder = _ledger_folder(data_dir)
    record, packed = recorded(folder, run_id)
    frame, column = frames.unpack(packed)
    call = Call.from_json(record.call, column=column)
    settings = resolve(service=call.service, api_key=api_key, model=call.model, data_dir=folder)
    session = Session(
        frame,
        call,
        settings,
        run_id=record.run_id,
        receiver=_started(receiver, settings),
        sign=sign,
        max_new=_refuse_negative(max_new),
    )
    return session.block(progress=progress)


def voiceprint(
    clip: object,
    *,
    service: str | None = None,
    api_key: str | None = None,
    model: str | Model | None = None,
    fit: str = "error",
    base: Base | None = None,
    ledger: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
) -> Voiceprint:
    """The voiceprint of one clip.

    Parameters
    ----------
    clip : object
        Path, address, ``media://`` key, bytes, open file or ``(samples, sample_rate_hz)``.
    service, api_key, model, fit, base, ledger, data_dir
        As in `voiceprints`.

    Returns
    -------
    Voiceprint

    Raises
    ------
    RowError
        The clip cannot be used; its ``code`` is one of the documented error codes.
    UsageError, ServiceError
        As in `voiceprints`.

    Examples
    --------
    >>> voiceprint("data/samples/ada-1.wav", service="local", ledger=False)  # doctest: +SKIP
    <Voiceprint of 4.1 s>
    """
    settings = resolve(service=service, api_key=api_key, model=services.model_text(model), data_dir=data_dir)
    prefix = frames.DEFAULT_PREFIX
    session = _session(
        [clip], None, settings, fit=fit, base=base, prefix=prefix, overwrite=False, keep=ledger, listed=False
    )
    row = session.block(progress=False).iloc[0]
    if row.vp_status != "succeeded":
        raise RowError(row.vp_error_code, row.vp_error)
    warning = None if pd.isna(row.vp_warning) else str(row.vp_warning)
    return Voiceprint(str(row.voiceprint), float(row.vp_duration_s), warning)


def runs(*, data_dir: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """The runs that the ledger keeps, newest first: id, times, service, rows and counts by state."""
    from voiceprint_nb.batch.store import Ledger

    with Ledger(_ledger_folder(data_dir)) as ledger:
        records = ledger.runs()
    rows = [
        {
            "run_id": run.run_id,
            "started_at": pd.Timestamp(run.started_at, unit="s", tz="UTC").floor("s"),
            "state": "unfinished" if run.finished_at is None else "finished",
            "service": run.destination,
            "rows": run.n_rows,
            "counts": ", ".join(f"{n} {state}" for state, n in run.counts.items()),
        }
        for run in records
    ]
    return pd.DataFrame(rows, columns=["run_id", "started_at", "state", "service", "rows", "counts"])


def forget(
    run_id: str | None = None,
    *,
    everything: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
) -> int:
    """Delete a run and its voiceprints from the ledger, or everything.

    Results that another run shares stay with that run. Your DataFrames and files are not touched.

    Returns
    -------
    int
        How many voiceprints were deleted.

    Raises
    ------
    UsageError
        Neither or both of ``run_id`` and ``everything``, or no such run.
    """
    from voiceprint_nb.batch.store import Ledger

    if (run_id is None) == (not everything):
        raise UsageError("Say what to forget: forget(run_id), with an id from runs(), or everything=True.")
    with Ledger(_ledger_folder(data_dir)) as ledger:
        if run_id is None:
            return ledger.forget_everything()
        if run_id not in [run.run_id for run in ledger.runs()]:
            raise UsageError(f"The ledger knows no run {run_id!r}: runs() lists what it has.")
        return ledger.forget([run_id])


def _session(
    data: Data,
    column: Hashable | None,
    settings: Settings,
    *,
    fit: str,
    base: Base | None,
    prefix: str,
    overwrite: bool,
    keep: bool,
    listed: bool = True,
    receiver: Receiver | None = None,
    sign: Callable[[str], str] | None = None,
    max_new: int | None = None,
    compress: bool = False,
    quality: bool = False,
) -> Session:
    refuse_model(settings)
    frame, column = frames.as_frame(data, column)
    names = frames.result_names(prefix, quality=quality)
    frame = frames.without_taken(frame, column, names, overwrite=overwrite)
    call = Call(
        column=column,
        prefix=prefix,
        fit=frames.fit_of(fit),
        bases=frames.bases_of(base),
        service=settings.service,
        model=settings.model,
        compress=compress,
        quality=quality,
    )
    return Session(
        frame,
        call,
        settings,
        keep=keep,
        listed=listed,
        receiver=receiver,
        sign=sign,
        max_new=_refuse_negative(max_new),
    )


def _started(receiver: Receiver | None, settings: Settings) -> Receiver | None:
    """The receiver, listening; refused where no event could come."""
    if receiver is None:
        return None
    if settings.is_local:
        raise UsageError(
            "receiver= is for services elsewhere: leave it out, the local service is in process."
        )
    if settings.service == HOSTED_URL and not receiver.webhook_url.startswith("https://"):
        raise UsageError(
            "The hosted service sends webhooks to https:// only: give Receiver such a public_url."
        )
    return receiver.start()


def _refuse_negative(max_new: int | None) -> int | None:
    if max_new is not None and max_new < 0:
        raise UsageError("max_new= needs a number of voiceprints, 0 or more.")
    return max_new


def refuse_model(settings: Settings) -> None:
    """Raise `UsageError` for a model that the service of these settings does not have."""
    if settings.model is None:
        return
    if settings.is_local:
        Model.named(settings.model)
    elif settings.service == HOSTED_URL and settings.model not in VOICEPRINT_MODELS:
        raise UsageError(f"Unknown model {settings.model!r}: use one of {', '.join(VOICEPRINT_MODELS)}.")


def _ledger_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    return resolve(service="local", data_dir=data_dir).data_dir
