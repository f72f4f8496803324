"""How long a clip is, from its header and size: facts where these are certain, None where they are not.

Only a few bytes are read, so that a file may be at the other end of a link. The same duration as of the
decoder, or none: whatever is odd is left to a look at the whole file.

Sources: RIFF/WAVE (Microsoft 1994), WAVE_FORMAT_EXTENSIBLE (mmreg.h), RF64 (EBU Tech 3306), FLAC (RFC 9639,
section 8.2), Ogg (RFC 3533), Opus in Ogg (RFC 7845), Opus packets (RFC 6716, section 3.1), the Vorbis I
specification, and the Xing/Info header with its LAME extension as LAME documents it.
"""

from __future__ import annotations

import struct
from typing import IO

from voiceprint_nb import containers
from voiceprint_nb.audio import AudioFacts

OGG_HEAD_BYTES = (
    8 * 1024
)  # both Ogg headers and the first audio page's, unless there are pictures in the tags
OGG_TAIL_BYTES = 64 * 1024  # one page holds at most 65,307 bytes (RFC 3533)
_RATES_HZ = range(1_000, 1_000_001)

_WAV_SUBTYPES = {  # by (format tag, bits): those whose frames have one size
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
_EXTENSIBLE = 0xFFFE
_EXTENSIBLE_GUID = bytes.fromhex("000000001000800000aa00389b71")  # behind the two bytes of the format tag
_FLAC_SUBTYPES = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000)  # libsndfile takes the next higher one, else 48 kHz
_MP3_DECODER_DELAY = 529  # samples that a decoder adds and drops, and which the LAME padding counts


def read_facts(file: IO[bytes]) -> AudioFacts | None:
    """Facts about a WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus file; None if its header cannot tell.

    Parameters
    ----------
    file : binary file
        Of known size; its ``read`` may raise to say that bytes are not here yet.

    Raises
    ------
    RowError
        ``truncated`` or ``bad_header``.
    """
    head = _at(file, 0, 12)
    facts = None
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        facts = _wav(file, head)
    elif head[:4] == b"fLaC":
        facts = _flac(file)
    elif head[:4] == b"OggS":
        facts = _ogg(file)
    elif head[:3] == b"ID3" or containers.frame_of(head[:4]) is not None:
        facts = _mp3(file)
    certain = facts is not None and facts.duration_s > 0 and facts.sample_rate_hz in _RATES_HZ
    return facts if certain else None


def _at(file: IO[bytes], position: int, n_bytes: int) -> bytes:
    file.seek(position)
    return file.read(n_bytes)


