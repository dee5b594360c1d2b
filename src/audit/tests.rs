use std::collections::BTreeMap;

use proptest::prelude::*;
use tunnelhead_crypto::Secret;

use super::*;

fn key() -> AuditKey {
    AuditKey::new(Secret::new([7; 32]))
}

fn record(at: u64) -> Record {
    Record {
        seq: 0,
        at,
        who: Who {
            uid: Some(1000),
            gid: Some(1000),
            pid: Some(42),
            socket: Some("/run/tunnelhead/control.sock".to_owned()),
            actor: Some("ci-job-7".to_owned()),
        },
        action: Action {
            what: "PATCH /v1/routers/{name}".to_owned(),
            router: Some(format!("branch-{at}")),
            fields: vec!["note".to_owned()],
            status: Some(200),
            ..Action::default()
        },
    }
}

/// A trail of `count` records.
fn trail(count: u64) -> (Chain, Vec<Row>) {
    let mut chain = Chain::new(key(), Head::START);
    let rows = chain.rows((1..=count).map(record));
    chain.advance(&rows);
    (chain, rows)
}

fn check(seals: &[SealRow], rows: &[Row], file: HeadFile, heads: &[Head]) -> Report {
    let key = key();
    let mut verifier = Verifier::new(&key, seals, file, heads);
    for row in rows {
        verifier.row(row);
    }
    verifier.finish()
}

fn findings(rows: &[Row], file: HeadFile) -> Vec<Finding> {
    check(&[], rows, file, &[]).findings
}

fn seal(segment: u64, rows: &[Row], anchor: Mac) -> Seal {
    let (first, last) = (rows.first().unwrap(), rows.last().unwrap());
    Seal {
        segment,
        first: first.seq,
        anchor,
        head: last.head(),
        records: rows.len() as u64,
        from: first.at,
        to: last.at,
        sealed: last.at,
        exported: None,
        pruned: None,
    }
}

#[test]
fn a_line_is_printable_and_reads_back() {
    let mut nasty = record(5);
    nasty.who.actor = Some("a\n\u{1b}[31m\u{202e}\u{9b}\u{1f600}\"\\".to_owned());
    nasty.action.detail = BTreeMap::from([("bytes".to_owned(), "\u{0}\u{2028}".to_owned())]);
    let line = nasty.line();
    assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{line}");
    assert_eq!(read_line(&line), Some(nasty));
    assert_eq!(
        record(1).line(),
        "{\"seq\":0,\"at\":1,\"uid\":1000,\"gid\":1000,\"pid\":42,\
         \"socket\":\"/run/tunnelhead/control.sock\",\"actor\":\"ci-job-7\",\
         \"action\":\"PATCH /v1/routers/{name}\",\"router\":\"branch-1\",\"fields\":[\"note\"],\
         \"detail\":{},\"status\":200,\"code\":null}"
    );
}

#[test]
fn every_text_of_a_line_is_bounded() {
    let long = "\u{fc}".repeat(5000);
    let mut huge = record(1);
    huge.who.actor = Some(long.clone());
    huge.who.socket = Some(long.clone());
    huge.action = Action {
        what: long.clone(),
        router: Some(long.clone()),
        fields: vec![long.clone(); 500],
        detail: (0..500).map(|i| (format!("{i}{long}"), long.clone())).collect(),
        status: None,
        code: Some(long),
    };
    let line = huge.line();
    // Six bytes a character of two.
    assert!(line.len() < 6 * (5 * 256 + 32 * 64 + 32 * (64 + 256)), "{}", line.len());
    assert!(read_line(&line).is_some());
}

#[test]
fn the_mac_is_the_documented_one() {
    let (_, rows) = trail(2);
    let mut input = Vec::new();
    input.extend(32u64.to_be_bytes());
    input.extend(rows[0].mac.0);
    input.extend((rows[1].line.len() as u64).to_be_bytes());
    input.extend(rows[1].line.as_bytes());
    let key = openssl::pkey::PKey::hmac(&[7; 32]).unwrap();
    let mut signer =
        openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
    signer.update(&input).unwrap();
    assert_eq!(signer.sign_to_vec().unwrap(), rows[1].mac.0);
}

