"""``df.voiceprint``."""

from __future__ import annotations

import pandas as pd
import pytest

import voiceprint_nb as vp

LOCAL = {"service": "local", "progress": False}


def test_the_verbs_as_methods(manifest, tmp_path):
    assert manifest.voiceprint.check(progress=False).equals(vp.check(manifest, progress=False))
    out = manifest[:3].voiceprint.extract("audio", data_dir=tmp_path, **LOCAL)
    assert out.vp_status.tolist() == ["succeeded"] * 3
    again = manifest[:3].voiceprint.submit(data_dir=tmp_path, **LOCAL).result()
    assert again.vp_source.tolist() == ["reused"] * 3
    assert again["voiceprint"].equals(out["voiceprint"])
    assert out.voiceprint.compare("speaker").equals(vp.compare(out, "speaker"))
    assert out.voiceprint.compare(top=1).equals(vp.compare(out, top=1))


def test_the_column_of_the_same_name_is_pointed_to():
    frame = pd.DataFrame({"audio": ["a"], "voiceprint": ["secret"]})
    with pytest.raises(AttributeError, match=r"the column of that name is df\['voiceprint'\]"):
        _ = frame.voiceprint.notna
    assert "secret" not in repr(frame.voiceprint)
