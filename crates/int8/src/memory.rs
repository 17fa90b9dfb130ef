//! Memory that loading needed only meanwhile.
//!
//! In and out: nothing; on the thread that loads. The weights of a ResNet-50 are read, laid out anew and dropped as tens of megabytes;
//! glibc keeps such memory for the process's next requests, of which a process that only infers has none.

/// Gives what is free back to the system.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the allocator's own locks, touches free memory alone, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