#[test]
fn a_trail_as_it_was_written_has_no_findings() {
    let (chain, rows) = trail(20);
    let report = check(&[], &rows, HeadFile::At(chain.head()), &[rows[6].head()]);
    assert_eq!(report.findings, []);
    assert_eq!((report.records, report.first, report.head), (20, 1, rows[19].head()));
    // Records that followed the head file are no news: the file is written after the database.
    assert_eq!(findings(&rows, HeadFile::At(rows[4].head())), []);
    assert_eq!(findings(&rows, HeadFile::At(Head::START)), []);
    assert_eq!(findings(&[], HeadFile::At(Head::START)), []);
}

#[test]
fn an_edited_byte_is_found() {
    let (chain, rows) = trail(5);
    let head = HeadFile::At(chain.head());
    let mut edited = rows.clone();
    edited[2].line = edited[2].line.replace("\"uid\":1000", "\"uid\":1001");
    assert_eq!(findings(&edited, head), [Finding::Edited { seq: 3 }]);
    let mut edited = rows.clone();
    edited[4].mac.0[31] ^= 1;
    assert_eq!(
        findings(&edited, head),
        [Finding::Edited { seq: 5 }, Finding::Rewritten { seq: 5 }]
    );
    let mut edited = rows;
    edited[2].at += 1;
    assert_eq!(findings(&edited, head), [Finding::Misplaced { seq: 3, line: Some(3) }]);
}

#[test]
fn a_deleted_record_is_found() {
    let (chain, mut rows) = trail(9);
    rows.drain(3..5);
    let head = HeadFile::At(chain.head());
    assert_eq!(findings(&rows, head), [Finding::Missing { from: 4, to: 5 }]);
    rows.remove(0);
    assert_eq!(
        findings(&rows, head),
        [Finding::Missing { from: 1, to: 1 }, Finding::Missing { from: 4, to: 5 }]
    );
    // Nor does it help to number the rest anew.
    let (_, mut rows) = trail(5);
    rows.remove(1);
    for (row, seq) in rows.iter_mut().zip(1..) {
        row.seq = seq;
    }
    assert!(findings(&rows, head).contains(&Finding::Misplaced { seq: 2, line: Some(3) }));
}

#[test]
fn swapped_records_are_found() {
    let (chain, mut rows) = trail(5);
    rows.swap(1, 2);
    (rows[1].seq, rows[2].seq) = (2, 3);
    let found = findings(&rows, HeadFile::At(chain.head()));
    assert!(found.contains(&Finding::Misplaced { seq: 2, line: Some(3) }), "{found:?}");
    assert!(found.contains(&Finding::Misplaced { seq: 3, line: Some(2) }), "{found:?}");
}

#[test]
fn a_cut_tail_is_found_by_the_head_file_or_by_the_log() {
    let (chain, rows) = trail(5);
    let cut = &rows[..3];
    let expected = [Finding::Cut { last: 3, known: 5 }];
    assert_eq!(findings(cut, HeadFile::At(chain.head())), expected);
    let report = check(&[], cut, HeadFile::At(rows[2].head()), &[chain.head()]);
    assert_eq!(report.findings, expected);
    assert_eq!(findings(&[], HeadFile::At(chain.head())), [Finding::Cut { last: 0, known: 5 }]);
    assert_eq!(findings(&rows, HeadFile::Missing), [Finding::HeadFileMissing]);
    assert_eq!(findings(&rows, HeadFile::Damaged), [Finding::HeadFileDamaged]);
}

#[test]
fn a_trail_written_anew_is_found() {
    let (chain, rows) = trail(5);
    // Without the key.
    let forged = Chain::new(AuditKey::new(Secret::new([8; 32])), Head::START);
    let found = findings(&forged.rows((1..=5).map(record)), HeadFile::At(chain.head()));
    assert_eq!(found.iter().filter(|one| matches!(one, Finding::Edited { .. })).count(), 5);
    // With the key, but not with what the log has kept.
    let other = Chain::new(key(), Head::START).rows((11..=15).map(record));
    let file = HeadFile::At(other[4].head());
    assert_eq!(findings(&other, file), []);
    let report = check(&[], &other, file, &[rows[2].head()]);
    assert_eq!(report.findings, [Finding::Rewritten { seq: 3 }]);
}

