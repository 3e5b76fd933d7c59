//! Goal: an application that stops reading for longer than the time after which a dead peer is
//! noticed keeps its connection, as it would with direct TCP.
//!
//! ```text
//!   writer ── near ──[ local Flow ]── far ── reader, who takes his time
//! ```

use kedge_daemon::dataplane::buffer::{Pipes, Pool};
use kedge_daemon::dataplane::flow::Flow;
use kedge_daemon::dataplane::half::Turn;
use kedge_daemon::dataplane::reader::Readers;
use kedge_daemon::dataplane::registry::Meter;
use kedge_daemon::dataplane::rounds::Rounds;
use kedge_sys::limits::USER_TIMEOUT;
use kedge_sys::socket::{Dial, listen};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// Both ends as the daemon has them.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = listen("127.0.0.1:0".parse().expect("literal")).expect("listen");
    let listener = TcpListener::from_std(listener).expect("a runtime");
    let dial = Dial::new(listener.local_addr().expect("bound")).expect("socket");
    let dialled = TcpStream::from_std(dial.start().expect("connect")).expect("a runtime");
    let (accepted, _) = listener.accept().await.expect("accept");
    (dialled, accepted)
}

async fn carry(mut flow: Flow) {
    let (pool, pipes, meter) = (Pool::default(), Pipes::new(false), Meter::default());
    let turn = Turn {
        pool: &pool,
        pipes: &pipes,
        rounds: &Rounds::default(),
        meter: &meter,
        now_s: 0,
    };
    let mut readers = Readers::default();
    let ended = poll_fn(|cx| match flow.poll(cx, &turn) {
        Poll::Pending => readers.poll(cx, &flow).map(Err),
        ended => ended,
    });
    ended.await.expect("a clean end");
}

#[test]
fn a_reader_may_pause_for_longer_than_a_dead_peer_is_waited_for() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (mut writer, near) = pair().await;
        let (far, mut reader) = pair().await;
        // The limit is the daemon's alone: a writer that has one means it.
        socket2::SockRef::from(&writer)
            .set_tcp_user_timeout(None)
            .expect("setsockopt");
        let carried = spawn_local(carry(Flow::local(near, far)));
        let sent = vec![7; 64 << 20];
        let length = sent.len();
        let writing = spawn_local(async move {
            writer.write_all(&sent).await.expect("write");
            writer.shutdown().await.expect("shutdown");
            // Until the other direction has ended too.
            writer
                .read_to_end(&mut Vec::new())
                .await
                .expect("a clean end");
        });
        tokio::time::sleep(USER_TIMEOUT + Duration::from_secs(10)).await;
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.expect("a clean end");
        assert_eq!(got.len(), length);
        drop(reader);
        writing.await.expect("wrote");
        carried.await.expect("carried");
    });
}
