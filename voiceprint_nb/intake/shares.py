"""Share links, which open a page with a player, become links to the file itself; pure, no I/O.

Sources: Dropbox help, "Force a file or folder to download" (``dl=1``); Google Drive's own download button;
GitHub docs, "Viewing and understanding files" (raw). For OneDrive only its API is documented, which asks for
a login; the older ``api.onedrive.com/v1.0/shares`` answers without one for some accounts and 401 for others,
so that its links are refused rather than tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from voiceprint_nb.errors import RowError

_DRIVE_FILE = re.compile(r"/(?:a/[^/]+/)?file/(?:u/\d+/)?d/([\w-]{10,})(?:/\w*)?")
_DRIVE_ID = re.compile(r"[\w-]{10,}")
_DRIVE_FOLDER = re.compile(r"/(?:a/[^/]+/)?drive/(?:u/\d+/)?(?:mobile/)?folders/.+|/folderview")
_GOOGLE_DOCUMENT = re.compile(r"/(?:a/[^/]+/)?(document|spreadsheets|presentation|forms|drawings)/.*")
_GITHUB = re.compile(r"/([\w.-]+/[\w.-]+)/(blob|tree)/(.+)")
_SHAREPOINT = re.compile(r"/:\w:/.+")
_NO_DIRECT_LINK = (
    "{} gives no link to the file itself that works without a login: download the file and use its path, or "
    "share it by another service."
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_PAGES = {  # by the host of the direct link: why it answers with a page after all
    "drive.usercontent.google.com": "Google Drive answers with a page instead of the file, because it is not "
    "shared with everyone who has the link, or so large that a person must confirm the download",
    "www.dropbox.com": "Dropbox answers with a page instead of the file, because the link was withdrawn, has "
    "expired or asks for a password",
}


def direct(url: str) -> str:
    """The link to the file behind a share link; any other address as it is.

    Parameters
    ----------
    url : str
        A valid http or https address. One with a login or a port in it is no share link.

    Raises
    ------
    RowError
        ``url_web_page`` for links to folders and documents, and for all of OneDrive and SharePoint.
    """
    parts = urlsplit(url)
    host = parts.netloc.lower()  # netloc, so that a login or a port makes a difference
    rewrite = _sharepoint if host.endswith(".sharepoint.com") else _HOSTS.get(host)
    found = rewrite(parts) if rewrite else None
    return url if found is None else found


def refuse_pointer(head: bytes) -> None:
    """Raise `RowError` ``not_audio`` if a file's first bytes are those of a Git LFS pointer."""
    if head.startswith(_LFS_POINTER):
        raise RowError(
            "not_audio",
            "The link gives a Git LFS pointer, not the file: replace raw.githubusercontent.com/ by "
            "media.githubusercontent.com/media/ in it, or download the file.",
        )


def explained(error: RowError, url: str) -> RowError:
    """The error with the reason why a service that shares files answers with a web page."""
    reason = _PAGES.get(urlsplit(url).netloc.lower())
    if error.code != "url_web_page" or reason is None:
        return error
    return RowError(error.code, f"{reason}: share it anew, or download the file.")


def _page(what: str, remedy: str) -> RowError:
    return RowError("url_web_page", f"The link leads to {what}, not to an audio file: {remedy}.")


def _dropbox(parts: SplitResult) -> str | None:
    kind, *rest = parts.path.strip("/").removeprefix("scl/").split("/")
    is_file = kind in ("s", "fi") or (kind in ("sh", "fo") and len(rest) > 2 and "." in rest[-1])
    if kind in ("sh", "fo", "home") and not is_file:
        raise _page("a Dropbox folder", "share each file in it and use these links")
    if not is_file or not rest:
        return None
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("dl", "raw")]
    return f"https://www.dropbox.com{parts.path}?{urlencode([*kept, ('dl', '1')])}"


def _google(parts: SplitResult) -> str | None:
    query = dict(parse_qsl(parts.query))
    if _DRIVE_FOLDER.fullmatch(parts.path):
        raise _page("a Google Drive folder", "share each file in it and use these links")
    if match := _GOOGLE_DOCUMENT.fullmatch(parts.path):
        raise _page(f"a Google page ({match[1]})", "use the link of the recording")
    match = _DRIVE_FILE.fullmatch(parts.path)
    file_id = match[1] if match else query.get("id", "") if parts.path in ("/open", "/uc") else ""
    if not _DRIVE_ID.fullmatch(file_id):
        return None
    kept = {"resourcekey": query["resourcekey"]} if "resourcekey" in query else {}
    told = urlencode({"id": file_id, "export": "download", **kept})
    return f"https://drive.usercontent.google.com/download?{told}"


def _onedrive(parts: SplitResult) -> str | None:
    if parts.path == "/download":
        return None
    raise RowError("url_web_page", _NO_DIRECT_LINK.format("OneDrive"))


def _sharepoint(parts: SplitResult) -> str | None:
    if not _SHAREPOINT.fullmatch(parts.path):
        return None
    raise RowError("url_web_page", _NO_DIRECT_LINK.format("SharePoint (OneDrive for work or school)"))


def _github(parts: SplitResult) -> str | None:
    match = _GITHUB.fullmatch(parts.path)
    if match is None:
        return None
    if match[2] == "tree":
        raise _page("a folder on GitHub", "use the links of the files in it")
    return f"https://raw.githubusercontent.com/{match[1]}/{match[3]}"


_HOSTS: dict[str, Callable[[SplitResult], str | None]] = {
    "dropbox.com": _dropbox,
    "www.dropbox.com": _dropbox,
    "drive.google.com": _google,
    "docs.google.com": _google,
    "1drv.ms": _onedrive,
    "onedrive.live.com": _onedrive,
    "github.com": _github,
    "www.github.com": _github,
}
