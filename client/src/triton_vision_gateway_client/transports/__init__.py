"""Two thin transports over httpx, and what they share."""
