"""`gateway backup`."""
