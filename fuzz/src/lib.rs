//! What the fuzz targets share: one input, cut into pieces in several ways.
//!
//! Network input comes in any pieces, so a target that reads a stream reads each input whole and in these, and wants the
//! same from all of them. The cuts follow from the bytes alone: a finding is its bytes, and a seed of the corpus is
//! what a client would send, and nothing else.

/// The input byte by byte, then cut at places that depend on it.
pub fn cuts(data: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let random = (1..=2).map(|nth| random_cuts(data, nth));
    std::iter::once(data.chunks(1).collect()).chain(random)
}

/// Pieces of 1 to 64 bytes, half of them of less than 8.
fn random_cuts(data: &[u8], nth: u64) -> Vec<&[u8]> {
    // FNV-1a of the bytes, then xorshift.
    let mut state = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64 ^ nth, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        | 1;
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let most = if state & 1 == 0 { 8 } else { 64 };
        let (piece, after) = rest.split_at(rest.len().min(1 + (state >> 32) as usize % most));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
