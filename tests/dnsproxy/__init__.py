"""The DNS proxy as a process, on real sockets in namespaces, with a real map of the kernel."""