#[test]
fn a_head_file_opens_with_its_key_only() {
    let (chain, _) = trail(3);
    let text = chain.key().head_file(chain.head());
    assert_eq!(key().read_head_file(&text), Some(chain.head()));
    assert_eq!(AuditKey::new(Secret::new([8; 32])).read_head_file(&text), None);
    assert_eq!(key().read_head_file(&text.replacen('3', "2", 1)), None);
    for bad in ["", "\n", "3:00\n", &text[..text.len() - 1], &text[1..]] {
        assert_eq!(key().read_head_file(bad), None, "{bad:?}");
    }
}

#[test]
fn a_gap_that_a_start_has_noticed_stays_visible_and_the_chain_holds() {
    let (mut chain, mut rows) = trail(5);
    let known = chain.head();
    // Somebody cuts two records off; the next start sees it and says so.
    rows.truncate(3);
    chain = Chain::new(key(), rows[2].head());
    let mut notice = record(9);
    notice.action.what = Record::GAP.to_owned();
    notice.action.detail.insert("reason".to_owned(), "two are gone".to_owned());
    let more = chain.rows_from(known.seq + 1, [notice, record(10)]);
    chain.advance(&more);
    rows.extend(more);
    let noticed = [Finding::Noticed { seq: 6, reason: "two are gone".to_owned() }];
    assert_eq!(findings(&rows, HeadFile::At(chain.head())), noticed);
    // A notice that nobody of ours has written explains nothing.
    rows[3].line = rows[3].line.replace("two", "six");
    assert_eq!(findings(&rows, HeadFile::At(chain.head())), [Finding::Missing { from: 4, to: 5 }]);
}

/// Three segments of four records and two records more; the first segment is pruned.
fn sealed() -> (Chain, Vec<SealRow>, Vec<Row>, Vec<Row>) {
    let (chain, rows) = trail(14);
    let key = key();
    let mut first = seal(1, &rows[..4], Mac::ZERO);
    first.exported = Some(100);
    first.pruned = Some(101);
    let seals = vec![
        first.row(&key),
        seal(2, &rows[4..8], rows[3].mac).row(&key),
        seal(3, &rows[8..12], rows[7].mac).row(&key),
    ];
    let kept = rows[4..].to_vec();
    (chain, seals, rows, kept)
}

#[test]
fn a_pruned_segment_leaves_its_neighbours_tied() {
    let (chain, seals, rows, kept) = sealed();
    let file = HeadFile::At(chain.head());
    let report = check(&seals, &kept, file, &[rows[1].head(), rows[3].head()]);
    assert_eq!(report.findings, []);
    assert_eq!((report.segments, report.pruned, report.records), (3, 1, 10));
    assert_eq!(report.unknown, [rows[1].head()]);
    let wrong = Head { seq: 4, mac: Mac([1; 32]) };
    assert_eq!(check(&seals, &kept, file, &[wrong]).findings, [Finding::Rewritten { seq: 4 }]);
    // Everything pruned.
    let mut all = seals;
    for (row, range) in all.iter_mut().zip([0..4, 4..8, 8..12]) {
        let anchor = if range.start == 0 { Mac::ZERO } else { rows[range.start - 1].mac };
        let mut seal = seal(row.segment, &rows[range], anchor);
        seal.pruned = Some(1);
        *row = seal.row(&key());
    }
    assert_eq!(check(&all, &kept[8..], file, &[]).findings, []);
    let head = HeadFile::At(rows[11].head());
    assert_eq!(check(&all, &[], head, &[]).findings, []);
    // A middle segment only.
    let middle = vec![
        seal(1, &rows[..4], Mac::ZERO).row(&key()),
        all[1].clone(),
        seal(3, &rows[8..12], rows[7].mac).row(&key()),
    ];
    let around: Vec<Row> = rows[..4].iter().chain(&rows[8..]).cloned().collect();
    assert_eq!(check(&middle, &around, file, &[]).findings, []);
}

