//! Who asks at the attestation socket: never by what a caller says, but by the process that the
//! kernel names for the connection, and the cgroup which that one is in.
//!
//! ```text
//!   connection ── SO_PEERPIDFD ──► process ── /proc ──► cgroup ── directory ──► workload …  a pod
//!                                                          └──────────────────► host uid=…  others
//! ```

use crate::config::Config;
use crate::world::World;
use kedge_attest::Caller;
use kedge_sys::unix_peer::{UnixPeer, UnknownPeer};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use tokio::net::UnixStream;

/// Why somebody gets no answer. Whoever cannot be told from others is nobody.
#[derive(Debug, thiserror::Error)]
pub enum Unidentified {
    #[error(transparent)]
    Process(#[from] UnknownPeer),
    #[error("read the credentials of the connection")]
    Credentials(#[source] io::Error),
    #[error("its cgroup {0} cannot be seen from here")]
    Unseen(String),
    #[error("its cgroup {0} is below a managed root, and the directory names no workload there")]
    NoWorkload(String),
    #[error("its cgroup's path is longer than a caller's name may be")]
    TooLong,
}

/// Where cgroups are, as far as it does not change while kedged runs.
#[derive(Clone, Debug)]
pub struct Cgroups {
    mount: PathBuf,
    managed: Vec<PathBuf>,
}

impl Cgroups {
    /// # Errors
    /// When there is no file system at `cgroup_root`.
    pub fn of(config: &Config) -> io::Result<Self> {
        let root = &config.cgroup_root;
        Ok(Self {
            mount: mount_of(root)?,
            managed: config
                .managed_roots
                .iter()
                .map(|at| root.join(at))
                .collect(),
        })
    }

    /// As Evidence names whoever has connected.
    ///
    /// # Errors
    /// When that is not sure.
    pub fn identify(&self, stream: &UnixStream, world: &World) -> Result<Caller, Unidentified> {
        let credentials = stream.peer_cred().map_err(Unidentified::Credentials)?;
        let cgroup = UnixPeer::of(stream)?.cgroup()?;
        self.name(&cgroup, credentials.uid(), |id| {
            Some(world.workload_in(id)?.id.to_string())
        })
    }

    fn name(
        &self,
        cgroup: &str,
        uid: u32,
        workload: impl Fn(u64) -> Option<String>,
    ) -> Result<Caller, Unidentified> {
        let path = self.path(cgroup)?;
        let id = |path: &Path| fs::metadata(path).map(|folder| folder.ino());
        let unseen = |_| Unidentified::Unseen(cgroup.to_owned());
        id(&path).map_err(unseen)?;
        // A cgroup that a pod made is the pod's.
        let above = path.ancestors().take_while(|path| *path != self.mount);
        let found = above.filter_map(|path| id(path).ok()).find_map(workload);
        let name = match found {
            Some(id) => format!("workload {id}"),
            None if self.managed.iter().any(|root| path.starts_with(root)) => {
                return Err(Unidentified::NoWorkload(cgroup.to_owned()));
            }
            None => format!("host uid={uid} cgroup={cgroup}"),
        };
        Caller::new(name).map_err(|_| Unidentified::TooLong)
    }

    /// Outside of what this daemon sees of cgroups a path begins with `/..`.
    fn path(&self, cgroup: &str) -> Result<PathBuf, Unidentified> {
        let below = Path::new(cgroup.trim_start_matches('/'));
        let is_plain = |part| matches!(part, Component::Normal(_));
        match cgroup.starts_with('/') && below.components().all(is_plain) {
            true => Ok(self.mount.join(below)),
            false => Err(Unidentified::Unseen(cgroup.to_owned())),
        }
    }
}

/// The uppermost folder of the file system that `path` is on.
fn mount_of(path: &Path) -> io::Result<PathBuf> {
    let device = fs::metadata(path)?.dev();
    let is_same = |above: &&Path| fs::metadata(above).is_ok_and(|folder| folder.dev() == device);
    let uppermost = path.ancestors().take_while(is_same).last();
    Ok(uppermost.unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree {
        folder: tempfile::TempDir,
        cgroups: Cgroups,
    }

    /// Folders stand for cgroups: both are told apart by their inode.
    fn tree() -> Tree {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["pods/a/inner", "pods/new", "system/agent"] {
            fs::create_dir_all(folder.path().join(path)).expect("a cgroup");
        }
        let mount = folder.path().to_owned();
        let managed = vec![mount.join("pods")];
        Tree {
            folder,
            cgroups: Cgroups { mount, managed },
        }
    }

    impl Tree {
        fn name(&self, cgroup: &str) -> Result<String, Unidentified> {
            let pod = fs::metadata(self.folder.path().join("pods/a")).expect("there");
            let workload = |id| (id == pod.ino()).then(|| "spiffe://td/a".to_owned());
            let named = self.cgroups.name(cgroup, 1_000, workload)?;
            Ok(named.as_str().to_owned())
        }
    }

    #[test]
    fn a_pod_is_named_by_its_workload_also_from_a_cgroup_of_its_own_making() {
        let tree = tree();
        for cgroup in ["/pods/a", "/pods/a/inner"] {
            assert_eq!(tree.name(cgroup).expect("named"), "workload spiffe://td/a");
        }
    }

    #[test]
    fn a_process_of_the_host_is_named_by_user_and_cgroup() {
        let named = tree().name("/system/agent").expect("named");
        assert_eq!(named, "host uid=1000 cgroup=/system/agent");
    }

    #[test]
    fn whoever_is_in_no_known_cgroup_is_nobody() {
        let tree = tree();
        for (cgroup, expected) in [
            ("/pods/new", "names no workload"),
            ("/pods/new/inner", "cannot be seen"),
            ("/system/agent (deleted)", "cannot be seen"),
            ("/../../other", "cannot be seen"),
            ("/system/../pods/a", "cannot be seen"),
            ("", "cannot be seen"),
        ] {
            let why = tree.name(cgroup).expect_err(cgroup).to_string();
            assert!(why.contains(expected), "{cgroup:?}: {why}");
        }
    }
}
