//! The real `openvpn` client against the concentrator: a null device on the client's side, the
//! memory device on ours, no root anywhere. The same cases run against the stock server first
//! (`harness_*`), so that a red line here is never the harness's.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is the report"
)]

mod cases;
mod matrix;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::sync::LazyLock;

use support::keys::Keys;

/// Every key of this binary: making RSA keys is the slow part.
static KEYS: LazyLock<Keys> = LazyLock::new(Keys::make);

/// Whether the tests of this file can run; says so if not.
fn ready(name: &str) -> bool {
    let missing = support::missing_tools(&["openvpn"]);
    if !missing.is_empty() {
        support::skip(name, &format!("not installed: {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Runs `check` for every item, a few at a time, and returns the complaints.
fn each<T: Sync>(items: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    /// Clients at a time: nearly all of a login is waiting, and the machines are small.
    const AT_A_TIME: usize = 8;
    let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A panic is one row's complaint and must not hide the others'.
                    let checked = catch_unwind(AssertUnwindSafe(|| check(item)));
                    let complaint = match checked {
                        Ok(Ok(())) => continue,
                        Ok(Err(complaint)) => complaint,
                        Err(panic) => support::panic_text(panic.as_ref()),
                    };
                    complaints.lock().expect("complaints").push(complaint);
                }
            });
        }
    });
    complaints.into_inner().expect("complaints")
}

mod harness {
    //! The cases against the stock server.

    use crate::server::StockServer;
    use crate::{KEYS, cases, matrix, support};

    /// The stock server insists on a device.
    fn ready(name: &str) -> bool {
        let opened = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
        if let Err(error) = &opened {
            support::skip(name, &format!("the stock server needs /dev/net/tun: {error}"));
        }
        opened.is_ok() && crate::ready(name)
    }

    #[test]
    fn stock_server_passes_a_sample_of_the_matrix() {
        if ready("stock_server_passes_a_sample_of_the_matrix") {
            let rows: Vec<_> = matrix::rows().into_iter().step_by(13).collect();
            matrix::check(&rows, &StockServer::start(&KEYS, &matrix::spec(&rows)));
        }
    }

    #[test]
    fn stock_server_passes_the_single_cases() {
        if ready("stock_server_passes_the_single_cases") {
            let cases: Vec<_> = cases::all().into_iter().filter(|case| case.stock).collect();
            cases::check(&cases, &StockServer::start(&KEYS, &cases::spec(&cases)));
        }
    }

    #[test]
    fn stock_server_passes_the_cases_of_one_account() {
        if ready("stock_server_passes_the_cases_of_one_account") {
            let server = StockServer::start(&KEYS, &cases::plain_spec());
            let [first, second] = cases::check_takeover(&server);
            assert_eq!(first, second);
            cases::check_silent_client(&server, 2);
        }
    }

    #[test]
    fn stock_server_keeps_clients_through_rekeys() {
        if ready("stock_server_keeps_clients_through_rekeys") {
            let rows = matrix::rekey_rows();
            let server = StockServer::start(&KEYS, &matrix::spec(&rows[..2]));
            matrix::check_rekeys(&rows[..2], &server, 2);
        }
    }
}

mod concentrator {
    //! The cases against our own server, embedded.

    use crate::server::{RESTART_SECONDS, Tunnelhead};
    use crate::{KEYS, cases, matrix, ready};

    #[test]
    fn all_72_combinations_log_in_and_pass_data() {
        if ready("all_72_combinations_log_in_and_pass_data") {
            let rows = matrix::rows();
            assert_eq!(rows.len(), 72);
            matrix::check(&rows, &Tunnelhead::start(&KEYS, &matrix::spec(&rows)));
        }
    }

    #[test]
    fn every_single_case_ends_as_its_row_says() {
        if ready("every_single_case_ends_as_its_row_says") {
            let cases = cases::all();
            cases::check(&cases, &Tunnelhead::start(&KEYS, &cases::spec(&cases)));
        }
    }

    #[test]
    fn clients_stay_through_rekeys_until_key_ids_start_again() {
        if ready("clients_stay_through_rekeys_until_key_ids_start_again") {
            let rows = matrix::rekey_rows();
            matrix::check_rekeys(&rows, &Tunnelhead::start(&KEYS, &matrix::spec(&rows)), 8);
        }
    }

    #[test]
    fn a_refusal_does_not_say_which_names_exist() {
        if ready("a_refusal_does_not_say_which_names_exist") {
            let server = Tunnelhead::start(&KEYS, &cases::spec(&cases::all()));
            cases::check_refusal_texts(&server);
        }
    }

    #[test]
    fn the_push_reply_holds_nothing_but_the_agreed_options() {
        if ready("the_push_reply_holds_nothing_but_the_agreed_options") {
            let server = Tunnelhead::start(&KEYS, &cases::plain_spec());
            cases::check_push(&server);
        }
    }

    #[test]
    fn a_second_login_takes_over_and_keeps_the_address() {
        if ready("a_second_login_takes_over_and_keeps_the_address") {
            let server = Tunnelhead::start(&KEYS, &cases::plain_spec());
            let [first, second] = cases::check_takeover(&server);
            assert_eq!(first, second);
        }
    }

    #[test]
    fn a_client_that_never_pings_stays_up() {
        if ready("a_client_that_never_pings_stays_up") {
            let server = Tunnelhead::start(&KEYS, &cases::plain_spec());
            cases::check_silent_client(&server, 3 * RESTART_SECONDS);
        }
    }
}
