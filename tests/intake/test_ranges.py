"""Links are looked at by a few bytes, and the result is that of the whole file, or none."""

from __future__ import annotations

import asyncio
import logging
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from counted_web import Web, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceprint_nb import audio, containers, contract
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import headers, ranges
from voiceprint_nb.intake.looking import RemoteFile

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
FIRST = ranges.LEAST_BYTES
OGG = headers.OGG_HEAD_BYTES + headers.OGG_TAIL_BYTES
RATE_HZ = 16_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="makes the file with ffmpeg")
Look = Callable[[str], RemoteFile | None]


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


@pytest.fixture
def look(scratch: Path) -> Look:
    async def main(url: str) -> RemoteFile | None:
        async with httpx.AsyncClient() as client:
            found = await ranges.look(url, scratch, client)
        assert not list(scratch.iterdir())
        return found

    return lambda url: asyncio.run(main(url))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    t = np.arange(12 * RATE_HZ) / RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.1, (len(t), 2))
    return (noise * np.sin(t * 6)[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory, sound: np.ndarray) -> Callable[..., bytes]:
    """Bytes of a file made by soundfile (format and subtype) or by ffmpeg (its options)."""
    folder = tmp_path_factory.mktemp("encoded")
    soundfile.write(folder / "source.wav", sound, RATE_HZ)
    made: dict[str, bytes] = {}

    def make(name: str, options: str = "", **formats: str) -> bytes:
        key = f"{name} {options} {formats}"
        if key not in made:
            path = folder / name
            if formats:
                soundfile.write(path, sound, RATE_HZ, **formats)
            else:
                command = ["ffmpeg", "-v", "error", "-y", "-i", str(folder / "source.wav"), *options.split()]
                subprocess.run([*command, str(path)], check=True)
            made[key] = path.read_bytes()
        return made[key]

    return make


def whole(data: bytes, tmp_path: Path) -> audio.AudioFacts:
    path = tmp_path / "whole"
    path.write_bytes(data)
    return audio.probe(path)


def assert_same(web: Web, look: Look, data: bytes, tmp_path: Path, *, sent: int, asked: int = 1) -> None:
    found = look(web.put(data))
    assert found is not None
    assert (found.n_bytes, found.facts) == (len(data), whole(data, tmp_path))
    assert (web.sent, len(web.asked)) == (sent, asked)


# --- what it costs, and that it is right ----------------------------------------------------------------


LARGER = [path for path in sorted(SAMPLES.iterdir()) if path.stat().st_size > FIRST]


@pytest.mark.parametrize(
    "path", [path for path in LARGER if path.suffix in (".wav", ".flac", ".mp3")], ids=lambda path: path.name
)
def test_samples_cost_one_small_request(web: Web, look: Look, tmp_path: Path, path: Path) -> None:
    assert_same(web, look, path.read_bytes(), tmp_path, sent=FIRST)


def test_an_opus_sample_costs_head_and_tail(web: Web, look: Look, tmp_path: Path) -> None:
    assert_same(web, look, (SAMPLES / "ben-long.opus").read_bytes(), tmp_path, sent=OGG, asked=3)


@pytest.mark.parametrize("name", ["ada-4.ogg", "ben-3.opus", "empty.wav", "not-audio.wav", "silent.flac"])
def test_small_files_are_left_to_a_look_at_the_whole(web: Web, look: Look, name: str) -> None:
    assert look(web.put((SAMPLES / name).read_bytes())) is None
    assert web.sent <= FIRST


@pytest.mark.parametrize("file_format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]
)
def test_every_kind_of_wav(
    *, web: Web, look: Look, tmp_path: Path, encode: Any, file_format: str, subtype: str
) -> None:
    data = encode("a", format=file_format, subtype=subtype)
    assert_same(web, look, data, tmp_path, sent=FIRST)


def test_big_endian_wav(web: Web, look: Look, tmp_path: Path, encode: Any) -> None:
    data = encode("b", format="WAV", subtype="PCM_16", endian="BIG")
    assert data[:4] == b"RIFX"
    assert_same(web, look, data, tmp_path, sent=FIRST)


def with_chunks(wav: bytes, *sizes: int, behind: int = 0) -> bytes:
    """A WAV file with odd chunks before and behind its data."""
    chunks = b"".join(b"junk" + struct.pack("<I", size) + b"\1" * (size + size % 2) for size in sizes)
    tail = b"LIST" + struct.pack("<I", behind) + bytes(behind) if behind else b""
    body = wav[12:36] + chunks + wav[36:] + tail
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


@pytest.mark.parametrize(
    ("sizes", "behind", "asked"),
    [((3,), 0, 1), ((28, 601), 4000, 1), ((200_001,), 0, 2), ((5_000, 70_000, 9), 100, 3), ((), 999, 1)],
)
def test_chunks_before_the_data_are_skipped_not_read(
    *, web: Web, look: Look, tmp_path: Path, encode: Any, sizes: tuple[int, ...], behind: int, asked: int
) -> None:
    data = with_chunks(encode("c", format="WAV", subtype="PCM_16"), *sizes, behind=behind)
    assert_same(web, look, data, tmp_path, sent=asked * FIRST, asked=asked)


def test_a_wav_of_too_many_parts_is_left(web: Web, look: Look, encode: Any) -> None:
    data = with_chunks(encode("c", format="WAV", subtype="PCM_16"), *[4_000] * 20)
    assert look(web.put(data)) is None
    assert web.sent == 8 * FIRST


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_wav_is_measured_by_the_total_size(
    *, web: Web, look: Look, tmp_path: Path, encode: Any, size: int
) -> None:
    wav = encode("c", format="WAV", subtype="PCM_16")
    assert_same(web, look, wav[:40] + struct.pack("<I", size) + wav[44:], tmp_path, sent=FIRST)


def test_a_cut_wav_is_told_by_its_size(web: Web, look: Look, encode: Any) -> None:
    with pytest.raises(RowError) as caught:
        look(web.put(encode("c", format="WAV", subtype="PCM_16")[:-2]))
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_flac_needs_42_bytes(
    *, web: Web, look: Look, tmp_path: Path, encode: Any, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "LEAST_BYTES", 42)
    assert_same(web, look, encode("f", format="FLAC", subtype=subtype), tmp_path, sent=42)


@needs_ffmpeg
@pytest.mark.parametrize(
    "options",
    ["-c:a libopus", "-c:a libopus -b:a 256k", "-c:a libopus -ar 8000 -frame_duration 60", "-c:a libvorbis",
     "-c:a libvorbis -ar 44100 -q:a 8", "-c:a libopus -b:a 96k -frame_duration 2.5 -page_duration 5000000"],
)  # fmt: skip
def test_ogg_needs_head_and_tail(*, web: Web, look: Look, tmp_path: Path, encode: Any, options: str) -> None:
    data = encode("o.ogg", options)
    if len(data) <= OGG:
        pytest.fail("too small to show anything")
    assert_same(web, look, data, tmp_path, sent=OGG, asked=3)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("options", "sent", "asked"),
    [
        ("-q:a 4", FIRST, 1),  # Xing
        ("-b:a 64k", FIRST, 1),  # Info
        ("-ar 44100 -b:a 320k", FIRST, 1),
        ("-ar 32000 -b:a 320k", 2 * FIRST, 2),  # a first frame of 1,440 bytes
        ("-q:a 4 -write_id3v1 1 -metadata title=hi", FIRST, 1),
        ("-b:a 64k -write_xing 0", 2936, 3),
        ("-ar 44100 -b:a 128k -write_xing 0", 3195, 3),
        ("-ar 44100 -ac 1 -b:a 32k -write_xing 0 -write_id3v1 1 -metadata title=hi", 2568, 3),
        ("-c:a libshine -ar 44100 -b:a 96k -write_xing 0", 2986, 3),
    ],
)
def test_mp3(
    *, web: Web, look: Look, tmp_path: Path, encode: Any, options: str, sent: int, asked: int
) -> None:
    assert_same(web, look, encode("m.mp3", options), tmp_path, sent=sent, asked=asked)


