//! `[limits]`: every budget of the process, each with its key.

use std::time::Duration;

use super::section::Section;

/// Budgets. See `docs/CONFIG.md` for what happens when one is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to authenticated, absolute.
    pub login_deadline: Duration,
    /// Sessions that have not logged in, in all.
    pub unauthenticated: usize,
    /// The same for one source (/24, /56) without a success of late.
    pub unauthenticated_per_source: usize,
    /// For how long a success lifts `unauthenticated_per_source`.
    pub source_memory: Duration,
    /// Handshakes in progress, a greeter; the rest wait in the backlog.
    pub handshakes_per_greeter: usize,
    /// Connections that wait to be accepted, a listener.
    pub listen_backlog: u32,
    /// Bytes buffered before authentication, a session.
    pub login_bytes: usize,
    /// Bytes buffered before authentication, in all.
    pub login_bytes_total: usize,
    /// Longest frame, without its length field.
    pub frame_bytes: usize,
    /// For how long an address stays unused after its router was deleted or forgotten.
    pub lease_quarantine: Duration,
    /// File descriptors that `serve` asks for. None: what the pool needs.
    pub open_files: Option<u64>,
    /// Plaintext that waits for one slow outer connection.
    pub queue_bytes: usize,
    /// The same in all.
    pub queue_bytes_total: usize,
    /// Connections to the control socket at once.
    pub control_connections: usize,
    /// Connections to routers (dials) at once.
    pub dials: usize,
    /// Event streams over the control socket at once.
    pub control_streams: usize,
    /// Longest body of a control request.
    pub control_body_bytes: usize,
    /// Events that are held for listeners; eight a router if that is more.
    pub events: usize,
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Limits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let second = Duration::from_secs(1);
        let mut count = |key, default, range| {
            usize::try_from(section.integer(key, default, range)).unwrap_or(usize::MAX)
        };
        let unauthenticated = count("unauthenticated", 4096, 1..=1_000_000);
        let unauthenticated_per_source = count("unauthenticated_per_source", 512, 1..=1_000_000);
        let handshakes_per_greeter = count("handshakes_per_greeter", 64, 1..=4096);
        let control_connections = count("control_connections", 256, 4..=65_536);
        let dials = count("dials", 1024, 1..=65_536);
        let control_streams = count("control_streams", 128, 2..=65_536);
        let events = count("events", 65_536, 1024..=16_777_216);
        let listen_backlog = count("listen_backlog", 4096, 1..=65_535);
        let mut bytes = |key, default, range| {
            usize::try_from(section.size(key, default, range)).unwrap_or(usize::MAX)
        };
        let login_bytes = bytes("login_bytes", 64 * KIB, 8 * KIB..=MIB);
        let login_bytes_total = bytes("login_bytes_total", 64 * MIB, MIB..=64 * GIB);
        // RouterOS and OpenVPN send frames of up to 1,600 bytes with an inner MTU of 1,500.
        let frame_bytes = bytes("frame_bytes", 2048, 1700..=2048);
        let queue_bytes = bytes("queue_bytes", 128 * KIB, 16 * KIB..=16 * MIB);
        let queue_bytes_total = bytes("queue_bytes_total", 256 * MIB, MIB..=64 * GIB);
        let control_body_bytes = bytes("control_body_bytes", 64 * KIB, 4 * KIB..=16 * MIB);
        let limits = Self {
            login_deadline: section.duration("login_deadline", MINUTE / 2, second..=10 * MINUTE),
            unauthenticated,
            unauthenticated_per_source,
            source_memory: section.duration("source_memory", DAY, Duration::ZERO..=365 * DAY),
            handshakes_per_greeter,
            listen_backlog: u32::try_from(listen_backlog).unwrap_or(u32::MAX),
            login_bytes,
            login_bytes_total,
            frame_bytes,
            lease_quarantine: section.duration(
                "lease_quarantine",
                7 * DAY,
                Duration::ZERO..=3650 * DAY,
            ),
            open_files: Some(section.integer("open_files", 0, 0..=100_000_000)).filter(|n| *n != 0),
            queue_bytes,
            queue_bytes_total,
            control_connections,
            dials,
            control_streams,
            control_body_bytes,
            events,
        };
        section.finish();
        limits
    }
}
