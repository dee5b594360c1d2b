//! Who may talk to whom through a tunnel. Source: design section 3; threats T47-T50, T53, T55, T56.
//!
//! A router reaches two addresses: its block's gateway, where only an echo request is answered (by
//! us, not by the host), and the management address, where it may answer flows that the host
//! opened, send echo requests and ICMP errors about its own flows, and use the ports that are
//! listed. Everything else is dropped, each reason with a counter. Nothing is decided on bytes of
//! a later fragment: the host can't use those without a first fragment that was accepted here.

mod counters;
mod flows;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

pub use counters::{Counters, DropReason};
pub use flows::{DEFAULT_FLOWS, FLOW_AGE, UdpFlows};

use super::icmp;
use super::ipv4::{self, BadPacket, View};

/// A later fragment may start here at the earliest, in units of 8 bytes: 24 bytes lie behind every
/// header that was looked at in the first fragment (RFC 1858, RFC 3128).
const FIRST_SAFE_OFFSET: u16 = 3;

const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the management address that routers may use, written `udp/514`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllowedPort {
    /// Its protocol.
    pub proto: Proto,
    /// Its number, never 0.
    pub port: u16,
}

/// The text is not `tcp/PORT` or `udp/PORT` with a port from 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected tcp/PORT or udp/PORT with a port from 1 to 65535")]
pub struct BadAllowedPort;

impl FromStr for AllowedPort {
    type Err = BadAllowedPort;

    fn from_str(text: &str) -> Result<Self, BadAllowedPort> {
        let (proto, port) = text.split_once('/').ok_or(BadAllowedPort)?;
        let proto = match proto {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            _ => return Err(BadAllowedPort),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadAllowedPort);
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self { proto, port }),
            _ => Err(BadAllowedPort),
        }
    }
}

impl fmt::Display for AllowedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.proto, self.port)
    }
}

/// The rules of one concentrator; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    management: Ipv4Addr,
    allow: Arc<[AllowedPort]>,
}

/// What happens to a packet that came out of a tunnel. `length` is the packet's own length: bytes
/// after it are not part of it and go no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Write it to the host's device.
    ToHost {
        /// Bytes.
        length: usize,
    },
    /// An echo request for the gateway: answer with [`icmp::echo_reply_in_place`].
    EchoReply {
        /// Bytes.
        length: usize,
    },
    /// It goes nowhere.
    Drop(DropReason),
}

impl Policy {
    /// Rules for the host's `management` address with the ports that routers may open there.
    pub fn new(management: Ipv4Addr, allow: &[AllowedPort]) -> Self {
        Self { management, allow: allow.into() }
    }

    /// The address of the host inside the tunnels.
    pub fn management(&self) -> Ipv4Addr {
        self.management
    }

    /// Judges a packet from the router that owns the address `router` in the block of `gateway`.
    pub fn inbound(
        &self,
        router: Ipv4Addr,
        gateway: Ipv4Addr,
        packet: &[u8],
        now: Instant,
        flows: &UdpFlows,
    ) -> Inbound {
        let view = match View::parse(packet) {
            Ok(view) => view,
            Err(bad) => return Inbound::Drop(bad.into()),
        };
        let length = view.total_length();
        if view.source() != router {
            return Inbound::Drop(DropReason::ForeignSource);
        }
        if view.has_source_route() {
            return Inbound::Drop(DropReason::SourceRoute);
        }
        let destination = view.destination();
        if destination == self.management {
            return match self.to_management(router, &view, now, flows) {
                Ok(()) => Inbound::ToHost { length },
                Err(reason) => Inbound::Drop(reason),
            };
        }
        if destination == gateway {
            return if icmp::is_echo_request(&view) {
                Inbound::EchoReply { length }
            } else {
                Inbound::Drop(DropReason::GatewayService)
            };
        }
        Inbound::Drop(if destination.is_multicast() || destination.is_broadcast() {
            DropReason::Multicast
        } else {
            DropReason::ForeignDestination
        })
    }

