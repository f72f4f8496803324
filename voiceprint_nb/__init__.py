"""Voiceprints for every row of a pandas DataFrame of audio."""
