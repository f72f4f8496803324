from __future__ import annotations

import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import mistune
import numpy as np
import pandas as pd
import pytest
from voices import frame_of, prints, voices

import voiceprint_nb as vp
from voiceprint_nb.engine.model import Model
from voiceprint_nb.intake import quality
from voiceprint_nb.notebook.report_facts import facts_of, percent, prefix_of
from voiceprint_nb.notebook.report_methods import methods
from voiceprint_nb.notebook.report_page import Paragraph, Table, as_markdown

HOSTED = "aG9zdGVkIHByaW50IG9mIGFub3RoZXIga2luZA==" * 20


@pytest.fixture(scope="module")
def out() -> pd.DataFrame:
    """A result with every kind of row, as `voiceprints` returns it."""
    embeddings, speakers = voices(12, 4, noise=0.6)
    n = len(speakers)
    frame = pd.DataFrame(
        {
            "audio": [f"https://host/secret-name-{k}.wav?sig=SIGNATURE" for k in range(n)],
            "speaker": [f"<b>s{speaker}</b>" for speaker in speakers],
            "voiceprint": prints(embeddings),
            "vp_status": "succeeded",
            "vp_error_code": pd.NA,
            "vp_error": pd.NA,
            "vp_warning": pd.NA,
            "vp_job_id": [f"job-{k}" for k in range(n)],
            "vp_duration_s": [2.0 + k / 10 for k in range(n)],
            "vp_source": "new",
        }
    )
    failed = {"voiceprint": None, "vp_status": "invalid", "vp_error_code": "too_long", "vp_duration_s": 31.0}
    failed |= {"vp_error": "The clip 'secret-name.wav' lasts 31.0 s.", "vp_source": None}
    frame = pd.concat([frame, frame.head(2).assign(**failed)], ignore_index=True)
    frame.attrs["voiceprint_nb"] = {
        "run_id": "20260101-000000-abcdef",
        "service": "local",
        "model": "ab" * 16,
        "column": "voiceprint",
        "counts": {"succeeded": n, "invalid": 2},
        "ended_at": "2026-01-01T00:00:00Z",
    }
    return frame


class Page(HTMLParser):
    """Tags of a page with their attributes, and its text."""

    def __init__(self, source: Path | str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source if isinstance(source, str) else source.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.text += "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_all_parts_are_in_one_file_that_needs_no_other(out: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="12 speakers are too few"):
        calibration = vp.calibrate(out, enrolled=2)
    library = vp.Library.from_frame(out.groupby("speaker").head(2), consent="asked")
    matched = vp.match(vp.cluster(out, threshold=0.6), library, calibration=calibration, false_name_rate=0.7)
    options = {"calibration": calibration, "library": library, "label": "speaker"}
    path = vp.report(matched, tmp_path / "report.html", **options)
    page = Page(path)
    parts = [
        "Outcome",
        "Durations",
        "Calibration",
        "Who speaks",
        "Enrolled people",
        "Voices found",
        "Pictures",
        "Rows",
        "Methods",
        "Appendix",
    ]
    assert re.findall(r"<h2>(.*?)</h2>", path.read_text()) == parts
    assert len(page.all("h1")) == 1
    images = page.all("img")
    assert len(images) == 5
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in images)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "://" not in path.read_text().replace(
        "https://host/<wbr>secret-name", ""
    )  # nothing from elsewhere
    assert "too_long" in page.text
    assert "longer than the service takes" in page.text
    assert "no error was seen (the equal error rate may be up to 25%)" in page.text
    assert "<b>s1</b>" in page.text  # as text, not as a tag
    assert not page.all("b")
    assert all(head.get("scope") == "col" for head in page.all("th"))


