"""The processes that the supervisor starts: workers and the feeder, their health and their ends."""
