"""Videos that the service fetches itself, from hosts and buckets that the settings list."""
