//! Parsers for sizes in flags: a number of bytes, or a number with a unit.

use bytesize::ByteSize;
use coracle_core::memory::BUDGET_BYTES_MIN;

/// Why a text is not a valid size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("a size is a number of bytes, or has a unit such as 64MiB, 512KiB or 2GB")]
    Unreadable,
    #[error("must be at least 1")]
    Zero,
    #[error("must be at least 64MiB: with less, data from other nodes leaves no room for keys and values")]
    TooLittleMemory,
}

/// Parses a size of at least one byte.
pub(crate) fn positive(text: &str) -> Result<u64, SizeError> {
    match read(text)? {
        0 => Err(SizeError::Zero),
        bytes => Ok(bytes),
    }
}

/// Parses an amount of memory that is sufficient for a server.
pub(crate) fn memory(text: &str) -> Result<u64, SizeError> {
    let bytes = read(text)?;
    if usize::try_from(bytes).is_ok_and(|bytes| bytes < BUDGET_BYTES_MIN) {
        Err(SizeError::TooLittleMemory)
    } else {
        Ok(bytes)
    }
}

fn read(text: &str) -> Result<u64, SizeError> {
    let is_number = text.starts_with(|first: char| first.is_ascii_digit());
    let size = text.parse::<ByteSize>().ok().filter(|_| is_number);
    size.map(|size| size.as_u64()).ok_or(SizeError::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes =
            [("1", 1), ("64MiB", 64 << 20), ("64 MiB", 64 << 20), ("2GB", 2_000_000_000), ("1.5KiB", 1536)];
        for (text, bytes) in sizes {
            assert_eq!(positive(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_rejected() {
        for text in ["", "MiB", "-1", "1 apple", "+1", "1e3", "1MiBB"] {
            assert_eq!(positive(text), Err(SizeError::Unreadable), "{text}");
        }
        assert_eq!(positive("0"), Err(SizeError::Zero));
        assert_eq!(memory("1MiB"), Err(SizeError::TooLittleMemory));
        assert_eq!(memory("63MiB"), Err(SizeError::TooLittleMemory));
        assert_eq!(memory("64MiB"), Ok(64 << 20));
    }
}
