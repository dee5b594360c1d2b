//! Reference client, hostile client, simulator and fuzz bodies.
