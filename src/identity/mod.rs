//! Who a router is: accounts, credentials, verdicts, back-off. Pure.
//!
//! One rule for every name that a peer can present: bytes are compared exactly, never folded,
//! trimmed or normalised. What an account may hold is narrower ([`valid_name`],
//! [`valid_username`], [`valid_common_name`]), so a crafted subject has nothing to match.
//!
//! A login goes: [`BackOff::allowed`], [`judge()`], for human-set passwords [`SlowCheck`] on a
//! bounded pool behind [`VerifiedCache`], then [`BackOff::succeeded`] or [`BackOff::failed`], then
//! [`Takeovers::decide`] against the session that holds the identity. There is no default
//! outcome: what is not accepted in so many words is refused.

mod account;
mod aging;
mod backoff;
mod directory;
mod generate;
mod hashing;
mod judge;
mod secret;
mod sketch;
mod takeover;
mod verified;

pub use account::{
    Account, AccountError, LoginMode, MAX_COMMON_NAME, MAX_NAME, MAX_NOTE, MAX_TAG, MAX_TAGS,
    MAX_USERNAME, PreviousSecret, valid_common_name, valid_name, valid_note, valid_tag,
    valid_username,
};
pub use backoff::{BackOff, BackOffPolicy, Budget, RetryAfter};
pub use directory::{Directory, DirectoryError};
pub use generate::{
    GENERATED_USERNAME_LEN, MAX_DEFAULT_USERNAME, default_username, generate_password,
};
pub use hashing::HashError;
pub use judge::{Accepted, Judgement, Presented, Proof, Refusal, SlowCheck, judge};
pub use secret::{SecretError, StoredSecret};
pub use takeover::{Takeover, Takeovers};
pub use verified::{Recalled, VerifiedCache};
