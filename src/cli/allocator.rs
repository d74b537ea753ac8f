//! How the allocator keeps memory that batches of events take and give back every second.
//!
//! By default glibc gives large blocks back to the system at once, and gets them again as pages that the kernel has to find
//! and clear. Other allocators do the same by default, or were slower: see docs/performance.md.

/// Blocks up to this size, in bytes, come from memory that is kept: glibc allows no more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BLOCK_MAX: i32 = 32 << 20;
/// Free memory at an arena's end, in bytes, beyond which it goes back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE_MAX: i32 = 256 << 20;

/// Sets the allocator up, before there are threads. Does nothing where the allocator is not glibc's.
pub(super) fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // What is free in one arena helps no thread of another: no more of them than threads that run at once.
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
