//! What is kept of tunnels after their end.

use tunnelhead::testing::fleet::{Command, Fleet, View};
use tunnelhead::testing::profiles;

use crate::head::{Head, SOON};
use crate::support::eventually;

#[test]
fn each_tunnel_is_one_session_with_its_bytes_and_the_reason_of_its_end() {
    let (head, fleet) = (Head::start(), Fleet::start().expect("a fleet"));
    let id = fleet.add(head.member("a", profiles::p1()));
    fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
    let tunnel = eventually("tunnel", SOON, || head.tunnel("a"));
    let open = eventually("session", SOON, || head.sessions("a").into_iter().next());
    assert_eq!((open.id, open.address, open.until), (tunnel.generation, tunnel.address, None));
    assert_eq!((open.real_address, open.since), (tunnel.real_address, tunnel.since));
    let entry = head.directory(tunnel.address, None).expect("an entry");
    assert_eq!((entry.router.as_str(), entry.connected, entry.until), ("a", true, None));
    assert_eq!(entry.real_address, Some(tunnel.real_address));
    fleet.tell(id, Command::PingBoth);
    fleet.wait_for(id, "answers", SOON, View::pings_answered);
    let now = head.sessions("a").remove(0);
    assert!(now.rx_bytes > 0 && now.tx_bytes > 0, "so far: {now:?}");
    head.disconnect("a");
    fleet.wait_for(id, "an end", SOON, |view| view.closes >= 1);
    let ended = eventually("end of the session", SOON, || {
        head.sessions("a")
            .into_iter()
            .find(|session| session.id == open.id && session.until.is_some())
    });
    assert_eq!(ended.reason.as_deref(), Some("disconnected_by_operator"));
    assert!(ended.rx_bytes > 0, "{ended:?}");
    assert!(ended.until >= Some(ended.since));
    let then = head.directory(tunnel.address, Some(open.since)).expect("an entry");
    assert_eq!((then.router.as_str(), then.until), ("a", None), "the address is still his");
    assert_eq!(head.counter("sessions_unrecorded"), 0);
}
