"""What tests of processes share: daemons, clients, what they export, what the kernel says of them."""
