//! From our words for keys to the kernel's.

use super::Broken;
use crate::fault;
use kedge_model::Suite;
use kedge_record::DirectionKey;
use kedge_sys::ktls::{self, Cipher, Direction, Key};
use std::io;
use tokio::net::TcpStream;

pub fn cipher(suite: Suite) -> Cipher {
    match suite {
        Suite::Aes128Gcm => Cipher::Aes128Gcm,
        Suite::Aes256Gcm => Cipher::Aes256Gcm,
        Suite::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
    }
}

/// Gives the kernel a direction's first key.
///
/// # Errors
/// When the kernel does not take it: the flow must end, since what is written next would be
/// plaintext.
pub fn install(
    carrier: &TcpStream,
    direction: Direction,
    key: &DirectionKey,
) -> Result<(), Broken> {
    refuse_if_wanted(match direction {
        Direction::Send => "refuse-sending-key",
        Direction::Receive => "refuse-receiving-key",
    })?;
    fault::point("kernel-key-due");
    ktls::install(carrier, direction, kernel_key(key)).map_err(Broken::Kernel)?;
    fault::point("kernel-key-given");
    Ok(())
}

/// Gives the kernel a direction's next key.
///
/// # Errors
/// When the kernel does not take it: the flow must end, since its present key must not be used.
pub fn update(carrier: &TcpStream, direction: Direction, key: &DirectionKey) -> Result<(), Broken> {
    refuse_if_wanted(match direction {
        Direction::Send => "refuse-sending-update",
        Direction::Receive => "refuse-receiving-update",
    })?;
    ktls::install(carrier, direction, kernel_key(key)).map_err(Broken::Kernel)
}

fn refuse_if_wanted(fault: &str) -> Result<(), Broken> {
    match fault::comes_true(fault) {
        true => Err(Broken::Kernel(io::ErrorKind::InvalidInput.into())),
        false => Ok(()),
    }
}

fn kernel_key(key: &DirectionKey) -> Key {
    Key::new(
        cipher(key.suite()),
        key.key(),
        key.iv(),
        key.record_number(),
    )
}
