"""What authors of handlers import, by way of `gaiod`: handlers, their options and sources, and how connections end."""
