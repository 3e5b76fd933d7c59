//! What a worker's pipes are used for, where the kernel seals and opens.

use crate::stage::{
    Ends, Path, Peer, ends_among, fill, pair, paths, pattern, run_on, seal, sings, take,
};
use kedge_daemon::dataplane::buffer::{Pipes, Pool};
use kedge_daemon::dataplane::flow::Records;
use kedge_daemon::dataplane::half::{KernelOpen, Turn};
use kedge_daemon::dataplane::registry::Meter;
use kedge_daemon::dataplane::rounds::Rounds;
use kedge_link::wire::Answer;
use kedge_model::Suite;
use kedge_record::{OVERHEAD, PLAINTEXT_MAX, Rekey, Sealer};
use kedge_sys::ktls;
use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// If this kernel has records.
fn kernel_path() -> Option<Path> {
    paths().into_iter().find(|path| {
        path.records != Records::Userspace
            && path.suite == Suite::Aes256Gcm
            && path.limits.rekey == Rekey::InPlace
    })
}

/// A flow whose records are the kernel's by now.
async fn kernel_flow(path: Path, pipes: &Pipes) -> Ends {
    let mut ends = ends_among(path, Answer::Accepted, Peer::Honest, pipes).await;
    let questions = async {
        for _ in 0..2 {
            ends.client.write_all(b"question").await.expect("write");
            ends.server.read_exact(&mut [0; 8]).await.expect("read");
            ends.server.write_all(b"answer").await.expect("write");
            ends.client.read_exact(&mut [0; 6]).await.expect("read");
        }
    };
    let answered = timeout(Duration::from_secs(60), questions).await;
    answered.expect("it does not wait for a pipe for ever");
    ends.took(path);
    ends
}

#[test]
fn readers_who_stop_leave_pipes_for_other_flows() {
    let Some(path) = kernel_path() else { return };
    run_on(path, &async |path| {
        let pipes = Pipes::with_limit(4, false);
        let chunk = pattern(1 << 20);
        let mut stopped = Vec::new();
        // Each would keep one on either side.
        for _ in 0..4 {
            let ends = kernel_flow(path, &pipes).await;
            let sent = fill(&ends.client, &chunk).await;
            stopped.push((ends, sent));
        }
        kernel_flow(path, &pipes).await;
        for (mut ends, sent) in stopped {
            take(&mut ends.server, &chunk, sent).await;
        }
    });
}

#[test]
fn a_pipe_takes_several_records_where_it_may_and_else_one() {
    let Some(path) = kernel_path() else { return };
    run_on(path, &async |path| {
        assert_eq!(taken_of_three_records(path, false).await, 1);
        if sings("kTLS: splice into a short pipe") {
            assert_eq!(taken_of_three_records(path, true).await, 3);
        }
    });
}

/// How many of the full records that wait on a carrier are taken at once for a workload that does not
/// read. It has all bytes in the end.
async fn taken_of_three_records(path: Path, hold_several: bool) -> u64 {
    let ((mut peer, carrier), (near, mut server)) = (pair().await, pair().await);
    ktls::attach(&carrier).expect("this kernel has TLS");
    let unsealer = path.unsealer(path.keys().opener);
    let mut open = KernelOpen::take_over(&carrier, unsealer).expect("it takes the key");
    let chunk = pattern(1 << 20);
    let before = fill(&near, &chunk).await;
    let content = pattern(3 * PLAINTEXT_MAX);
    let sealed = sealed(path.sealer(path.keys().opener), &content);
    peer.write_all(&sealed).await.expect("write");
    carrier.readable().await.expect("open");
    let (rounds, meter) = (Rounds::default(), Meter::default());
    let turn = Turn {
        pool: &Pool::default(),
        pipes: &Pipes::new(hold_several),
        rounds: &rounds,
        meter: &meter,
        now_s: 0,
    };
    let once = poll_fn(|cx| Poll::Ready(open.poll(cx, &carrier, &near, &turn).is_pending()));
    assert!(once.await);
    let taken = meter.received_bytes.load(Relaxed);
    let opening = poll_fn(|cx| open.poll(cx, &carrier, &near, &turn));
    let reading = async {
        take(&mut server, &chunk, before).await;
        take(&mut server, &content, content.len()).await;
    };
    tokio::select! {
        ended = opening => panic!("nobody has ended it: {:?}", ended.map(drop)),
        () = reading => {}
    }
    taken / PLAINTEXT_MAX as u64
}

fn sealed(mut sealer: Sealer, content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for part in content.chunks(PLAINTEXT_MAX) {
        let mut record = vec![0; part.len() + OVERHEAD];
        seal(&mut sealer, &mut record, part);
        sealed.extend(record);
    }
    sealed
}
