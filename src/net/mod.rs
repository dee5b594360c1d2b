//! Packet helpers: header views, checksums, isolation rules, route table. Pure.
