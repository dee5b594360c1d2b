//! The phases of a session. Each owns what it needs and nothing else.
//!
//! ```text
//! AwaitReset ──valid reset──> Login ──push reply──> Established
//!     │                         │ refused               │ shut
//!     │                         └───────> Closing <─────┘
//!     └──────── anything bad ──────> Closed <── end ─────┘
//! ```

use super::closing::Closing;
use super::error::CloseReason;
use super::established::Established;
use super::login::Login;
use super::shared::Shared;
use super::stats::Phase;

#[derive(Debug)]
pub(super) enum State {
    /// Nothing valid was received; nothing was sent.
    AwaitReset,
    Login(Box<Login>),
    Established(Box<Established>),
    Closing(Box<Closing>),
    Closed {
        reason: CloseReason,
        /// Frames that were to be sent.
        tail: Vec<u8>,
    },
}

impl State {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::AwaitReset => Phase::AwaitReset,
            Self::Login(login) => login.phase(),
            Self::Established(session) if session.up => Phase::Up,
            Self::Established(_) => Phase::Established,
            Self::Closing(_) => Phase::Closing,
            Self::Closed { .. } => Phase::Closed,
        }
    }

    /// Drops every TLS engine.
    pub(super) fn close_engines(&mut self, shared: &mut Shared) {
        match self {
            Self::AwaitReset | Self::Closed { .. } => {}
            Self::Login(login) => login.channel.close_engine(shared),
            Self::Established(session) => {
                session.keys.channels().for_each(|channel| channel.close_engine(shared));
            }
            Self::Closing(closing) => closing.channel.close_engine(shared),
        }
    }
}
