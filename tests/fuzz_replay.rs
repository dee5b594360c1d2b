//! The fuzz bodies on the stable compiler: every file of the corpora, then seeded inputs made
//! from them. A failure prints the target and the bytes; put them into the corpus with the fix.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is the report"
)]

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tunnelhead::testing::fuzz::{BODIES, Body};

/// Inputs tried for each body besides its corpus.
const MUTATIONS: u64 = 4_000;
/// Longest input made here.
const MAX_INPUT: usize = 4_096;

#[test]
fn every_corpus_is_replayed_and_mutated() {
    let base = std::env::var("TUNNELHEAD_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let base = base.unwrap_or(1_u64);
    let complaints: Vec<String> = std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                let mine = BODIES.iter().skip(half).step_by(2);
                scope.spawn(move || {
                    mine.flat_map(|(name, body)| replay(name, *body, base)).collect::<Vec<_>>()
                })
            })
            .collect();
        halves.into_iter().flat_map(|half| half.join().expect("a worker")).collect()
    });
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_body_has_a_shim_and_a_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    for (name, _) in BODIES {
        let shim = root.join("fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&shim).expect("a shim for every body");
        assert!(text.contains(&format!("testing::fuzz::{name}(data)")), "{}", shim.display());
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target");
        assert!(!corpus(name).is_empty(), "{name} has no corpus");
    }
    let shims = std::fs::read_dir(root.join("fuzz_targets")).expect("the shims").count();
    assert_eq!(shims, BODIES.len(), "a shim without a body");
    for entry in std::fs::read_dir(root.join("corpus")).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(BODIES.iter().any(|(body, _)| name == **body), "{name:?} is nobody's corpus");
    }
}

#[test]
fn a_body_that_panics_is_reported_with_its_input() {
    let body: Body = |data| assert!(data.first() != Some(&7), "seven");
    assert_eq!(attempt("x", "y", body, &[1]), None);
    let report = attempt("x", "y", body, &[7, 0xab]).expect("a report");
    assert!(report.contains("07ab") && report.contains("seven"), "{report}");
}

fn replay(name: &str, body: Body, base: u64) -> Vec<String> {
    let corpus = corpus(name);
    let mut complaints = Vec::new();
    for (path, bytes) in &corpus {
        complaints.extend(attempt(name, &path.display().to_string(), body, bytes));
    }
    let seeds: Vec<&[u8]> = corpus.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    for number in 0..MUTATIONS {
        let seed = base.wrapping_mul(0x0100_0000).wrapping_add(number);
        let input = mutate(&seeds, &mut Random(seed));
        complaints.extend(attempt(name, &format!("seed {seed}"), body, &input));
        if complaints.len() > 5 {
            break;
        }
    }
    complaints
}

fn attempt(name: &str, from: &str, body: Body, input: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| body(input))).err()?;
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic");
    let mut hex = String::new();
    for byte in input {
        let _ = write!(hex, "{byte:02x}");
    }
    Some(format!("{name}, {from}: {message}\n  input {hex}"))
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), std::fs::read(&path).expect("a seed")))
        .collect();
    files.sort();
    files
}

/// A seed of the corpus with a few changes, a mix of two, or noise.
fn mutate(seeds: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut input = if random.below(16) == 0 {
        let length = random.below(200);
        (0..length).map(|_| random.byte()).collect()
    } else {
        seeds[random.below(seeds.len())].to_vec()
    };
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 => input.truncate(at),
            1 => input.insert(at, random.byte()),
            2 => {
                let other = seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let mut tail = other[from..].to_vec();
                input.truncate(at);
                input.append(&mut tail);
            }
            3 => {
                let copy = input[at..].to_vec();
                input.extend(copy);
            }
            4 if at < input.len() => {
                input.remove(at);
            }
            5 if at < input.len() => {
                input[at] = [0, 1, 0x7f, 0x80, 0xff, b',', b'\n', b'='][random.below(8)];
            }
            6 if at < input.len() => input[at] = random.byte(),
            _ if at < input.len() => input[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    input.truncate(MAX_INPUT);
    input
}

/// SplitMix64: enough for tests, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}
