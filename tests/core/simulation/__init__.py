"""A deterministic simulation of the watcher: a kernel, a client, and a model that looks on."""
