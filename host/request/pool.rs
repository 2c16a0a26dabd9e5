//! The request's pool: strings that live as long as the request, at addresses that do not change (nginx: ngx_pool_t).

/// A string in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStr {
    chunk: u32,
    start: u32,
    len: u32,
}

impl PoolStr {
    /// The first `at` bytes, and the rest.
    pub fn split_at(self, at: usize) -> (PoolStr, PoolStr) {
        let at = u32::try_from(at).unwrap_or(u32::MAX).min(self.len);
        (PoolStr { len: at, ..self }, PoolStr { start: self.start + at, len: self.len - at, ..self })
    }

    /// All but the first `from` and the last `to` bytes.
    pub fn slice(self, from: usize, to: usize) -> PoolStr {
        let (_, rest) = self.split_at(from);
        rest.split_at((rest.len as usize).saturating_sub(to)).0
    }
}

/// Size of the first chunk; further ones are at least as large.
const CHUNK: usize = 1024;
/// The most that one request may store.
const MAX_BYTES: usize = 1024 * 1024;

/// Chunks that are filled but never grown, so that what was stored stays where it is.
#[derive(Debug, Default)]
pub struct Pool {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Stores the concatenation of `parts`; `None` if the request has stored too much already.
    pub fn store(&mut self, parts: &[&[u8]]) -> Option<PoolStr> {
        let len = parts.iter().map(|part| part.len()).sum();
        self.store_with(len, |chunk| parts.iter().for_each(|part| chunk.extend_from_slice(part)))
    }

    /// Stores the `len` bytes that `write` adds to the end of a vector; `None` as in [`Pool::store`].
    #[inline]
    pub fn store_with(&mut self, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<PoolStr> {
        if self.bytes + len > MAX_BYTES {
            return None;
        }
        self.bytes += len;
        if self.chunks.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < len) {
            self.chunks.push(Vec::with_capacity(len.max(CHUNK)));
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        let start = chunk.len();
        write(chunk);
        debug_assert_eq!(chunk.len(), start + len);
        // All three fit: the pool is bounded by MAX_BYTES.
        Some(PoolStr { chunk: index as u32, start: start as u32, len: len as u32 })
    }

    /// The bytes of a string of this pool.
    pub fn get(&self, text: PoolStr) -> &[u8] {
        let start = text.start as usize;
        self.chunks
            .get(text.chunk as usize)
            .and_then(|chunk| chunk.get(start..start + text.len as usize))
            .unwrap_or(b"")
    }

    /// Empties it for another request, and keeps one chunk.
    pub fn clear(&mut self) {
        self.chunks.truncate(1);
        match self.chunks.first_mut() {
            Some(chunk) if chunk.capacity() <= 4 * CHUNK => chunk.clear(),
            _ => self.chunks.clear(),
        }
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_do_not_move() {
        let mut pool = Pool::default();
        let first = pool.store(&[b"hello ", b"world"]).expect("fits");
        let address = pool.get(first).as_ptr();
        for _ in 0..100 {
            pool.store(&[&[7; 500]]).expect("fits");
        }
        assert_eq!(pool.get(first), b"hello world");
        assert_eq!(pool.get(first).as_ptr(), address);
    }

    #[test]
    fn is_bounded() {
        let mut pool = Pool::default();
        assert!(pool.store(&[&vec![0; MAX_BYTES]]).is_some());
        assert_eq!(pool.store(&[b"x"]), None);
        pool.clear();
        assert!(pool.store(&[b"x"]).is_some());
    }
}
