//! Reads a whole input file of a command, or stdin in place of a file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The beginning of every Coracle file, including backups.
const BEGINNING: &[u8] = b"{\"format\":\"coracle-";

/// The bytes of a file, and its name for messages.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a file, or stdin when the name is `-`. An error includes the name.
pub(crate) fn read(file: &Path) -> Result<Input, (PathBuf, io::Error)> {
    let (name, read) = if file == Path::new("-") {
        let mut bytes = Vec::new();
        (PathBuf::from("stdin"), io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (file.to_owned(), std::fs::read(file))
    };
    match read {
        Ok(bytes) => Ok(Input { name, bytes }),
        Err(cause) => Err((name, cause)),
    }
}

/// Returns whether this may be a Coracle file, or the beginning of one. For any other file a
/// message about a wrong checksum would be misleading.
pub(crate) fn may_be_of_coracle(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGINNING) || BEGINNING.starts_with(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_coracle_is_known_by_its_beginning() {
        for text in ["", "{\"form", "{\"format\":\"coracle-log\",\"version\":1", "{\"format\":\"coracle-"] {
            assert!(may_be_of_coracle(text.as_bytes()), "{text}");
        }
        for text in ["notes", "{\"format\":\"other\"}", "{}", "\n", "\0\0\0"] {
            assert!(!may_be_of_coracle(text.as_bytes()), "{text}");
        }
    }
}
