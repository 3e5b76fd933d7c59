//! Goal: what a workload does to its end of a flow is what the other workload sees, whatever the
//! way of the bytes is.
//!
//! ```text
//!   client ── near ──[ opener Flow ]══ carrier, on loopback ══[ acceptor Flow ]── near ── server
//! ```
//! Both flows are real, with keys as a link would give them; only capture and delivery are
//! replaced by plain sockets. Each test is played on every path: in every suite, with records of
//! our own and, where this kernel has TLS, with the kernel's (`cargo xtask vm test`); and on flows
//! that go on on other carriers after a few records each.

mod continued;
mod pipes;
mod stage;

use kedge_daemon::dataplane::buffer::{Pipes, Pool};
use kedge_daemon::dataplane::calibration::calibrate;
use kedge_daemon::dataplane::flow::{Flow, Records};
use kedge_daemon::dataplane::half::{Broken, Open, Seal, Turn};
use kedge_daemon::dataplane::kernel_records::pipes_hold_several;
use kedge_daemon::dataplane::registry::Meter;
use kedge_daemon::dataplane::rounds::Rounds;
use kedge_daemon::limits::TURNS_PER_ROUND;
use kedge_link::wire::Answer;
use kedge_model::{Refusal, Suite};
use kedge_record::{Limits, Rekey};
use kedge_sys::socket::reset_on_close;
use stage::{
    Ends, Path, Peer, canaries, drive, ends, ends_with, fill, kernel_has, pair, paths, pattern,
    pipes, read_all, run, run_on, sings, take, transfer,
};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::task::spawn_local;

