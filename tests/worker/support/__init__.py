"""What the runtime's tests share: a listener in this process, a worker as a process."""
