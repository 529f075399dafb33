"""What the core's tests share: waiting, sockets, descriptors, processes of either engine."""
