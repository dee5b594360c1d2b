//! What was acknowledged survives the end of the process and of the power.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::store::sqlite::open::with_suffix;

const CHILD: &str = "TUNNELHEAD_TEST_CRASH_CHILD";

/// Not a test by itself: the body of the process that the next test kills.
#[test]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&path));
    let already = names(&store).len();
    for number in already.. {
        // From the thread of the store, when the commit is done.
        let tell = move |result: Result<(), StoreError>| {
            result.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "\nacknowledged r{number}").unwrap();
            out.flush().unwrap();
        };
        let name = format!("r{number}");
        let [_, high, middle, low] = u32::try_from(number).unwrap().to_be_bytes();
        let address = [100, 64 + high, middle, low];
        let changes =
            vec![Change::PutRouter(account(&name)), Change::PutLease(lease(&name, address))];
        store.submit(changes, Some(Box::new(tell)));
        if number % 7 == 0 {
            store.flush();
        }
    }
}

#[test]
fn everything_acknowledged_by_a_killed_process_is_there() {
    let (_folder, path) = folder();
    let mut acknowledged = 0;
    for kill_after in [1, 3, 40, 200] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("store::sqlite::tests::crash::child_that_is_killed")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = Vec::new();
        while told.len() < kill_after {
            let line = lines.next().expect("the child ended by itself").unwrap();
            told.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had written into the pipe before it died was acknowledged as well.
        let rest = lines.map_while(Result::ok);
        told.extend(rest.filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned)));
        acknowledged += told.len();
        let snapshot = open(&path).load().unwrap();
        let names: Vec<_> = snapshot.accounts.iter().map(|account| &*account.name).collect();
        for name in &told {
            assert!(names.contains(&name.as_str()), "{name} was acknowledged and is gone");
        }
        // The killed process may have committed more than it could tell; never half a submit.
        assert_eq!(snapshot.accounts.len(), snapshot.leases.len());
        assert!(snapshot.accounts.len() >= acknowledged);
    }
    println!("{acknowledged} acknowledged submits, 4 kills, none lost");
}

/// What a disk holds after a power cut: the file and any prefix of the log.
#[test]
fn every_cut_of_the_log_gives_a_prefix_of_the_history() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let wal = with_suffix(&path, "-wal");
    let mut lengths = vec![0];
    for number in 0..12 {
        let name = format!("r{number:02}");
        let record = lease(&name, [100, 64, 1, 2 + number]);
        submit(&store, vec![Change::PutRouter(account(&name)), Change::PutLease(record)]).unwrap();
        lengths.push(fs::metadata(&wal).unwrap().len());
    }
    let (file, log) = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
    drop(store);
    let log_len = u64::try_from(log.len()).unwrap();
    let cuts = (0..log_len).step_by(509).chain(lengths.iter().copied()).chain([log_len]);
    for cut in cuts {
        for tail_of_zeros in [0, 4096] {
            let (_copy, copy) = folder();
            let mut log = log[..usize::try_from(cut).unwrap()].to_vec();
            log.resize(log.len() + tail_of_zeros, 0);
            fs::write(&copy, &file).unwrap();
            fs::write(with_suffix(&copy, "-wal"), log).unwrap();
            let snapshot = open(&copy).load().unwrap();
            // Submit n is there if the log holds all of its bytes.
            let expected = lengths.iter().filter(|length| **length <= cut).count() - 1;
            let found: Vec<_> = snapshot.accounts.iter().map(|a| a.name.to_string()).collect();
            let all: Vec<_> = (0..expected).map(|number| format!("r{number:02}")).collect();
            assert_eq!(found, all, "cut at {cut} of {log_len}");
            assert_eq!(snapshot.leases.len(), expected);
        }
    }
}

#[test]
fn a_copy_taken_after_any_acknowledgement_holds_it() {
    let (_folder, path) = folder();
    let store = open(&path);
    for number in 1..=30 {
        put(&store, &format!("r{number}")).unwrap();
        if number == 15 {
            store.execute("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        }
        let (_copy, copy) = folder();
        for suffix in ["", "-wal"] {
            fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).unwrap();
        }
        assert_eq!(names(&open(&copy)).len(), number);
    }
}
