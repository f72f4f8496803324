"""Clip to embedding: features, network, workers."""
