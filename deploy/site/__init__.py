"""The documentation site: its pages are put together here, and Zensical builds them (`make docs`)."""
