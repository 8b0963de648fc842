"""Tables of a whole run: one row per video, and per component the rows of all videos."""
