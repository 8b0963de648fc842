"""Detection in videos beside bare decoding and bare inference."""
