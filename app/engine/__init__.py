"""What runs a branch: `triton`, `embedded`, and the fake for tests."""
