"""Coroutine handlers: what drives an `async def handle`, and what it can wait for."""
