"""What replicas and workers share in Redis: sessions, the order of their requests, and the limits of keys."""
