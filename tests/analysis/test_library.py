from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb.analysis import matching
from voiceprint_nb.analysis.trials import Scoring, person_scores
from voiceprint_nb.errors import UsageError


@pytest.fixture
def out() -> pd.DataFrame:
    """Three clips of each of four people, one row without a print, one without a name."""
    embeddings, speakers = voices(4, 3, noise=0.4)
    frame = pd.DataFrame(
        {"voiceprint": prints(embeddings), "speaker": [f"p{speaker}" for speaker in speakers]}
    )
    odd = pd.DataFrame({"voiceprint": [None, frame["voiceprint"][0]], "speaker": ["p9", None]})
    return pd.concat([frame, odd], ignore_index=True)


def test_people_of_a_frame_are_enrolled(out: pd.DataFrame) -> None:
    library = vp.Library.from_frame(out, consent="signed 2026-01-02")
    assert list(library) == ["p0", "p1", "p2", "p3"]
    assert library.people.n_prints.tolist() == [3, 3, 3, 3]
    assert set(library.people.consent) == {"signed 2026-01-02"}
    assert "p1" in library and "p9" not in library
    assert len(library) == 4


def test_people_are_added_renamed_merged_and_forgotten(
    out: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    library = vp.Library.from_frame(out[out.speaker.isin(["p0", "p1"])])
    texts = out["voiceprint"][out.speaker.eq("p2")].tolist()
    library.add("p2", texts[0])
    library.add("p2", texts)  # the first is there already
    assert library.people.set_index("name").n_prints["p2"] == 3
    library.rename("p2", "carol")
    library.merge("p1", into="carol")
    assert library.names == ["p0", "carol"]
    assert library.people.set_index("name").n_prints["carol"] == 6
    assert library.remove("carol") == 6
    assert "'carol', 6 voiceprints" in capsys.readouterr().out
    assert library.names == ["p0"]
    for refused in (
        lambda: library.remove("carol"),
        lambda: library.rename("nobody", "x"),
        lambda: library.merge("p0", into="nobody"),
        lambda: library.add(" ", texts),
        lambda: library.rename("p0", " "),
        lambda: library.rename("p0", ""),
    ):
        with pytest.raises(UsageError):
            refused()
    assert library.names == ["p0"]
    library.add("p3", texts)
    with pytest.raises(UsageError, match="merge"):
        library.rename("p3", "p0")


def test_changed_names_keep_their_place(out: pd.DataFrame) -> None:
    library = vp.Library.from_frame(out)
    before = library.arrays()
    library.rename("p1", "ann")
    assert library.names == ["p0", "ann", "p2", "p3"]
    np.testing.assert_array_equal(library.arrays().prints, before.prints)
    library.merge("ann", into="ann")
    assert library.people.n_prints.tolist() == [3, 3, 3, 3]
    library.merge("p2", into="p0")
    assert library.arrays().begins.tolist() == [0, 6, 9]
    twin = vp.Library.from_frame(out)
    twin.extend(library)
    assert twin.people.set_index("name").n_prints.to_dict() == {"p0": 6, "p1": 3, "p2": 3, "p3": 3, "ann": 3}
    twin.extend(twin)
    assert len(list(twin.voiceprints)) == 18


def test_blank_names_and_odd_columns(out: pd.DataFrame) -> None:
    blank = out.assign(speaker=out.speaker.replace("p1", " "))
    assert vp.Library.from_frame(blank).names == ["p0", "p2", "p3"]
    with pytest.raises(UsageError, match="2 columns 'speaker'"):
        vp.Library.from_frame(pd.concat([out, out[["speaker"]]], axis=1))
    with pytest.raises(UsageError, match="'speaker': A dict is no name"):
        vp.Library.from_frame(out.assign(speaker=[{}] * len(out)))


def test_names_are_made_of_numbers_as_of_texts(out: pd.DataFrame) -> None:
    numbers = out.speaker.str.slice(1).astype("float64")  # as pandas reads a column with a gap
    library = vp.Library.from_frame(out.assign(speaker=numbers))
    assert library.names == ["0", "1", "2", "3"]
    library.extend(vp.Library.from_frame(out[:12].assign(speaker=numbers[:12].astype(int))))
    library.add(3, voices_of(out, "p3"))  # type: ignore[arg-type]
    assert library.people.n_prints.tolist() == [3, 3, 3, 3]
    for nobody in (None, np.nan, pd.NA, " "):
        with pytest.raises(UsageError, match="needs a name"):
            library.add(nobody, voices_of(out, "p3"))  # type: ignore[arg-type]


def test_a_voiceprint_is_never_a_name_nor_told(out: pd.DataFrame, tmp_path: Path) -> None:
    text = out["voiceprint"][0]
    library = vp.Library.from_frame(out)
    for refused in (
        lambda: vp.Library.from_frame(out, "voiceprint"),
        lambda: vp.Library.from_frame(out, text),
        lambda: library.add(text, [text]),
        lambda: library.rename("p0", text),
        lambda: library.remove(text),
        lambda: library.remove(f"ada: {text}"),
    ):
        with pytest.raises(UsageError) as caught:
            refused()
        assert not any(text[begin : begin + 20] in str(caught.value) for begin in range(len(text) - 20))
    library.save(tmp_path / "people.json")
    content = json.loads((tmp_path / "people.json").read_text())
    content["prints"][0]["name"] = text
    (tmp_path / "people.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="not a library"):
        vp.Library.load(tmp_path / "people.json")


def test_prints_that_cancel_each_other_are_refused(out: pd.DataFrame) -> None:
    vector = voices(1, 1, noise=0.1)[0]
    both = prints(np.concatenate([vector, -vector]))
    library = vp.Library()
    library.add("nobody", both)
    with pytest.raises(UsageError, match="cancel each other"):
        vp.match(out, library, threshold=0.5)
    for number, odd in enumerate((0 * vector, np.nan * vector), start=1):
        with pytest.raises(UsageError, match="Voiceprint 2 has no direction"):
            library.add(f"odd {number}", [both[0], *prints(odd)])


def test_other_models_hosted_prints_and_nobody_are_refused(out: pd.DataFrame) -> None:
    library = vp.Library.from_frame(out)
    with pytest.raises(UsageError, match="another model"):
        library.add("p0", prints(voices(1, 1, noise=0.1)[0], model="cd" * 16))
    with pytest.raises(UsageError, match="identify endpoint"):
        library.add("p0", "aG9zdGVkIHByaW50IG9mIGFub3RoZXIga2luZA==")
    with pytest.raises(UsageError, match="no column 'who'"):
        vp.Library.from_frame(out, "who")
    with pytest.raises(UsageError, match="nobody can be enrolled"):
        vp.Library.from_frame(out.assign(speaker=None))
    with pytest.raises(UsageError, match="empty"):
        vp.Library().check()


@pytest.mark.parametrize("name", ["people.json", "people.parquet"])
def test_a_file_gives_the_same_library_and_is_private(out: pd.DataFrame, tmp_path: Path, name: str) -> None:
    library = vp.Library.from_frame(out, consent="yes")
    library.add("déjà vu", out["voiceprint"][0])
    previous = os.umask(0)
    try:
        library.save(tmp_path / name)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = vp.Library.load(tmp_path / name)
    assert again.people.equals(library.people)
    assert again.model == library.model
    assert np.array_equal(again.arrays().prints, library.arrays().prints)


def test_files_that_are_none(tmp_path: Path, out: pd.DataFrame) -> None:
    library = vp.Library.from_frame(out)
    path = tmp_path / "people.json"
    with pytest.raises(UsageError, match="cannot be read"):
        vp.Library.load(path)
    with pytest.raises(UsageError, match="cannot be written"):
        library.save(tmp_path / "no-folder" / "people.json")
    for content in (b"", b"[]", b"{}", b'{"format": "another"}', b"PAR1 and no more", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a library"):
            vp.Library.load(path)
    library.save(path)
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"version": 9}))
    with pytest.raises(UsageError, match="newer version"):
        vp.Library.load(path)
    path.write_text(json.dumps(told | {"model": "cd" * 16}))
    with pytest.raises(UsageError, match="not of the model that it names"):
        vp.Library.load(path)
    told["prints"][1]["voiceprint"] = prints(voices(1, 1, noise=0.1)[0], model="cd" * 16)[0]
    path.write_text(json.dumps(told))
    with pytest.raises(UsageError, match="another model"):
        vp.Library.load(path)


