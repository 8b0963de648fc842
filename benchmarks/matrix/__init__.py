"""Times of every branch by policy and target: `gateway bench`."""
