//! Goal: what a workload does to its end of a flow is what the other workload sees, whatever the
//! way of the bytes is.
//!
//! ```text
//!   client ── near ──[ opener Flow ]══ carrier, on loopback ══[ acceptor Flow ]── near ── server
//! ```
//! Both flows are real, with keys as a link would give them; only capture and delivery are
//! replaced by plain sockets.

use kedge_daemon::dataplane::buffer::{FRONT, Pool};
use kedge_daemon::dataplane::flow::Flow;
use kedge_daemon::dataplane::half::{Broken, Open, Seal, Turn};
use kedge_daemon::dataplane::registry::Meter;
use kedge_link::wire::Answer;
use kedge_model::{Refusal, Suite};
use kedge_record::{ContentType, HEADER_LEN, Limits, OVERHEAD, Sealer, TrafficSecret, Unsealer};
use kedge_sys::socket::reset_on_close;
use std::future::poll_fn;
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

type Ended = JoinHandle<Result<(), Broken>>;

/// Both workloads, and how both flows end.
struct Ends {
    client: TcpStream,
    server: TcpStream,
    opener: Ended,
    acceptor: Ended,
    pool: Pool,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.expect("connect"), accepted.expect("accept").0)
}

fn secret(byte: u8) -> TrafficSecret {
    TrafficSecret::new(Suite::Aes256Gcm, &[byte; 48])
}

fn drive(pool: &Pool, mut flow: Flow) -> Ended {
    let pool = pool.clone();
    spawn_local(async move {
        let meter = Meter::default();
        let turn = Turn {
            pool: &pool,
            meter: &meter,
            now_s: 0,
        };
        let ended = poll_fn(|cx| flow.poll(cx, &turn)).await;
        if let Err(broken) = &ended {
            flow.abort(broken);
        }
        ended
    })
}

async fn sealed_answer(pool: &Pool, sealer: Sealer, answer: &Answer) -> Seal {
    let mut sealer = sealer;
    let mut content = Vec::new();
    answer.encode(&mut content);
    let mut buffer = pool.take().await;
    let slot = &mut buffer[FRONT..];
    slot[HEADER_LEN..][..content.len()].copy_from_slice(&content);
    let len = content.len();
    sealer
        .seal(ContentType::ApplicationData, slot, len)
        .expect("room for an answer");
    Seal::new(sealer, true).with_sealed(buffer, FRONT..FRONT + len + OVERHEAD)
}

async fn ends_with(limits: Limits, answer: Answer) -> Ends {
    let pool = Pool::default();
    let (client, near) = pair().await;
    let (carrier, accepted) = pair().await;
    let (delivering, server) = pair().await;
    let out = Seal::new(Sealer::with_limits(secret(1), limits), false);
    let back = Open::awaiting_answer(Unsealer::with_limits(secret(2), limits));
    let opener = drive(&pool, Flow::opener(near, carrier, out, back));
    let out = sealed_answer(&pool, Sealer::with_limits(secret(2), limits), &answer).await;
    let nothing = pool.take().await;
    let back = Open::with_received(Unsealer::with_limits(secret(1), limits), nothing, 0..0);
    let acceptor = drive(&pool, Flow::acceptor(delivering, accepted, out, back));
    Ends {
        client,
        server,
        opener,
        acceptor,
        pool,
    }
}

async fn ends() -> Ends {
    ends_with(Limits::PROTOCOL, Answer::Accepted).await
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test);
}

/// Bytes that differ everywhere, so that a lost, doubled or moved one shows.
fn pattern(len: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("a clean end");
    bytes
}

#[test]
fn bytes_arrive_once_and_in_order_both_ways_at_once() {
    run(async {
        let Ends {
            client,
            server,
            opener,
            acceptor,
            ..
        } = ends().await;
        let (up, down) = (pattern(5_000_000), pattern(3_000_001));
        let transfer = async |stream: TcpStream, send: Vec<u8>| {
            let (mut read, mut write) = stream.into_split();
            let sending = spawn_local(async move {
                write.write_all(&send).await.expect("write");
                write.shutdown().await.expect("shutdown");
            });
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.expect("a clean end");
            sending.await.expect("sent");
            got
        };
        let (at_client, at_server) =
            tokio::join!(transfer(client, up.clone()), transfer(server, down.clone()));
        assert!(at_server == up, "{} bytes up", at_server.len());
        assert!(at_client == down, "{} bytes down", at_client.len());
        opener.await.expect("ran").expect("ended cleanly");
        acceptor.await.expect("ran").expect("ended cleanly");
    });
}

#[test]
fn one_direction_goes_on_after_the_other_has_ended() {
    run(async {
        let Ends {
            mut client,
            mut server,
            opener,
            acceptor,
            ..
        } = ends().await;
        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("shutdown");
        assert_eq!(read_all(&mut server).await, b"question");
        server.write_all(b"answer").await.expect("write");
        server.shutdown().await.expect("shutdown");
        assert_eq!(read_all(&mut client).await, b"answer");
        opener.await.expect("ran").expect("ended cleanly");
        acceptor.await.expect("ran").expect("ended cleanly");
    });
}

