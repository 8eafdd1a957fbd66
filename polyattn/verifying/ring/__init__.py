"""Candidates run in exact arithmetic: torch code with elements of a finite field in the place of floats."""
