//! Whatever reaches the ports of running processes, they go on serving, and neither their memory nor their log grows.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::cluster::{BrokerFile, Cluster};
use crate::process::{Process, eventually, run};

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections opened and closed at each port.
const CONNECTIONS: usize = 200;
/// Files and connections of a process that is to run out of them: enough to start.
const DESCRIPTORS: u32 = 96;
/// Growth of a process that is no leak: its own buffers and caches.
const MEMORY_GROWTH: u64 = 64 << 20;
/// Garbage is the sender's fault: at most a line or two of ours is an error.
const ERRORS: usize = 5;

fn connect(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint).expect("the port takes connections");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends bytes and waits until the other side has closed the connection.
fn send(endpoint: &str, bytes: &[u8]) {
    let mut stream = connect(endpoint);
    // It may close, or reset, before all is sent or said.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let closed = stream.read_to_end(&mut Vec::new());
    let in_time = closed.map_err(|error| error.kind()) != Err(std::io::ErrorKind::WouldBlock);
    assert!(in_time, "{endpoint} keeps a connection that it cannot use");
}

/// Bytes without any order, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// The beginning of a TLS 1.2 handshake record with a ClientHello that goes on for 508 bytes.
fn tls_hello() -> Vec<u8> {
    let head = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    [&head[..], &noise(505)].concat()
}

/// HTTP/2 frames as they should not be, after a proper beginning.
fn bad_frames() -> Vec<Vec<u8>> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let frame = |length: [u8; 3], kind: u8, stream: u8, body: &[u8]| {
        [PREFACE, &settings, &length, &[kind, 4, 0, 0, 0, stream], body].concat()
    };
    vec![
        frame([0xff, 0xff, 0xff], 0, 1, &noise(1000)), // data of 16 MiB on a stream that nobody opened
        frame([0, 4, 0], 1, 1, &noise(1024)),          // headers that no table decodes
        frame([0, 0, 3], 4, 0, &[1, 2, 3]),            // settings of an odd size
        frame([0, 0, 4], 8, 0, &[0, 0, 0, 0]),         // a window that grows by nothing
        frame([0, 0, 8], 99, 200, &noise(8)),          // a kind that does not exist
    ]
}

#[test]
fn garbage_on_every_port_stops_nobody() {
    let mut cluster = Cluster::start(1);
    let listeners = cluster.listeners();
    let serves = |process: &Process| {
        for endpoint in &listeners {
            let health = run(&["health", endpoint]);
            assert_eq!(health.code, Some(0), "{health:?} {}", process.log());
        }
    };
    serves(&cluster.controller);
    let memory_before = [cluster.controller.memory(), cluster.brokers[0].memory()];
    // They say nothing, or stop in the middle, and stay.
    let mut idle = Vec::new();
    for endpoint in &listeners {
        idle.push(connect(endpoint));
        for begun in [&PREFACE[..10], PREFACE, &tls_hello()[..7]] {
            let mut stream = connect(endpoint);
            stream.write_all(begun).unwrap();
            idle.push(stream);
        }
        send(endpoint, &noise(100_000));
        send(endpoint, &[0; 100_000]);
        send(endpoint, b"GET / HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\n\r\n");
        send(endpoint, format!("POST /{} HTTP/1.1\r\n", "x".repeat(100_000)).as_bytes());
        send(endpoint, &tls_hello());
        for bytes in bad_frames() {
            send(endpoint, &bytes);
        }
        for _ in 0..CONNECTIONS {
            drop(connect(endpoint));
        }
        let many: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(endpoint)).collect();
        drop(many);
    }
    serves(&cluster.controller);
    cluster.run_with_input(&["produce", "ready"], "one\n").ok();
    assert_eq!(cluster.run(&["consume", "ready", "-e"]).ok(), "one\n");
    let memory_after = [cluster.controller.memory(), cluster.brokers[0].memory()];
    for (before, after) in memory_before.into_iter().zip(memory_after) {
        assert!(after < before + MEMORY_GROWTH, "memory went from {before} to {after} bytes");
    }
    for process in [&cluster.controller, &cluster.brokers[0]] {
        assert!(process.errors() <= ERRORS, "{}", process.log());
        let panicked = process.log().contains("panicked");
        assert!(!panicked, "{}", process.log());
    }
    assert!(cluster.controller.is_alive() && cluster.brokers[0].is_alive());
    drop(idle);
}

#[test]
fn a_process_without_descriptors_serves_again_once_it_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let broker = BrokerFile::alone(&dir.path().join("data"));
    let file = dir.path().join("broker.toml");
    std::fs::write(&file, broker.text()).unwrap();
    let arguments = ["broker", "--config", file.to_str().unwrap()];
    let mut process = Process::start_with_descriptors(DESCRIPTORS, &arguments, dir.path(), "broker");
    let endpoint = format!("127.0.0.1:{}", broker.client_port);
    let serves = || match run(&["health", &endpoint, "--timeout", "5s"]) {
        outcome if outcome.code == Some(0) => Ok(()),
        outcome => Err(outcome.stderr),
    };
    eventually(serves);
    // The backlog takes those that the process cannot.
    let many: Vec<TcpStream> = (0..DESCRIPTORS + 50).map(|_| connect(&endpoint)).collect();
    eventually(
        || if process.log().contains("accepting a connection failed") { Ok(()) } else { Err("no word") },
    );
    drop(many);
    eventually(serves);
    assert!(process.is_alive() && process.errors() == 0, "{}", process.log());
    process.terminate();
    assert!(process.ended().success(), "{}", process.log());
}
