"""One voiceprint as a value."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.display import Bundled, facts_table


@dataclass(frozen=True)
class Voiceprint(Bundled):
    """A speaker's vocal signature from one clip; its text is biometric data and never shown.

    Attributes
    ----------
    text : str
        What the service returned: base64 of a small record for the local service, opaque for the hosted.
    duration_s : float
        Seconds of audio it was made of.
    warning : str or None
        What lowers its quality, in a sentence.
    """

    text: str = field(repr=False)
    duration_s: float
    warning: str | None = None

    def similarity(self, other: Voiceprint) -> float:
        """Cosine of the two embeddings, in [-1, 1]; raises `UsageError` for opaque or mixed prints."""
        from voiceprint_nb.analysis.similarity import vectors

        first, second = vectors([self.text, other.text])
        return float(first @ second)

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The vector ``(dimensions,) float32`` of a local print; raises `UsageError` for hosted ones."""
        from voiceprint_nb.analysis.similarity import vectors

        embedding: NDArray[np.float32] = vectors([self.text])[0]
        return embedding

    def __repr__(self) -> str:
        warning = f": {self.warning}" if self.warning else ""
        return f"<Voiceprint of {self.duration_s:.1f} s{warning}>"

    def _repr_html_(self) -> str:
        warning = [("Warning", self.warning)] if self.warning else []
        return facts_table([("Voiceprint", f"of {self.duration_s:.1f} s; not shown"), *warning])
