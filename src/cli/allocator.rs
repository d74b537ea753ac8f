//! Configures glibc's allocator to keep the memory that batches of events allocate and free every second.
//!
//! By default glibc returns large blocks to the system at once, and gets them back as pages that the kernel has to find and
//! clear. Other allocators do the same by default, or were slower: see docs/performance.md.

/// Blocks up to this size, in bytes, are allocated from memory that the allocator retains. This is glibc's maximum.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BLOCK_MAX: i32 = 32 << 20;
/// Free memory at the end of an arena beyond this size, in bytes, is returned to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE_MAX: i32 = 256 << 20;

/// Configures the allocator. Call it before threads start. Does nothing if the allocator is not glibc's.
pub(super) fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // Free memory of one arena cannot serve another, so there is one arena per core and no more.
        let arenas = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let arenas = i32::try_from(arenas).unwrap_or(i32::MAX);
        for (option, value) in [
            (libc::M_MMAP_THRESHOLD, KEPT_BLOCK_MAX),
            (libc::M_TRIM_THRESHOLD, KEPT_FREE_MAX),
            (libc::M_ARENA_MAX, arenas),
        ] {
            #[expect(unsafe_code, reason = "a C function without pointers: it sets a number of the allocator")]
            // SAFETY: `mallopt` takes two numbers and refuses what it does not know.
            let taken = unsafe { libc::mallopt(option, value) };
            debug_assert_eq!(taken, 1, "glibc knows option {option}");
        }
    }
}
