"""Models that the tests serve."""
