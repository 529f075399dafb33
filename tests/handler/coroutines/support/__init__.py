"""What the tests of coroutine handlers have in common."""
