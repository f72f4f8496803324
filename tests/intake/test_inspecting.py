"""A link is copied only where its file is needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from counted_web import Web, serving

from voiceprint_nb import audio, scratch
from voiceprint_nb.batch import inspecting
from voiceprint_nb.batch.inspecting import Inspector, check_all
from voiceprint_nb.batch.outcomes import Outcome, Request
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import clips, looking
from voiceprint_nb.intake.clips import Clip, Fit

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
SHORT, LONG = ((SAMPLES / name).read_bytes() for name in ("ada-1.wav", "ben-long.opus"))


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


def clip_of(url: str, *, fit: Fit = "error", **options: Any) -> tuple[Clip, bytes | None]:
    """The admitted clip, and its file's content, which is removed afterwards."""

    async def main() -> tuple[Clip, bytes | None]:
        async with Inspector(Request(fit=fit), **options) as inspector:
            async with inspector.clip(inspector.parse(url)) as clip:  # type: ignore[arg-type]
                data = clip.file.read_bytes() if clip.file else None
            assert not list(inspector._scratch.iterdir())
            return clip, data

    return asyncio.run(main())


def test_a_link_that_is_passed_on_is_only_looked_at(web: Web) -> None:
    asked: list[str] = []
    url = web.put(SHORT)
    clip, data = clip_of(url, passes_on=lambda url: not asked.append(url))
    assert (clip.n_bytes, clip.duration_s, clip.is_cut, data) == (len(SHORT), 3.66, False, None)
    assert (asked, web.sent) == ([url], 1100)
    with pytest.raises(TypeError):
        _ = clip.path
    again, _ = clip_of(url, passes_on=lambda _: True)
    assert again == clip


@pytest.mark.parametrize("options", [{}, {"passes_on": lambda _: False}])
def test_other_links_are_copied(web: Web, options: dict[str, Any]) -> None:
    clip, data = clip_of(web.put(SHORT), **options)
    assert (clip.duration_s, data, web.asked) == (3.66, SHORT, [None])


def test_what_a_header_cannot_tell_is_copied(web: Web) -> None:
    clip, data = clip_of(web.put(SHORT, headers={"ETag": None}), passes_on=lambda _: True)
    assert (clip.duration_s, data, len(web.asked)) == (3.66, SHORT, 2)


@pytest.mark.parametrize(("data", "looked_at"), [(SHORT, True), (LONG, False)])
def test_only_what_must_be_cut_is_copied(*, web: Web, data: bytes, looked_at: bool) -> None:
    clip, _ = clip_of(web.put(data), fit="head", passes_on=lambda _: True)
    assert (clip.file is None, clip.is_cut) == (looked_at, not looked_at)


def test_a_long_link_is_refused_by_its_header(web: Web) -> None:
    with pytest.raises(RowError) as caught:
        clip_of(web.put(LONG), passes_on=lambda _: True)
    assert (caught.value.code, caught.value.facts.duration_s) == ("too_long", 31.0)
    assert web.sent < len(LONG)


def test_a_check_only_looks(web: Web) -> None:
    def check(url: str) -> Outcome:
        return asyncio.run(check_all([url], Request(), Tally(1)))[0]

    outcome = check(web.put(SHORT))
    assert (outcome.status, outcome.duration_s, outcome.n_bytes) == ("ok", 3.66, len(SHORT))
    assert web.sent == 1100
    assert check(web.put(b"<!doctype html>")).error_code == "url_web_page"
    short = check(web.put(SHORT[:40] + (32_000).to_bytes(4, "little") + SHORT[44:32_044]))
    assert short.warning is not None and "Only 1.0 s" in short.warning


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 117164\n"


@pytest.mark.parametrize("passes_on", [None, lambda _: True])
@pytest.mark.parametrize("headers", [{}, {"ETag": None}])
def test_a_git_lfs_pointer_says_so(web: Web, passes_on: Any, headers: dict[str, Any]) -> None:
    with pytest.raises(RowError) as caught:
        clip_of(web.put(POINTER, headers=headers), passes_on=passes_on)
    assert caught.value.code == "not_audio" and "Git LFS" in str(caught.value)


def measured_links(web: Web, *, passes_on: Any) -> tuple[Clip, int]:
    """The clip of a link whose quality is asked for, and how many bytes were sent for it."""

    def embed(samples: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)

    async def main() -> Clip:
        async with Inspector(Request(embed=embed), passes_on=passes_on) as inspector:
            source: Any = inspector.parse(web.put(SHORT))
            async with inspector.clip(source) as clip:
                return clip

    return asyncio.run(main()), web.sent


def test_links_are_measured_only_where_they_are_copied(web: Web) -> None:
    clip, n_sent = measured_links(web, passes_on=lambda _: True)
    assert (clip.quality, n_sent) == (None, 1100)
    clip, n_sent = measured_links(web, passes_on=None)
    assert clip.quality is not None
    assert (clip.quality.voice_spread, n_sent) == (1.0, len(SHORT))


