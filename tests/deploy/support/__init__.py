"""What the tests of the dashboard and of the rules share."""
