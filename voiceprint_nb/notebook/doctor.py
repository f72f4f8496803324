"""What is odd here: versions, kernel, front end, ledger, service and key, in sentences."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from voiceprint_nb.errors import ServiceError, UsageError
from voiceprint_nb.notebook import views
from voiceprint_nb.notebook.diagnosis import Finding, Report
from voiceprint_nb.notebook.shown import shown, size
from voiceprint_nb.settings import KEY_VARIABLE, Settings, resolve

_NEEDED = ("pandas", "numpy", "httpx", "soundfile", "onnxruntime", "ipywidgets")
_OPTIONAL = {
    "itables": ("tables", "sorting and filtering in show()"),
    "matplotlib": ("analysis", "pictures"),
    "obstore": ("cloud", "s3://, gs:// and az:// objects"),
    "pyarrow": ("parquet", "Parquet files"),
    "uvicorn": ("serve", "Receiver and serving others"),
    "keyring": (None, "keys from the system's key store"),
}
_FRONT_ENDS = {  # the variable that each sets for its kernels
    "COLAB_RELEASE_TAG": "Google Colab",
    "KAGGLE_KERNEL_RUN_TYPE": "Kaggle",
    "DATABRICKS_RUNTIME_VERSION": "Databricks",
    "VSCODE_PID": "VS Code",
    "PYCHARM_HOSTED": "PyCharm",
    "JPY_SESSION_NAME": "a Jupyter server (JupyterLab or Notebook)",
    "JPY_PARENT_PID": "a Jupyter server (JupyterLab or Notebook)",
}
_OWN_WIDGETS = ("Google Colab", "Kaggle", "Databricks", "VS Code", "PyCharm")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LEAST_FREE_BYTES = 100_000_000


def doctor(
    *,
    service: str | None = None,
    api_key: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    online: bool = False,
) -> Report:
    """Look at everything that can stand in the way of a run, and say what to do about it.

    Nothing is changed, and nothing is sent unless ``online``.

    Parameters
    ----------
    service, api_key, data_dir
        As in `voiceprints`.
    online : bool
        Ask the service whether it is there and takes the key, and what limits it tells. Costs nothing.

    Returns
    -------
    Report
        Its ``findings`` are values; ``is_well`` says whether nothing is wrong. Never holds the key.

    Examples
    --------
    >>> report = doctor(service="local")
    >>> {finding.level for finding in report.findings} <= {"ok", "note", "wrong"}
    True
    """
    findings = [*_versions(), *_kernel(os.environ), _ffmpeg(), *_network(os.environ)]
    try:
        settings = resolve(service=service, api_key=api_key, data_dir=data_dir)
    except UsageError as error:
        findings.append(Finding("wrong", "service", shown(str(error))))
        settings = resolve(service="local", data_dir=data_dir, environ=_without_key(os.environ))
    else:
        findings += [Finding("ok", "service", settings.destination), _key(settings, api_key, os.environ)]
        if online:
            findings.append(_asked(settings))
    findings += [_ledger(settings.data_dir), *_extras()]
    return Report(tuple(findings))


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}.")
    known = {name: _version(name) for name in ("voiceprint_nb", *_NEEDED)}
    missing = [name for name, version in known.items() if version is None]
    if missing:
        text = f"Not installed: {', '.join(missing)}. Install voiceprint_nb again."
        yield Finding("wrong", "packages", text)
    said = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    yield Finding("ok", "packages", f"{said}.")
    try:
        import onnxruntime  # noqa: F401 - a broken build of it shows here
        import soundfile  # noqa: F401 - and a missing libsndfile here
    except (ImportError, OSError) as error:
        yield Finding("wrong", "libraries", f"A library does not load: {shown(str(error), most=200)}")


def _kernel(environ: Mapping[str, str]) -> Iterator[Finding]:
    version = views.kernel_version()
    place = _front_end(environ, is_kernel=version is not None)
    if version is None:
        yield Finding("ok", "place", f"{place}: progress is a bar or lines of text.")
    else:
        name = f"ipykernel {'.'.join(map(str, version))}" if version else "a kernel that is not ipykernel"
        trouble = views.kernel_trouble(version)
        yield Finding("wrong" if trouble else "ok", "kernel", trouble or f"{name}, started by {place}.")
        if not trouble:
            yield _widgets(place)
    if _is_nested():
        drops = version is not None and version >= (7, 0)
        harm = (
            "on this kernel 'Run All' then drops queued cells: leave it out, and restart"
            if drops
            else ("this package does not need it")
        )
        text = f"Another package has made event loops nest (nest_asyncio or the like); {harm}."
        yield Finding("wrong" if drops else "note", "asyncio", text)


def _front_end(environ: Mapping[str, str], *, is_kernel: bool) -> str:
    if "google.colab" in sys.modules:
        return "Google Colab"
    shell = views._shell()
    if not is_kernel:
        return "IPython in a terminal" if shell is not None else "Python without a notebook"
    if "__vsc_ipynb_file__" in getattr(shell, "user_ns", {}):
        return "VS Code"
    named = (name for variable, name in _FRONT_ENDS.items() if environ.get(variable))
    return next(named, "a front end that does not say its name")


def _widgets(place: str) -> Finding:
    if place in _OWN_WIDGETS:
        return Finding("ok", "widgets", f"{place} shows widgets by itself (VS Code loads them on first use).")
    if _version("jupyterlab_widgets"):
        text = "jupyterlab_widgets is installed beside this kernel; the environment of the server counts."
        return Finding("ok", "widgets", text)
    text = (
        "jupyterlab_widgets is not installed beside this kernel. If the panel does not show, install it in "
        "the environment of the Jupyter server, and load the page again."
    )
    return Finding("note", "widgets", text)


def _is_nested() -> bool:
    """Whether `asyncio.run` is no longer asyncio's own, as after ``nest_asyncio.apply()``."""
    return asyncio.run.__module__ != "asyncio.runners" or bool(getattr(asyncio, "_nest_patched", False))


