"""The handlers that come with gaiod."""
