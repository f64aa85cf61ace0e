//! How much of what was freed the C library keeps. With another one than glibc nothing is done.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use self::glibc::{keep_little, return_memory};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::hint::black_box;

    /// Free bytes at the end of a heap from which on it is cut, and the size from which on a block is a mapping of its
    /// own.
    const KEPT_BYTES: i32 = 4 * 1024 * 1024;
    /// Freeing a block of more than 64 KiB makes glibc look at the end of its heap.
    const LARGE_BYTES: usize = 128 * 1024;

    /// Makes the C library keep little. By itself glibc learns from the largest block that was ever freed to keep up to
    /// 64 MiB a heap, in eight heaps a processor. Fewer heaps would keep less, but their locks cost a run 2 us. For a
    /// process that is ours alone.
    pub(crate) fn keep_little() {
        // SAFETY: these are settings of numbers, and may be changed at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }

    /// Gives what is free back to the system: between the blocks of all heaps, and at the end of this thread's, as far
    /// as it is more than is kept. Takes milliseconds where that is much; needs no GIL.
    pub(crate) fn return_memory() {
        // SAFETY: the block is freed once, and by who allocated it; `malloc_trim` takes no pointer.
        unsafe {
            libc::malloc_trim(0);
            libc::free(black_box(libc::malloc(LARGE_BYTES)));
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_little() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn return_memory() {}
