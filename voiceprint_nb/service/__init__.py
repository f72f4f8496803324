"""The REST contract with a real engine, on this machine."""
