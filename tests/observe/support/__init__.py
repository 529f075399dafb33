"""What the tests of metrics share: worker slots filled by hand, an endpoint in this process."""
