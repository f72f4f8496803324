from __future__ import annotations

import numpy as np
import pytest
from voices import voices

from voiceprint_nb.analysis import trials as trials_module
from voiceprint_nb.analysis.trials import evenly, make_trials, person_scores, unit
from voiceprint_nb.errors import UsageError

EMBEDDINGS = unit(np.array([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [0.6, 0.8]], np.float32))
SPEAKERS = np.array([0, 0, 1, 1, 0])


def test_each_pair_of_clips_is_one_trial() -> None:
    trials = make_trials(EMBEDDINGS, SPEAKERS)
    assert len(trials.scores) == 10
    assert sorted(trials.genuine.round(2)) == pytest.approx([0.6, 0.8, 0.8, 0.96])
    assert sorted(trials.impostor.round(2)) == pytest.approx([-0.6, 0.0, 0.0, 0.28, 0.6, 0.8])


def test_each_clip_meets_each_person_who_is_enrolled_with_other_clips() -> None:
    trials = make_trials(EMBEDDINGS, SPEAKERS, enrolled=2)
    # others meet the first two clips of each; person 0 has a third, so its own clips meet the two that follow
    zero = unit(EMBEDDINGS[[0, 1]].mean(axis=0))
    one = unit(EMBEDDINGS[[2, 3]].mean(axis=0))
    impostor = [*(EMBEDDINGS[[2, 3]] @ zero), *(EMBEDDINGS[[0, 1, 4]] @ one)]
    own = [[0, 1, 4], [1, 4, 0], [4, 0, 1]]
    genuine = [EMBEDDINGS[clip] @ unit(EMBEDDINGS[others].mean(axis=0)) for clip, *others in own]
    assert sorted(trials.impostor) == pytest.approx(sorted(impostor), abs=1e-6)
    assert sorted(trials.genuine) == pytest.approx(sorted(genuine), abs=1e-6)
    assert set(zip(trials.speaker, trials.person, strict=True)) == {(0, 0), (0, 1), (1, 0)}


def test_best_of_takes_the_nearest_print_of_a_person() -> None:
    scores = person_scores(EMBEDDINGS, EMBEDDINGS[[0, 2]], scoring="best")
    assert scores == pytest.approx([1, 0.8, 1, 0.8, 0.8])
    with pytest.raises(UsageError, match="'centroid', 'best'"):
        person_scores(EMBEDDINGS, EMBEDDINGS, scoring="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("enrolled", [1, 2])
def test_clips_of_different_groups_never_meet(enrolled: int) -> None:
    embeddings, speakers = voices(6, 4, noise=0.5)
    groups = speakers // 3
    trials = make_trials(embeddings, speakers, groups=groups, enrolled=enrolled)
    assert set(trials.speaker // 3 - trials.person // 3) == {0}
    assert len(trials.genuine) == len(make_trials(embeddings, speakers, enrolled=enrolled).genuine)


def test_many_clips_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "_MOST_CLIPS", 9)
    embeddings, _ = voices(1, 30, noise=0.5)
    speakers = np.array([0] * 20 + [1] * 8 + [2] * 2)
    chosen = evenly(speakers)
    trials = make_trials(embeddings[chosen], speakers[chosen])
    assert len(trials.scores) == 9 * 8 / 2
    n_genuine = {
        person: int((trials.speaker == trials.person)[trials.speaker == person].sum()) for person in (0, 1, 2)
    }
    assert n_genuine == {0: 6, 1: 3, 2: 1}  # of 4, 3 and 2 clips


def test_nobody_with_enough_clips_is_no_trial() -> None:
    assert len(make_trials(EMBEDDINGS, SPEAKERS, enrolled=4).scores) == 0