    /// Judges a packet from the host, notes the UDP flow it belongs to, and returns the router's
    /// address. Whether that router is connected is the route table's affair.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn outbound(
        &self,
        packet: &[u8],
        now: Instant,
        flows: &mut UdpFlows,
    ) -> Result<Ipv4Addr, DropReason> {
        let view = View::parse(packet)?;
        let router = view.destination();
        if router.is_multicast() || router.is_broadcast() {
            return Err(DropReason::Multicast);
        }
        if view.source() != self.management {
            return Err(DropReason::HostSource);
        }
        if view.protocol() == ipv4::UDP
            && view.fragment_offset() == 0
            && let Some((from, to)) = ports(view.payload())
        {
            flows.note(now, router, to, from);
        }
        Ok(router)
    }

    fn to_management(
        &self,
        router: Ipv4Addr,
        view: &View<'_>,
        now: Instant,
        flows: &UdpFlows,
    ) -> Result<(), DropReason> {
        let protocol = view.protocol();
        if !matches!(protocol, ipv4::ICMP | ipv4::TCP | ipv4::UDP) {
            return Err(DropReason::Protocol);
        }
        if view.fragment_offset() != 0 {
            let safe = view.fragment_offset() >= FIRST_SAFE_OFFSET;
            return if safe { Ok(()) } else { Err(DropReason::Fragment) };
        }
        match protocol {
            ipv4::ICMP => self.icmp(router, view),
            ipv4::TCP => self.tcp(view),
            _ => self.udp(router, view, now, flows),
        }
    }

    fn icmp(&self, router: Ipv4Addr, view: &View<'_>) -> Result<(), DropReason> {
        let message = view.payload();
        if message.len() < icmp::HEADER {
            return Err(too_short(view));
        }
        match message.first().copied().unwrap_or(u8::MAX) {
            icmp::ECHO_REQUEST | icmp::ECHO_REPLY => Ok(()),
            // An error is at most 576 bytes long and never needs fragments.
            icmp::UNREACHABLE | icmp::TIME_EXCEEDED if view.is_fragment() => {
                Err(DropReason::Fragment)
            }
            icmp::UNREACHABLE | icmp::TIME_EXCEEDED => {
                // The error quotes the packet it is about, cut short. A router that could report
                // errors about others' flows could slow them or tear them down.
                let quoted = message.get(icmp::HEADER..).unwrap_or_default();
                let about_own_flow = quoted.len() >= ipv4::MIN_HEADER + 8
                    && quoted.first().is_some_and(|first| first >> 4 == 4)
                    && quoted.get(12..16) == Some(&self.management.octets())
                    && quoted.get(16..20) == Some(&router.octets());
                if about_own_flow { Ok(()) } else { Err(DropReason::IcmpForeign) }
            }
            _ => Err(DropReason::IcmpType),
        }
    }

    fn tcp(&self, view: &View<'_>) -> Result<(), DropReason> {
        let segment = view.payload();
        let (Some((_, port)), Some(header)) = (ports(segment), segment.first_chunk::<TCP_HEADER>())
        else {
            return Err(too_short(view));
        };
        let header_length = usize::from(header[12] >> 4) * 4;
        if header_length < TCP_HEADER {
            return Err(DropReason::TransportHeader);
        }
        if header_length > segment.len() {
            return Err(too_short(view));
        }
        // Without ACK a SYN asks for a new connection, whatever other flags stand beside it.
        let opens = header[13] & (TCP_SYN | TCP_ACK) == TCP_SYN;
        if opens && !self.allows(Proto::Tcp, port) {
            return Err(DropReason::TcpOpen);
        }
        Ok(())
    }

    fn udp(
        &self,
        router: Ipv4Addr,
        view: &View<'_>,
        now: Instant,
        flows: &UdpFlows,
    ) -> Result<(), DropReason> {
        let datagram = view.payload();
        let (Some((from, to)), Some(header)) =
            (ports(datagram), datagram.first_chunk::<UDP_HEADER>())
        else {
            return Err(too_short(view));
        };
        let claimed = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if claimed < UDP_HEADER || (!view.is_fragment() && claimed > datagram.len()) {
            return Err(DropReason::TransportHeader);
        }
        if self.allows(Proto::Udp, to) || flows.is_reply(now, router, from, to) {
            return Ok(());
        }
        Err(DropReason::UdpUnsolicited)
    }

    fn allows(&self, proto: Proto, port: u16) -> bool {
        self.allow.contains(&AllowedPort { proto, port })
    }
}

/// Source and destination port, which TCP and UDP keep at the same place.
fn ports(segment: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *segment.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// A header cut off by a fragment is an attack; one cut off by the end of the packet is rubbish.
fn too_short(view: &View<'_>) -> DropReason {
    if view.is_fragment() { DropReason::Fragment } else { DropReason::TransportHeader }
}

impl From<BadPacket> for DropReason {
    fn from(bad: BadPacket) -> Self {
        match bad {
            BadPacket::Ipv6 => Self::Ipv6,
            BadPacket::FragmentEnd => Self::Fragment,
            BadPacket::TooShort
            | BadPacket::Version
            | BadPacket::HeaderLength
            | BadPacket::TotalLength
            | BadPacket::Options => Self::Malformed,
        }
    }
}
