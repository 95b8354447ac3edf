// SPDX-License-Identifier: BSD-2-Clause
//! From what C passes to what Rust may use: each pointer is checked here and nowhere else.

use crate::boundary::Fail;
use crate::status::Status;
use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::time::Duration;

/// A string of the caller's, borrowed for the call.
///
/// # Safety
/// NULL, or a NUL-terminated string that stays as it is for `'a`.
pub(crate) unsafe fn text<'a>(
    string: *const c_char,
    null: &'static str,
    not_utf8: &'static str,
) -> Result<&'a str, Fail> {
    if string.is_null() {
        return Err(Fail::invalid(null));
    }
    // SAFETY: not NULL, and the caller promises the rest.
    let string = unsafe { CStr::from_ptr(string) };
    string.to_str().map_err(|_| Fail::invalid(not_utf8))
}

/// Bytes of the caller's to read. NULL is fine for none.
///
/// # Safety
/// NULL, or `len` readable bytes that stay as they are for `'a`.
pub(crate) unsafe fn bytes<'a>(start: *const u8, len: usize) -> Result<&'a [u8], Fail> {
    match (start.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Fail::invalid("the buffer is NULL")),
        (false, len) if isize::try_from(len).is_err() => {
            Err(Fail::invalid("the length is larger than any object"))
        }
        // SAFETY: not NULL, no longer than an object may be, and the caller promises the rest.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(start, len) }),
    }
}

/// Bytes of the caller's to write. NULL is fine for none.
///
/// # Safety
/// NULL, or `len` writable bytes that nobody else uses for `'a`.
pub(crate) unsafe fn room<'a>(start: *mut u8, len: usize) -> Result<&'a mut [u8], Fail> {
    match (start.is_null(), len) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Fail::invalid("the buffer is NULL")),
        (false, len) if isize::try_from(len).is_err() => {
            Err(Fail::invalid("the length is larger than any object"))
        }
        // SAFETY: not NULL, no longer than an object may be, and the caller promises the rest.
        // Bytes that were never written are fine: they are written before they are read.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts_mut(start, len) }),
    }
}

/// Where a result goes, if the pointer is not NULL.
pub(crate) fn out<T>(out: *mut T, null: &'static str) -> Result<*mut T, Fail> {
    if out.is_null() { Err(Fail::invalid(null)) } else { Ok(out) }
}

/// -1 for ever, 0 not at all, else milliseconds.
pub(crate) fn timeout(ms: c_int) -> Result<Option<Duration>, Fail> {
    match u64::try_from(ms) {
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
        Err(_) if ms == -1 => Ok(None),
        Err(_) => Err(Fail::invalid("timeout_ms is below -1")),
    }
}

/// Puts `text` where the caller has room, in the manner of snprintf(3): as much as fits, always
/// with a NUL, and the length of the whole as the answer.
///
/// # Safety
/// `buffer` is NULL, or has room for `capacity` bytes that nobody else uses.
pub(crate) unsafe fn print(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
) -> Result<isize, Fail> {
    let text = text.replace('\0', "\u{fffd}");
    // SAFETY: the caller promises it.
    let room = unsafe { room(buffer.cast(), capacity) }?;
    if let Some(most) = room.len().checked_sub(1) {
        let fits = floor_char_boundary(&text, most);
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        room[fits] = 0;
    }
    isize::try_from(text.len()).map_err(|_| Fail::invalid("the text is too long"))
}

/// A text in an array of a struct: as much as fits, with zeros behind it.
pub(crate) fn array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    let fits = floor_char_boundary(text, N - 1);
    for (to, byte) in array.iter_mut().zip(&text.as_bytes()[..fits]) {
        *to = c_char::from_ne_bytes([*byte]);
    }
    array
}

fn floor_char_boundary(text: &str, most: usize) -> usize {
    let mut fits = text.len().min(most);
    while !text.is_char_boundary(fits) {
        fits -= 1;
    }
    fits
}

/// An element of a list.
///
/// # Safety
/// Every pattern of bits is a value.
pub(crate) unsafe trait Element: Copy {
    /// Bytes from one element of an array to the next, as the first one tells.
    ///
    /// # Safety
    /// Not NULL, and there is an element.
    unsafe fn size_at(at: *const Self) -> Result<usize, Fail>;

    /// Puts the element where an array has room for one of `size` bytes.
    ///
    /// # Safety
    /// `size` writable bytes; `size` is what [`size_at`](Self::size_at) told.
    unsafe fn write_to(&self, at: *mut Self, size: usize);
}

// SAFETY: what `Sized32` promises.
unsafe impl<T: Sized32> Element for T {
    unsafe fn size_at(at: *const Self) -> Result<usize, Fail> {
        // SAFETY: the caller promises it.
        unsafe { size_of_struct(at) }
    }

    unsafe fn write_to(&self, at: *mut Self, size: usize) {
        // SAFETY: so many bytes, four at least, are writable.
        unsafe {
            at.cast::<u32>().write_unaligned(u32::try_from(size).unwrap_or(u32::MAX));
            write_struct(at, size, self);
        }
    }
}

