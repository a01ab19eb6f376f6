"""Runs that show what uniformity_callbacks does on real data."""
