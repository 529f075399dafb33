"""The handlers that come with gaiod. They import nothing of it but `gaiod`, as yours do."""
