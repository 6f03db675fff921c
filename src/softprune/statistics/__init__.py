"""Intervals, tests, and what may be concluded from them: resampled examples, training seeds, verdicts, planning."""
