//! Unix sockets with a name.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tokio::net::UnixListener;

/// Bound under another name first: the right one never has the wrong permissions, and an earlier
/// daemon keeps it until this one serves.
pub struct Socket {
    listener: UnixListener,
    hidden: PathBuf,
    path: PathBuf,
}

impl Socket {
    pub fn bind(path: PathBuf, mode: u32) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        fs::create_dir_all(folder)?;
        let hidden = folder.join(format!(".{}", name.display()));
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, Permissions::from_mode(mode))?;
        Ok(Self {
            listener,
            hidden,
            path,
        })
    }

    /// Takes the place of an earlier daemon's, or of what one has left.
    pub fn publish(self) -> io::Result<UnixListener> {
        fs::rename(&self.hidden, &self.path)?;
        Ok(self.listener)
    }
}
