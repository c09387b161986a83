//! Files that a command reads as a whole, and stdin in the place of one.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What all files of Coracle begin with, backups among them.
const BEGINNING: &[u8] = b"{\"format\":\"coracle-";

/// A file's name for messages, and its bytes.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a file, or stdin when its name is `-`. An error comes with the name.
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

/// Whether this may be a file of Coracle, or what is left of one. Of any other file it would be
/// beside the point to say that it does not match its checksum.
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
