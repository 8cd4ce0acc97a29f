"""Directions and subspaces of the residual stream: differences of means, PCA, streamed moments, overlap, controls."""
