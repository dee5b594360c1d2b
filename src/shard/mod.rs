//! Established tunnels: one thread, one TUN queue, one epoll.
