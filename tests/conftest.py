"""For all tests: none asks the keyring of whoever runs them."""

from __future__ import annotations

import os

os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"  # for processes of tests, too
