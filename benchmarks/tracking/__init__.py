"""ByteTrack beside packages on MOT17, and the cost of tracking sessions."""