def id3(n_bytes: int) -> bytes:
    return (
        b"ID3\x03\0\0"
        + bytes(n_bytes >> shift & 127 for shift in (21, 14, 7, 0))
        + b"\xff\xfb" * (n_bytes // 2)
    )


@needs_ffmpeg
@pytest.mark.parametrize(("options", "sent", "asked"), [("-q:a 4", 2, 2), ("-b:a 64k -write_xing 0", 2, 4)])
def test_cover_art_is_skipped_not_read(
    *, web: Web, look: Look, tmp_path: Path, encode: Any, options: str, sent: int, asked: int
) -> None:
    mp3 = encode("m.mp3", options)
    data = id3(2_000_000) + mp3
    found = look(web.put(data))
    assert found is not None and found.facts == whole(data, tmp_path)
    assert (len(web.asked), web.sent // FIRST) == (asked, sent + asked // 4)


def bare(mp3: bytes) -> bytes:
    facts = containers.walk_mp3(mp3)
    assert facts is not None
    return mp3[facts.audio_start : facts.end]


def with_vbri(mp3: bytes) -> bytes:
    frames = bare(mp3)
    facts = containers.walk_mp3(frames)
    assert facts is not None
    header = frames[:2] + bytes([frames[2] & 0x0C | 0x90, frames[3]])
    first = containers.frame_of(header)
    assert first is not None
    told = struct.pack(">H4xII", 1, first.n_bytes + len(frames), facts.frames)
    return (header.ljust(36, b"\0") + b"VBRI" + told).ljust(first.n_bytes, b"\0") + frames


@needs_ffmpeg
def test_rare_mp3_headers_that_tell(web: Web, look: Look, tmp_path: Path, encode: Any) -> None:
    vbr = encode("m.mp3", "-q:a 4")
    frames = bare(vbr)
    facts = containers.walk_mp3(frames)
    assert facts is not None
    assert_same(web, look, with_vbri(vbr), tmp_path, sent=FIRST)
    assert_same(web, look, containers.with_xing(frames, facts), tmp_path, sent=FIRST)  # without LAME's part
    tagged = vbr + b"APETAGEX" + bytes(50_000)
    assert_same(web, look, tagged, tmp_path, sent=2 * FIRST, asked=2)


@needs_ffmpeg
def test_mp3_whose_header_cannot_tell(web: Web, look: Look, encode: Any) -> None:
    vbr, cbr = encode("m.mp3", "-q:a 4"), encode("m.mp3", "-b:a 64k -write_xing 0")
    other = encode("m.mp3", "-b:a 96k -write_xing 0")
    odd = {
        "no Xing": bare(vbr),
        "joined": vbr + vbr,
        "cut": vbr[:-5000],
        "cut, constant": cbr[:-50],
        "VBRI, cut": with_vbri(vbr)[:-3000],
        "zeros behind": cbr + bytes(1000),
        "two bit rates": cbr + other,
        "the same at both ends": cbr + other[:-96_000] + cbr,
        "no count": vbr.replace(b"Xing\0\0\0\x0f", b"Xing\0\0\0\x0e"),
        "one frame": cbr[:400] + bytes(5000),
    }
    assert vbr.count(b"Xing\0\0\0\x0f") == 1
    assert {name: look(web.put(data)) for name, data in odd.items()} == dict.fromkeys(odd)


def pages_of(ogg: bytes) -> list[bytes]:
    pages, at = [], 0
    while at < len(ogg):
        size = 27 + ogg[at + 26] + sum(ogg[at + 27 : at + 27 + ogg[at + 26]])
        pages.append(ogg[at : at + size])
        at += size
    return pages


@needs_ffmpeg
@pytest.mark.parametrize("options", ["-c:a libopus -b:a 128k", "-c:a libvorbis -q:a 8"])
def test_ogg_whose_ends_cannot_tell(web: Web, look: Look, tmp_path: Path, encode: Any, options: str) -> None:
    data = encode("o.ogg", options)
    pages = pages_of(data)
    other = encode("o.ogg", "-c:a libopus -b:a 256k")
    odd = {
        "chained": data + other,
        "multiplexed": pages[0] + pages_of(other)[0] + b"".join(pages[1:]) + b"".join(pages_of(other)[1:]),
        "cut": data[:-100],
        "begins late": b"".join(pages[:2] + pages[12:]) + bytes(80_000),
        "pictures in the tags": pages[0]
        + (b"OggS" + bytes(10) + data[14:18] + bytes(8) + b"\xff" * 256) * 3
        + data,
        "another codec": data.replace(b"OpusHead", b"OtusHead").replace(b"\1vorbis", b"\1varbis"),
    }
    assert {name: look(web.put(changed)) for name, changed in odd.items()} == dict.fromkeys(odd)
    assert_same(web, look, data + bytes(300), tmp_path, sent=OGG, asked=3)
    assert_same(web, look, b"".join(pages[:-1]), tmp_path, sent=OGG, asked=3)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["x.m4a", "x.webm", "x.aiff"])
def test_other_formats_are_left_after_one_request(web: Web, look: Look, encode: Any, name: str) -> None:
    assert look(web.put(encode(name))) is None
    assert (web.sent, len(web.asked)) == (FIRST, 1)


def test_headers_that_leave_the_length_open(web: Web, look: Look, encode: Any) -> None:
    flac = bytearray(encode("f", format="FLAC", subtype="PCM_16"))
    flac[21], flac[22:26] = flac[21] & 0xF0, bytes(4)
    wav = encode("c", format="WAV", subtype="PCM_16")
    odd = [
        bytes(flac),
        encode("a", format="WAV", subtype="IMA_ADPCM"),
        wav[:32] + b"\7\0" + wav[34:],  # a block size that fits no sample
        wav[:12] + wav[36:],  # no format
        wav[:24] + struct.pack("<I", 5) + wav[28:],  # 5 Hz
        wav[:22] + b"\0\0" + wav[24:],  # no channel
    ]
    assert [look(web.put(data)) for data in odd] == [None] * len(odd)


@given(
    head=st.sampled_from(
        [b"RIFF\0\0\0\0WAVE", b"RIFX\0\0\0\0WAVEfmt \0\0\0\x10", b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3\3\0\0",
         b"\xff\xfb\x90\xc4"]
    ),
    tail=st.binary(max_size=300),
    n_bytes=st.integers(0, 200_000),
)  # fmt: skip
@settings(max_examples=200, deadline=None, database=None)
def test_odd_headers_never_crash(head: bytes, tail: bytes, n_bytes: int) -> None:
    file: Any = ranges.RangedFile(n_bytes)
    data = (head + tail).ljust(n_bytes, b"\xff")[:n_bytes]
    for _ in range(200):
        try:
            facts = headers.read_facts(file)
        except ranges.Missing as missing:
            assert 0 <= missing.start < missing.stop <= n_bytes
            file.add(missing.start, data[missing.start : missing.stop])
        except RowError:
            return
        else:
            assert facts is None or facts.duration_s > 0
            return


# --- servers --------------------------------------------------------------------------------------------

WAV = (
    b"RIFF"
    + struct.pack("<I", 4_000_036)
    + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, 32_000, 2, 16)
)
WAV += b"data" + struct.pack("<I", 4_000_000) + bytes(4_000_000)


