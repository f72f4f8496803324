"""Share links become links to the file, or are refused with the reason; all others stay as they are."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import shares, sources

DRIVE = "https://drive.usercontent.google.com/download?id=1aB-c_D2e3F4g5&export=download"
RAW = "https://raw.githubusercontent.com/ada/voices/main/a%20b/clip.wav"


@pytest.mark.parametrize(
    ("share", "url"),
    [
        ("https://www.dropbox.com/s/abc123/clip.wav?dl=0", "https://www.dropbox.com/s/abc123/clip.wav?dl=1"),
        ("https://dropbox.com/s/abc123/clip.wav", "https://www.dropbox.com/s/abc123/clip.wav?dl=1"),
        ("http://www.dropbox.com/s/abc123/clip.wav?raw=1", "https://www.dropbox.com/s/abc123/clip.wav?dl=1"),
        (
            "https://www.dropbox.com/scl/fi/abc/a%20b.wav?rlkey=x1&st=y&dl=0#t=3",
            "https://www.dropbox.com/scl/fi/abc/a%20b.wav?rlkey=x1&st=y&dl=1",
        ),
        (
            "https://www.dropbox.com/scl/fo/abc/hash/sub/clip.wav?rlkey=x1&dl=0",
            "https://www.dropbox.com/scl/fo/abc/hash/sub/clip.wav?rlkey=x1&dl=1",
        ),
        ("https://www.dropbox.com/sh/abc/key/a.mp3", "https://www.dropbox.com/sh/abc/key/a.mp3?dl=1"),
        ("https://drive.google.com/file/d/1aB-c_D2e3F4g5/view?usp=sharing", DRIVE),
        ("https://drive.google.com/file/d/1aB-c_D2e3F4g5", DRIVE),
        ("https://drive.google.com/file/u/0/d/1aB-c_D2e3F4g5/edit", DRIVE),
        ("https://drive.google.com/a/example.org/file/d/1aB-c_D2e3F4g5/preview", DRIVE),
        ("https://drive.google.com/open?id=1aB-c_D2e3F4g5&authuser=0", DRIVE),
        ("https://drive.google.com/uc?export=view&id=1aB-c_D2e3F4g5", DRIVE),
        ("https://docs.google.com/uc?id=1aB-c_D2e3F4g5&export=download", DRIVE),
        ("https://DRIVE.google.com/file/d/1aB-c_D2e3F4g5/view#x", DRIVE),
        (
            "https://drive.google.com/file/d/1aB-c_D2e3F4g5/view?resourcekey=0-k",
            DRIVE + "&resourcekey=0-k",
        ),
        ("https://github.com/ada/voices/blob/main/a%20b/clip.wav", RAW),
        ("https://github.com/ada/voices/blob/main/a%20b/clip.wav?raw=true#L1", RAW),
        ("http://www.github.com/ada/voices/blob/main/a%20b/clip.wav?plain=1", RAW),
        (
            "https://github.com/a/b/blob/feature/x/c.wav",
            "https://raw.githubusercontent.com/a/b/feature/x/c.wav",
        ),
    ],
)
def test_share_links_are_rewritten(share: str, url: str) -> None:
    assert shares.direct(share) == url
    assert sources.parse(share) == sources.UrlSource(url)
    assert shares.direct(url) == url  # a direct link is its own


@pytest.mark.parametrize(
    ("share", "what"),
    [
        ("https://www.dropbox.com/sh/abc/key?dl=0", "Dropbox folder"),
        ("https://www.dropbox.com/scl/fo/abc/h?rlkey=x&dl=0", "Dropbox folder"),
        ("https://www.dropbox.com/home/voices", "Dropbox folder"),
        ("https://drive.google.com/drive/folders/1aB-c_D2e3F4g5?usp=sharing", "Google Drive folder"),
        ("https://drive.google.com/drive/u/1/folders/1aB-c_D2e3F4g5", "Google Drive folder"),
        ("https://drive.google.com/folderview?id=1aB-c_D2e3F4g5", "Google Drive folder"),
        ("https://docs.google.com/document/d/1aB-c_D2e3F4g5/edit", "document"),
        ("https://docs.google.com/spreadsheets/d/1aB-c_D2e3F4g5", "spreadsheets"),
        ("https://1drv.ms/u/s!AkSecret", "OneDrive"),
        ("https://acme-my.sharepoint.com/:u:/g/personal/ann/EZsecret?e=a1", "SharePoint"),
        ("https://onedrive.live.com/?authkey=!secret&id=1", "OneDrive"),
        ("https://github.com/ada/voices/tree/main/clips", "folder on GitHub"),
    ],
)
def test_links_that_lead_to_no_file_are_refused(share: str, what: str) -> None:
    with pytest.raises(RowError) as caught:
        sources.parse(share)
    sentence = str(caught.value)
    assert caught.value.code == "url_web_page"
    assert what in sentence and ": " in sentence and sentence.endswith(".") and "ecret" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "https://evil-dropbox.com/s/abc/clip.wav?dl=0",
        "https://www.dropbox.com.evil.org/s/abc/clip.wav",
        "https://evil.org/www.dropbox.com/s/abc/clip.wav?dl=0",
        "https://evil.org/?u=https://www.dropbox.com/s/abc/clip.wav",
        "https://evil.org/#https://www.dropbox.com/s/abc/clip.wav",
        "https://www.dropbox.com@evil.org/s/abc/clip.wav",
        "https://ada:pass@www.dropbox.com/s/abc/clip.wav",
        "https://www.dropbox.com:8443/s/abc/clip.wav",
        "https://www.dropbox.com/",
        "https://www.dropbox.com/s",
        "https://www.dropbox.com/paper/scl/fi",
        "https://dl.dropboxusercontent.com/s/abc/clip.wav?dl=0",
        "https://mydrive.google.com/file/d/1aB-c_D2e3F4g5/view",
        "https://drive.google.com/file/d/short/view",
        "https://drive.google.com/open",
        "https://drive.google.com/file/d/1aB-c_D2e3F4g5/view/more",
        "https://onedrive.live.com/download?resid=1&authkey=k",
        "https://not1drv.ms/u/s!Ak",
        "https://acme.sharepoint.com/sites/a/Shared/clip.wav",
        "https://github.com/ada/voices",
        "https://github.com/ada/voices/raw/main/clip.wav",
        "https://github.com/ada/voices/releases/download/v1/clip.wav",
        "https://gist.github.com/ada/blob/main/clip.wav",
        "https://github.company.com/ada/voices/blob/main/clip.wav",
        "https://example.org/clip.wav?dl=0#t=1",
    ],
)
def test_other_links_stay_untouched(url: str) -> None:
    assert shares.direct(url) == url


@given(
    host=st.sampled_from([*shares._HOSTS, "example.org"]),
    rest=st.text(st.sampled_from("/sdfiohclblobtreedrivefoldersfile.?=&#id%:@_-1aB "), max_size=60),
)
@settings(max_examples=300, deadline=None, database=None)
def test_any_link_gives_a_link_or_a_row_error(host: str, rest: str) -> None:
    try:
        source = sources.parse(f"https://{host}/{rest}")
    except RowError as error:
        assert error.code in ("url_web_page", "url_unreachable")
    else:
        assert isinstance(source, sources.UrlSource)
        known = {host, "www.dropbox.com", "drive.usercontent.google.com", "raw.githubusercontent.com"}
        assert urlsplit(source.url).hostname in known


def test_a_page_in_place_of_a_file_is_explained() -> None:
    page = RowError("url_web_page", "A page.")
    said = str(shares.explained(page, DRIVE))
    assert "confirm the download" in said and ": " in said and said.endswith(".")
    assert "password" in str(shares.explained(page, "https://www.dropbox.com/s/a/b?dl=1"))
    assert shares.explained(page, "https://example.org/a") is page
    other = RowError("url_not_found", "Nothing.")
    assert shares.explained(other, DRIVE) is other
