"""The configurations that come with gaiod; installed as the package gaiod.default_config."""