def test_check_finds_odd_prints_and_doubles(out: pd.DataFrame) -> None:
    library = vp.Library.from_frame(out)
    fine = library.check()
    assert fine.remark.isna().all()
    assert (fine.own_score > fine.nearest_score).all()
    library.add("p1", out["voiceprint"][out.speaker.eq("p2")].iloc[0])  # another's clip under a wrong name
    library.add("twin", voices_of(out, "p3"))
    library.add("once", prints(voices(1, 1, noise=0.1, seed=7)[0]))
    found = library.check().set_index("name")
    assert found.odd_prints["p1"] == [4]
    assert "Print 4 of 4 is more like 'p2'" in found.remark["p1"]
    assert found.nearest["twin"] == "p3"
    assert "may be taken for 'p3'" in found.remark["twin"].lower() or found.odd_prints["twin"]
    assert "One clip alone" in found.remark["once"]
    assert np.isnan(found.own_score["once"])


@pytest.mark.parametrize("scoring", ["centroid", "best"])
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_check_gives_what_one_pair_of_people_after_the_other_gives(
    monkeypatch: pytest.MonkeyPatch, scoring: Scoring, block: int
) -> None:
    monkeypatch.setattr(matching, "_BLOCK_VALUES", block)
    random = np.random.default_rng(3)
    embeddings, _ = voices(40, 1, noise=0.6, seed=1)
    speakers = pd.Series(random.integers(12, size=40)).map("p{}".format)
    library = vp.Library.from_frame(pd.DataFrame({"voiceprint": prints(embeddings), "speaker": speakers}))
    found = library.check(scoring=scoring).set_index("name")
    owned = {name: embeddings[(speakers == name).to_numpy()] for name in library}
    assert {len(own) for own in owned.values()} > {1, 2}
    for name, own in owned.items():
        others = {
            other: person_scores(own, theirs, scoring=scoring)
            for other, theirs in owned.items()
            if other != name
        }
        nearest = max(others, key=lambda other: others[other].max())
        assert found.nearest[name] == nearest
        assert found.nearest_score[name] == pytest.approx(others[nearest].max(), abs=1e-5)
        if len(own) == 1:
            assert np.isnan(found.own_score[name])
            continue
        alone = [
            person_scores(own[[n]], np.delete(own, n, axis=0), scoring=scoring)[0] for n in range(len(own))
        ]
        assert found.own_score[name] == pytest.approx(min(alone), abs=1e-5)
        highest = np.max(list(others.values()), axis=0)
        assert found.odd_prints[name] == [n + 1 for n in range(len(own)) if highest[n] > alone[n]]


def test_check_of_one_person(out: pd.DataFrame) -> None:
    alone = vp.Library.from_frame(out[out.speaker.eq("p0")]).check()
    assert alone.nearest.isna().all()
    assert alone.nearest_score.isna().all()
    assert alone.odd_prints.tolist() == [[]]
    assert alone.remark.isna().all()
    with pytest.raises(UsageError, match="'centroid', 'best'"):
        vp.Library.from_frame(out).check(scoring="mean")  # type: ignore[arg-type]


def voices_of(out: pd.DataFrame, name: str) -> list[str]:
    return out["voiceprint"][out.speaker.eq(name)].tolist()


def test_nothing_shows_a_voiceprint(out: pd.DataFrame) -> None:
    library = vp.Library.from_frame(out)
    shown = [repr(library), library._repr_html_(), str(library.__dict__), repr(library.arrays())]
    shown += [library.people.to_string(), library.check().to_string()]
    number = f"{library.arrays().prints[0, 0]:.6f}"
    for text in [*out["voiceprint"].dropna(), number]:
        assert not any(text[:40] in one for one in shown)
    assert "4 people, 12 voiceprints" in repr(library)