def _ffmpeg() -> Finding:
    if shutil.which("ffmpeg"):
        return Finding("ok", "ffmpeg", "Found: M4A, AAC, WebM, WMA and AMR can be read.")
    text = (
        "Not found: M4A, AAC, WebM, WMA and AMR cannot be read; WAV, FLAC, MP3, Ogg and Opus need no ffmpeg."
    )
    return Finding("note", "ffmpeg", text)


def _network(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Which variables count; their values may hold passwords."""
    proxies = [name for name in _PROXIES if environ.get(name) or environ.get(name.lower())]
    certificates = next((name for name in _CERTIFICATES if environ.get(name)), None)
    if proxies:
        yield Finding("ok", "proxy", f"Set in the environment: {', '.join(proxies)}.")
    if certificates:
        there = Path(environ[certificates]).expanduser().exists()
        text = f"From {certificates}{'' if there else ', which names nothing that is there'}."
        yield Finding("ok" if there else "wrong", "certificates", text)


def _key(settings: Settings, api_key: str | None, environ: Mapping[str, str]) -> Finding:
    if settings.api_key:
        where = "api_key=" if api_key is not None else settings.key_place or KEY_VARIABLE
        return Finding("ok", "key", f"There is one, from {where}; it is never shown.")
    if settings.is_local:
        unused = api_key is not None or environ.get(KEY_VARIABLE)
        text = "The local service needs none."
        return Finding("ok", "key", f"{text} The one that is set is not used." if unused else text)
    return Finding("note", "key", f"There is none: servers that want one refuse. Set {KEY_VARIABLE}.")


def _asked(settings: Settings) -> Finding:
    from voiceprint_nb.batch.bridge import loop_thread

    if settings.is_local:
        return Finding("ok", "online", "The local service runs in this process: there is nobody to ask.")
    try:
        limits = loop_thread().start(_ask(settings)).wait()
    except (ServiceError, UsageError) as error:
        return Finding("wrong", "online", shown(str(error)))
    told = "; ".join(f"{used} of {most} requests of this minute are used" for used, most in limits)
    return Finding("ok", "online", f"The service answers and takes the key. {told or 'It tells no limits'}.")


async def _ask(settings: Settings) -> list[tuple[int, int]]:
    """Call the service's test; returns requests used and allowed, where its headers tell."""
    from voiceprint_nb.client.transport import Api
    from voiceprint_nb.pacing import Pacer

    pacers: list[Pacer] = []

    def new_pacer(**options: object) -> Pacer:
        pacers.append(Pacer(**options))  # type: ignore[arg-type]  # passed on as they come
        return pacers[-1]

    async with Api(base_url=settings.service, api_key=settings.api_key, new_pacer=new_pacer) as api:
        await api.check_key()
    return [used for pacer in pacers if (used := pacer.used_of_limit) is not None]


def _ledger(folder: Path) -> Finding:
    from voiceprint_nb.batch.store import FILE_NAME

    place = shown(folder)
    try:
        trouble = _ledger_trouble(folder, folder / FILE_NAME)
        n_bytes = sum(path.stat().st_size for path in folder.glob(f"{FILE_NAME}*"))
    except OSError as error:
        trouble = f"cannot be looked at ({error.strerror})."
    if trouble:
        return Finding("wrong", "ledger", f"{place}: {trouble}")
    how = f"{size(n_bytes)}, readable by you only." if n_bytes else "none yet, the first run makes it."
    return Finding("ok", "ledger", f"{place}: {how}")


def _ledger_trouble(folder: Path, file: Path) -> str | None:
    """Why a run could not use the ledger, or should not."""
    from voiceprint_nb.batch.store import is_private

    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return "cannot be written; choose another folder with VOICEPRINT_NB_DATA_DIR."
    if shutil.disk_usage(there).free < _LEAST_FREE_BYTES:
        return "the disk is nearly full; make room, or set VOICEPRINT_NB_DATA_DIR."
    if not file.exists():
        return None
    if not stat.S_ISREG(file.stat().st_mode) or not os.access(file, os.R_OK | os.W_OK):
        return f"{file.name} cannot be read and written by you."
    if not is_private(file):
        return f"{file.name} is open to others, and holds voiceprints; take their rights away (chmod 600)."
    return None


def _extras() -> Iterator[Finding]:
    for name, (extra, what) in _OPTIONAL.items():
        if importlib.util.find_spec(name) is not None:
            yield Finding("ok", name, f"{_version(name) or 'Installed'}, for {what}.")
        else:
            wanted = f"'voiceprint_nb[{extra}]'" if extra else name
            yield Finding("note", name, f"Not installed. For {what}: pip install {wanted}.")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _without_key(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name != KEY_VARIABLE}