def test_a_server_without_ranges_is_left_after_the_beginning(web: Web, look: Look) -> None:
    found = look(web.put(WAV, ranges=False))
    assert found is not None and found.facts.duration_s == 125.0
    assert len(web.asked) == 1
    assert web.sent < len(WAV)  # what the sockets' buffers hold leaves it, no more


@pytest.mark.parametrize(
    "options",
    [
        {"ranges": False, "chunked": True},  # no size
        {"headers": {"ETag": None}},
        {"headers": {"ETag": 'W/"weak"'}},
        {"headers": {"Content-Range": None}},
        {"headers": {"Content-Range": "bytes 0-1099/*"}},
        {"headers": {"Content-Range": "bytes 5-1104/4000044"}},
        {"headers": {"Content-Encoding": "gzip"}},
        {"status": 416},
        {"status": 501},
        {"headers": {"Content-Length": "100"}},  # fewer than announced
    ],
    ids=str,
)
def test_answers_that_do_not_tell(web: Web, look: Look, options: dict[str, Any]) -> None:
    assert look(web.put(WAV, **options)) is None
    assert len(web.asked) == 1


def test_last_modified_is_a_version_too(web: Web, look: Look) -> None:
    date = "Mon, 05 Oct 2026 10:00:00 GMT"
    assert look(web.put(WAV, headers={"ETag": None, "Last-Modified": date})) is not None
    assert look(web.put(WAV, headers={"ETag": 'W/"weak"', "Last-Modified": date})) is not None


