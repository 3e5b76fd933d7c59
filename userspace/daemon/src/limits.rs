//! Every bound of the daemon, with its unit. What is full refuses; nothing grows without end.

use std::time::Duration;

/// Records that one read or write moves at most: 64 KiB of application data.
pub const RECORDS_PER_BUFFER: usize = 4;
/// Buffers per worker that flows may hold at once (64 KiB each); further flows wait in turn.
pub const BUFFERS_PER_WORKER: usize = 4_096;
/// Unused buffers that a worker keeps for the next flow instead of giving them back.
pub const SPARE_BUFFERS: usize = 16;
/// Pipes per worker that flows with kernel records may hold at once; further flows wait in turn.
/// Each has two descriptors.
pub const PIPES_PER_WORKER: usize = 256;
/// Unused pipes that a worker keeps.
pub const SPARE_PIPES: usize = 16;
/// Bytes of a pipe: an unfixed kernel loses bytes of a record if the pipe has less room, so that
/// there a record is only ever taken into an empty one.
pub const PIPE_BYTES: i32 = 64 * 1_024;
/// Time between two looks whether the kernel has written all that it has sealed, at a flow's end.
pub const SEND_SETTLE: Duration = Duration::from_millis(5);
/// Time between two looks at the legs of a flow whose bytes have waited for room, the first included;
/// well below the time after which the kernel would take a reader for dead.
pub const READER_LOOK: Duration = Duration::from_secs(5);
/// Turns that all directions of a worker's flows may take together before others have theirs: up to
/// 64 KiB each. Fewer let new flows open sooner, and cost a single stream a little.
pub const TURNS_PER_ROUND: usize = 16;

/// Pause after accept() has failed for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Flows that are decided again before other work of the worker has its turn.
pub const DECISIONS_PER_TURN: usize = 256;
/// Descriptors kept for everything but flows and pipes; each of these has two.
pub const DESCRIPTORS_RESERVED: u64 = 1_024;
/// Connections per worker that are between accept() and their first flight. No workload has
/// more of them than there is room left.
pub const OPENING_PER_WORKER: usize = 8_192;

/// How long the reset of a client that has left already may take to arrive behind its connection.
pub const LAST_WORDS: Duration = Duration::from_millis(100);

/// Refusals that are kept for connect() to repeat, of one workload...
pub const REFUSALS_PER_WORKLOAD: usize = 256;
/// ...and of all: half of what the map has room for, so that a successor finds room beside them.
pub const REFUSALS: usize = 8_192;
/// Fillings of the programs' tables whose versions are remembered: their events come within
/// milliseconds, and tables are filled at most every two seconds or so.
pub const TABLES_REMEMBERED: usize = 8;
/// How long a refusal holds if nobody looks again, the daemon being dead or too busy: longer
/// than the next look may be away.
pub const REFUSAL_VALID: Duration = Duration::from_secs(10);
/// A refusal that nobody has met for so long is forgotten.
pub const REFUSAL_IDLE: Duration = Duration::from_secs(60);
/// How often a place that refused is looked at again, while somebody asks for it...
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// ...and how long such a look may take.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(8);
/// Looks under way at once, of a node.
pub const LOOKS_AT_ONCE: usize = 256;
/// How often due looks are begun.
pub const LOOK_TICK: Duration = Duration::from_millis(100);
/// Endpoints of a service that one look tries; a refusal by a service with more is not kept.
pub const LOOK_ENDPOINTS: usize = 16;
/// Connections per worker to the peer port that have not said which link they belong to; a newer
/// one takes the place of the oldest of whoever has most.
pub const STRANGERS_PER_WORKER: usize = 1_024;
/// How long such a connection may stay silent: TCP sends what was lost four times within it.
pub const STRANGER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the rest of a first flight may take once its first byte is there; as above.
pub const FIRST_FLIGHT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle carriers per worker and peer, at most.
pub const CARRIERS_PER_PEER: usize = 16;
/// An idle carrier is closed by its dialler after this long...
pub const CARRIER_IDLE: Duration = Duration::from_secs(10);
/// ...and by its acceptor after this long: later, so that no first flight meets a closed one.
pub const CARRIER_IDLE_ACCEPTOR: Duration = Duration::from_secs(30);

/// How long a connection waits for a link, for an identity on it, or for the directory to name
/// its source.
pub const HOLD: Duration = Duration::from_secs(5);
/// How long a connect() to a local workload or to a peer's node may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a captured connection may take from accept() to the peer's answer, all waits together.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(20);
/// What a client's stricter TCP_USER_TIMEOUT leaves for making a link on the way.
pub const OPENING_MARGIN: Duration = Duration::from_secs(3);
/// How long an acceptor that stands at a direction's Continue waits for the continuation.
pub const CONTINUATION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an opener waits for the acceptor's FIN after both directions have ended.
pub const PARTING: Duration = Duration::from_secs(5);

/// Bytes read from a control connection at a time.
pub const CONTROL_READ_BYTES: usize = 16 * 1_024;
/// Commands that wait for one control connection.
pub const LINK_COMMANDS: usize = 1_024;
/// Requests for links that wait for the manager.
pub const LINK_DEMANDS: usize = 4_096;
/// Handshakes that peers may have under way with us at once; a newer one takes the place of the
/// oldest of whoever has most.
pub const HANDSHAKES_INBOUND: usize = 256;
/// First and last pause between two attempts to make a link; it doubles in between.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The last pause where there is a link, which is to be renewed: many peers may ask one node that
/// cannot believe them yet.
pub const RENEWAL_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Age at which a link is renewed, before jitter of a tenth.
pub const LINK_LIFETIME: Duration = Duration::from_secs(3_600);
/// A renewed link takes no new flow after this long, and is then erased.
pub const LINK_DRAIN: Duration = Duration::from_secs(10);

