"""The videos of a run: found in folders, buckets and tables, named, and chosen."""