def test_ranges_only_where_they_are_needed(web: Web, look: Look) -> None:
    data = with_chunks(WAV, 100_000)
    assert look(web.put(data, ranges=False)) is None
    assert len(web.asked) == 1


def test_a_file_that_is_replaced_in_between(web: Web, look: Look) -> None:
    data = (SAMPLES / "ben-long.opus").read_bytes()
    assert look(web.put(data, changes=True)) is None
    assert len(web.asked) == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"status": 404}, "url_not_found"),
        ({"status": 403}, "url_refused"),
        ({"status": 500}, "url_unreachable"),
        ({"headers": {"Content-Type": "text/html"}}, "url_web_page"),
        ({"headers": {"Content-Length": None, "Location": "/clip"}, "status": 302}, "url_redirects"),
    ],
    ids=str,
)
def test_refusals_have_their_codes(web: Web, look: Look, options: dict[str, Any], code: str) -> None:
    url = web.put(WAV, **options)
    with pytest.raises(RowError) as caught:
        look(url + "?sig=s3cr3t")
    assert caught.value.code == code
    assert "s3cr3t" not in str(caught.value)


def test_redirects_are_followed(web: Web, look: Look) -> None:
    target = web.put(WAV, "target")
    first = look(web.put(b"", "clip", status=302, headers={"Location": target}))
    assert first is not None and first.facts.duration_s == 125.0
    assert (web.sent, len(web.asked)) == (FIRST, 2)


