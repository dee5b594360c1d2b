//! Why there is no device: each as one sentence that says what to do.

use std::io;

use ipnet::Ipv4Net;

/// Why a device can't be made or set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// There is no node, or no driver behind it.
    #[error(
        "{node} does not exist or has no driver: run `modprobe tun`, or start the container with \
         `--device /dev/net/tun`"
    )]
    NoDriver {
        /// The path that was tried.
        node: String,
    },
    /// The node is there, but this process may not open it.
    #[error(
        "this process may not open {node}: run it as root, or give its user read and write \
         permission on that file"
    )]
    MayNotOpen {
        /// The path that was tried.
        node: String,
    },
    /// The node is open, but making a device takes a right that is missing.
    #[error(
        "this process may not make a network device: run it as root, or give it CAP_NET_ADMIN \
         (`setcap cap_net_admin+ep` on the program, `AmbientCapabilities=CAP_NET_ADMIN` in a \
         systemd unit, `--cap-add NET_ADMIN` for a container)"
    )]
    MayNotCreate,
    /// The name belongs to a device of somebody else.
    #[error(
        "a network interface named {name} exists already: stop the program that holds it (another \
         instance?), or choose another `tun.name`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The kernel does not take the name.
    #[error(
        "{name:?} can't name a network interface: `tun.name` takes 1 to 15 letters, digits, `-`, \
         `_` or `.`"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// More queues than the kernel gives, or none.
    #[error("a TUN device has 1 to 256 queues, not {queues}")]
    BadQueues {
        /// How many were asked for.
        queues: usize,
    },
    /// The route to the pool belongs to another interface.
    #[error(
        "the host already has a route to {pool} that is not ours: remove it, or choose another \
         `pool.network`"
    )]
    RouteTaken {
        /// The pool.
        pool: Ipv4Net,
    },
    /// A step that the kernel refused for another reason.
    #[error("could not {step} for the device {name}: {source}")]
    Failed {
        /// The device.
        name: String,
        /// What was tried, e.g. "set the MTU".
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}
