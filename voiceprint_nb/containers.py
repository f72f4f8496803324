"""What the bytes of an audio file say that libsndfile does not: cut-off files, unmeasured MP3, empty headers.

libsndfile 1.2 shortens a cut WAV without a word, reads a WAV whose data size says 0 as empty, and guesses
the length of an MP3 without a Xing header from its first frame (and then drops the tail). This module walks
the containers itself. No decoding, no audio library.

Sources: RIFF/WAVE (Microsoft 1994), AIFF (Apple 1989), Ogg (RFC 3533), FLAC (RFC 9639), MPEG audio frame
headers (ISO 11172-3, 13818-3) and the Xing/Info header as LAME documents it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from voiceprint_nb.errors import RowError

HEAD_BYTES = 64 * 1024
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")  # of WAVE_FORMAT_EXTENSIBLE (mmreg.h)
_EXTENSIBLE = 0xFFFE
_PLAIN_HEAD, _CHUNK = struct.Struct("<4sI4s4sIHHIIHH"), struct.Struct("<4sI")
_STREAMED_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFF00)  # writers that could not seek back leave these

_FFMPEG_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "MP4/M4A"),
    (0, b"\x1aE\xdf\xa3", "WebM/Matroska"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"#!AMR", "AMR"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"caff\0\1\0\0desc" + bytes(7) + b"\x20@\xe5\x88\x80" + bytes(4) + b"aac ", "CAF/AAC"),
)


def ffmpeg_kind(head: bytes) -> str | None:
    """Name of a format that only ffmpeg reads, told by the first bytes; None for all others."""
    for offset, magic, name in _FFMPEG_KINDS:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def refuse_broken(file: IO[bytes]) -> None:
    """Raise `RowError` for a container that contradicts itself or ends too early.

    Formats that are not walked here pass; the decoder has the last word on them.
    """
    n_bytes = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        _walk_wav(file, n_bytes, order=">" if head[:4] == b"RIFX" else "<")
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        if 8 + struct.unpack(">I", head[4:8])[0] > n_bytes + 1:
            raise _cut("AIFF", n_bytes)
    elif head[:4] == b".snd" and len(head) == 12:
        offset, size = struct.unpack(">II", head[4:])
        if size not in _STREAMED_SIZES and offset + size > n_bytes:
            raise _cut("AU", n_bytes)
    elif head[:4] == b"OggS":
        _walk_ogg_end(file, n_bytes)
    elif head[:4] == b"fLaC":
        _look_at_flac(file)


def _cut(kind: str, n_bytes: int) -> RowError:
    return RowError(
        "truncated",
        f"The {kind} file ends before its audio does ({n_bytes} bytes are there): copy or download it again.",
    )


def wav_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Tag, offset and size of each chunk of a WAV file, the size of ``data`` taken from ``ds64`` if need be.

    Only the chunks' heads are read. Ends with ``data``, or where no further chunk fits.
    """
    n_bytes = file.seek(0, 2)
    file.seek(0)
    order = ">" if file.read(4) == b"RIFX" else "<"
    position, long_size = 12, None
    while position + 8 <= n_bytes:
        file.seek(position)
        tag, size = struct.unpack(f"{order}4sI", file.read(8))
        if tag == b"ds64":
            fields = file.read(16)
            long_size = struct.unpack("<Q", fields[8:])[0] if len(fields) == 16 else None
        if tag == b"data" and size == 0xFFFFFFFF and long_size:
            size = min(long_size, 1 << 62)
        yield tag, position + 8, size
        if tag == b"data":
            return
        position += 8 + size + (size & 1)


class PlainWav(NamedTuple):
    """A WAV file that holds nothing odd: whole PCM samples of 16, 24 or 32 bits up to its end.

    Attributes
    ----------
    sample_rate_hz, channels, sample_bytes : int
        As stored in the file.
    start, frames : int
        Offset of the first sample, and how many there are of each channel.
    is_extensible : bool
        Whether the header is a WAVE_FORMAT_EXTENSIBLE.
    """

    sample_rate_hz: int
    channels: int
    sample_bytes: int
    start: int
    frames: int
    is_extensible: bool


