"""What the tests of `gaiod top` share."""
