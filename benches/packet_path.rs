//! The steps of a packet's path that are not cryptography: framing, isolation rules, output queue,
//! route table. The cryptography is in `crypto/benches/data.rs`.

#![expect(clippy::unwrap_used, reason = "a bench that can't be set up has nothing to measure")]
#![expect(clippy::indexing_slicing, reason = "offsets of a packet made here")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tunnelhead::net::checksum;
use tunnelhead::net::flow_queue::{Budget, DEFAULT_LIMIT_BYTES, FlowQueue};
use tunnelhead::net::isolation::{DEFAULT_FLOWS, Policy, UdpFlows};
use tunnelhead::net::route_table::RouteTable;
use tunnelhead::proto::wire::FrameDecoder;
use tunnelhead::telemetry::clock;

const ROUTER: Ipv4Addr = Ipv4Addr::new(100, 64, 9, 20);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 9, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);

/// A TCP segment with ACK set, of `len` bytes in all.
fn segment(source: Ipv4Addr, destination: Ipv4Addr, len: u16) -> Vec<u8> {
    let mut packet = vec![0; usize::from(len)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let sum = checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..24].copy_from_slice(&[0x9c, 0x40, 0, 22]);
    packet[32] = 0x50;
    packet[33] = 0x10;
    packet
}

fn isolation(c: &mut Criterion) {
    let policy = Policy::new(HOST, &[]);
    let mut flows = UdpFlows::new(DEFAULT_FLOWS);
    let now = clock::now();
    let mut group = c.benchmark_group("isolation");
    for len in [64, 576, 1400] {
        group.throughput(Throughput::Bytes(u64::from(len)));
        let up = segment(ROUTER, HOST, len);
        group.bench_function(format!("inbound/{len}"), |b| {
            b.iter(|| policy.inbound(ROUTER, GATEWAY, black_box(&up), now, &flows));
        });
        let down = segment(HOST, ROUTER, len);
        group.bench_function(format!("outbound/{len}"), |b| {
            b.iter(|| policy.outbound(black_box(&down), now, &mut flows));
        });
    }
    group.finish();
}

fn queue(c: &mut Criterion) {
    let mut queue = FlowQueue::new(DEFAULT_LIMIT_BYTES, Budget::new(1 << 28));
    let packet = segment(HOST, ROUTER, 1400);
    let mut out = Vec::new();
    c.bench_function("flow_queue/45 packets in and out", |b| {
        b.iter(|| {
            for _ in 0..45 {
                queue.push(black_box(&packet)).unwrap();
            }
            while queue.pop(&mut out) {
                black_box(&out);
            }
        });
    });
}

fn framing(c: &mut Criterion) {
    let mut stream = Vec::new();
    for _ in 0..45 {
        stream.extend_from_slice(&1424u16.to_be_bytes());
        stream.extend(std::iter::repeat_n(0x48, 1424));
    }
    let mut decoder = FrameDecoder::new();
    let mut group = c.benchmark_group("framing");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("45 frames in one read", |b| {
        b.iter(|| {
            let mut bytes = 0;
            decoder
                .feed(&mut stream, &mut |frame| {
                    bytes += black_box(frame).len();
                    ControlFlow::Continue(())
                })
                .unwrap();
            bytes
        });
    });
    group.finish();
}

fn routes(c: &mut Criterion) {
    let mut table = RouteTable::new("100.64.0.0/10".parse().unwrap()).unwrap();
    for slot in 0..10_000 {
        let address = Ipv4Addr::from_bits(ROUTER.to_bits() + slot * 397);
        let _ = table.insert(address, slot).unwrap();
    }
    c.bench_function("route_table/get", |b| b.iter(|| table.get(black_box(ROUTER))));
}

criterion_group!(benches, isolation, queue, framing, routes);
criterion_main!(benches);