def _wav(file: IO[bytes], head: bytes) -> AudioFacts | None:
    containers.refuse_broken(file)
    order = ">" if head[:4] == b"RIFX" else "<"
    fields, data = b"", None
    for tag, position, size in containers.wav_chunks(file):
        if tag == b"fmt ":
            fields = _at(file, position, min(size, 40))
        if tag == b"data":
            data = min(size, file.seek(0, 2) - position)
    if len(fields) < 16 or data is None:
        return None
    kind, channels, rate_hz, _, align, bits = struct.unpack(f"{order}HHIIHH", fields[:16])
    name = "RF64" if head[:4] == b"RF64" else "WAV"
    if kind == _EXTENSIBLE:
        valid_bits, _, kind = struct.unpack(f"{order}HIH", fields[18:26].ljust(8, b"\0"))
        if fields[26:] != _EXTENSIBLE_GUID or valid_bits not in (0, bits):
            return None
        name = "WAVEX" if name == "WAV" else name
    subtype = _WAV_SUBTYPES.get((kind, bits))
    if subtype is None or not channels or align != channels * bits // 8:
        return None
    return AudioFacts(name, subtype, data // align / rate_hz, rate_hz, channels)


def _flac(file: IO[bytes]) -> AudioFacts | None:
    containers.refuse_broken(file)
    packed = int.from_bytes(_at(file, 18, 8), "big")  # 20 bits rate, 3 channels, 5 sample size, 36 samples
    rate_hz, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    subtype, samples = _FLAC_SUBTYPES.get(bits), packed & (1 << 36) - 1
    if subtype is None or not samples:  # a stream of open length
        return None
    return AudioFacts("FLAC", subtype, samples / rate_hz, rate_hz, channels)


# --- Ogg ------------------------------------------------------------------------------------------------


def _ogg(file: IO[bytes]) -> AudioFacts | None:
    """Last granule position less the pre-skip, if the stream is alone in its file and begins at zero."""
    n_bytes = file.seek(0, 2)
    if n_bytes <= OGG_HEAD_BYTES + OGG_TAIL_BYTES:
        return None  # the whole tells more, and costs no more
    head = _at(file, 0, OGG_HEAD_BYTES)
    tail = _at(file, n_bytes - OGG_TAIL_BYTES, OGG_TAIL_BYTES)
    start = _first_audio_page(head)
    last = tail[max(0, tail.rfind(b"OggS")) :]
    if start is None or last[14:18] != head[14:18] or len(_payload(last)) < sum(last[27 : 27 + last[26]]):
        return None
    return _ogg_facts(_payload(head), head[start:], _granule(last))


def _ogg_facts(first: bytes, page: bytes, end: int) -> AudioFacts | None:
    """Facts by the identification header, the first page with audio, and the last granule position."""
    packets = sum(size < 255 for size in page[27 : 27 + page[26]])
    if first[:8] == b"OpusHead":
        channels, skip, rate_hz = struct.unpack("<BHI", first[9:16])
        if _granule(page) > packets * _opus_packet_samples(_payload(page)):
            return None
        rate_hz = next((rate for rate in _OPUS_RATES_HZ if 0 < rate_hz <= rate), 48_000)
        return AudioFacts("OGG", "OPUS", (end - skip) / 48_000, rate_hz, channels)
    if first[:7] == b"\x01vorbis":
        channels, rate_hz = struct.unpack("<BI", first[11:16])
        longest = (1 << (first[28] >> 4)) // 2  # samples: a packet gives at most half a long block
        if _granule(page) > packets * longest or not rate_hz:
            return None
        return AudioFacts("OGG", "VORBIS", end / rate_hz, rate_hz, channels)
    return None


def _first_audio_page(head: bytes) -> int | None:
    """Offset of the first page with audio; None if it is not here, or if there is a second stream."""
    position = 0
    while head[position : position + 4] == b"OggS" and position + 27 <= len(head):
        sizes = head[position + 27 : position + 27 + head[position + 26]]
        if head[position + 14 : position + 18] != head[14:18] or len(sizes) < head[position + 26]:
            return None
        if _granule(head[position:]) > 0:
            return position
        position += 27 + len(sizes) + sum(sizes)
    return None


def _payload(page: bytes) -> bytes:
    return page[27 + page[26] :] if len(page) > 26 else b""


def _granule(page: bytes) -> int:
    return int(struct.unpack("<q", page[6:14])[0])


def _opus_packet_samples(packet: bytes) -> int:
    """Samples at 48 kHz in an Opus packet, from its first two bytes (RFC 6716, section 3.1)."""
    if len(packet) < 2:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    else:
        frame = 480 << (config & 1) if config < 16 else 120 << (config & 3)
    return frame * (packet[1] & 63 if code == 3 else min(code, 1) + 1)


# --- MPEG audio -----------------------------------------------------------------------------------------


def _mp3(file: IO[bytes]) -> AudioFacts | None:
    position = 0
    while n_bytes := containers.id3_bytes(_at(file, position, 10)):
        position += n_bytes
    frame = containers.frame_of(_at(file, position, 4))
    if frame is None or containers.frame_of(_at(file, position + frame.n_bytes, 4)) is None:
        return None
    head = _at(file, position, min(frame.n_bytes, 200))
    announced = containers.announced_frames(head, frame.xing_offset)
    if announced is None:
        samples = _constant_rate_frames(file, position, frame) * frame.samples - _MP3_DECODER_DELAY
    else:
        samples = _announced_samples(file, position, frame, head, announced)
    duration_s = samples / frame.sample_rate_hz
    return AudioFacts("MP3", "MPEG_LAYER_III", duration_s, frame.sample_rate_hz, frame.channels)


def _announced_samples(file: IO[bytes], start: int, frame: containers.Frame, head: bytes, count: int) -> int:
    """Samples by the Xing or VBRI header; 0 unless the audio ends where it says, or a tag follows there."""
    at = frame.xing_offset
    if head[36:40] == b"VBRI":
        n_bytes, skipped = int.from_bytes(head[46:50], "big"), _MP3_DECODER_DELAY
    else:
        flags = int.from_bytes(head[at + 4 : at + 8], "big")
        n_bytes = int.from_bytes(head[at + 12 : at + 16], "big") if flags & 3 == 3 else 0
        lame = at + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
        skipped = _encoder_delay(head[lame : lame + 24].ljust(24, b"\0"))
    rest = file.seek(0, 2) - start - n_bytes
    if not n_bytes or rest < 0:
        return 0
    behind = _at(file, start + n_bytes, 4) if rest > frame.n_bytes else b"TAG"
    if behind[:3] not in (b"TAG", b"APE", b"LYR", bytes(3)):
        return 0
    return max(0, count * frame.samples - skipped)


def _encoder_delay(lame: bytes) -> int:
    """Samples that the decoder drops at both ends, as the LAME extension says; zeros where there is none."""
    delay, padding = lame[21] << 4 | lame[22] >> 4, (lame[22] & 15) << 8 | lame[23]
    return delay + _MP3_DECODER_DELAY + max(0, padding - _MP3_DECODER_DELAY)


def _constant_rate_frames(file: IO[bytes], start: int, frame: containers.Frame) -> int:
    """Number of frames if all have the first one's bit rate; 0 if the last or the middle one is elsewhere."""
    kind = _at(file, start, 4)
    reach = int(2 * frame.mean_bytes) + 160  # two frames, and an ID3v1 tag of 128 bytes
    n_bytes = file.seek(0, 2)
    end = n_bytes - 128 if _at(file, n_bytes - reach, reach)[-128:].startswith(b"TAG") else n_bytes
    last = int(end - frame.mean_bytes)
    if not any(
        _is_like(_at(file, at, 4), kind) and at + _size(file, at) == end for at in (last - 1, last, last + 1)
    ):
        return 0
    count = round((end - start) / frame.mean_bytes)
    for mean_bytes in (frame.mean_bytes, int(frame.mean_bytes)):  # padded evenly, or never
        middle = start + int(count // 2 * mean_bytes)
        if abs(end - start - count * mean_bytes) < 2 and any(
            _is_like(_at(file, at, 4), kind) for at in (middle - 1, middle, middle + 1)
        ):
            return count
    return 0


def _is_like(header: bytes, kind: bytes) -> bool:
    """Whether version, layer, bit rate and sample rate of two frame headers agree."""
    return len(header) == 4 and header[:2] == kind[:2] and header[2] & 0xFC == kind[2] & 0xFC


def _size(file: IO[bytes], at: int) -> int:
    frame = containers.frame_of(_at(file, at, 4))
    return frame.n_bytes if frame else 0
