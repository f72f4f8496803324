"""From a folder tree to the frame that the verbs take."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.shown import shown

_BY_LIBSNDFILE = "wav wave w64 rf64 flac mp3 ogg oga opus aif aiff aifc au snd caf"
_BY_FFMPEG = "m4a m4b mp4 aac webm mka wma amr 3gp"
SUFFIXES = frozenset(f".{ending}" for ending in f"{_BY_LIBSNDFILE} {_BY_FFMPEG}".split())
"""Endings that `find_audio` takes for audio, in small or capital letters."""

SpeakerFrom = str | re.Pattern[str] | Callable[[Path], str | None] | None

_WORD = re.compile(r"[^-_. ]+")
_NAMED = 3


def find_audio(
    folder: str | os.PathLike[str],
    *,
    speaker_from: SpeakerFrom = None,
    pattern: str = "*",
    suffixes: Collection[str] | None = None,
    recursive: bool = True,
) -> pd.DataFrame:
    """A frame of the audio files in a folder, ready for `check` and `voiceprints`.

    Files come in natural order (``clip-2`` before ``clip-10``). Hidden files and folders are left out; links
    to folders are followed, each folder once. What a file really holds is for `check` to say.

    Parameters
    ----------
    folder : path
        Where to look.
    speaker_from : {"parent", "name"}, regular expression or callable, optional
        Adds the column ``speaker``: the name of the file's folder; the first word of the file's name, up to
        ``-``, ``_``, ``.`` or a space; the first group (or all) of what a compiled expression finds in the
        path below the folder, written with ``/``; or what the callable makes of the file's `Path`. Missing
        where there is none.
    pattern : str
        Shell pattern for file names, such as ``"*_mic1.*"``.
    suffixes : collection of str, optional
        Endings to take in place of the known ones, such as ``[".wav"]``.
    recursive : bool
        Look into the folders below, too.

    Returns
    -------
    DataFrame
        Column ``audio``: paths that begin with `folder` as it was given; with `speaker_from`, ``speaker``.

    Warns
    -----
    UserWarning
        Folders that could not be read: their files are missing from the frame.

    Raises
    ------
    UsageError
        There is no such folder, or no audio in it, or `speaker_from` is none of these.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> for name in ("ann/2.wav", "ann/10.wav", "bob/1.FLAC", "bob/notes.txt"):
    ...     (place / name).parent.mkdir(exist_ok=True)
    ...     (place / name).touch()
    >>> found = find_audio(place, speaker_from="parent")
    >>> [Path(path).name for path in found.audio], found.speaker.tolist()
    (['2.wav', '10.wav', '1.FLAC'], ['ann', 'ann', 'bob'])
    """
    root = Path(folder).expanduser()
    speaker = _speaker(speaker_from, root)
    if not root.is_dir():
        what = "is a file: name the folder it is in" if root.exists() else "is not there"
        raise UsageError(f"The folder {shown(root)!r} {what}.")
    endings = _endings(suffixes)
    unreadable: list[Path] = []
    paths = [
        path
        for path in _files(root, recursive, unreadable)
        if path.suffix.lower() in endings and fnmatch(path.name, pattern)
    ]
    if not paths:
        raise UsageError(_nothing(root, pattern, suffixes and endings, recursive, unreadable))
    if unreadable:
        warnings.warn(_without(unreadable), stacklevel=2)
    paths.sort(key=lambda path: [_natural(part) for part in path.parts])
    texts = [str(path) for path in paths]
    dtype = None if all(map(_is_text, texts)) else object  # columns of text take no half characters
    frame = pd.DataFrame({"audio": pd.Series(texts, dtype=dtype)})
    if speaker is not None:
        names = [speaker(path) for path in paths]
        frame["speaker"] = pd.Series([name and _as_text(name) for name in names], dtype="string")
    return frame


def _files(root: Path, recursive: bool, unreadable: list[Path]) -> Iterator[Path]:
    """Files below a folder; each folder once, however many links lead to it."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        try:
            facts = folder.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            entries = list(os.scandir(folder))
        except OSError:
            unreadable.append(folder)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            match _kind(entry):
                case "folder" if recursive:
                    waiting.append(path)
                case "file":
                    yield path


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is; a link that leads nowhere counts as a file, so that `check` tells of it."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "file" if entry.is_symlink() else ""
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else ""


def _natural(text: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part.casefold()) for part in re.split(r"(\d+)", text)
    ]


def _is_text(name: str) -> bool:
    return _as_text(name) == name


def _as_text(name: str) -> str:
    """The name with question marks for bytes that are no UTF-8, which Linux has in file names."""
    return name.encode("utf-8", "replace").decode()


def _endings(suffixes: Collection[str] | None) -> frozenset[str]:
    if suffixes is None:
        return SUFFIXES
    given = [suffixes] if isinstance(suffixes, str) else list(suffixes)
    return frozenset(f".{suffix.lower().lstrip('*.')}" for suffix in given)


def _speaker(wanted: SpeakerFrom, root: Path) -> Callable[[Path], str | None] | None:
    if wanted is None:
        return None
    if wanted == "parent":
        return lambda path: path.absolute().parent.name or None
    if wanted == "name":
        return lambda path: word[0] if (word := _WORD.search(path.name)) else None
    if isinstance(wanted, re.Pattern):
        return lambda path: _found(wanted, path.relative_to(root).as_posix())
    if callable(wanted):
        return wanted
    raise UsageError(
        f"Unknown speaker_from={wanted!r}: use 'parent', 'name', a compiled regular expression or a function."
    )


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1 if pattern.groups else 0] if match else None


def _nothing(
    root: Path, pattern: str, asked: Collection[str] | None, recursive: bool, unreadable: list[Path]
) -> str:
    where = "and the folders below it" if recursive else "itself (recursive=True looks below)"
    what = ", ".join(sorted(asked)) if asked else f"{len(SUFFIXES)} known endings such as .wav, .flac, .mp3"
    named = "" if pattern == "*" else f" whose name fits {pattern!r}"
    blind = f" {_without(unreadable)}" if unreadable else ""
    return f"There is no audio in {shown(root)!r} {where}: looked for files{named} with {what}.{blind}"


def _without(unreadable: list[Path]) -> str:
    named = ", ".join(repr(shown(path)) for path in sorted(unreadable)[:_NAMED])
    more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    return f"Without what is in folders that cannot be read: {named}{more}."
