//! Flows that go on on other carriers: each key lasts for some ten records.

use crate::stage::{
    Ends, Path, Peer, continued_paths, ends, ends_with, pair, pattern, read_all, run_on, transfer,
};
use kedge_daemon::dataplane::continuation::{Stopped, Untaken};
use kedge_daemon::dataplane::half::Broken;
use kedge_link::wire::{Answer, Direction, Point};
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

/// 64 MiB both ways: 4,096 records a direction.
#[test]
fn a_flow_goes_on_through_hundreds_of_carriers_and_no_byte_is_lost() {
    let bytes = pattern(64 << 20);
    let go_on = async |path| {
        let mut ends = ends(path).await;
        let [up, down] = [bytes.clone(), bytes.clone()];
        let (at_client, at_server) =
            tokio::join!(transfer(ends.client, up), transfer(ends.server, down));
        assert!(at_server == bytes, "{} bytes up", at_server.len());
        assert!(at_client == bytes, "{} bytes down", at_client.len());
        (&mut ends.opener)
            .await
            .expect("ran")
            .expect("ended cleanly");
        (&mut ends.acceptor)
            .await
            .expect("ran")
            .expect("ended cleanly");
        for meter in &ends.meters {
            let keys = [&meter.sent_generation, &meter.received_generation];
            let keys = keys.map(|generation| generation.load(Relaxed));
            assert!(keys.iter().all(|keys| *keys > 200), "{keys:?} keys");
        }
    };
    for path in continued_paths() {
        run_on(path, &go_on);
    }
}

#[test]
fn a_direction_goes_on_after_the_other_has_ended_and_that_one_stays_ended() {
    let bytes = pattern(8 << 20);
    let go_on = async |path| {
        for client_first in [true, false] {
            let Ends {
                client,
                server,
                opener,
                acceptor,
                meters,
                ..
            } = ends(path).await;
            let (mut first, second) = match client_first {
                true => (client, server),
                false => (server, client),
            };
            first.write_all(b"all that it says").await.expect("write");
            first.shutdown().await.expect("shutdown");
            let (at_first, at_second) =
                tokio::join!(read_all(&mut first), transfer(second, bytes.clone()));
            assert_eq!(at_second, b"all that it says");
            assert!(at_first == bytes, "{} bytes", at_first.len());
            opener.await.expect("ran").expect("ended cleanly");
            acceptor.await.expect("ran").expect("ended cleanly");
            let [ours, _] = &meters;
            let keys = [&ours.sent_generation, &ours.received_generation];
            let [up, down] = keys.map(|generation| generation.load(Relaxed));
            let (ended, other) = if client_first { (up, down) } else { (down, up) };
            assert!(ended == 0 && other > 20, "{up} keys up, {down} down");
        }
    };
    for path in continued_paths() {
        run_on(path, &go_on);
    }
}

/// If both directions had to stand still at once, this flow would stand still for ever.
#[test]
fn a_workload_that_writes_and_does_not_read_goes_on_writing() {
    let bytes = pattern(8 << 20);
    let go_on = async |path| {
        let Ends { client, server, .. } = ends(path).await;
        let (mut unread, mut write) = client.into_split();
        let (mut read, mut flooding) = server.into_split();
        let flood = vec![7; 64 << 20];
        let flood = spawn_local(async move { flooding.write_all(&flood).await });
        let sent = bytes.clone();
        let sending = spawn_local(async move {
            write.write_all(&sent).await.expect("write");
            write
        });
        let mut got = vec![0; bytes.len()];
        read.read_exact(&mut got).await.expect("every byte");
        assert!(got == bytes);
        assert!(!flood.is_finished(), "the other direction has room for all");
        let (flooded, _) = tokio::io::copy(&mut unread, &mut tokio::io::sink())
            .await
            .map(|read| (read, sending))
            .expect("a clean end");
        assert_eq!(flooded, 64 << 20);
        flood.await.expect("ran").expect("written");
    };
    for path in continued_paths() {
        run_on(path, &go_on);
    }
}

