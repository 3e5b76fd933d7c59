//! Records that the kernel seals and opens (kTLS, Documentation/networking/tls.rst).
//!
//! ```text
//!   attach ─► install(Send, key)      write(), splice() seal records from the key's number on
//!          └► install(Receive, key)   read(), splice() give the content of records
//! ```
//! A direction without a key stays plain TCP: whoever goes on after a failed [`install`] sends
//! plaintext. So a failure must end the connection. Never put such a socket into a sockmap
//! (CVE-2026-64025).

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, TlsGetRecordType, recvmsg, setsockopt, sockopt,
};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use zeroize::Zeroizing;

/// The AEADs of TLS 1.3 that the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Bytes of its key.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of the IV that the kernel calls salt; they stand behind the key.
    fn salt_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 4,
            Self::ChaCha20Poly1305 => 0,
        }
    }

    /// `cipher_type` of `struct tls_crypto_info` (include/uapi/linux/tls.h).
    fn number(self) -> u16 {
        match self {
            Self::Aes128Gcm => libc::TLS_CIPHER_AES_GCM_128,
            Self::Aes256Gcm => libc::TLS_CIPHER_AES_GCM_256,
            Self::ChaCha20Poly1305 => libc::TLS_CIPHER_CHACHA20_POLY1305,
        }
    }

    /// Bytes of its `struct tls12_crypto_info_*`.
    fn info_len(self) -> usize {
        HEAD_LEN + IV_LEN + self.key_len() + NUMBER_LEN
    }
}

/// `version` and `cipher_type`.
const HEAD_LEN: usize = 4;
const IV_LEN: usize = 12;
const NUMBER_LEN: usize = 8;
const INFO_LEN_MAX: usize = HEAD_LEN + IV_LEN + 32 + NUMBER_LEN;
const TLS_1_3: u16 = 0x0304;

/// One direction of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Send,
    Receive,
}

impl Direction {
    fn option(self) -> libc::c_int {
        match self {
            Self::Send => libc::TLS_TX,
            Self::Receive => libc::TLS_RX,
        }
    }
}

/// A direction's key, IV and next record number, as the kernel wants them. Erased when dropped;
/// [`install`] takes it, so that the kernel is its only owner afterwards.
pub struct Key {
    cipher: Cipher,
    info: Zeroizing<[u8; INFO_LEN_MAX]>,
}

