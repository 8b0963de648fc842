"""Redis, which replicas and workers share: sessions, the order of their requests, and the limits of keys."""
