"""Containers walked byte by byte, on files built byte by byte."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceprint_nb import containers
from voiceprint_nb.errors import RowError

EXAMPLES = settings(max_examples=150, deadline=None, database=None)
MONO_HEADER = b"\xff\xfb\x90\xc4"  # MPEG 1, layer III, 128 kbit/s, 44.1 kHz, mono: 417 bytes, 1152 samples
SIZE = 417


def frames(count: int) -> bytes:
    return MONO_HEADER.ljust(SIZE, b"\0") * count


def xing(count: int | None, *, tag: bytes = b"Xing") -> bytes:
    fields = struct.pack(">I", 0) if count is None else struct.pack(">II", 1, count)
    return (MONO_HEADER.ljust(4 + 17, b"\0") + tag + fields).ljust(SIZE, b"\0")


def wav(*chunks: tuple[bytes, int, bytes], order: str = "<") -> io.BytesIO:
    body = b"".join(struct.pack(f"{order}4sI", tag, size) + data for tag, size, data in chunks)
    return io.BytesIO(
        (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", len(body) + 4) + b"WAVE" + body
    )


def fmt(rate_hz: int = 16_000, *, order: str = "<") -> tuple[bytes, int, bytes]:
    return b"fmt ", 16, struct.pack(f"{order}HHIIHH", 1, 1, rate_hz, rate_hz * 2, 2, 16)


def refusal(file: io.BytesIO) -> str:
    try:
        containers.refuse_broken(file)
    except RowError as error:
        assert str(error).endswith(".")
        return error.code
    return ""


@pytest.mark.parametrize("order", ["<", ">"])
def test_wav_chunks(order: str) -> None:
    good = fmt(order=order)
    assert refusal(wav(good, (b"data", 100, bytes(100)), order=order)) == ""
    assert refusal(wav(good, (b"LIST", 3, b"abc\0"), (b"data", 100, bytes(100)), order=order)) == ""
    assert refusal(wav(good, (b"data", 101, bytes(100)), order=order)) == "truncated"
    assert refusal(wav(good, (b"data", 0, bytes(100)), order=order)) == "bad_header"
    assert refusal(wav(good, (b"data", 0, b""), order=order)) == ""
    assert refusal(wav(good, (b"data", 0xFFFFFFFF, bytes(100)), order=order)) == ""
    assert refusal(wav(fmt(0, order=order), (b"data", 100, bytes(100)), order=order)) == "bad_header"


def test_wav_chunks_are_listed_up_to_the_data() -> None:
    file = wav(fmt(), (b"LIST", 3, b"abc\0"), (b"data", 9, bytes(10)), (b"LIST", 2, b"ab"))
    assert list(containers.wav_chunks(file)) == [(b"fmt ", 20, 16), (b"LIST", 44, 3), (b"data", 56, 9)]
    ds64 = (b"ds64", 28, struct.pack("<QQQI", 0, 1 << 33, 0, 0))
    assert list(containers.wav_chunks(wav(ds64, (b"data", 0xFFFFFFFF, b""))))[1] == (b"data", 56, 1 << 33)


def test_wav_without_data_is_the_decoder_s_business() -> None:
    assert refusal(wav(fmt())) == ""
    assert refusal(wav(fmt(), (b"LIST", 4_000_000_000, b"abc"))) == ""


@pytest.mark.parametrize(("size", "code"), [(100, ""), (101, "truncated"), (1 << 40, "truncated"), (0, "")])
def test_rf64_takes_its_size_from_ds64(size: int, code: str) -> None:
    ds64 = (b"ds64", 28, struct.pack("<QQQI", 0, size, 0, 0))
    data = wav(ds64, fmt(), (b"data", 0xFFFFFFFF, bytes(100))).getvalue()
    assert refusal(io.BytesIO(b"RF64" + data[4:])) == code


@pytest.mark.parametrize(("size", "code"), [(76, ""), (77, "truncated"), (0xFFFFFFFF, "")])
def test_au(size: int, code: str) -> None:
    assert refusal(io.BytesIO(struct.pack(">4sIIIII", b".snd", 24, size, 3, 8000, 1) + bytes(76))) == code


def test_aiff_and_its_forgotten_pad_byte() -> None:
    whole = b"FORM" + struct.pack(">I", 104) + b"AIFF" + bytes(100)
    assert refusal(io.BytesIO(whole)) == refusal(io.BytesIO(whole[:-1])) == ""
    assert refusal(io.BytesIO(whole[:-2])) == "truncated"


def page(*segments: int) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))


def test_ogg_ends_with_a_whole_page() -> None:
    whole = page(30) + page(255, 10)
    assert refusal(io.BytesIO(whole)) == ""
    for n_bytes in range(len(page(30)) + 4, len(whole)):
        assert refusal(io.BytesIO(whole[:n_bytes])) == "truncated"


def test_flac_begins_with_its_facts() -> None:
    facts = bytes(10) + struct.pack(">Q", 16_000 << 44 | 15 << 36 | 1000) + bytes(16)
    assert refusal(io.BytesIO(b"fLaC\x80\0\0\x22" + facts)) == ""
    assert refusal(io.BytesIO(b"fLaC\x81\0\0\x22" + facts)) == "bad_header"
    assert refusal(io.BytesIO(b"fLaC\x80\0\0\x22" + facts[:20])) == "bad_header"
    assert refusal(io.BytesIO(b"fLaC\x80\0\0\x22" + bytes(34))) == "bad_header"


@given(
    head=st.sampled_from(
        [b"RIFF\0\0\0\0WAVE", b"RF64\xff\xff\xff\xffWAVE", b"FORM", b".snd", b"OggS", b"fLaC", b""]
    ),
    tail=st.binary(max_size=300),
)
@EXAMPLES
def test_only_row_errors_come_out(head: bytes, tail: bytes) -> None:
    refusal(io.BytesIO(head + tail))


# --- MPEG audio -----------------------------------------------------------------------------------------


def walked(data: bytes) -> containers.Mp3Facts:
    facts = containers.walk_mp3(data)
    assert facts is not None
    return facts


def test_frames_are_counted() -> None:
    facts = walked(frames(10))
    assert (facts.frames, facts.announced_frames, facts.cut, facts.is_measured) == (10, None, False, False)
    assert facts.duration_s == 10 * 1152 / 44_100


@pytest.mark.parametrize("tag", [b"Xing", b"Info"])
def test_the_xing_frame_is_no_audio(tag: bytes) -> None:
    facts = walked(xing(10, tag=tag) + frames(10))
    assert (facts.frames, facts.announced_frames, facts.is_measured) == (10, 10, True)
    assert (facts.start, facts.audio_start) == (0, SIZE)
    assert not walked(xing(None) + frames(10)).is_measured


def test_a_vbri_header_counts_too() -> None:
    vbri = (MONO_HEADER.ljust(36, b"\0") + b"VBRI" + bytes(10) + struct.pack(">I", 10)).ljust(SIZE, b"\0")
    facts = walked(vbri + frames(10))
    assert (facts.announced_frames, facts.cut, facts.is_measured) == (10, False, False)
    assert walked(vbri + frames(8)).cut
    renewed = walked(containers.with_xing(vbri + frames(10), facts))  # which libsndfile reads
    assert (renewed.frames, renewed.is_measured) == (10, True)


@pytest.mark.parametrize("flags", [0, 0x10])  # a footer
def test_tags_in_a_row_are_skipped(flags: int) -> None:
    tag = b"ID3\x04\0" + bytes([flags, 0, 0, 1, 2]) + bytes(130 + (10 if flags else 0))
    assert containers.id3_bytes(tag[:10]) == len(tag)
    assert (walked(tag + tag + frames(6)).start, walked(tag + tag + frames(6)).frames) == (2 * len(tag), 6)
    assert containers.id3_bytes(tag[:9]) == containers.id3_bytes(frames(1)[:10]) == 0


@pytest.mark.parametrize(
    ("announced", "measured", "cut"),
    [(8, False, False), (9, True, False), (10, True, False), (11, True, False), (12, False, True)],
)
def test_one_frame_more_or_less_is_no_contradiction(announced: int, measured: bool, cut: bool) -> None:
    facts = walked(xing(announced) + frames(10))
    assert (facts.is_measured, facts.cut) == (measured, cut)


@given(n_bytes=st.integers(SIZE + 4, 10 * SIZE))
@EXAMPLES
def test_a_cut_frame_shows(n_bytes: int) -> None:
    facts = walked(frames(10)[:n_bytes])
    assert facts.frames == n_bytes // SIZE
    assert facts.cut == (n_bytes % SIZE >= 4)


@given(
    before=st.integers(0, 5000),
    between=st.integers(0, 5000),
    after=st.integers(0, 5000),
    filler=st.sampled_from([b"\0", b"\xff", b"\xe3"]),
)
@EXAMPLES
def test_what_lies_between_frames_is_skipped(before: int, between: int, after: int, filler: bytes) -> None:
    data = filler * before + frames(6) + filler * between + frames(5) + filler * after
    facts = walked(data)
    assert (facts.frames, facts.start, facts.end, facts.cut) == (11, before, len(data) - after, False)


def test_garbage_behind_the_xing_frame() -> None:
    data = xing(99) + bytes(100) + frames(6)
    assert walked(containers.with_xing(data, walked(data))).frames == 6


def test_a_lone_sync_word_in_a_tag_is_no_frame() -> None:
    tag = b"APETAGEX" + (MONO_HEADER + bytes(300)) * 5
    assert walked(frames(6) + tag).frames == 6


@given(data=st.binary(max_size=2000) | st.binary(max_size=400).map(lambda tail: b"ID3\x04\0\x10" + tail))
@EXAMPLES
def test_walking_never_crashes_and_ends(data: bytes) -> None:
    facts = containers.walk_mp3(data)
    assert facts is None or facts.frames >= 0


@pytest.mark.parametrize("before", [b"", xing(99)])
def test_a_new_xing_header_tells_the_truth(before: bytes) -> None:
    data = before + frames(12)
    renewed = containers.with_xing(data, walked(data))
    facts = walked(renewed)
    assert (facts.frames, facts.announced_frames, facts.is_measured) == (12, 12, True)
    assert renewed.endswith(frames(12))


# --- formats that only ffmpeg reads ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypmp42", "MP4/M4A"),
        (b"\x1aE\xdf\xa3\x01", "WebM/Matroska"),
        (b"\x30\x26\xb2\x75\x8e\x66", "WMA"),
        (b"#!AMR\n", "AMR"),
        (b"\xff\xf1\x50\x80", "AAC"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"\xff\xfb\x90\xc4", None),
        (b"", None),
    ],
)
def test_kinds_are_told_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert containers.ffmpeg_kind(head) == kind