#[test]
fn a_server_may_end_its_direction_first() {
    run(async {
        let Ends {
            mut client,
            mut server,
            ..
        } = ends().await;
        server.write_all(b"greeting").await.expect("write");
        server.shutdown().await.expect("shutdown");
        assert_eq!(read_all(&mut client).await, b"greeting");
        client.write_all(b"late").await.expect("write");
        client.shutdown().await.expect("shutdown");
        assert_eq!(read_all(&mut server).await, b"late");
    });
}

#[test]
fn an_idle_flow_holds_no_buffer() {
    run(async {
        let Ends {
            mut client,
            mut server,
            pool,
            ..
        } = ends().await;
        client.write_all(b"question").await.expect("write");
        server.read_exact(&mut [0; 8]).await.expect("read");
        server.write_all(b"answer").await.expect("write");
        client.read_exact(&mut [0; 6]).await.expect("read");
        // The flows run when this task waits: let each have its last turn.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.lent(), 0);
    });
}

#[test]
fn single_bytes_arrive_one_by_one() {
    run(async {
        let Ends {
            mut client,
            mut server,
            ..
        } = ends().await;
        for byte in 0..=255 {
            client.write_all(&[byte]).await.expect("write");
            assert_eq!(server.read_u8().await.expect("read"), byte);
            server.write_all(&[byte]).await.expect("write");
            assert_eq!(client.read_u8().await.expect("read"), byte);
        }
    });
}

#[test]
fn a_reset_of_either_workload_is_a_reset_at_the_other() {
    run(async {
        let Ends {
            client,
            mut server,
            acceptor,
            ..
        } = ends().await;
        reset_on_close(&client).expect("setsockopt");
        drop(client);
        let error = server.read(&mut [0]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(
            acceptor.await.expect("ran"),
            Err(Broken::ResetByPeer)
        ));

        let Ends {
            mut client,
            server,
            opener,
            ..
        } = ends().await;
        reset_on_close(&server).expect("setsockopt");
        drop(server);
        let error = client.read(&mut [0]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(
            opener.await.expect("ran"),
            Err(Broken::ResetByPeer)
        ));
    });
}

#[test]
fn what_a_workload_said_before_its_reset_arrives_before_the_reset() {
    run(async {
        for _ in 0..50 {
            let Ends {
                mut client,
                mut server,
                ..
            } = ends().await;
            server.write_all(b"last").await.expect("write");
            reset_on_close(&server).expect("setsockopt");
            drop(server);
            let mut said = [0; 4];
            client
                .read_exact(&mut said)
                .await
                .expect("what came before");
            assert_eq!(&said, b"last");
            let error = client.read(&mut [0]).await.expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_carrier_cut_without_close_notify_is_never_a_clean_end() {
    run(async {
        let pool = Pool::default();
        let (mut client, near) = pair().await;
        let (carrier, peer) = pair().await;
        let out = Seal::new(Sealer::new(secret(1)), false);
        let back = Open::awaiting_answer(Unsealer::new(secret(2)));
        let opener = drive(&pool, Flow::opener(near, carrier, out, back));
        drop(peer);
        let error = client.read(&mut [0]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(opener.await.expect("ran"), Err(Broken::Truncated)));
    });
}

#[test]
fn a_denied_flow_is_reset_and_says_why() {
    run(async {
        let text = "not today".to_owned();
        let denied = Answer::Denied {
            refusal: Refusal::Denied,
            text,
        };
        let Ends {
            mut client, opener, ..
        } = ends_with(Limits::PROTOCOL, denied).await;
        let error = client.read(&mut [0]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let ended = opener.await.expect("ran");
        assert!(matches!(
            ended,
            Err(Broken::Denied {
                refusal: Refusal::Denied,
                ..
            })
        ));
    });
}

#[test]
fn keys_are_updated_within_their_budget_and_no_byte_is_lost() {
    let limits = Limits {
        records_per_key: 16,
        update_margin: 8,
        records_per_update_min: 4,
    };
    run(async move {
        let Ends {
            mut client,
            mut server,
            ..
        } = ends_with(limits, Answer::Accepted).await;
        let sent = pattern(20_000_000);
        let expected = sent.clone();
        let sending = spawn_local(async move {
            client.write_all(&sent).await.expect("write");
            client.shutdown().await.expect("shutdown");
            client
        });
        assert!(read_all(&mut server).await == expected);
        drop(sending.await);
    });
}

#[test]
fn a_reader_that_stops_stops_the_writer_within_bounded_buffers() {
    run(async {
        let Ends {
            client, mut server, ..
        } = ends().await;
        let chunk = pattern(1 << 20);
        let mut sent = 0;
        while let Ok(written) = tokio::time::timeout(
            std::time::Duration::from_millis(300),
            poll_write(&client, &chunk[sent % chunk.len()..]),
        )
        .await
        {
            sent += written;
            assert!(sent < 256 << 20, "the flow swallows bytes without end");
        }
        client.set_nodelay(true).expect("setsockopt");
        let mut got = vec![0; sent];
        server
            .read_exact(&mut got)
            .await
            .expect("every byte that was taken");
        assert!(got.iter().zip(chunk.iter().cycle()).all(|(a, b)| a == b));
    });
}

async fn poll_write(stream: &TcpStream, bytes: &[u8]) -> usize {
    loop {
        stream.writable().await.expect("open");
        match stream.try_write(bytes) {
            Ok(written) => return written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}
