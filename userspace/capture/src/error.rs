//! What can go wrong, split by who can do something about it.

use kedge_abi::limits;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The configuration cannot work on any machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This machine lacks something that an operator can give it.
    #[error("{}: {remedy}", path.display())]
    Environment { path: PathBuf, remedy: &'static str },
    /// The object file is not one that was built with this daemon.
    #[error("load eBPF object: no {what} {name:?} in it; build it with `cargo xtask build`")]
    Object { what: &'static str, name: String },
    /// The object file is one that was built with another daemon.
    #[error(
        "map {name} has another layout than this kedged: install the BPF object that was built with it"
    )]
    Layout { name: &'static str },
    /// Nothing of what was asked for has been written.
    #[error(
        "{prefixes} prefixes, those in force and the new ones: there is room for {}, and those in force stay",
        limits::VERDICTS
    )]
    Prefixes { prefixes: usize },
    /// Somebody else is at it.
    #[error("{}: {holder}", path.display())]
    Busy { path: PathBuf, holder: &'static str },
    /// The kernel refused the object file or a program of it.
    #[error("load eBPF programs")]
    Load(#[from] Box<aya::EbpfError>),
    /// The kernel refused a program.
    #[error("load or attach {program}")]
    Program {
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A link could not be pinned.
    #[error("pin {}", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: Box<aya::pin::PinError>,
    },
    /// A system call failed.
    #[error("{operation} {object}")]
    System {
        operation: &'static str,
        object: String,
        #[source]
        source: io::Error,
    },
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("workers {given}: between 1 and {max}")]
    Workers { given: u16, max: u32 },
    #[error("capture range {range}: holds no address that could be used")]
    Range { range: ipnet::IpNet },
    #[error("capture port {port} and the {workers} after it: beyond 65535, or over the peer port")]
    Ports { port: u16, workers: u16 },
}

impl CaptureError {
    pub(crate) fn system(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(io::Error) -> Self {
        let object = object.to_string();
        move |source| Self::System {
            operation,
            object,
            source,
        }
    }
}