#[test]
fn bytes_arrive_once_and_in_order_both_ways_at_once() {
    run(async |path| {
        let Ends {
            client,
            server,
            opener,
            acceptor,
            ..
        } = ends(path).await;
        let (up, down) = (pattern(5_000_000), pattern(3_000_001));
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
    run(async |path| {
        let Ends {
            mut client,
            mut server,
            opener,
            acceptor,
            ..
        } = ends(path).await;
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
    run(async |path| {
        let Ends {
            mut client,
            mut server,
            ..
        } = ends(path).await;
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
    run(async |path| {
        let Ends {
            mut client,
            mut server,
            pool,
            ..
        } = ends(path).await;
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
    run(async |path| {
        let mut ends = ends(path).await;
        for byte in 0..=255 {
            ends.client.write_all(&[byte]).await.expect("write");
            assert_eq!(ends.server.read_u8().await.expect("read"), byte);
            ends.server.write_all(&[byte]).await.expect("write");
            assert_eq!(ends.client.read_u8().await.expect("read"), byte);
        }
        ends.took(path);
    });
}

#[test]
fn a_reset_of_either_workload_is_a_reset_at_the_other() {
    run(async |path| {
        let Ends {
            client,
            mut server,
            acceptor,
            ..
        } = ends(path).await;
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
        } = ends(path).await;
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
    run(async |path| {
        for _ in 0..50 {
            let Ends {
                mut client,
                mut server,
                ..
            } = ends(path).await;
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
    run(async |path| {
        let pool = Pool::default();
        let (mut client, near) = pair().await;
        let (carrier, peer) = pair().await;
        let keys = path.keys();
        let out = Seal::new(path.sealer(keys.opener), false);
        let back = Open::awaiting_answer(path.unsealer(keys.acceptor));
        let (opener, _) = drive(&pool, &pipes(), Flow::opener(near, carrier, out, back));
        drop(peer);
        let error = client.read(&mut [0]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(opener.await.expect("ran"), Err(Broken::Truncated)));
    });
}

#[test]
fn a_denied_flow_is_reset_and_says_why() {
    run(async |path| {
        let text = "not today".to_owned();
        let denied = Answer::Denied {
            refusal: Refusal::Denied,
            text,
        };
        let Ends {
            mut client, opener, ..
        } = ends_with(path, denied, Peer::Honest).await;
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
        records_per_key: 64,
        update_margin: 32,
        records_per_update_min: 8,
        rekey: Rekey::InPlace,
    };
    let update = async |path| {
        let Ends {
            mut client,
            mut server,
            ..
        } = ends(path).await;
        let sent = pattern(20_000_000);
        let expected = sent.clone();
        let sending = spawn_local(async move {
            client.write_all(&sent).await.expect("write");
            client.shutdown().await.expect("shutdown");
            client
        });
        assert!(read_all(&mut server).await == expected);
        drop(sending.await);
    };
    for path in paths() {
        if path.records == Records::Userspace || sings("kTLS: key update") {
            run_on(Path { limits, ..path }, &update);
        }
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer_within_bounded_buffers() {
    run(async |path| {
        let Ends {
            client, mut server, ..
        } = ends(path).await;
        let chunk = pattern(1 << 20);
        let sent = fill(&client, &chunk).await;
        take(&mut server, &chunk, sent).await;
    });
}

#[test]
fn a_direction_goes_to_the_kernel_once_it_has_carried_bulk_and_no_other_does() {
    let in_bulk = |path: Path| Path {
        records: Records::Kernel { after: 1 << 20 },
        ..path
    };
    let kernels = paths()
        .into_iter()
        .filter(|path| path.records != Records::Userspace);
    for path in kernels.map(in_bulk) {
        run_on(path, &async |path| {
            let mut ends = ends(path).await;
            let by_kernel = |ends: &Ends| {
                let [opener, acceptor] = &ends.meters;
                let ways = [
                    &opener.sent_by_kernel,
                    &acceptor.received_by_kernel,
                    &acceptor.sent_by_kernel,
                    &opener.received_by_kernel,
                ];
                ways.map(|way| way.load(Relaxed))
            };
            for (len, by) in [(1_000, [false; 4]), (4 << 20, [true, true, false, false])] {
                let sent = pattern(len);
                let mut got = vec![0; len];
                let write = ends.client.write_all(&sent);
                let (wrote, read) = tokio::join!(write, ends.server.read_exact(&mut got));
                wrote.and(read.map(drop)).expect("a stream");
                assert!(got == sent, "{len} bytes");
                ends.server.write_all(b"taken").await.expect("write");
                ends.client
                    .read_exact(&mut [0; 5])
                    .await
                    .expect("an answer");
                assert_eq!(by_kernel(&ends), by, "{path:?}, {len} bytes");
            }
        });
    }
}

/// It would never be given to the kernel otherwise: after each turn something waits to be written.
#[test]
fn a_workload_that_always_has_more_is_stopped_when_all_is_written() {
    run_on(paths()[0], &async |path| {
        let ((mut workload, near), (far, mut peer)) = (pair().await, pair().await);
        spawn_local(async move { workload.write_all(&pattern(8 << 20)).await });
        spawn_local(async move { copy(&mut peer, &mut sink()).await });
        let (rounds, meter) = (Rounds::default(), Meter::default());
        let turn = Turn {
            pool: &Pool::default(),
            pipes: &Pipes::new(false),
            rounds: &rounds,
            meter: &meter,
            now_s: 0,
        };
        let mut seal = Seal::new(path.sealer(path.keys().opener), false);
        let cx = &mut Context::from_waker(Waker::noop());
        // So many others wait for the next round that there is one turn in each.
        let _others: Vec<_> = (0..TURNS_PER_ROUND)
            .map(|_| (rounds.give_way::<()>(cx), rounds.waiting()))
            .collect();
        for _ in 0..4 {
            near.peek(&mut [0]).await.expect("more");
            assert!(seal.poll(cx, &near, &far, &turn).is_pending());
            assert!(!seal.is_at_rest());
        }
        near.peek(&mut [0]).await.expect("more");
        let sealed = meter.sent_bytes.load(Relaxed);
        seal.stop_at_rest(true);
        poll_fn(|cx| {
            let polled = seal.poll(cx, &near, &far, &turn);
            assert!(polled.is_pending());
            match seal.is_at_rest() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        assert_eq!(meter.sent_bytes.load(Relaxed), sealed);
    });
}

#[test]
fn what_records_cost_is_measured_where_the_kernel_has_them() {
    for suite in Suite::ALL.into_iter().filter(|suite| kernel_has(*suite)) {
        // Emulated machines are slow, and others' work is beside this.
        let hold_several = pipes_hold_several(canaries());
        let limit = Duration::from_secs(60);
        let costs = calibrate(suite, hold_several, limit).expect("this kernel has them");
        println!("{suite}: {costs:?}");
        assert!(costs.bulk > 0 && costs.small > 0, "{costs:?}");
    }
}
