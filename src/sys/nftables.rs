//! The chains that are hooked into the path of packets, asked of the kernel: no helper program
//! runs. Source: linux/netfilter/nf_tables.h and nfnetlink.h; numbers inside attributes are big
//! endian, those of headers the machine's own.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A chain with a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `NF_INET_*`.
    pub hook: u32,
    /// What no rule accepts is dropped.
    pub drops: bool,
}

/// Every chain with a hook, in this network namespace.
///
/// # Errors
/// No right to ask, or no answer within a second. A kernel without nftables has no chains.
pub fn base_chains() -> io::Result<Vec<BaseChain>> {
    let protocol = Protocol::from(NETLINK_NETFILTER);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(&request())?;
    let mut chains = Vec::new();
    let mut buffer = vec![0; BUFFER];
    // A host with more than that is no host of ours.
    for _ in 0..MAX_READS {
        let length = socket.read(&mut buffer)?;
        match messages(buffer.get(..length).unwrap_or_default(), &mut chains) {
            Next::More => {}
            Next::Done => return Ok(chains),
            Next::Error(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EINVAL | libc::ENOENT) => {
                return Ok(Vec::new());
            }
            Next::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
    Ok(chains)
}

fn request() -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(20u32.to_ne_bytes());
    out.extend((NFTABLES << 8 | GET_CHAIN).to_ne_bytes());
    out.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend(1u32.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    // nfgenmsg: every family, version 0.
    out.extend([0; 4]);
    out
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    More,
    Done,
    Error(i32),
}

fn messages(mut bytes: &[u8], chains: &mut Vec<BaseChain>) -> Next {
    while let Some((header, _)) = bytes.split_first_chunk::<16>() {
        let [a, b, c, d, e, f, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let kind = u16::from_ne_bytes([e, f]);
        let Some(body) = bytes.get(16..length) else { return Next::Done };
        if kind == NLMSG_DONE {
            return Next::Done;
        }
        if kind == NLMSG_ERROR {
            let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
            return Next::Error(code.saturating_neg());
        }
        if kind == NFTABLES << 8 | NEW_CHAIN {
            chains.extend(chain(body));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Next::More
}

fn chain(body: &[u8]) -> Option<BaseChain> {
    let (&family, _) = body.split_first()?;
    let (mut table, mut name, mut hook, mut drops) = (None, None, None, false);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            CHAIN_TABLE => table = Some(text(value)),
            CHAIN_NAME => name = Some(text(value)),
            CHAIN_HOOK => {
                hook = attributes(value)
                    .find(|(kind, _)| *kind == HOOK_NUMBER)
                    .and_then(|(_, value)| number(value));
            }
            CHAIN_POLICY => drops = number(value) == Some(NF_DROP),
            _ => {}
        }
    }
    Some(BaseChain { family, table: table?, name: name?, hook: hook?, drops })
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & KIND_MASK, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    value.get(..end).unwrap_or_default().escape_ascii().to_string()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk::<4>().map(|value| u32::from_be_bytes(*value))
}

const NETLINK_NETFILTER: i32 = 12;
const NFTABLES: u16 = 10;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const NF_DROP: u32 = 0;
/// Without the marks "nested" and "big endian".
const KIND_MASK: u16 = 0x3fff;
const BUFFER: usize = 64 * 1024;
const MAX_READS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut out = length.to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(body);
        out
    }

    fn new_chain(hook: Option<u32>, policy: u32) -> Vec<u8> {
        let mut body = vec![1, 0, 0, 0];
        body.extend(attribute(CHAIN_TABLE, b"filter\0"));
        body.extend(attribute(CHAIN_NAME, b"input\0"));
        if let Some(hook) = hook {
            let inner = attribute(HOOK_NUMBER, &hook.to_be_bytes());
            body.extend(attribute(CHAIN_HOOK | 0x8000, &inner));
            body.extend(attribute(CHAIN_POLICY, &policy.to_be_bytes()));
        }
        message(NFTABLES << 8 | NEW_CHAIN, &body)
    }

    #[test]
    fn chains_with_a_hook_are_read() {
        let mut bytes = new_chain(Some(1), 0);
        bytes.extend(new_chain(None, 0));
        bytes.extend(new_chain(Some(2), 1));
        let mut chains = Vec::new();
        assert_eq!(messages(&bytes, &mut chains), Next::More);
        let expected = BaseChain {
            family: 1,
            table: "filter".into(),
            name: "input".into(),
            hook: 1,
            drops: true,
        };
        assert_eq!(chains, [expected.clone(), BaseChain { hook: 2, drops: false, ..expected }]);
        assert_eq!(messages(&message(NLMSG_DONE, &[]), &mut chains), Next::Done);
        let refused = message(NLMSG_ERROR, &(-1i32).to_ne_bytes());
        assert_eq!(messages(&refused, &mut chains), Next::Error(1));
    }

    #[test]
    fn bytes_that_are_no_answer_do_no_harm() {
        let whole = new_chain(Some(1), 0);
        for length in 0..whole.len() {
            let mut chains = Vec::new();
            messages(&whole[..length], &mut chains);
            assert!(chains.is_empty());
        }
        for seed in 0..=255u8 {
            let noise: Vec<u8> =
                (0..200u8).map(|n| n.wrapping_mul(seed).rotate_left(3) ^ seed).collect();
            messages(&noise, &mut Vec::new());
            let _ = attributes(&noise).count();
        }
    }
}
