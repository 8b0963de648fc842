"""Packets of a video, looked at without decoding them. Runs in the decoder's own process only."""
