//! Sealing and opening data packets.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tunnelhead_crypto::{
    AuthDigest, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, MAX_BATCH, NonceAuditor,
    Role, SecureRandom,
};

const HEADER: DataHeader = DataHeader { key_id: 0, peer_id: Some(1) };
const SIZES: [usize; 3] = [64, 576, 1400];
const FORMATS: [(DataCipher, AuthDigest); 5] = [
    (DataCipher::Aes128Gcm, AuthDigest::Sha1),
    (DataCipher::Aes192Gcm, AuthDigest::Sha1),
    (DataCipher::Aes256Gcm, AuthDigest::Sha1),
    (DataCipher::Aes256Cbc, AuthDigest::Sha1),
    (DataCipher::Aes256Cbc, AuthDigest::Sha256),
];

fn name(cipher: DataCipher, digest: AuthDigest) -> String {
    if cipher.is_aead() {
        cipher.name().to_owned()
    } else {
        format!("{}-{}", cipher.name(), digest.name())
    }
}

/// Fresh keys for each measurement.
fn keys(
    random: &mut FastRandom,
    cipher: DataCipher,
    digest: AuthDigest,
) -> Option<(DataKeys, DataKeys)> {
    let mut bytes = [0; 256];
    random.fill(&mut bytes).ok()?;
    let block = KeyBlock::from_bytes(bytes);
    let server = DataKeys::new(cipher, digest, &block, Role::Server).ok()?;
    let client = DataKeys::new(cipher, digest, &block, Role::Client).ok()?;
    Some((server, client))
}

fn bench(criterion: &mut Criterion) {
    let _unrecorded = NonceAuditor::suspend();
    let mut random = FastRandom::from_seed([1; 32]);
    let payload = [0x45; 1400];
    for (cipher, digest) in FORMATS {
        let mut group = criterion.benchmark_group(name(cipher, digest));
        for size in SIZES {
            let payload = payload.get(..size).unwrap_or_default();
            group.throughput(Throughput::Bytes(size as u64));
            let Some((mut server, mut client)) = keys(&mut random, cipher, digest) else { return };
            let mut out = Vec::with_capacity(2048);
            group.bench_function(BenchmarkId::new("seal", size), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let sealed = server.sealer.seal(HEADER, payload, &mut random, &mut out);
                    assert!(black_box(sealed).is_ok());
                });
            });
            let batch = [payload; MAX_BATCH];
            group.throughput(Throughput::Bytes((size * MAX_BATCH) as u64));
            out.reserve(2048 * MAX_BATCH);
            group.bench_function(BenchmarkId::new("seal_batch_of_8", size), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let sealer = &mut server.sealer;
                    let sealed = sealer.seal_batch(HEADER, &batch, &mut random, &mut out);
                    assert!(black_box(sealed).is_ok());
                });
            });
            group.throughput(Throughput::Bytes(size as u64));
            let mut seal_random = FastRandom::from_seed([2; 32]);
            group.bench_function(BenchmarkId::new("open", size), |bencher| {
                bencher.iter_batched_ref(
                    || {
                        let mut packet = Vec::with_capacity(2048);
                        let sealer = &mut server.sealer;
                        let sealed = sealer.seal(HEADER, payload, &mut seal_random, &mut packet);
                        assert!(sealed.is_ok(), "the key lasts for the measurement");
                        packet
                    },
                    |packet| assert!(black_box(client.opener.open(packet)).is_ok()),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
