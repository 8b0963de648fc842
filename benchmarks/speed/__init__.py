"""The gateway beside the limit, a bare ASGI app and peers, and what single parts of it cost."""