#[test]
fn nobody_else_can_say_that_a_segment_was_pruned() {
    let (chain, mut seals, rows, kept) = sealed();
    let file = HeadFile::At(chain.head());
    // The records of the second segment are deleted, its seal says nothing of it.
    assert_eq!(
        check(&seals, &kept[4..], file, &[]).findings,
        [Finding::Missing { from: 5, to: 8 }]
    );
    // Its seal is edited to say so.
    let honest = seals[1].clone();
    seals[1].line = seals[1].line.replace("\"pruned\":null", "\"pruned\":5");
    let found = check(&seals, &kept[4..], file, &[]).findings;
    assert!(found.contains(&Finding::SealForged { segment: 2 }), "{found:?}");
    assert!(found.contains(&Finding::Missing { from: 5, to: 8 }), "{found:?}");
    // The seal of the pruned one is deleted, or stands twice.
    seals[1] = honest;
    let found = check(&seals[1..], &kept, file, &[]).findings;
    assert!(found.contains(&Finding::Missing { from: 1, to: 4 }), "{found:?}");
    let found = check(&[seals[0].clone(), seals[2].clone()], &kept, file, &[]).findings;
    assert_eq!(found, [Finding::SealContradicts { segment: 3 }]);
    // Another trail's seal.
    let other = Chain::new(key(), Head::START).rows((21..=24).map(record));
    seals[1] = seal(2, &other, rows[3].mac).row(&key());
    let found = check(&seals, &kept, file, &[]).findings;
    assert!(found.contains(&Finding::SealContradicts { segment: 2 }), "{found:?}");
}

#[test]
fn a_seal_of_another_past_contradicts_the_records() {
    let (chain, rows) = trail(6);
    let other = Chain::new(key(), Head::START).rows((21..=24).map(record));
    let seals = [seal(1, &other, Mac::ZERO).row(&key())];
    let found = check(&seals, &rows, HeadFile::At(chain.head()), &[]).findings;
    assert_eq!(found, [Finding::SealContradicts { segment: 1 }]);
}

#[test]
fn findings_are_bounded() {
    let forged = Chain::new(AuditKey::new(Secret::new([8; 32])), Head::START);
    let report = check(&[], &forged.rows((1..=500).map(record)), HeadFile::Missing, &[]);
    assert_eq!(report.findings.len(), MAX_FINDINGS);
    assert_eq!(report.more, 401);
}

#[test]
fn macs_and_heads_are_read_strictly() {
    let head: Head = format!("12:{}", "ab".repeat(32)).parse().unwrap();
    assert_eq!((head.seq, head.mac), (12, Mac([0xab; 32])));
    assert_eq!(head.to_string().parse(), Ok(head));
    for bad in ["", "12", ":", "12:", "12:ab", "-1:00", &format!("1:{}", "g".repeat(64))] {
        assert!(bad.parse::<Head>().is_err(), "{bad}");
    }
    assert!("0".repeat(63).parse::<Mac>().is_err() && "\u{fc}".repeat(32).parse::<Mac>().is_err());
}

proptest! {
    /// One changed bit, anywhere in what is kept, is found.
    #[test]
    fn any_flipped_bit_is_found(at in 0usize..8, place in 0usize..400, bit in 0u8..7) {
        let (chain, mut rows) = trail(8);
        let mut bytes = std::mem::take(&mut rows[at].line).into_bytes();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        rows[at].line = String::from_utf8(bytes).unwrap();
        prop_assert_ne!(findings(&rows, HeadFile::At(chain.head())), []);
    }

    #[test]
    fn any_text_gives_one_line_that_reads_back(text in "\\PC*|.*", other in ".*") {
        let mut record = record(1);
        record.who.actor = Some(bounded(&text, MAX_ACTOR_BYTES));
        record.action.router = Some(bounded(&other, MAX_DETAIL_BYTES));
        let line = record.line();
        prop_assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
        prop_assert_eq!(read_line(&line), Some(record));
    }
}
