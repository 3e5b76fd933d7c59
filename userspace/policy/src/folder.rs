//! The edge: a folder of documents.

use crate::error::PolicyError;
use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENTS_MAX};
use crate::policy::{Document, Policy};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Reads every `*.toml` of `dir`; other files, hidden ones and folders below are not looked at.
///
/// # Errors
/// When the folder or a document cannot be read, or for the reasons of [`Policy::parse`].
pub fn load(dir: &Path) -> Result<Policy, PolicyError> {
    let failed = |source| PolicyError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut documents = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_document(&path) {
            documents.push(read(&path)?);
        }
        if documents.len() > DOCUMENTS_MAX {
            return Err(PolicyError::TooMany {
                what: "documents",
                limit: DOCUMENTS_MAX,
            });
        }
    }
    Policy::parse(documents)
}

fn is_document(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path
            .extension()
            .is_some_and(|extension| extension == "toml")
        && path.is_file()
}

fn read(path: &Path) -> Result<Document, PolicyError> {
    let failed = |source: io::Error| PolicyError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(DOCUMENT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(PolicyError::TooLarge {
            path: path.to_owned(),
            limit: DOCUMENT_BYTES_MAX,
        });
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Document { name, text })
}
