"""How the figures of a report came about, in sentences for a paper."""

from __future__ import annotations

from importlib import metadata

import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.contract import MAX_DURATION_S
from voiceprint_nb.intake import quality
from voiceprint_nb.notebook.report_facts import (
    OF_CLUSTER,
    OF_MATCH,
    Facts,
    decided_by,
    error_rate,
    model_of,
    percent,
    prefixes,
    seconds_of,
    told,
    where,
)

LIMITS = (  # measure, what it is called, from where on it is warned of, and whether low or high is bad
    ("speech_s", "speech (s)", quality.LEAST_SPEECH_S, "below"),
    ("level_dbfs", "level of speech (dBFS)", quality.LEAST_LEVEL_DBFS, "below"),
    ("clipped", "clipped samples (share)", quality.MOST_CLIPPED, "above"),
    ("snr_db", "speech over noise (dB)", quality.LEAST_SNR_DB, "below"),
    ("voice_spread", "spread of the voice (cosine distance)", quality.MOST_VOICE_SPREAD, "above"),
)
_FITTED = {
    "best": f"Of clips longer than {MAX_DURATION_S:g} s, the part with most speech was used.",
    "head": f"Of clips longer than {MAX_DURATION_S:g} s, the beginning was used.",
}
_SCORED = {
    "centroid": "the mean direction of each person's voiceprints",
    "best": "the most similar voiceprint of each person",
}


def methods(data: pd.DataFrame, facts: Facts, prefix: str, calibration: Calibration | None) -> str:
    """One paragraph of what was done to these rows, for a paper."""
    sentences = _prints(data, facts, prefix) + _quality(data, prefix)
    if calibration is not None:
        sentences.append(_calibration(calibration))
    matched, clustered = prefixes(data, OF_MATCH), prefixes(data, OF_CLUSTER)
    for begin in matched:
        which = f"For the columns {begin}label and {begin}decision, e" if len(matched) > 1 else "E"
        sentences += [f"{which}ach clip was {_match(decided_by(data, 'match', begin))}"]
    for begin in clustered:
        which = f"For the column {begin}cluster, c" if len(clustered) > 1 else "C"
        sentences += [f"{which}lips were {_cluster(decided_by(data, 'cluster', begin))}"]
    sentences.append(
        "The figures hold for speakers, recordings and languages like these; clips of one recording session "
        "flatter every system; a score is no proof of identity."
    )
    return " ".join(sentences)


def _prints(data: pd.DataFrame, facts: Facts, prefix: str) -> list[str]:
    used = told(data, f"{prefix}status").eq("succeeded").fillna(False).astype(bool)
    if not used.any():
        return [f"No voiceprint could be made of {len(data)} clips."]
    seconds = seconds_of(data, prefix)[used.to_numpy()].dropna()
    lasted = f", from {seconds.min():.1f} to {seconds.max():.1f} s of audio each" if len(seconds) else ""
    version = metadata.version("voiceprint_nb")
    made = (
        f"Voiceprints (speaker embeddings) of {used.sum()} of {len(data)} clips were made {where(facts)}, "
        f"with voiceprint_nb {version} and the model {model_of(data, facts)}{lasted}."
    )
    return [made, *filter(None, [_FITTED.get(str(facts.get("fit")))])]


def _quality(data: pd.DataFrame, prefix: str) -> list[str]:
    beyond = pd.Series(False, data.index)
    limits = []
    for measure, what, limit, bad in LIMITS:
        if f"{prefix}{measure}" in data.columns:
            found = measured(data, prefix, measure)
            beyond |= found < limit if bad == "below" else found > limit
            limits.append(f"{what} {bad} {limit:g}")
    if not limits:
        return []
    told_limits = "; ".join(limits)
    count = f"{beyond.sum()} of {len(data)} clips"
    return [f"{count} were of doubtful quality, by any of these measures: {told_limits}."]


def measured(data: pd.DataFrame, prefix: str, measure: str) -> pd.Series[float]:
    """A measure of each row's clip; from text, too, as a CSV file has it."""
    return pd.to_numeric(told(data, f"{prefix}{measure}"), errors="coerce").astype("float64")


def _calibration(calibration: Calibration) -> str:
    n_clips = calibration.enrolled
    against = "clip against clip" if n_clips == 1 else f"clips against people of {n_clips} clips"
    scores = "cosine similarities"
    if calibration.normalisation is not None:
        scores += f" after normalisation ({calibration.normalisation})"
    return (
        f"Scores are {scores}, calibrated by logistic regression on {calibration.n_clips} clips of "
        f"{calibration.n_speakers} speakers ({against}; {calibration.n_genuine} true, "
        f"{calibration.n_impostor} false claims); {error_rate(calibration)}."
    )


def _match(facts: Facts) -> str:
    if not facts:
        return "compared with the enrolled people; by which threshold, the table does not tell."
    score = f"normalised by {facts['normalisation']}" if "normalisation" in facts else "a cosine similarity"
    people, whom = f"{facts['people']} enrolled people", _SCORED[facts["scoring"]]
    compared = f"compared with {people}, its score being {score} to {whom}."
    unknown = f"below {facts['unknown_below']:.3f} it was called unknown"
    if not facts.get("gives_names", True):
        asked, least = percent(facts["false_name_rate"]), facts["supported_false_name_rate"]
        supported = "none" if least >= 1 else f"only rates from {percent(least)} on"
        return (
            f"{compared} None was given a name: at most {asked} of clips of people who are not enrolled were "
            f"to get one, and of such rates so small a calibration supports {supported}; {unknown}, else "
            "unsure: perhaps of the most similar person."
        )
    why = "a threshold that was given"
    if facts["by"] == "calibration":
        rate = percent(facts["false_name_rate"])
        why = f"by the calibration, {rate} of clips of people who are not enrolled may reach that"
    named = f"A score of {facts['threshold']:.3f} or more ({why}) gave it the name of the most similar person"
    if facts["unknown_below"] == facts["threshold"]:
        return f"{compared} {named}; else it was called unknown."
    return f"{compared} {named}; {unknown}, and between the two unsure: perhaps of that person."


def _cluster(facts: Facts) -> str:
    how = "grouped without labels by agglomerative clustering with average linkage"
    if not facts:
        return f"{how}; by which threshold, the table does not tell."
    why = "a threshold that was given"
    if facts["by"] == "calibration":
        rate = percent(facts["false_accept_rate"])
        why = f"by the calibration, {rate} of pairs of clips of different speakers reach that"
    least = f"{facts['threshold']:.3f} or more ({why})"
    return (
        f"{how}, until no two groups had a mean cosine similarity of {least}: "
        f"{facts['clusters']} voices, with a mean silhouette of {facts['silhouette']:.2f}."
    )
