"""What tests of files in `deploy/` share."""