impl Key {
    /// # Panics
    /// When the key has not its cipher's length.
    #[must_use]
    pub fn new(cipher: Cipher, key: &[u8], iv: &[u8; IV_LEN], record_number: u64) -> Self {
        assert_eq!(key.len(), cipher.key_len(), "a key has its cipher's length");
        let (salt, iv) = iv.split_at(cipher.salt_len());
        let parts: [&[u8]; 6] = [
            &TLS_1_3.to_ne_bytes(),
            &cipher.number().to_ne_bytes(),
            iv,
            key,
            salt,
            &record_number.to_be_bytes(),
        ];
        let mut info = Zeroizing::new([0; INFO_LEN_MAX]);
        let mut at = 0;
        for part in parts {
            info[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self { cipher, info }
    }
}

/// Prepares an established connection for keys (TCP_ULP, tcp(7)).
///
/// # Errors
/// `NotFound`: this kernel has no TLS, or its module is not loaded. `NotConnected`: the
/// connection is not established.
pub fn attach(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(&socket.as_fd(), sockopt::TcpUlp::default(), b"tls")?;
    Ok(())
}

/// Gives the kernel a direction's key; a second one is a key update, where the kernel can.
///
/// # Errors
/// Of setsockopt(): the direction has no key then, or still the one before. `ResourceBusy`: this
/// kernel updates no keys.
pub fn install(socket: &impl AsFd, direction: Direction, key: Key) -> io::Result<()> {
    let length = libc::socklen_t::try_from(key.cipher.info_len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed and open; `info` is live and at least `length` bytes
    // long, and the kernel only reads from it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_TLS,
            direction.option(),
            key.info.as_ptr().cast(),
            length,
        )
    };
    succeeded(result)
}

/// The number of the next record of a direction whose key is installed.
///
/// # Errors
/// Of getsockopt(); when the direction has no key, or one of another cipher.
pub fn record_number(socket: &impl AsFd, direction: Direction, cipher: Cipher) -> io::Result<u64> {
    // The kernel gives the key too.
    let mut info = Zeroizing::new([0_u8; INFO_LEN_MAX]);
    let mut length = libc::socklen_t::try_from(cipher.info_len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed and open; the kernel writes at most `length` bytes into
    // `info`, which is as long or longer, and the new length into `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_TLS,
            direction.option(),
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    succeeded(result)?;
    let number = info[..cipher.info_len()]
        .last_chunk()
        .expect("every info ends with a number");
    Ok(u64::from_be_bytes(*number))
}

/// Sends one record of another type than application data.
///
/// # Errors
/// Of sendmsg(); `WriteZero` when the kernel did not take all of it, which uses up its number.
pub fn send_record(socket: &impl AsFd, content_type: u8, content: &[u8]) -> io::Result<()> {
    let mut control = ControlBuffer([0; CONTROL_LEN]);
    let mut part = libc::iovec {
        iov_base: content.as_ptr().cast_mut().cast(),
        iov_len: content.len(),
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    // SAFETY: the control buffer is aligned for a cmsghdr and has room for one with one byte of
    // data, so CMSG_FIRSTHDR is not null and CMSG_DATA points into it. sendmsg() reads from the
    // buffers, all of which outlive it; the descriptor is borrowed and open.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = libc::TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = CMSG_LEN;
        *libc::CMSG_DATA(header) = content_type;
        libc::sendmsg(
            socket.as_fd().as_raw_fd(),
            &raw const message,
            libc::MSG_NOSIGNAL,
        )
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == content.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

// SAFETY: it only computes a length.
const CMSG_LEN: usize = unsafe { libc::CMSG_LEN(1) } as usize;
// SAFETY: it only computes a length.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE(1) } as usize;

/// Aligned as a `struct cmsghdr`.
#[repr(align(8))]
struct ControlBuffer([u8; CONTROL_LEN]);

/// Receives content of one record, with the record's type: what read() and splice() refuse with
/// EINVAL because it is no application data has to be taken so.
///
/// # Errors
/// Of recvmsg(): `EBADMSG` for a record that does not open, and for ever after.
pub fn receive_record(socket: &impl AsFd, room: &mut [u8]) -> io::Result<(u8, usize)> {
    let mut control = cmsg_space!(u8);
    let mut parts = [IoSliceMut::new(room)];
    let received = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let content_type = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::TlsGetRecordType(content_type) => Some(number(content_type)),
        _ => None,
    });
    Ok((content_type.unwrap_or(APPLICATION_DATA), received.bytes))
}

/// Record types (RFC 8446, B.1).
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

fn number(content_type: TlsGetRecordType) -> u8 {
    match content_type {
        TlsGetRecordType::ChangeCipherSpec => 20,
        TlsGetRecordType::Alert => ALERT,
        TlsGetRecordType::Handshake => HANDSHAKE,
        TlsGetRecordType::ApplicationData => APPLICATION_DATA,
        TlsGetRecordType::Unknown(number) => number,
        // nix may give more of them a name; 0 is none ("invalid", RFC 8446, B.1).
        _ => 0,
    }
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layouts of include/uapi/linux/tls.h, as libc has them.
    #[test]
    fn infos_are_as_long_as_the_kernels_structures() {
        let lengths = Cipher::ALL.map(Cipher::info_len);
        let structures = [
            size_of::<libc::tls12_crypto_info_aes_gcm_128>(),
            size_of::<libc::tls12_crypto_info_aes_gcm_256>(),
            size_of::<libc::tls12_crypto_info_chacha20_poly1305>(),
        ];
        assert_eq!(lengths, structures);
        assert_eq!(lengths.iter().max(), Some(&INFO_LEN_MAX));
    }

    #[test]
    fn the_first_bytes_of_an_iv_are_the_salt_behind_the_key_of_aes_gcm_only() {
        let iv = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let gcm = Key::new(Cipher::Aes128Gcm, &[0xaa; 16], &iv, 0x0102);
        assert_eq!(gcm.info[4..12], iv[4..]);
        assert_eq!(gcm.info[12..28], [0xaa; 16]);
        assert_eq!(gcm.info[28..32], iv[..4]);
        assert_eq!(gcm.info[32..40], [0, 0, 0, 0, 0, 0, 1, 2]);
        let chacha = Key::new(Cipher::ChaCha20Poly1305, &[0xbb; 32], &iv, 1);
        assert_eq!(chacha.info[4..16], iv);
        assert_eq!(chacha.info[16..48], [0xbb; 32]);
    }
}
