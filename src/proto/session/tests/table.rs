//! Every packet in every state: what it may do, and that it does nothing else.

use super::bench::*;
use crate::proto::session::*;
use crate::proto::wire::{AckList, ControlPacket, KeyId, Opcode, SessionId, push_frame};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    AwaitReset,
    Handshake,
    KeyExchange,
    Verdict,
    Address,
    Ready,
    Established,
    Up,
    Lingered,
    RekeyHandshake,
    RekeyConfirm,
    Rekeyed,
    AuthFailed,
    Restarting,
    Closed,
}

const ALL: [At; 15] = [
    At::AwaitReset,
    At::Handshake,
    At::KeyExchange,
    At::Verdict,
    At::Address,
    At::Ready,
    At::Established,
    At::Up,
    At::Lingered,
    At::RekeyHandshake,
    At::RekeyConfirm,
    At::Rekeyed,
    At::AuthFailed,
    At::Restarting,
    At::Closed,
];

impl At {
    fn bench(self) -> Bench {
        let mut bench = Bench::new();
        let rekey = |bench: &mut Bench| {
            bench.send(Opcode::SoftResetV1, 1, &[]);
            bench.send(Opcode::ControlV1, 1, b"hello");
            bench.key_exchange(1, ROUTER, Some("router"), Some("secret"), None);
        };
        match self {
            Self::AwaitReset => {}
            Self::Handshake => bench.send(Opcode::HardResetClientV2, 0, &[]),
            Self::KeyExchange => bench.hello(),
            Self::Verdict | Self::Address | Self::Ready => {
                bench.verdict = (self != Self::Verdict).then(allow);
                bench.assignment = (self == Self::Ready).then(|| Ok(address()));
                bench.hello();
                bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
            }
            Self::Established => {
                bench.hello();
                bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
                bench.peer.auto_ack = false;
                bench.say(0, "PUSH_REQUEST");
            }
            Self::Up => bench.login(),
            Self::Lingered => {
                bench.login();
                bench.run(seconds(3));
            }
            Self::RekeyHandshake => {
                bench.login();
                bench.send(Opcode::SoftResetV1, 1, &[]);
            }
            Self::RekeyConfirm => {
                bench.login();
                bench.peer.auto_ack = false;
                rekey(&mut bench);
            }
            Self::Rekeyed => {
                bench.login();
                rekey(&mut bench);
            }
            Self::AuthFailed => {
                bench.verdict = Some(Verdict::Deny(DenyReason::WrongPassword));
                bench.hello();
                bench.key_exchange(0, ROUTER, Some("router"), Some("wrong"), None);
            }
            Self::Restarting => {
                bench.login();
                bench.peer.auto_ack = false;
                bench.session.shut(bench.now, Shut::Restart);
                bench.pump();
            }
            Self::Closed => {
                bench.login();
                bench.session.shut(bench.now, Shut::Quiet);
                bench.pump();
            }
        }
        // Acknowledgements that the cases below do not make themselves would confuse them.
        bench.peer.auto_ack = false;
        bench
    }

    fn is_login(self) -> bool {
        matches!(
            self,
            Self::Handshake | Self::KeyExchange | Self::Verdict | Self::Address | Self::Ready
        )
    }

    fn is_closing(self) -> bool {
        matches!(self, Self::AuthFailed | Self::Restarting)
    }

