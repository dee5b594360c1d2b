//! Tunnel addresses: the pool and who holds which address. Pure.
