"""The report of a run: one HTML file with plots that needs no network."""