/// How long the TPM may take to answer.
pub const TPM_ANSWER: Duration = Duration::from_secs(10);
/// How often it is tried again to open one.
pub const TPM_RETRY: Duration = Duration::from_secs(30);
/// Connections to the attestation socket, a descriptor each, and how many of them one caller may
/// have.
pub const ATTEST_CONNECTIONS: usize = 1_024;
pub const ATTEST_CONNECTIONS_PER_CALLER: usize = 16;
/// Calls that are under way on one of them.
pub const ATTEST_CALLS_PER_CONNECTION: u32 = 16;
/// How long one of them is kept, and how long after that a call may take: a client connects anew.
pub const ATTEST_CONNECTION_AGE: Duration = Duration::from_secs(60);
pub const ATTEST_CONNECTION_GRACE: Duration = Duration::from_secs(30);
/// How often the renewal of our own Result looks at its files and at the boot-time clock.
pub const ATTESTATION_TICK: Duration = Duration::from_secs(2);
/// Results that a peer may show on a link at once, beside one a second: each costs a signature.
pub const RESULTS_AT_ONCE: u64 = 16;
/// How long a link may take from its hellos until both nodes are attested.
pub const ATTESTATION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new SVID waits for a Result about its key, where none is required.
pub const ATTESTATION_AHEAD: Duration = Duration::from_secs(10);
/// Bytes of a Verifier's answer.
pub const VERIFIER_ANSWER_BYTES: usize = 64 * 1_024;
/// Bytes of the file of those who are believed, and AKs that it may revoke.
pub const VERIFIERS_BYTES: usize = 8 << 20;
pub const REVOKED_AKS: usize = 65_536;

/// How often a worker says that it is alive, from its own loop.
pub const BEAT: Duration = Duration::from_secs(1);
/// Events that wait for the edge; more are counted and dropped.
pub const EVENTS_WAITING: usize = 4_096;
/// Events of the BPF programs that are read before other control work has its turn.
pub const KERNEL_EVENTS_PER_BATCH: usize = 64;
/// Events of the BPF programs that are passed on in one second; more are only counted there.
pub const KERNEL_EVENTS_PER_SECOND: usize = 200;
/// Captured connections in a row that end at once without an answer, after which a workload counts
/// as uncapturable.
pub const FAILURES_UNCAPTURABLE: u32 = 3;
/// Workloads of which it is remembered that their connections did not arrive.
pub const SUSPECTS: usize = 16_384;
/// Processes and cgroups that one `kedge status` looks at for capabilities, and one `kedge socket
/// list` for sockets; of the rest they say that they do not know.
pub const PROCESSES_LOOKED_AT: usize = 10_000;
/// Levels of cgroups below a workload's that it looks into.
pub const CGROUP_DEPTH: usize = 16;
/// Flows that one answer of the admin API lists.
pub const FLOWS_LISTED: usize = 20_000;
/// Sockets that one answer lists.
pub const SOCKETS_LISTED: usize = 20_000;
/// Events that wait for one slow reader of the admin API before it misses some.
pub const EVENTS_PER_READER: usize = 1_024;
/// Events in one second of each kind that strangers can cause; more are only counted.
pub const EVENTS_PER_KIND: u32 = 10;
/// Events that the edge remembers for `kedge event follow --since`.
pub const EVENTS_REMEMBERED: usize = 4_096;
/// Files are read again this long after the last change, so that half of one is rarely read.
pub const FILES_SETTLE: Duration = Duration::from_millis(100);
/// How often files and cgroups are looked at where no notification came.
pub const FILES_POLL: Duration = Duration::from_secs(2);
/// How long kedged's own guard lets packets to a node pass that has left the directory; closing what
/// there was with it takes a fraction of this.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// Shortest time between two looks that flows ask for.
pub const FILES_POLL_MIN: Duration = Duration::from_millis(50);
/// How long the other daemon of a hand-over may take to answer.
pub const HANDOVER_ANSWER: Duration = Duration::from_secs(5);
/// Carriers that one daemon has passed to another and that wait for a worker.
pub const CARRIERS_PASSED: usize = 256;
/// How long a daemon that has handed over stays at least: an accepted connection waits no longer
/// for the directory, a link and an identity in turn.
pub const RETIREMENT_MIN: Duration = Duration::from_secs(3 * HOLD.as_secs());
/// How long the calibration of one suite's records may take, about.
pub const CALIBRATION_TIME: Duration = Duration::from_millis(50);
/// After which it has failed.
pub const CALIBRATION_LIMIT: Duration = Duration::from_millis(200);
/// Most turns on each path that it takes meanwhile.
pub const CALIBRATION_ROUNDS: usize = 16;
/// Bytes of a turn's stream, and questions of 1 KiB that come before it.
pub const CALIBRATION_BULK: usize = 1 << 20;
pub const CALIBRATION_QUESTIONS: usize = 32;
/// Per cent of what our own records cost, up to which the kernel's are worth a change.
pub const WORTH_A_CHANGE: u32 = 90;
/// Bytes in one direction that make it a bulk transfer.
pub const BULK_BYTES: u64 = 1 << 20;
/// How long live flows may go on after SIGTERM.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

const _: () = assert!(CARRIER_IDLE.as_secs() * 2 < CARRIER_IDLE_ACCEPTOR.as_secs());
const _: () = assert!(LOOK_EVERY.as_secs() + LOOK_TIMEOUT.as_secs() < REFUSAL_VALID.as_secs());
