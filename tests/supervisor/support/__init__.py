"""What the supervisor's tests share: another user, a control socket in this process, a daemon that is played."""