#[test]
fn a_continuation_after_another_record_ends_the_flow() {
    let refuse = async |path: Path| {
        let Ends {
            mut client,
            mut server,
            acceptor,
            flows,
            ..
        } = ends(path).await;
        let point = Point {
            direction: Direction::FromOpener,
            generation: 1,
            last_record: 1_000,
        };
        let (_peer, carrier) = pair().await;
        let carrier = carrier.into_std().expect("a socket");
        let key = path.keys().continuation;
        let taken = flows.take(carrier, &key.continuation(point));
        assert_eq!(taken, Ok(()), "it has the flow's own key");
        let sending = spawn_local(async move { client.write_all(&pattern(1 << 20)).await });
        let mut sink = tokio::io::sink();
        let error = tokio::io::copy(&mut server, &mut sink).await;
        let error = error.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let ended = acceptor.await.expect("ran");
        let stopped = matches!(ended, Err(Broken::Continue(Stopped::OtherPoint { .. })));
        assert!(stopped, "{ended:?}");
        drop(sending.await);
    };
    for path in continued_paths() {
        run_on(path, &refuse);
    }
}

#[test]
fn a_peer_that_takes_no_continuation_ends_the_flow_and_an_ended_flow_takes_none() {
    let refuse = async |path: Path| {
        let mut ends = ends(path).await;
        ends.taking.abort();
        let sending = spawn_local(async move {
            let _ = ends.client.write_all(&pattern(1 << 20)).await;
        });
        let error = tokio::io::copy(&mut ends.server, &mut tokio::io::sink()).await;
        let error = error.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let ended = ends.opener.await.expect("ran");
        let stopped = matches!(
            ended,
            Err(Broken::Continue(Stopped::Dial(_) | Stopped::NotTaken(_)))
        );
        assert!(stopped, "{ended:?}");
        ends.acceptor.await.expect("ran").expect_err("truncated");
        drop(sending.await);
        let key = path.keys().continuation;
        let point = Point {
            direction: Direction::FromOpener,
            generation: 1,
            last_record: 1,
        };
        let (_peer, carrier) = pair().await;
        let carrier = carrier.into_std().expect("a socket");
        let taken = ends.flows.take(carrier, &key.continuation(point));
        assert_eq!(taken, Err(Untaken::NoFlow(key.flow())));
    };
    for path in continued_paths() {
        run_on(path, &refuse);
    }
}

#[test]
fn whoever_confirms_without_the_flows_key_is_not_believed() {
    let disbelieve = async |path: Path| {
        let ends = ends_with(path, Answer::Accepted, Peer::Liar).await;
        let mut client = ends.client;
        let sending = spawn_local(async move { client.write_all(&pattern(1 << 20)).await });
        let ended = ends.opener.await.expect("ran");
        let stopped = matches!(ended, Err(Broken::Continue(Stopped::Unconfirmed)));
        assert!(stopped, "{ended:?}");
        drop(sending.await);
    };
    for path in continued_paths() {
        run_on(path, &disbelieve);
    }
}

#[test]
fn an_acceptor_waits_for_a_continuation_for_its_time_and_no_longer() {
    let wait = async |path: Path| {
        let ends = ends_with(path, Answer::Accepted, Peer::Silent).await;
        let mut client = ends.client;
        let sending = spawn_local(async move { client.write_all(&pattern(1 << 20)).await });
        tokio::time::pause();
        let ended = ends.acceptor.await.expect("ran");
        let stopped = matches!(ended, Err(Broken::Continue(Stopped::NotSent)));
        assert!(stopped, "{ended:?}");
        ends.opener
            .await
            .expect("ran")
            .expect_err("nobody takes it");
        drop(sending.await);
    };
    for path in continued_paths() {
        run_on(path, &wait);
    }
}
