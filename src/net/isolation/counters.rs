//! One counter for every way a packet can end.

use std::net::Ipv4Addr;

use super::Inbound;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a packet goes nowhere.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable name, for metrics and the control socket.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Lengths, version or options that can't be true.
    Malformed = "malformed",
    /// IPv6 inside the tunnel is not offered.
    Ipv6 = "ipv6",
    /// From a router: the sender is not the router's own address.
    ForeignSource = "foreign_source",
    /// The sender prescribes the packet's way.
    SourceRoute = "source_route",
    /// To a multicast or broadcast address.
    Multicast = "multicast",
    /// From a router: neither to its gateway nor to the management address.
    ForeignDestination = "foreign_destination",
    /// To the gateway, but not an echo request in one piece.
    GatewayService = "gateway_service",
    /// Neither ICMP nor TCP nor UDP.
    Protocol = "protocol",
    /// A fragment that hides or could overwrite the header the rules need.
    Fragment = "fragment",
    /// A TCP or UDP header, or an ICMP message, that is cut short or contradicts itself.
    TransportHeader = "transport_header",
    /// An ICMP message that routers have no business sending.
    IcmpType = "icmp_type",
    /// An ICMP error about a packet that the host never sent to this router.
    IcmpForeign = "icmp_foreign",
    /// A new TCP connection to a port that is not allowed.
    TcpOpen = "tcp_open",
    /// UDP that answers no flow of the host, to a port that is not allowed.
    UdpUnsolicited = "udp_unsolicited",
    /// From the host: not sent by the management address.
    HostSource = "host_source",
}

const REASONS: usize = DropReason::ALL.len();

/// Packets by outcome. The sum equals the packets that were judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// From a router, given to the host.
    pub to_host: u64,
    /// From a router, an echo request for its gateway.
    pub to_gateway: u64,
    /// From the host, for a router.
    pub to_router: u64,
    /// From routers, whatever became of them.
    pub from_routers: u64,
    /// From the host, likewise.
    pub from_host: u64,
    dropped: [u64; REASONS],
}

impl Counters {
    /// Counts one answer of [`super::Policy::inbound`].
    pub fn note_inbound(&mut self, outcome: Inbound) {
        self.from_routers += 1;
        match outcome {
            Inbound::ToHost { .. } => self.to_host += 1,
            Inbound::EchoReply { .. } => self.to_gateway += 1,
            Inbound::Drop(reason) => self.note_drop(reason),
        }
    }

    /// Counts one answer of [`super::Policy::outbound`].
    pub fn note_outbound(&mut self, outcome: Result<Ipv4Addr, DropReason>) {
        self.from_host += 1;
        match outcome {
            Ok(_) => self.to_router += 1,
            Err(reason) => self.note_drop(reason),
        }
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or(0)
    }

    /// All packets judged.
    pub fn total(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().sum();
        self.to_host + self.to_gateway + self.to_router + dropped
    }

    fn note_drop(&mut self, reason: DropReason) {
        if let Some(counter) = self.dropped.get_mut(reason as usize) {
            *counter += 1;
        }
    }
}

impl std::ops::AddAssign<&Self> for Counters {
    fn add_assign(&mut self, other: &Self) {
        self.to_host += other.to_host;
        self.to_gateway += other.to_gateway;
        self.to_router += other.to_router;
        self.from_routers += other.from_routers;
        self.from_host += other.from_host;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}