def test_a_check_copies_links_to_measure_them(web: Web) -> None:
    request = Request(embed=lambda samples: np.eye(2, dtype=np.float32))
    outcome = asyncio.run(check_all([web.put(SHORT)], request, Tally(1)))[0]
    assert (outcome.status, outcome.voice_spread, web.sent) == ("ok", 1.0, len(SHORT))


def checked(cells: list[Any], **options: Any) -> list[Outcome]:
    tally = Tally(len(cells))
    outcomes = asyncio.run(check_all(cells, Request(), tally, **options))
    assert tally.snapshot().ended and tally.snapshot().done == len(cells)
    return [outcomes[position] for position in range(len(cells))]


@pytest.mark.parametrize("lot_s", [0.0, 10.0])
def test_rows_checked_together_are_told_as_alone(
    web: Web, monkeypatch: pytest.MonkeyPatch, lot_s: float
) -> None:
    monkeypatch.setattr(inspecting, "_LOT_S", lot_s)
    quiet = (np.zeros(16_000, np.float32), 16_000)
    cells = [SAMPLES / "ada-1.wav", None, quiet, str(SAMPLES / "gone.wav"), web.put(SHORT), SHORT, SAMPLES]
    together = checked(cells * 40, threads=3)
    assert together == [outcome for cell in cells for outcome in checked([cell])] * 40
    assert {outcome.error_code for outcome in together} == {
        None, "empty_cell", "silent", "file_not_found", "is_directory"
    }  # fmt: skip


def test_a_check_reads_no_file_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(clips, "digest_of")
    monkeypatch.delattr(looking, "digest_of")
    outcomes = checked([SAMPLES / "ada-1.wav", SAMPLES / "ada-2.flac"])
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]


def test_a_clip_cut_for_a_check_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "new_folder", lambda: tmp_path)
    monkeypatch.setattr(inspecting.shutil, "rmtree", lambda *args, **options: None)
    outcomes = asyncio.run(check_all([SAMPLES / "ben-long.opus"] * 2, Request(fit="head"), Tally(2)))
    assert [outcome.duration_s for outcome in outcomes.values()] == [30.0, 30.0]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def flac(tmp_path: Path) -> Path:
    samples, rate_hz = soundfile.read(SAMPLES / "ada-1.wav", dtype="float32")
    soundfile.write(tmp_path / "ada.flac", samples, rate_hz)
    return tmp_path / "ada.flac"


@pytest.mark.parametrize("in_memory", [False, True])
def test_samples_are_there_while_their_clip_is(flac: Path, in_memory: bool) -> None:
    decoded = Decoded(1 << 24)

    async def main() -> None:
        async with Inspector(Request(), decoded=decoded) as inspector:
            for cell in (flac.read_bytes() if in_memory else flac,) * 2:
                async with inspector.clip(inspector.parse(cell)) as clip:  # type: ignore[arg-type]
                    assert clip.samples is None
                    np.testing.assert_array_equal(decoded._kept[clip.path], audio.read_mono(flac))
                assert decoded._kept == {}

    asyncio.run(main())


def test_a_row_that_is_stopped_leaves_no_samples(flac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, begun, go_on = Decoded(1 << 24), threading.Event(), threading.Event()
    really = audio.inspect_and_read

    def slowly(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return really(*args, **options)

    async def main() -> None:
        async with Inspector(Request(), decoded=decoded) as inspector:

            async def row() -> None:
                async with inspector.clip(inspector.parse(flac)):  # type: ignore[arg-type]
                    pass

            task = asyncio.create_task(row())
            await asyncio.to_thread(begun.wait, 20)
            task.cancel()
            await asyncio.wait([task])
            go_on.set()
            await inspector.in_thread(int)  # a thread is free again
            inspector._threads.shutdown()

    monkeypatch.setattr(audio, "inspect_and_read", slowly)
    asyncio.run(main())
    assert decoded._kept == {}


def test_samples_of_an_older_content_are_not_kept(flac: Path) -> None:
    decoded = Decoded(1 << 24)

    async def main() -> None:
        async with (
            Inspector(Request(), decoded=decoded) as inspector,
            inspector.clip(inspector.parse(flac)) as clip,  # type: ignore[arg-type]
        ):
            assert clip.path in decoded._kept
            flac.write_bytes(SHORT)  # a plain WAV, of which nothing is decoded
            async with inspector.clip(inspector.parse(flac)):  # type: ignore[arg-type]
                assert decoded._kept == {}

    asyncio.run(main())


def test_what_the_service_fetches_itself_is_not_decoded_here(web: Web, flac: Path) -> None:
    decoded = Decoded(1 << 24)

    async def n_kept(data: bytearray, *, passes_on: bool) -> int:
        async with (
            Inspector(Request(), passes_on=lambda _: passes_on, decoded=decoded) as inspector,
            inspector.clip(inspector.parse(web.put(bytes(data)))) as clip,  # type: ignore[arg-type]
        ):
            assert clip.file is not None  # its header does not tell its length
            return len(decoded._kept)

    data = bytearray(flac.read_bytes())
    data[21], data[22:26] = data[21] & 0xF0, bytes(4)  # a stream of open length
    assert asyncio.run(n_kept(data, passes_on=False)) == 1
    assert asyncio.run(n_kept(data, passes_on=True)) == 0
