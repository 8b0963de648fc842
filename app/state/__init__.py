"""State that outlives a request: tracking sessions and the index of video jobs."""
