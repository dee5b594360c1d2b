//! What the heap sees: no key left in freed memory, no allocation for a packet.
//!
//! One test function, because the allocator watches the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, KeyDirection,
    KeySource, Metadata, NonceAuditor, Role, Secret, SecretBytes, SecureRandom, StaticKey,
    TlsCryptV2ClientKey, TlsCryptV2ServerKey, credential_tag, derive_key_block,
};

static WATCHING: AtomicBool = AtomicBool::new(false);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// What every secret of this test consists of; nothing else in the process does.
const MARK: [u8; 8] = [0xc3, 0xa5, 0xd7, 0xe9, 0x8b, 0xf1, 0x97, 0xb5];

struct Watch;

#[global_allocator]
static WATCH: Watch = Watch;

#[expect(unsafe_code, reason = "only an allocator can look at memory at the moment it is freed")]
// SAFETY: every call goes to the system's allocator unchanged; the block is read before it is
// freed, when it is still valid for `layout.size()` bytes.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout`. Zeroed, so that all of it may be read later.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if WATCHING.load(Ordering::Relaxed) {
            // SAFETY: `block` came from `alloc` with this `layout`, was initialised there and is
            // freed only below.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            if bytes.windows(MARK.len()).any(|window| window == MARK) {
                LEAKED.fetch_add(1, Ordering::Relaxed);
            }
        }
        // SAFETY: the caller's promise about `block` and `layout`.
        unsafe { System.dealloc(block, layout) }
    }
}

struct Marked;

impl SecureRandom for Marked {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), tunnelhead_crypto::RandomError> {
        out.iter_mut().zip(MARK.into_iter().cycle()).for_each(|(out, byte)| *out = byte);
        Ok(())
    }
}

fn marked<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    Marked.fill(&mut bytes).unwrap();
    bytes
}

/// Number of freed blocks with the mark in them while `act` ran.
fn leaks(act: impl FnOnce()) -> usize {
    LEAKED.store(0, Ordering::Relaxed);
    WATCHING.store(true, Ordering::Relaxed);
    act();
    WATCHING.store(false, Ordering::Relaxed);
    LEAKED.load(Ordering::Relaxed)
}

fn allocations(act: impl FnOnce()) -> usize {
    let before = ALLOCATED.load(Ordering::Relaxed);
    act();
    ALLOCATED.load(Ordering::Relaxed) - before
}

#[test]
fn freed_memory_holds_no_keys_and_packets_allocate_nothing() {
    // The watch works.
    assert_eq!(leaks(|| drop(vec![marked::<32>()])), 1);
    assert_eq!(allocations(|| drop(vec![1u8; 100])), 1);

    check("Secret", || drop(Secret::new(marked::<32>()).duplicate()));
    check("SecretBytes", || {
        let mut bytes = Vec::with_capacity(500);
        bytes.extend(marked::<64>());
        drop(SecretBytes::from(bytes).duplicate());
    });
    let block = || KeyBlock::from_bytes(marked());
    check("KeyBlock", || drop(block().xor(&KeyBlock::from_bytes([0; 256])).duplicate()));
    check("KeySource", || drop(KeySource::generate(&mut Marked).unwrap().duplicate()));
    check("derive_key_block", || {
        let source = KeySource::generate(&mut Marked).unwrap();
        drop(derive_key_block(&source, &source, &[1; 8], &[2; 8]));
    });
    check("credential_tag", || {
        credential_tag(&Secret::new(marked()), &[b"part"]);
    });
    check("StaticKey", || {
        let text = StaticKey::generate(&mut Marked).unwrap().to_text();
        drop(StaticKey::parse(&text).unwrap().duplicate());
    });
    check("ControlWrap", || {
        let key = StaticKey::from(block());
        for wrap in [
            ControlWrap::tls_crypt(&key, Role::Server),
            ControlWrap::tls_auth(&key, KeyDirection::Normal, AuthDigest::Sha512),
            ControlWrap::dynamic_tls_crypt(&block(), None, Role::Client),
        ] {
            let exported = {
                let mut out = Vec::new();
                wrap.export(&mut out);
                SecretBytes::from(out)
            };
            drop(ControlWrap::import(&mut exported.expose()).unwrap());
        }
    });
    check("tls-crypt-v2", || {
        let server = TlsCryptV2ServerKey::generate(&mut Marked).unwrap();
        let server = TlsCryptV2ServerKey::parse_pem(&server.to_pem()).unwrap().duplicate();
        let client = TlsCryptV2ClientKey::generate(&server, &Metadata::Empty, &mut Marked).unwrap();
        let client = TlsCryptV2ClientKey::parse_pem(&client.to_pem()).unwrap();
        let packet = [&[0x50], client.wrapped.as_slice()].concat();
        drop(server.split_and_unwrap(&packet).unwrap());
    });
    for cipher in DataCipher::ALL {
        if matches!(cipher, DataCipher::Aes128Gcm | DataCipher::Aes256Gcm) {
            // ring has no way to wipe its expanded keys; see the crate's documentation.
            continue;
        }
        for digest in AuthDigest::ALL {
            check(&format!("{cipher:?} {digest:?}"), || {
                let keys = DataKeys::new(cipher, digest, &block(), Role::Server).unwrap();
                let mut out = Vec::new();
                keys.export(&mut out);
                let exported = SecretBytes::from(out);
                drop(DataKeys::import(&mut exported.expose()).unwrap());
            });
        }
    }

    for cipher in DataCipher::ALL {
        for digest in AuthDigest::ALL {
            packets_allocate_nothing(cipher, digest);
        }
    }
}

fn check(name: &str, act: impl FnOnce()) {
    assert_eq!(leaks(act), 0, "{name} leaves its secret in freed memory");
}

fn packets_allocate_nothing(cipher: DataCipher, digest: AuthDigest) {
    let _audit = NonceAuditor::isolate();
    let mut random = FastRandom::from_seed([1; 32]);
    let block = KeyBlock::from_bytes([0x77; 256]);
    let header = DataHeader { key_id: 0, peer_id: Some(1) };
    let mut server = DataKeys::new(cipher, digest, &block, Role::Server).unwrap();
    let mut client = DataKeys::new(cipher, digest, &block, Role::Client).unwrap();
    let mut out = Vec::with_capacity(4096);
    // The auditor's record of the key is made with the first packet.
    server.sealer.seal(header, b"first", &mut random, &mut out).unwrap();
    let count = allocations(|| {
        for len in (0..1500).step_by(7) {
            out.clear();
            server.sealer.seal(header, &[3; 1500][..len], &mut random, &mut out).unwrap();
            client.opener.open(&mut out).unwrap();
        }
    });
    assert_eq!(count, 0, "{cipher:?} {digest:?}");
    out.clear();
    let count = allocations(|| {
        let payloads = [1, 500, 3, 90, 90, 8, 17, 16].map(|len| &[3; 1500][..len]);
        server.sealer.seal_batch(header, &payloads, &mut random, &mut out).unwrap();
    });
    assert_eq!(count, 0, "{cipher:?} {digest:?} in a batch");
}