    /// Key ids under which data can be opened.
    fn keys(self) -> &'static [u8] {
        match self {
            Self::Established | Self::Up | Self::Lingered | Self::RekeyHandshake => &[0],
            Self::RekeyConfirm | Self::Rekeyed => &[0, 1],
            _ => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acks {
    None,
    Ours,
    Foreign,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    opcode: u8,
    key: u8,
    own_sid: bool,
    acks: Acks,
    /// 0: id 0. 1: the next id. 2: far ahead.
    id: u8,
}

/// What the model says about a case: the session lives on, or it ends.
fn lives(at: At, case: Case) -> bool {
    let Some(opcode) = Opcode::from_number(case.opcode) else { return false };
    if at == At::AwaitReset {
        // Any session id is fine there, and message ids 0 and 1.
        return opcode == Opcode::HardResetClientV2
            && case.key == 0
            && case.acks == Acks::None
            && case.id != 2;
    }
    if opcode.is_data() {
        return !at.keys().contains(&case.key);
    }
    if !case.own_sid || case.acks == Acks::Foreign {
        return false;
    }
    match opcode {
        Opcode::ControlV1 | Opcode::AckV1 | Opcode::HardResetClientV2 => {
            !at.is_login() || case.key == 0
        }
        Opcode::SoftResetV1 | Opcode::HardResetServerV2 => !at.is_login(),
        // Key method 1, and wrapped keys on a listener without them.
        _ => false,
    }
}

/// True if the case may begin a rekey.
fn begins_rekey(at: At, case: Case) -> bool {
    let next = if at == At::Rekeyed { 2 } else { 1 };
    // At::Established too: the reset proves that the push reply was read.
    matches!(at, At::Established | At::Up | At::Lingered | At::Rekeyed)
        && case.opcode == Opcode::SoftResetV1.number()
        && case.key == next
        && case.own_sid
        && case.acks != Acks::Foreign
        && case.id == 0
}

fn frame(bench: &Bench, case: Case) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(opcode) = Opcode::from_number(case.opcode).filter(|opcode| opcode.is_control()) else {
        // Data, key method 1 and unknown opcodes: some bytes.
        push_frame(&mut out, |out| {
            out.push(case.opcode << 3 | case.key);
            out.extend([0x5a; 60]);
            Ok::<(), ()>(())
        })
        .unwrap();
        return out;
    };
    let stranger = SessionId::new([0xee; 8]).unwrap();
    let remote = match case.acks {
        Acks::Foreign => stranger,
        _ => bench.peer.server.unwrap_or(stranger),
    };
    let ids: &[u32] = if case.acks == Acks::None { &[] } else { &[0, 1, 900] };
    let next = bench.peer.keys.get(&case.key).map_or(0, |key| key.next_id);
    let id = match case.id {
        0 => 0,
        1 => next.max(1),
        _ => next + 1000,
    };
    let packet = ControlPacket {
        opcode,
        key_id: KeyId::new(case.key).unwrap(),
        session_id: if case.own_sid { bench.peer.sid } else { stranger },
        acks: AckList::new(ids, remote),
        message_id: (opcode != Opcode::AckV1).then_some(id),
        payload: if opcode == Opcode::ControlV1 { b"x" } else { b"" },
    };
    let mut plain = Vec::new();
    packet.encode(&mut plain);
    push_frame(&mut out, |out| {
        out.extend(&plain);
        Ok::<(), ()>(())
    })
    .unwrap();
    out
}

/// Every combination that makes a different packet.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for opcode in 0..=13_u8 {
        let known = Opcode::from_number(opcode);
        let control = known.is_some_and(Opcode::is_control);
        let sids: &[bool] = if control { &[true, false] } else { &[true] };
        let acks: &[Acks] =
            if control { &[Acks::None, Acks::Ours, Acks::Foreign] } else { &[Acks::None] };
        let ids = if control && known != Some(Opcode::AckV1) { 0..3_u8 } else { 0..1 };
        for key in [0, 1, 2, 7] {
            for &own_sid in sids {
                for &acks in acks {
                    for id in ids.clone() {
                        cases.push(Case { opcode, key, own_sid, acks, id });
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_packet_in_every_state_does_what_the_model_says() {
    let cases = cases();
    for at in ALL {
        let mut bench = at.bench();
        let fresh = format!("{:?}", bench.session.core.state);
        for case in &cases {
            check(&mut bench, at, *case);
            // A packet without effect leaves the session fit for the next one.
            if format!("{:?}", bench.session.core.state) != fresh {
                bench = at.bench();
            }
        }
    }
}

fn check(bench: &mut Bench, at: At, case: Case) {
    let before = bench.session.info();
    let now = bench.now;
    let mut bytes = frame(bench, case);
    let mut delivered = 0;
    // Without the driver: what the packet itself did.
    let result = bench.session.handle_link(now, &mut bytes, &mut |_| delivered += 1);
    let after = bench.session.info();
    assert_eq!(delivered, 0, "{at:?} {case:?}");
    if at == At::Closed {
        assert!(result.is_err() && after.phase == Phase::Closed);
        return;
    }
    let lived = after.phase != Phase::Closed;
    assert_eq!(lived, result.is_ok(), "{at:?} {case:?}");
    assert_eq!(lived, lives(at, case), "{at:?} {case:?} {result:?}");
    if !lived {
        let mut out = Vec::new();
        bench.session.poll_transmit(now, &mut out);
        assert!(out.is_empty(), "{at:?} {case:?}: a broken packet is not answered");
        return;
    }
    assert_eq!(after.rekeying, before.rekeying || begins_rekey(at, case), "{at:?} {case:?}");
    match at {
        At::AwaitReset => assert_eq!(after.phase, Phase::Handshake),
        // Acknowledgements make an established session up; nothing else moves anything.
        At::Established => assert!(matches!(after.phase, Phase::Established | Phase::Up)),
        _ => assert_eq!(after.phase, before.phase, "{at:?} {case:?}"),
    }
    // A key changes by the acknowledgement of our key exchange only.
    if after.key_id != before.key_id {
        assert!(at == At::RekeyConfirm && case.key == 1 && case.acks == Acks::Ours, "{case:?}");
    }
    if at.is_closing() {
        bench.run(seconds(6));
        assert!(bench.closed.is_some(), "{at:?} {case:?}: the end can't be postponed");
    }
}
