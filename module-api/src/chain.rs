//! Chains of bufs: what passes from filter to filter. Passing one on neither allocates nor copies.

use std::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::{self, NonNull},
};

use abi_stable::StableAbi;

use crate::buf::{Buf, RawBuf};

/// A list of bufs, owned; dropping it gives all of them back.
#[repr(C)]
#[derive(StableAbi)]
pub struct Chain {
    head: *mut RawBuf,
    /// The last node; meaningless while `head` is null.
    tail: *mut RawBuf,
}

// SAFETY: a chain owns its nodes, and a Buf is Send.
unsafe impl Send for Chain {}

impl Chain {
    /// No bufs: as an argument of a body filter it means "continue with what you hold".
    pub const fn new() -> Chain {
        Chain { head: ptr::null_mut(), tail: ptr::null_mut() }
    }

    /// Whether there is no buf in it.
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds a buf at the end.
    pub fn push(&mut self, buf: Buf) {
        let node = buf.into_raw();
        // SAFETY: the node was owned by `buf`; `tail` is the last node of this chain if `head` is not null.
        unsafe {
            (*node).next = ptr::null_mut();
            if self.head.is_null() {
                self.head = node;
            } else {
                (*self.tail).next = node;
            }
        }
        self.tail = node;
    }

    /// Adds a buf at the front.
    pub fn push_front(&mut self, buf: Buf) {
        let node = buf.into_raw();
        if self.head.is_null() {
            self.tail = node;
        }
        // SAFETY: the node was owned by `buf`.
        unsafe { (*node).next = self.head };
        self.head = node;
    }

    /// Takes the first buf.
    pub fn pop(&mut self) -> Option<Buf> {
        let node = NonNull::new(self.head)?;
        // SAFETY: the node is initialized and owned by this chain, which gives it up here.
        unsafe {
            self.head = node.as_ref().next;
            Some(Buf::from_raw(node))
        }
    }

    /// Moves all bufs of `other` to the end.
    pub fn append(&mut self, other: Chain) {
        let other = ManuallyDrop::new(other);
        let (head, tail) = (other.head, other.tail);
        if head.is_null() {
            return;
        }
        if self.head.is_null() {
            self.head = head;
        } else {
            // SAFETY: `tail` is the last node of this chain.
            unsafe { (*self.tail).next = head };
        }
        self.tail = tail;
    }

    /// The bufs, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { at: &raw const self.head, chain: PhantomData }
    }

    /// The first buf.
    pub fn first(&self) -> Option<&Buf> {
        self.iter().next()
    }

    /// The first buf, to be changed.
    pub fn first_mut(&mut self) -> Option<&mut ChainedBuf> {
        if self.head.is_null() {
            return None;
        }
        // SAFETY: `head` is a node, and the borrow of the chain covers it.
        Some(unsafe { ChainedBuf::at(&mut self.head) })
    }

    /// The last buf, to be changed.
    pub fn last_mut(&mut self) -> Option<&mut ChainedBuf> {
        if self.head.is_null() {
            return None;
        }
        // SAFETY: as in `first_mut`.
        Some(unsafe { ChainedBuf::at(&mut self.tail) })
    }

    /// The number of bytes in all bufs.
    pub fn len_bytes(&self) -> u64 {
        self.iter().map(Buf::len).sum()
    }

    /// Whether the response ends in this chain.
    pub fn has_last(&self) -> bool {
        self.iter().any(Buf::is_last)
    }
}

/// A buf that is in a chain: it can be read like any [`Buf`], and changed, but not be swapped for another one, since the
/// chain's links go through it. That it has no size sees to that.
#[repr(transparent)]
pub struct ChainedBuf([Buf]);

impl ChainedBuf {
    /// The buf behind a field that points to it.
    ///
    /// # Safety
    /// The field is not null, and the chain that owns the node is borrowed exclusively for as long.
    unsafe fn at(field: &mut *mut RawBuf) -> &mut ChainedBuf {
        let one = ptr::slice_from_raw_parts_mut(ptr::from_mut(field).cast::<Buf>(), 1);
        // SAFETY: `Buf` is a transparent non-null pointer to a node, and `ChainedBuf` a transparent slice of such.
        unsafe { &mut *(one as *mut ChainedBuf) }
    }

    /// See [`Buf::advance`].
    pub fn advance(&mut self, n: u64) {
        self.0[0].advance(n);
    }

    /// See [`Buf::truncate`].
    pub fn truncate(&mut self, n: u64) {
        self.0[0].truncate(n);
    }

    /// See [`Buf::split_to`].
    pub fn split_to(&mut self, n: u64) -> Buf {
        self.0[0].split_to(n)
    }

    /// See [`Buf::set_last`].
    pub fn set_last(&mut self, last: bool) {
        self.0[0].set_last(last);
    }

