"""The main job on the samples: voiceprints, a table of who sounds like whom, a file and a picture.

Run from the repository root: ``python -m tools.demo`` (``make demo`` does).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import voiceprint_nb as vp
from voiceprint_nb.analysis.plots import similarity_matrix
from voiceprint_nb.analysis.similarity import nearest
from voiceprint_nb.notebook.terminal import write_table

ROOT = Path(__file__).parent.parent
MANIFEST = ROOT / "data" / "samples" / "manifest.csv"


def main() -> None:
    """Make the voiceprints, print the table, write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "demo-output", help="folder to write to")
    folder = parser.parse_args().out
    frame = pd.read_csv(MANIFEST)
    out = vp.voiceprints(frame, "audio", service="local", base=ROOT, data_dir=folder / "ledger")
    out.insert(0, "file", [Path(path).name for path in out.audio])
    matrix = vp.compare(out, label="file")
    print("\n" + table(out, matrix).to_string(index=False) + "\n")
    write_table(out.drop(columns="file"), folder / "voiceprints.parquet")
    picture = folder / "similarity.png"
    similarity_matrix(matrix).figure.savefig(picture, dpi=120)
    for path in (folder / "voiceprints.parquet", picture):
        print(f"Written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def table(out: pd.DataFrame, matrix: pd.DataFrame) -> pd.DataFrame:
    """One line per file: status, duration, the most similar other file with its cosine, or the reason."""
    others, scores = nearest(matrix.to_numpy())
    rows = out.index[out["voiceprint"].notna()]
    like = pd.Series([matrix.index[other] for other in others], index=rows)
    score = pd.Series([f"{value:.3f}" for value in scores], index=rows)
    return pd.DataFrame(
        {
            "file": out.file,
            "status": out.vp_status,
            "seconds": out.vp_duration_s.map("{:.1f}".format).replace("nan", ""),
            "sounds most like": like.reindex(out.index, fill_value=""),
            "score": score.reindex(out.index, fill_value=""),
            "reason": out.vp_error.fillna(""),
        }
    )


if __name__ == "__main__":
    main()
