"""`gateway bulk`: thousands of videos through a profile, and reports of such runs."""