    /// See [`Buf::set_flush`].
    pub fn set_flush(&mut self, flush: bool) {
        self.0[0].set_flush(flush);
    }

    /// See [`Buf::set_last_in_chain`].
    pub fn set_last_in_chain(&mut self, last: bool) {
        self.0[0].set_last_in_chain(last);
    }
}

impl Deref for ChainedBuf {
    type Target = Buf;

    fn deref(&self) -> &Buf {
        &self.0[0]
    }
}

impl fmt::Debug for ChainedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Default for Chain {
    fn default() -> Chain {
        Chain::new()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl From<Buf> for Chain {
    fn from(buf: Buf) -> Chain {
        let mut chain = Chain::new();
        chain.push(buf);
        chain
    }
}

impl FromIterator<Buf> for Chain {
    fn from_iter<I: IntoIterator<Item = Buf>>(bufs: I) -> Chain {
        let mut chain = Chain::new();
        bufs.into_iter().for_each(|buf| chain.push(buf));
        chain
    }
}

impl Iterator for Chain {
    type Item = Buf;

    /// Takes the first buf: `for buf in chain`.
    fn next(&mut self) -> Option<Buf> {
        self.pop()
    }
}

impl<'a> IntoIterator for &'a Chain {
    type Item = &'a Buf;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Goes over the bufs of a chain.
#[derive(Debug)]
pub struct Iter<'a> {
    /// The field that points to the next node: the chain's `head`, or the `next` of the node before.
    at: *const *mut RawBuf,
    chain: PhantomData<&'a Chain>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Buf;

    fn next(&mut self) -> Option<&'a Buf> {
        // SAFETY: the chain is borrowed for 'a, so that neither it nor its nodes move or go away. `Buf` is a transparent
        // non-null pointer to a node, so a field that holds such a pointer can be borrowed as one.
        unsafe {
            let node = NonNull::new(*self.at)?;
            let buf = &*self.at.cast::<Buf>();
            self.at = &raw const (*node.as_ptr()).next;
            Some(buf)
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::host_tests;

    fn texts(chain: &Chain) -> Vec<&[u8]> {
        chain.iter().map(Buf::bytes).collect()
    }

    fn chain(texts: &[&str]) -> Chain {
        texts.iter().map(|text| Buf::copy_from(text.as_bytes())).collect()
    }

    #[test]
    fn pushes_and_pops_at_both_ends() {
        host_tests::counted(|| {
            let mut chain = Chain::new();
            assert!(chain.is_empty() && chain.first().is_none() && chain.last_mut().is_none() && chain.pop().is_none());
            chain.push_front(Buf::copy_from(b"b"));
            chain.push(Buf::copy_from(b"c"));
            chain.push_front(Buf::copy_from(b"a"));
            chain.push(Buf::last());
            assert_eq!(texts(&chain), [&b"a"[..], b"b", b"c", b""]);
            assert_eq!((chain.len_bytes(), chain.has_last()), (3, true));
            assert_eq!(chain.pop().map(|buf| buf.bytes().to_vec()), Some(b"a".to_vec()));
            // Emptied and used again: the tail of before means nothing.
            while chain.pop().is_some() {}
            chain.push(Buf::copy_from(b"x"));
            chain.push(Buf::copy_from(b"y"));
            assert_eq!(texts(&chain), [b"x", b"y"]);
        });
    }

    #[test]
    fn appends() {
        host_tests::counted(|| {
            let mut all = Chain::new();
            all.append(Chain::new());
            assert!(all.is_empty());
            all.append(chain(&["a", "b"]));
            all.append(Chain::new());
            all.append(chain(&["c"]));
            all.push(Buf::copy_from(b"d"));
            assert_eq!(texts(&all), [b"a", b"b", b"c", b"d"]);
            assert_eq!(all.len_bytes(), 4);
        });
    }

    #[test]
    fn bufs_can_be_changed_in_place() {
        host_tests::counted(|| {
            let mut chain = chain(&["one", "two"]);
            if let Some(first) = chain.first_mut() {
                first.advance(1);
            }
            if let Some(last) = chain.last_mut() {
                last.set_last(true);
            }
            assert_eq!(texts(&chain), [&b"ne"[..], b"two"]);
            assert!(chain.has_last());
        });
    }

    #[test]
    fn iterates_by_value_and_drops_the_rest() {
        host_tests::counted(|| {
            let mut chain = chain(&["a", "b", "c"]);
            assert_eq!(chain.next().map(|buf| buf.len()), Some(1));
            let upper: Chain = chain.by_ref().take(1).map(|buf| Buf::from(buf.bytes().to_ascii_uppercase())).collect();
            assert_eq!((texts(&upper), texts(&chain)), (vec![&b"B"[..]], vec![&b"c"[..]]));
        });
    }
}
