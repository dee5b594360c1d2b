//! An embeddable, OpenVPN-compatible tunnel concentrator for fleets of MikroTik routers.
//!
//! Layers, from pure to effectful (`tests/layering.rs` guards the arrows):
//!
//! ```text
//! cli ──> config, concentrator, control_api (client side)
//! concentrator ──> everything below; the only composition root
//! control_api · greeter · shard · tls · store · tun     effects, one kind each
//! audit · proto · net · lease · identity · routeros     pure: time and randomness come in
//! sys                                                   every raw system call
//! ```

pub mod audit;
pub mod concentrator;
pub mod config;
pub mod control_api;
pub mod greeter;
pub mod identity;
pub mod lease;
pub mod net;
pub mod proto;
pub mod routeros;
pub mod shard;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod tun;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "testing")]
pub mod testing;
