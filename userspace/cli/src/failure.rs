//! What can go wrong, what the operator can do about it, and the exit code that says so.

use kedge_attest::EnrolError;
use kedge_capture::CaptureError;
use kedge_directory::DirectoryError;
use kedge_identity::StoreError;
use kedge_model::{SpiffeId, SpiffeIdError};
use kedge_policy::PolicyError;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Every exit code of `kedge`. Code 2, wrong usage, is clap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the answer is yes.
    Done = 0,
    /// The answer is no: denied, or a feature is missing.
    No = 1,
    /// No daemon answers.
    Unreachable = 3,
    /// A file or an argument that was given is wrong.
    BadInput = 4,
    /// The daemon or the system could not do it.
    Failed = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connect to {}", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no answer from {} within {limit_s} s", socket.display())]
    Silent { socket: PathBuf, limit_s: u64 },
    #[error("connect to the attestation socket {}", socket.display())]
    AttestSocket {
        socket: PathBuf,
        #[source]
        source: kedge_attest_api::tonic::transport::Error,
    },
    #[error("kedged does not attest ({}): {}", .0.code(), .0.message())]
    Attestation(Box<kedge_attest_api::tonic::Status>),
    #[error("ask the daemon")]
    Exchange(#[source] hyper::Error),
    #[error("the daemon's answer is not what this version of kedge reads")]
    Answer(#[source] serde_json::Error),
    #[error("the daemon's answer is larger than {limit} bytes")]
    AnswerSize { limit: usize },
    #[error("the daemon says no ({status}): {cause}")]
    Daemon {
        status: u16,
        cause: String,
        remedy: Option<String>,
    },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write to stdout")]
    Output(#[source] io::Error),
    #[error("start the client")]
    Runtime(#[source] io::Error),
    #[error("enter the cgroup and network namespace of process {pid}")]
    Enter {
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("{what} {}: {why}", path.display())]
    Content {
        what: &'static str,
        path: PathBuf,
        why: String,
    },
    #[error("{0:?} is not {1}")]
    Digits(String, &'static str),
    #[error("enrolment refused ({label}): {0}", label = .0.label())]
    Enrolment(#[from] EnrolError),
    #[error("the machine says that it is {found}, not {expected}")]
    OtherNode { found: SpiffeId, expected: SpiffeId },
    #[error("the machine's EK is {found}, not {expected}")]
    OtherEk { found: String, expected: String },
    #[error("what the TPM states is not believed: {cause}")]
    Unbelieved { cause: String, remedy: &'static str },
    #[error("run {command}")]
    Command {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{command}: {said}")]
    CommandFailed { command: String, said: String },
    #[error("{0:?} is not NAMESPACE/SERVICE-ACCOUNT")]
    WorkloadName(String),
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

impl Failure {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::AttestSocket { .. } => {
                Exit::Unreachable
            }
            Self::Daemon {
                status: 400..=499, ..
            }
            | Self::Read { .. }
            | Self::WorkloadName(_)
            | Self::Content { .. }
            | Self::Digits(..)
            | Self::Enrolment(_)
            | Self::OtherNode { .. }
            | Self::OtherEk { .. }
            | Self::Id(_)
            | Self::Directory(_)
            | Self::Policy(_)
            | Self::Store(_) => Exit::BadInput,
            _ => Exit::Failed,
        }
    }

    /// The whole chain of causes in one line, then what to do.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        match self.remedy() {
            Some(remedy) => format!("{text}\n       {remedy}"),
            None => text,
        }
    }

    fn remedy(&self) -> Option<&str> {
        match self {
            Self::Unreachable { source, .. } => Some(match source.kind() {
                io::ErrorKind::PermissionDenied => "the admin socket is root's: run kedge as root",
                io::ErrorKind::ConnectionRefused => {
                    "kedged has ended without cleaning up: start it"
                }
                _ => "start kedged, or say where it is: --run-dir DIR or --socket PATH",
            }),
            Self::AttestSocket { .. } => Some(
                "start kedged with attestation on (docs/attestation.md), or say where it is: --at PATH",
            ),
            Self::Silent { .. } => Some("look at kedged's log: its control runtime is stuck"),
            Self::Answer(_) => Some("use the kedge of the daemon's version: see `kedge --version`"),
            Self::Daemon { remedy, .. } => remedy.as_deref(),
            Self::Store(StoreError::Svid(error)) => Some(error.remedy()),
            Self::Unbelieved { remedy, .. } => Some(remedy),
            Self::Enrolment(error) => Some(error.remedy()),
            Self::OtherNode { .. } | Self::OtherEk { .. } => {
                Some("make sure which machine answers; then give --node or --ek that is its own")
            }
            Self::Command { .. } | Self::CommandFailed { .. } => {
                Some("what follows `--` has to run `kedge` on the node, as root, with its socket")
            }
            Self::Capture(_) => Some("run kedge as root, with bpffs mounted"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_each_cause_once_and_the_remedy() {
        let failure = Failure::Unreachable {
            socket: "/run/kedge/admin.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(
            failure.report(),
            "connect to /run/kedge/admin.sock: entity not found\n       \
             start kedged, or say where it is: --run-dir DIR or --socket PATH"
        );
        assert_eq!(failure.exit(), Exit::Unreachable);
    }
}
