"""What is done with voiceprints once they are there."""
