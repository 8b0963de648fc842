"""The dashboards: the code that writes them, and their queries."""