// SAFETY: a number.
unsafe impl Element for u64 {
    unsafe fn size_at(_: *const Self) -> Result<usize, Fail> {
        Ok(size_of::<u64>())
    }

    unsafe fn write_to(&self, at: *mut Self, _: usize) {
        // SAFETY: its eight bytes are writable.
        unsafe { at.write_unaligned(*self) };
    }
}

/// Where a list goes: an array of the caller's with room for `cap` elements of the size that the
/// first one tells, and how many there are in all, which may be more.
pub(crate) struct List<T> {
    array: *mut T,
    size: usize,
    cap: usize,
    n: *mut usize,
}

impl<T: Element> List<T> {
    /// # Safety
    /// NULL, or an array of at least `cap` elements, the first of which is readable as far as it
    /// tells its size; `n` is NULL, or there is room for a size.
    pub(crate) unsafe fn new(array: *mut T, cap: usize, n: *mut usize) -> Result<Self, Fail> {
        let n = out(n, "n is NULL")?;
        let size = match (cap, array.is_null()) {
            (0, _) => size_of::<T>(),
            (_, true) => return Err(Fail::invalid("the array is NULL")),
            // SAFETY: not NULL, and there is an element.
            (_, false) => unsafe { T::size_at(array) }?,
        };
        Ok(List { array, size, cap, n })
    }

    /// Writes as many of `items` as there is room for, and how many there are.
    ///
    /// # Safety
    /// The `cap` elements and `n` are writable, and nobody else uses them.
    pub(crate) unsafe fn fill(self, items: impl ExactSizeIterator<Item = T>) {
        let count = items.len();
        for (index, item) in items.enumerate().take(self.cap) {
            let at = self.array.wrapping_byte_add(self.size * index);
            // SAFETY: one of the `cap` elements of this size that the caller has there.
            unsafe { item.write_to(at, self.size) };
        }
        // SAFETY: not NULL, and the caller has room for a size there.
        unsafe { self.n.write_unaligned(count) };
    }
}

/// A struct that begins with its size, so that it can grow: programs and library may disagree about
/// how long it is, and both only touch what both know.
///
/// # Safety
/// `repr(C)`, the first member is `struct_size: u32`, and every pattern of bits is a value.
pub(crate) unsafe trait Sized32: Copy {
    /// Bytes without which it makes no sense.
    const LEAST: usize;

    /// What the members are that the caller does not know.
    fn unset() -> Self;
}

/// The size that the caller gave to a struct.
///
/// # Safety
/// Not NULL; at least `struct_size` is readable.
pub(crate) unsafe fn size_of_struct<T: Sized32>(at: *const T) -> Result<usize, Fail> {
    // SAFETY: the first member of every such struct, which the caller promises to be readable. It
    // may be anywhere in a buffer of a language without alignment.
    let size = unsafe { at.cast::<u32>().read_unaligned() } as usize;
    if size < T::LEAST {
        return Err(Fail::new(
            Status::MPT_EINVAL,
            format!("struct_size is {size}, at least {} was expected: set it to sizeof", T::LEAST),
        ));
    }
    Ok(size)
}

/// Reads what the caller knows of a struct; the rest is unset.
///
/// # Safety
/// `size` readable bytes.
#[inline]
pub(crate) unsafe fn read_struct<T: Sized32>(at: *const T, size: usize) -> T {
    if size >= size_of::<T>() {
        // SAFETY: so many bytes are readable, anywhere in memory, and any bits are a value. Unlike
        // the copy below, which is a call, this costs what the members cost that are looked at.
        return unsafe { at.read_unaligned() };
    }
    let mut value = T::unset();
    // SAFETY: no more than both have, from the caller's bytes to a local, any bits being a value.
    unsafe {
        let known = size.min(size_of::<T>());
        ptr::copy_nonoverlapping(at.cast::<u8>(), (&raw mut value).cast::<u8>(), known);
    }
    value
}

/// Writes what the caller knows of a struct, and zeros to what the library does not know, except
/// for its size.
///
/// # Safety
/// `size` writable bytes, at least 4.
#[inline]
pub(crate) unsafe fn write_struct<T: Sized32>(at: *mut T, size: usize, value: &T) {
    if size == size_of::<T>() {
        // SAFETY: so many bytes are writable, of which the first four stay as they are.
        unsafe {
            let struct_size = at.cast::<[u8; 4]>().read();
            at.write_unaligned(*value);
            at.cast::<[u8; 4]>().write(struct_size);
        }
        return;
    }
    let known = size.min(size_of::<T>());
    // SAFETY: no more than both have; `struct_size` at the beginning stays the caller's.
    unsafe {
        let (from, to) = (ptr::from_ref(value).cast::<u8>(), at.cast::<u8>());
        ptr::copy_nonoverlapping(from.add(4), to.add(4), known - 4);
        ptr::write_bytes(to.add(known), 0, size - known);
    }
}
