"""For all tests: none asks the keyring of whoever runs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"  # for processes of tests, too
