"""Interventions: ablate, keep only, steer, clamp, generate under them, sweep them with controls, carry them to other
models."""