def plain_wav(head: bytes, n_bytes: int) -> PlainWav | None:
    """Read the header of the usual kind of WAV file; None for all others, whatever is wrong with them.

    Parameters
    ----------
    head : bytes
        The file's first bytes, some hundreds.
    n_bytes : int
        Its size.
    """
    if len(head) < _PLAIN_HEAD.size:
        return None
    riff, riff_bytes, wave, tag, fmt_bytes, kind, channels, rate_hz, rate_bytes, align, bits = (
        _PLAIN_HEAD.unpack_from(head)
    )
    is_riff = riff == b"RIFF" and wave == b"WAVE" and tag == b"fmt " and riff_bytes + 8 == n_bytes
    is_extensible = kind == _EXTENSIBLE and fmt_bytes == 40
    if is_extensible:
        is_pcm = head[36:40] == struct.pack("<HH", 22, bits) and head[44:60] == PCM_GUID
    else:
        is_pcm = kind == 1 and fmt_bytes == 16
    is_even = align == channels * bits // 8 > 0 and rate_bytes == rate_hz * align
    if not (is_riff and is_pcm and is_even and bits in (16, 24, 32)):
        return None
    position = 20 + fmt_bytes
    while len(head) >= position + _CHUNK.size:
        tag, size = _CHUNK.unpack_from(head, position)
        position += _CHUNK.size
        if tag == b"data":
            is_whole = size % align == 0 and 0 < size == n_bytes - position
            found = PlainWav(rate_hz, channels, bits // 8, position, size // align, is_extensible)
            return found if is_whole else None
        if tag not in (b"LIST", b"fact"):
            return None
        position += size + (size & 1)
    return None


def _walk_wav(file: IO[bytes], n_bytes: int, *, order: str) -> None:
    for tag, position, size in wav_chunks(file):
        if tag == b"fmt ":
            file.seek(position)
            fields = file.read(16)
            if len(fields) == 16 and struct.unpack(f"{order}I", fields[4:8])[0] == 0:
                raise RowError("bad_header", "The WAV header says 0 Hz: export the clip again.")
        if tag == b"data":
            rest = n_bytes - position
            if size == 0 and rest > 8:
                raise RowError(
                    "bad_header",
                    f"The WAV header says there is no audio, yet {rest} bytes follow: the recorder did not "
                    "finish the file; open it in an audio editor and save it again.",
                )
            if size > rest and size not in _STREAMED_SIZES:
                raise _cut("WAV", n_bytes)


def _walk_ogg_end(file: IO[bytes], n_bytes: int) -> None:
    file.seek(max(0, n_bytes - 2 * HEAD_BYTES))  # one page holds at most 65,307 bytes (RFC 3533)
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        raise _cut("Ogg", n_bytes)


def _look_at_flac(file: IO[bytes]) -> None:
    file.seek(4)
    block = file.read(4 + 34)
    if len(block) < 38 or block[0] & 0x7F != 0:
        raise RowError("bad_header", "The FLAC file does not begin with its stream facts: export it again.")
    if (block[14] << 12 | block[15] << 4 | block[16] >> 4) == 0:
        raise RowError("bad_header", "The FLAC header says 0 Hz: export the clip again.")


# --- MPEG audio -----------------------------------------------------------------------------------------

_BITRATES_KBPS = {  # by (MPEG version 1?, layer); index 0 (free) and 15 are not accepted
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class Mp3Facts:
    """What a walk over all frames of an MP3 file found.

    Attributes
    ----------
    frames : int
        Whole audio frames, without the Xing frame.
    samples_per_frame, sample_rate_hz : int
        Of the first frame.
    first_frame : bytes
        The four header bytes of the first frame.
    start, audio_start, end : int
        Offsets of the first frame, which may be the Xing frame, of what follows that one, and of what
        follows the last frame.
    announced_frames : int or None
        Frames that the Xing header announces; None without one, 0 if it leaves them open.
    cut : bool
        Whether the last frame is incomplete or announced frames are missing.
    has_vbri : bool
        Whether it is a VBRI header that announces them, which libsndfile does not read.
    """

    frames: int
    samples_per_frame: int
    sample_rate_hz: int
    first_frame: bytes
    start: int
    audio_start: int
    end: int
    announced_frames: int | None
    cut: bool
    has_vbri: bool

    @property
    def is_measured(self) -> bool:
        """Whether the Xing header tells how many frames there are; some encoders count its own."""
        announced = 0 if self.has_vbri else self.announced_frames
        return bool(announced) and abs(self.frames - (announced or 0)) <= 1

    @property
    def duration_s(self) -> float:
        """Length in seconds, encoder padding included."""
        return self.frames * self.samples_per_frame / self.sample_rate_hz


@dataclass(frozen=True)
class Frame:
    """What the header of an MPEG layer III frame says; those of one bit rate differ by a byte of padding."""

    n_bytes: int
    mean_bytes: float
    samples: int
    sample_rate_hz: int
    channels: int
    xing_offset: int


def frame_of(header: bytes) -> Frame | None:
    """Read the header of one MPEG layer III frame, or None if these four bytes are not one."""
    word = int.from_bytes(header, "big")
    version, layer, rate_index = (word >> 19) & 3, (word >> 17) & 3, (word >> 10) & 3
    bitrate_index = (word >> 12) & 15
    if word >> 21 != 0x7FF or version == 1 or layer != 1 or rate_index == 3 or bitrate_index in (0, 15):
        return None
    first = version == 3
    rate_hz = _RATES_HZ[version][rate_index]
    samples = 1152 if first else 576
    mean_bytes = samples // 8 * _BITRATES_KBPS[first, 3][bitrate_index] * 1000 / rate_hz
    n_bytes = int(mean_bytes) + ((word >> 9) & 1)
    mono = (word >> 6) & 3 == 3
    side_bytes = (17 if mono else 32) if first else (9 if mono else 17)
    return Frame(n_bytes, mean_bytes, samples, rate_hz, 1 if mono else 2, 4 + side_bytes)


def walk_mp3(data: bytes) -> Mp3Facts | None:
    """Count the frames of an MP3 file held in memory; None if it is not MPEG layer III.

    Tags before (ID3v2) and behind (ID3v1, APE, Lyrics3, zeros) the frames are skipped, and so is what lies
    between them, as where two files were joined.
    """
    start = first_frame(data)
    if start is None or (head := frame_of(data[start : start + 4])) is None:
        return None
    announced = announced_frames(data[start : start + head.n_bytes], head.xing_offset)
    position = start + (head.n_bytes if announced is not None else 0)
    audio_start, end, frames, cut = position, position, 0, False
    while position < len(data):
        if (frame := frame_of(data[position : position + 4])) is None:
            found = _next_frames(data, position, data[start : start + 4])
            if found is None:
                break
            position = found
        elif position + frame.n_bytes > len(data):
            cut = True
            break
        else:
            frames += 1
            end = position = position + frame.n_bytes
    return Mp3Facts(
        frames=frames,
        samples_per_frame=head.samples,
        sample_rate_hz=head.sample_rate_hz,
        first_frame=data[start : start + 4],
        start=start,
        audio_start=audio_start,
        end=end,
        announced_frames=announced,
        cut=cut or bool(announced and frames + 1 < announced),
        has_vbri=data[start + 36 : start + 40] == b"VBRI",
    )


def id3_bytes(head: bytes) -> int:
    """Size of the ID3v2 tag that begins with these 10 bytes; 0 if none does."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127)
    return 10 + size + (10 if head[5] & 0x10 else 0)


def first_frame(data: bytes) -> int | None:
    """Offset of the first header that another frame follows directly (or that ends the file)."""
    start = 0
    while n_bytes := id3_bytes(data[start : start + 10]):
        start += n_bytes
    for offset in range(start, min(len(data) - 4, start + HEAD_BYTES)):
        if data[offset] != 0xFF:
            continue
        if (frame := frame_of(data[offset : offset + 4])) is None:
            continue
        after = offset + frame.n_bytes
        if after >= len(data) or frame_of(data[after : after + 4]) is not None:
            return offset
    return None


def _next_frames(data: bytes, position: int, like: bytes) -> int | None:
    """Offset of the next three frames in a row of the same kind, within the reach of a decoder."""
    for offset in range(position, min(len(data) - 4, position + HEAD_BYTES)):
        if data[offset] != 0xFF:
            continue
        at: int | None = offset
        for _ in range(3):
            header = data[at : at + 4] if at is not None else b""
            frame = frame_of(header) if _same_kind(header, like) else None
            at = at + frame.n_bytes if frame is not None and at is not None else None
        if at is not None and at <= len(data):
            return offset
    return None


def _same_kind(header: bytes, like: bytes) -> bool:
    """Whether version, layer and sample rate of two frame headers agree."""
    return len(header) == 4 and header[1] & 0xFE == like[1] & 0xFE and header[2] & 0x0C == like[2] & 0x0C


def announced_frames(frame: bytes, xing_offset: int) -> int | None:
    """Frames that a Xing or VBRI header announces: None without one, 0 if it leaves them open."""
    tag = frame[xing_offset : xing_offset + 4]
    if tag in (b"Xing", b"Info"):
        flags = int.from_bytes(frame[xing_offset + 4 : xing_offset + 8], "big")
        return int.from_bytes(frame[xing_offset + 8 : xing_offset + 12], "big") if flags & 1 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def with_xing(data: bytes, facts: Mp3Facts) -> bytes:
    """The frames with a Xing header in front, so that a decoder knows their number and reads the tail."""
    word = int.from_bytes(facts.first_frame, "big")
    word = word & ~(0xF << 12) & ~(1 << 9) | 9 << 12 | 1 << 16  # bitrate index 9, no padding, no CRC
    header = word.to_bytes(4, "big")
    frame = frame_of(header)
    if frame is None:
        raise ValueError("not the header of an MPEG layer III frame")
    audio = data[facts.audio_start : facts.end]
    xing = b"Xing" + struct.pack(">III", 3, facts.frames, frame.n_bytes + len(audio))
    return (header.ljust(frame.xing_offset, b"\0") + xing).ljust(frame.n_bytes, b"\0") + audio
