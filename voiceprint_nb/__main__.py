"""``python -m voiceprint_nb``: the same as ``voiceprint-nb``."""

from __future__ import annotations

import sys

from voiceprint_nb.command import main

if __name__ == "__main__":
    sys.exit(main())