@pytest.mark.parametrize("ending", ["html", "md"])
def test_neither_voiceprints_nor_signatures_are_in_it(out: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    text = vp.report(out, tmp_path / f"report.{ending}").read_text()
    assert not any(one[40:90] in text for one in out["voiceprint"].dropna())
    assert "SIGNATURE" not in text
    assert "secret-name-3.wav" in text
    redacted = vp.report(out, tmp_path / f"redacted.{ending}", redact=True).read_text()
    assert "secret-name" not in redacted
    assert "too\\_long" in redacted or "too_long" in redacted


def test_pictures_show_numbers_of_rows_or_labels_without_secrets(
    out: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def similarity_matrix(matrix: pd.DataFrame, *args: object, **options: object) -> object:
        drawn.append(list(matrix.index))
        return original(matrix, *args, **options)

    original = vp.plots.similarity_matrix
    monkeypatch.setattr(vp.plots, "similarity_matrix", similarity_matrix)
    by_name = out.set_index("audio", drop=False)
    vp.report(by_name, tmp_path / "report.html", redact=True)
    vp.report(out, tmp_path / "report.html", label="audio")
    numbers, links = drawn
    assert numbers == [str(number) for number in range(1, 49)]
    assert links[3] == "https://host/secret-name-3.wav?…"


def test_odd_frames_have_a_report(out: pd.DataFrame, tmp_path: Path) -> None:
    twice = pd.concat(
        [out.assign(vp_file="secret-name"), out[["speaker"]].set_axis(["note"], axis=1)], axis=1
    )
    twice = pd.concat([twice, twice[["note"]]], axis=1).assign(weight=20231105.0)
    twice.attrs = {}
    path = vp.report(twice, tmp_path / "report.html", redact=True)
    assert "secret-name" not in path.read_text()
    assert "ended at" not in path.read_text()
    assert "20231105" in vp.report(twice, tmp_path / "report.html").read_text()
    few = out[out.speaker.isin(["<b>s0</b>", "<b>s1</b>"])]
    with pytest.warns(UserWarning, match="too few"):
        calibration = vp.calibrate(few)
    assert "Calibration" in vp.report(few, tmp_path / "few.html", calibration=calibration).read_text()


def test_markdown_says_the_same_for_quarto(out: pd.DataFrame, tmp_path: Path) -> None:
    text = vp.report(out, tmp_path / "report.md", title='Two "voices"').read_text()
    assert text.startswith('---\ntitle: "Two \\"voices\\""\nformat: html\n---\n')
    assert re.findall(r"^## (.*)$", text, re.M) == [
        "Outcome",
        "Durations",
        "Pictures",
        "Rows",
        "Methods",
        "Appendix",
    ]
    assert text.count("![") == 3
    assert "\\<b\\>s1\\</b\\>" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "https" in line]
    assert len(rows) == len(out)
    assert len({line.count(" | ") for line in rows}) == 1


ACTIVE = [
    *(
        "- a",
        "+ a",
        "* a",
        "1. a",
        "1) a",
        "(1) a",
        "# a",
        "> a",
        "~~~",
        "```x",
        "---",
        "===",
        "| a | b",
        "a|b",
    ),
    *("AT&T &amp; &#42;", "<b>x</b>", "[a](b)", "![a](b)", "a_b_c", "__a__", "*a*", "`a`", "http://x.y/z?…"),
    *(
        "www.x.y",
        "a@b.cd",
        "\\",
        "a\\",
        "-",
        "::: x",
        ":a:",
        'it\'s "so"',
        "wait... a--b",
        "%",
        "- -",
        "a  b",
    ),
]


@pytest.mark.parametrize("text", ACTIVE)
def test_no_text_acts_in_markdown(text: str) -> None:
    told = " ".join(text.split())
    read = mistune.create_markdown(
        escape=False, plugins=["table", "url", "strikethrough", "footnotes", "math"]
    )
    paragraph = Page(str(read(as_markdown("", [Paragraph(text)]).partition("---\n\n")[2])))
    assert [tag for tag, _ in paragraph.tags] == ["p"]
    assert "".join(paragraph.text.split()) == "".join(told.split())
    table = Page(str(read(as_markdown("", [Table("", ["a", "b"], [[text, text]])]).partition("---\n\n")[2])))
    assert not {tag for tag, _ in table.tags} - {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert len(table.all("td")) == 2
    assert "".join(table.text.split()) == "".join(["ab", *told.split(), *told.split(), ":"])


def test_marks_that_only_pandoc_knows_are_escaped() -> None:
    lines = {"::: x": "\\:\\:: x", "a--b...": "a\\-\\-b\\.\\.\\.", "(iv) x": "(iv\\) x", "'@a'": "\\'\\@a\\'"}
    assert {text: as_markdown("", [Paragraph(text)]).splitlines()[-1] for text in lines} == lines
    assert as_markdown("", [Paragraph("2.5 s at 12:30, x-y: 1.")]).endswith("\n2.5 s at 12:30, x-y: 1.\n")


def test_matches_under_a_prefix_of_their_own_are_told(out: pd.DataFrame, tmp_path: Path) -> None:
    library = vp.Library.from_frame(out.groupby("speaker").head(2), consent="asked")
    matched = vp.match(out, library, threshold=0.6, prefix="who_")
    path = vp.report(matched, tmp_path / "report.html", redact=True)
    text = path.read_text()
    assert "<h2>Who speaks</h2>" in text
    assert "who_score" in text
    assert "who_nearest" not in text  # a name, in a report without them
    both = vp.match(matched, library, threshold=0.9, unknown_below=0.7, prefix="sure_")
    text = vp.report(both, tmp_path / "both.md").read_text()
    who, sure = re.split(r"^## ", text, flags=re.M)[3:5]
    assert who.startswith("Who speaks (who\\_label)")
    assert "| threshold | 0.6 |" in who
    assert sure.startswith("Who speaks (sure\\_label)")
    assert "| threshold | 0.9 |\n| unknown below | 0.7 |" in sure
    assert "For the columns who\\_label and who\\_decision, each clip was compared with 12" in text
    assert "A score of 0.900 or more (a threshold that was given) gave it the name" in text
    assert "below 0.700 it was called unknown, and between the two unsure" in text


def methods_of(data: pd.DataFrame, calibration: vp.Calibration | None = None) -> str:
    return methods(data, facts_of(data), prefix_of(data), calibration)


def test_methods_tell_what_voices_and_clips_were_judged_by(out: pd.DataFrame, tmp_path: Path) -> None:
    packaged = out.assign(
        vp_speech_s=[0.5] * 3 + [4.0] * (len(out) - 3), vp_snr_db=[9.0] + [20.0] * (len(out) - 1)
    )
    packaged.attrs["voiceprint_nb"] = out.attrs["voiceprint_nb"] | {
        "model": Model.packaged("robust", precision="int8").fingerprint,
        "fit": "head",
    }
    text = methods_of(vp.cluster(packaged, threshold=0.6))
    assert "the model 'robust' (GE2E voice encoder, int8; fingerprint 3881c536" in text
    assert "Of clips longer than 30 s, the beginning was used." in text
    assert (
        "3 of 50 clips were of doubtful quality, by any of these measures: speech (s) below 1.2; speech over"
        in text
    )
    assert (
        "a mean cosine similarity of 0.600 or more (a threshold that was given): 12 voices, with a mean"
        in text
    )
    with pytest.warns(UserWarning, match="12 speakers are too few"):
        calibration = vp.calibrate(out)
    clustered = vp.cluster(out, calibration=calibration, false_accept_rate=0.05)
    path = vp.report(clustered, tmp_path / "report.md")
    assert "| pairs of different speakers as alike | 5% |" in path.read_text()
    assert "(by the calibration, 5% of pairs of clips of different" in methods_of(clustered)
    clustered.attrs = {}
    assert "average linkage; by which threshold, the table does not tell." in methods_of(clustered)


def test_methods_tell_what_rate_a_calibration_supports(out: pd.DataFrame, tmp_path: Path) -> None:
    others = frame_of(60, 4, seed=7, noise=0.6)
    calibration = vp.calibrate(others)
    library = vp.Library.from_frame(out.groupby("speaker").head(1))
    named = vp.match(out, library, calibration=calibration, false_name_rate=0.2)
    rate = named.attrs["voiceprint_nb_match"]["vp_"]["supported_false_name_rate"]
    told = methods_of(named)
    assert "(by the calibration, 20% of clips of people who are not enrolled may reach that) gave" in told
    with pytest.warns(UserWarning, match="No row gets a name"):
        unnamed = vp.match(out, library, calibration=calibration, false_name_rate=1e-4)
    text = vp.report(unnamed, tmp_path / "unnamed.md").read_text()
    assert "| strangers with a name, asked | 0.01% |" in text
    assert f"least that the calibration can tell | {percent(rate)} |" in text
    assert "| gives names | False |" in text
    assert "| remark | No row gets a name" in text
    told = methods_of(unnamed)
    assert "None was given a name: at most 0.01% of clips of people who are not enrolled" in told
    assert f"so small a calibration supports only rates from {percent(rate)} on; below" in told


def test_an_error_rate_has_one_interval() -> None:
    noisy = frame_of(25, 4, seed=3, noise=1.2).assign(vp_status="succeeded")
    calibration = vp.calibrate(noisy)
    eer = calibration.eer
    said = f"was {percent(eer.value)} (95% interval by a bootstrap over speakers: {percent(eer.low)} to "
    assert f"the equal error rate {said}{percent(eer.high)})." in methods_of(noisy, calibration)
    few = noisy.head(16)
    with pytest.warns(UserWarning, match="4 speakers are too few"):
        calibration = vp.calibrate(few)
    assert calibration.eer.value
    assert "(too few speakers for an interval)" in methods_of(few, calibration)


def test_methods_name_what_scores_were_normalised_by(out: pd.DataFrame, tmp_path: Path) -> None:
    others, _ = voices(200, 1, noise=0.6, seed=1)
    with pytest.warns(UserWarning, match="12 speakers are too few"):
        calibration = vp.calibrate(out, cohort=prints(others))
    text = vp.report(out, tmp_path / "report.html", calibration=calibration).read_text()
    assert f"cosine similarities after normalisation ({calibration.normalisation})" in text


def test_only_its_writer_may_read_it(out: pd.DataFrame, tmp_path: Path) -> None:
    path = vp.report(out, tmp_path / "report.html")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_that_the_ledger_knows_has_its_course_told(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    clips = [(random.normal(scale=0.1, size=32_000), 16_000) for _ in range(3)]
    done = vp.voiceprints(clips, service="local", progress=False, prefix="", data_dir=tmp_path / "own")
    text = vp.report(done, tmp_path / "report.html", data_dir=tmp_path / "own").read_text()
    assert "<h2>Course of the run</h2>" in text
    assert 'alt="A bar for each job: 3 rows (3 succeeded); 3 of 3 jobs ended in ' in text
    assert "Course" not in vp.report(done, tmp_path / "report.html").read_text()
    assert not (tmp_path / "user-data").exists()  # looking for a ledger makes none


def test_bad_clips_are_named_by_their_rows(out: pd.DataFrame, tmp_path: Path) -> None:
    assert "Quality" not in vp.report(out, tmp_path / "report.md").read_text()
    n = len(out)
    measured = out.assign(
        vp_speech_s=[str(2 + k / 10) for k in range(n)],  # text, as a CSV file has it
        vp_clipped=[0.5, 0.0, 0.9, *[0.0] * (n - 3)],
        vp_snr_db=[13.0 - k for k in range(7)] + [20.0] * (n - 7),
        vp_voice_spread=float("nan"),
    )
    text = vp.report(measured, tmp_path / "report.md", redact=True).read_text()
    assert "| speech (s) | 4.45 | below 1.2 | 0 |  |" in text
    assert "| clipped samples (share) | 0 | above 0.03 | 2 | 3 (0.9), 1 (0.5) |" in text
    assert "| below 14 | 7 | 7 (7), 6 (8), 5 (9), 4 (10), 3 (11) |" in text
    assert "| spread of the voice (cosine distance) |  | above 0.23 | 0 |  |" in text
    assert "level of speech" not in text
    assert "vp\\_snr\\_db" in text  # a number may stay in a report without names


def test_wide_and_long_cells_stay_on_the_page(out: pd.DataFrame, tmp_path: Path) -> None:
    digests = [f"{number:064x}" for number in range(len(out))]
    path = vp.report(out.assign(digest=digests), tmp_path / "report.html")
    page = Page(path)
    regions = {str(one.get("aria-label")): one for one in page.all("div")}
    assert "wide" in str(regions["Rows"]["class"]).split()  # printed on a page of its own, which is broader
    assert str(regions["Rows by state"]["class"]).split() == ["scroll", "short"]
    heads = re.findall(r'<th scope="col">(.*?)</th>', path.read_text().split('aria-label="Rows"')[1])
    mark = f"l{heads.index('digest') + 1}"
    assert mark in re.search(r'aria-label="Rows"><table class="(.*?)"', path.read_text())[1].split()
    assert f".{mark} tr>:nth-child({mark[1:]}){{overflow-wrap:anywhere" in path.read_text()
    assert "https://host/<wbr>secret-name-3.wav" in path.read_text()
    assert "<wbr>" not in "".join(re.findall(r"vp_status|too_.*?long", path.read_text()))


def test_long_frames_are_paged(out: pd.DataFrame, tmp_path: Path) -> None:
    page = Page(vp.report(pd.concat([out] * 25, ignore_index=True), tmp_path / "long.html"))
    assert ["open" in one for one in page.all("details")] == [True, False, False]
    assert "Rows: 1001 to 1250" in page.text
    assert "400 of 1200 voiceprints" in page.text


@pytest.mark.parametrize("ending", ["html", "md"])
def test_reports_of_long_and_wide_frames_stay_small(large: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    path = vp.report(large, tmp_path / f"large.{ending}")
    text = path.read_text().replace("\\", "")
    assert 4_000_000 < path.stat().st_size < 5_000_000
    found = re.search(r"Here are (\d+) of 10000 rows, those that failed", text)
    assert found is not None
    assert f"{found[1]} of 10000 rows: " in text or ending == "md"
    assert text.count("bad clip") == 100 + 1  # and among the reasons
    assert text.count("of no rate") == 1  # the same in every row
    assert "licence of no rate; vp_source new." in text
    page = Page(path) if ending == "html" else None
    assert page is None or len(page.all("tr")) > int(found[1])


@pytest.fixture(scope="module")
def large() -> pd.DataFrame:
    """10,000 rows of a wide table, measured, matched and clustered, of which the last 100 failed."""
    embeddings, speakers = voices(500, 20, noise=0.6)
    n, random = len(speakers), np.random.default_rng(0)
    texts = {f"text_{k}": [f"{k} <say> of row {row:,} & others" for row in range(n)] for k in range(5)}
    paths = [f"corpora/calls_{k % 7}/2026-01/recording-{k:06d}.wav" for k in range(n)]
    measures = {f"vp_{name}": random.uniform(0, 20, n) for name in quality.MEASURES}
    frame = pd.DataFrame({"path": paths, "licence": "of no rate", **texts, "voiceprint": prints(embeddings)})
    frame = frame.assign(
        vp_status="succeeded", vp_error_code=None, vp_error=None, vp_source="new", **measures
    )
    frame.loc[n - 100 :, ["voiceprint", "vp_status", "vp_error_code", "vp_error"]] = [
        None,
        "failed",
        "decode",
        "bad clip",
    ]
    people = vp.Library.from_frame(frame.assign(speaker=speakers)[::200], name="speaker")
    frame = vp.match(frame, people, threshold=0.6, unknown_below=0.4)
    answers = {
        "cluster": speakers + 1,
        "silhouette": random.uniform(-1, 1, n),
        "representative": speakers > 9,
    }
    return frame.assign(**{f"vp_{name}": values for name, values in answers.items()})


def test_thousands_of_names_are_told_in_a_line(tmp_path: Path) -> None:
    many = frame_of(2500, 1, seed=5).assign(vp_status="succeeded", vp_cluster=range(2500))
    many = many.assign(vp_silhouette=0.0, vp_representative=True)
    library = vp.Library.from_frame(many)
    text = vp.report(many, tmp_path / "many.md", library=library).read_text()
    assert "| 500 others | 500 | 20.0% |" in text
    assert text.count("s5-2499") == 1  # in its own row
    assert ": 2000 of 2500 people" in text


def test_frames_that_lost_columns_or_attributes_have_a_report(out: pd.DataFrame, tmp_path: Path) -> None:
    few = out.head(3)[["audio", "voiceprint", "vp_status"]]
    few.attrs = {}
    text = vp.report(few, tmp_path / "few.md").read_text()
    assert "| succeeded | 3 | 100.0% |" in text
    assert f"the model {'ab' * 16}." in text  # as its prints name it
    out.rename(columns=lambda name: name.replace("vp_", "x_").replace("voiceprint", "x_voiceprint")).to_csv(
        tmp_path / "out.csv", index=False
    )
    again = pd.read_csv(tmp_path / "out.csv")
    text = vp.report(again, tmp_path / "again.md").read_text()
    assert "| invalid | 2 | 4.0% |" in text
    assert "x\\_duration\\_s" in text
    assert not any(one[40:90] in text for one in out["voiceprint"].dropna())


def test_names_of_files_label_no_pictures_without_them(out: pd.DataFrame, tmp_path: Path) -> None:
    files = out.assign(file=[f"secret-{k}.WAV" for k in range(len(out))], folder="a/secret")
    for label in ("audio", "file", "folder"):
        with pytest.raises(vp.UsageError, match=f"with redact=True, '{label}' is no label"):
            vp.report(files, tmp_path / "report.html", label=label, redact=True)
    assert not list(tmp_path.iterdir())
    named = out.head(4).assign(speaker=["M. Smith Jr.", "ada.s", None, "wav"])
    assert vp.report(named, tmp_path / "report.html", label="speaker", redact=True).exists()


def test_voiceprints_within_other_text_are_not_shown(out: pd.DataFrame, tmp_path: Path) -> None:
    text = out["voiceprint"].iloc[0]
    deep = "corpora/" + "calls_of_2026/session-01/" * 8 + "a.wav"
    few = out.head(3).assign(note=[f"ada: {text}", f"{text} (ada)", "none"], path=[deep, "b.wav", "c.wav"])
    few = few.rename(columns={"speaker": f"speaker {text}"})
    told = vp.report(few, tmp_path / "report.md").read_text()
    assert not any(text[begin : begin + 20] in told for begin in range(0, len(text) - 20, 5))
    assert "ada: (voiceprint, not shown)" in told.replace("\\", "")
    assert "session\\-01/a.wav" in told or "session-01/a.wav" in told


def test_hosted_prints_and_no_prints_have_a_report_too(out: pd.DataFrame, tmp_path: Path) -> None:
    hosted = out.assign(voiceprint=out["voiceprint"].where(out["voiceprint"].isna(), HOSTED))
    hosted.attrs = out.attrs
    text = vp.report(hosted, tmp_path / "hosted.html").read_text()
    assert "identify endpoint" in text
    assert HOSTED[:40] not in text
    nothing = out.tail(2)
    assert "No voiceprint could be made of 2 clips" in vp.report(nothing, tmp_path / "none.html").read_text()


def test_what_is_no_result_is_refused(out: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(vp.UsageError, match="known ending"):
        vp.report(out, tmp_path / "report.pdf")
    with pytest.raises(vp.UsageError, match=r"pass the result of voiceprints\(\)"):
        vp.report(pd.DataFrame({"audio": ["a.wav"]}), tmp_path / "report.html")
    with pytest.raises(vp.UsageError, match="no column of states"):
        vp.report(out[["voiceprint"]], tmp_path / "report.html")
    with pytest.raises(vp.UsageError, match="gave, not of a Series"):
        vp.report(out["voiceprint"], tmp_path / "report.html")
    with pytest.raises(vp.UsageError, match="cannot be written"):
        vp.report(out, tmp_path / "no-folder" / "report.html")
    assert list(tmp_path.iterdir()) == []
