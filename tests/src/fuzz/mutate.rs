//! Random changes of inputs: bytes, lines and tokens of JSON are flipped, cut, doubled and spliced.

/// Pieces that parsers treat specially.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551615",
    b"9007199254740993",
    b"\n",
    b"\r\n",
    b"%",
    b"\xff",
    b"\0",
    b"\"op\":",
    b"\"crc\":\"",
];

/// Changes an input in a few places. `other` is another input, from which parts are taken.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=input.len());
        let end = (at + rng.usize(1..=16)).min(input.len());
        match rng.u32(..9) {
            0 if at < end => input[at] ^= 1 << rng.u32(..8),
            1 if at < end => input[at] = rng.u8(..),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let copied = input[at..end].to_vec();
                insert(input, rng, &copied);
            }
            5 => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                insert(input, rng, piece);
            }
            6 => swap_lines(input, rng),
            7 if !other.is_empty() => {
                let from = rng.usize(..other.len());
                let to = (from + rng.usize(1..=64)).min(other.len());
                insert(input, rng, &other[from..to]);
            }
            _ => change_number(input, rng),
        }
    }
}

fn insert(input: &mut Vec<u8>, rng: &mut fastrand::Rng, piece: &[u8]) {
    let at = rng.usize(..=input.len());
    input.splice(at..at, piece.iter().copied());
}

fn swap_lines(input: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let (one, other) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    lines.swap(one, other);
    *input = lines.join(&b'\n');
}

/// Replaces a run of digits by another number.
fn change_number(input: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let starts: Vec<_> = (0..input.len())
        .filter(|&at| input[at].is_ascii_digit() && (at == 0 || !input[at - 1].is_ascii_digit()))
        .collect();
    let Some(&start) = starts.get(rng.usize(..starts.len().max(1))) else { return };
    let len = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = match rng.u32(..4) {
        0 => 0,
        1 => u64::MAX >> rng.u32(..64),
        2 => rng.u64(..100),
        _ => 1 << rng.u32(..64),
    };
    input.splice(start..start + len, number.to_string().into_bytes());
}
