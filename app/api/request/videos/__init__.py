"""Requests of `/v1/videos`: pages of the list, and submissions of jobs."""
