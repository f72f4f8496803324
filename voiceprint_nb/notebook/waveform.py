"""A recording's waveform as numbers and as SVG: pure, no files, no widgets."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.audio import Envelope
from voiceprint_nb.intake import clips

WIDTH = 720
_COLUMNS = WIDTH // 2
_BLUE = "#3b8ed0"  # seen on white and on black
_TICKS_S = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
_MOST_TICKS = 8

Window = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, repr=False)
class Outline:
    """A recording as it is drawn: 3 bytes for each 20 ms, 1 MB for two hours.

    Attributes
    ----------
    lows, highs : ndarray of shape (frames,), int8
        Extremes of each frame; 127 is the recording's peak.
    active : ndarray of shape (frames,), bool
        Which frames are speech-like.
    frame_s : float
        Length of a frame in seconds.
    """

    lows: NDArray[np.int8] = field(repr=False)
    highs: NDArray[np.int8] = field(repr=False)
    active: NDArray[np.bool_] = field(repr=False)
    frame_s: float

    @classmethod
    def of(cls, envelope: Envelope) -> Outline:
        """What is drawn of an envelope."""
        lows, highs = (
            np.nan_to_num(part, posinf=0.0, neginf=0.0) for part in (envelope.lows, envelope.highs)
        )
        peak = max(1e-9, float(np.max(highs, initial=0.0)), -float(np.min(lows, initial=0.0)))
        scaled = [np.round(part * (127 / peak)).astype(np.int8) for part in (lows, highs)]
        active = clips.speech_frames(envelope.powers, envelope.frame_s)
        return cls(scaled[0], scaled[1], active, envelope.frame_s)

    def best_start_s(self, window_s: float) -> float:
        """Start of the window with the most speech, in seconds."""
        return clips.start_of_most(self.active, self.frame_s, window_s=window_s)

    def speech_s(self, window: Window) -> float:
        """Seconds of speech within a window."""
        first, last = (round(at_s / self.frame_s) for at_s in window)
        return float(np.count_nonzero(self.active[first:last]) * self.frame_s)

    def columns(self, span: Window, n: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Least and greatest value in each of at most ``n`` equal parts of a span."""
        first, last = self._frames_of(span)
        edges = np.linspace(first, last, min(n, last - first) + 1).astype(int)[:-1]
        if not len(edges):
            return np.zeros(1, np.int8), np.zeros(1, np.int8)
        return (
            np.minimum.reduceat(self.lows[:last], edges),
            np.maximum.reduceat(self.highs[:last], edges),
        )

    def speech(self, span: Window, n: int) -> list[Window]:
        """Stretches of speech within a span, in seconds; those closer than an ``n``-th of it are one."""
        first, last = self._frames_of(span)
        steps = np.diff(np.concatenate([[0], self.active[first:last].astype(np.int8), [0]]))
        starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        if not len(starts):
            return []
        apart = starts[1:] - ends[:-1] > max(1.0, (last - first) / n)
        starts, ends = starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]
        return [
            (float((first + start) * self.frame_s), float((first + end) * self.frame_s))
            for start, end in zip(starts, ends, strict=True)
        ]

    def _frames_of(self, span: Window) -> tuple[int, int]:
        first, last = (min(max(0, round(at_s / self.frame_s)), len(self.active)) for at_s in span)
        return first, last


def clock(at_s: float, *, tenths: bool = True) -> str:
    """A time as people read it.

    Examples
    --------
    >>> clock(83.46), clock(7325.0, tenths=False)
    ('1:23.5', '2:02:05')
    """
    n_tenths = round(at_s * 10)
    hours, rest = divmod(n_tenths // 10, 3600)
    minutes, seconds = divmod(rest, 60)
    whole = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{whole}.{n_tenths % 10}" if tenths else whole


def as_svg(
    outline: Outline, *, span: Window, window: Window, title: str, height: int = 110, chosen: bool = True
) -> str:
    """Waveform of a span, speech as a row of bars below it, the window in brackets.

    Lines and letters have the colour of the text around them, so that it suits light and dark pages; what is
    outside the window is pale, and the brackets tell it without any colour.

    Parameters
    ----------
    outline : Outline
        Of the recording.
    span : (float, float)
        The part of the recording that is drawn, in seconds.
    window : (float, float)
        The chosen part.
    title : str
        What the picture is, for those who do not see it.
    height : int
        Of the waveform alone, in pixels.
    chosen : bool
        Whether the window is the user's choice; a mere proposal has broken lines.
    """
    scale = WIDTH / max(span[1] - span[0], 1e-9)
    left, right = ((min(max(at_s, span[0]), span[1]) - span[0]) * scale for at_s in window)
    box = f'x="{left:.1f}" width="{max(right - left, 0.1):.1f}" height="{height}"'
    view = f'viewBox="{left:.1f} 0 {max(right - left, 0.1):.1f} {height}" preserveAspectRatio="none"'
    wave = f'<path d="{_wave(outline, span, height)}"/>'
    dashes = "" if chosen else ' stroke-dasharray="5 4"'
    low = height - 2
    bracket = f"M{left + 7:.1f},2H{left + 1:.1f}V{low}h6M{right - 7:.1f},2H{right - 1:.1f}V{low}h-6"
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {WIDTH} {height + 34}" '
        'style="display:block;width:100%;height:auto;font:16px sans-serif" fill="currentColor" '
        'xmlns="http://www.w3.org/2000/svg">'
        f'<rect {box} fill="{_BLUE}" fill-opacity=".18"/>'
        f'<g opacity=".3">{wave}</g><svg {box} {view}>{wave}</svg>'
        f'<path d="{bracket}" fill="none" stroke="currentColor" stroke-width="2"{dashes}/>'
        f'<path d="{_bars(outline, span, scale, height + 6)}" fill="{_BLUE}"/>'
        f"{''.join(_ticks(span, scale, height + 12))}</svg>"
    )


def _wave(outline: Outline, span: Window, height: int) -> str:
    lows, highs = outline.columns(span, _COLUMNS)
    middle, reach = height / 2, height / 2 - 4
    steps = np.linspace(0, WIDTH, len(lows) + 1)
    x = (steps[:-1] + steps[1:]) / 2
    top = middle - highs / 127 * reach - 0.5
    bottom = middle - lows / 127 * reach + 0.5
    points = [*zip(x, top, strict=True), *zip(x[::-1], bottom[::-1], strict=True)]
    return "M" + "L".join(f"{at:.0f},{y:.1f}" for at, y in points) + "Z"


def _bars(outline: Outline, span: Window, scale: float, y: int) -> str:
    bars = [((a - span[0]) * scale, max((b - a) * scale, 1.0)) for a, b in outline.speech(span, _COLUMNS)]
    return "".join(f"M{x:.1f},{y}h{width:.1f}v5h-{width:.1f}z" for x, width in bars)


def _ticks(span: Window, scale: float, y: int) -> Iterator[str]:
    length_s = span[1] - span[0]
    every_s = next((step for step in _TICKS_S if length_s / step <= _MOST_TICKS), _TICKS_S[-1])
    for n in range(int(np.ceil(span[0] / every_s)), int(span[1] / every_s) + 1):
        x = (n * every_s - span[0]) * scale
        anchor = "start" if x < 20 else "end" if x > WIDTH - 20 else "middle"
        said = clock(n * every_s, tenths=every_s < 1)
        yield f'<path d="M{min(x, WIDTH - 0.5):.1f},{y}v5" stroke="currentColor"/>'
        yield f'<text x="{x:.1f}" y="{y + 18}" text-anchor="{anchor}">{said}</text>'