def test_the_connection_is_kept(web: Web, scratch: Path) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
            for _ in range(3):
                assert await ranges.look(url, scratch, client) is not None
            [connection] = client._transport._pool.connections  # type: ignore[attr-defined]
            assert "Request Count: 9" in repr(connection)

    url = web.put((SAMPLES / "ben-long.opus").read_bytes())
    asyncio.run(main())


def test_signed_links_are_not_logged(web: Web, look: Look, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found = look(web.put(WAV, "private-name") + "?X-Amz-Signature=s3cr3t")
    assert "s3cr3t" not in caplog.text + repr(found) and "private-name" not in caplog.text


# --- identity -------------------------------------------------------------------------------------------


def identity(web: Web, look: Look, query: str = "", **options: Any) -> str:
    found = look(web.put(WAV, **options) + query)
    assert found is not None
    return found.identity


@pytest.mark.parametrize(
    "query",
    [
        "?X-Amz-Algorithm=AWS4&X-Amz-Credential=a&X-Amz-Date=1&X-Amz-Expires=2&X-Amz-SignedHeaders=h&X-Amz-Signature=s",
        "?X-Goog-Algorithm=G&X-Goog-Signature=s&x-goog-date=1",
        "?Signature=s&Expires=1&AWSAccessKeyId=a",
        "?Policy=p&Signature=s&Key-Pair-Id=k",
        "?sv=2024-01-01&sp=r&se=2026&sr=b&sig=s&skoid=1",
        "#fragment",
    ],
)
def test_a_new_signature_is_the_same_content(web: Web, look: Look, query: str) -> None:
    assert identity(web, look) == identity(web, look, query)


def test_what_may_be_other_content_has_another_identity(web: Web, look: Look) -> None:
    date = {"Last-Modified": "Mon, 05 Oct 2026 10:00:00 GMT"}
    seen = [
        identity(web, look),
        identity(web, look, "?id=1"),
        identity(web, look, "?id=2"),
        identity(web, look, "?sv=2&se=1"),  # no signature beside them
        identity(web, look, "?Expires=1&policy=a"),
        identity(web, look, name="other"),
        identity(web, look, headers={"ETag": '"new"'}),
        identity(web, look, headers=date),
        identity(web, look, headers={"ETag": None, **date}),
    ]
    assert len(set(seen)) == len(seen)
    assert all(len(digest) == 64 for digest in seen)


def test_size_is_part_of_the_identity(web: Web, look: Look) -> None:
    same = {"ETag": '"same"'}
    wav = WAV[:40] + b"\xff" * 4 + WAV[44:]
    shorter = wav[:-4000]
    found = [look(web.put(data, headers=same)) for data in (wav, shorter)]
    assert found[0] is not None and found[1] is not None and found[0].identity != found[1].identity


def test_limits_are_those_of_the_contract() -> None:
    assert contract.MAX_BYTES > OGG > FIRST
