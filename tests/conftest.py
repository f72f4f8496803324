"""For all tests: none asks the keyring of whoever runs them, and none fails by being slow."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is in the background; programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("untimed", parent=settings(), deadline=None)  # a busy machine is no fault
settings.load_profile("untimed")
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"  # for processes of tests, too
