"""What the daemon survives: its processes killed, hung, starved and lied to, while clients count every byte."""
