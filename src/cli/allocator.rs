//! Configures glibc's allocator to keep freed memory, because every batch of events allocates and frees large blocks.
//!
//! By default, glibc returns a large block to the system as soon as it is freed. For the next allocation, the kernel
//! then has to find and clear pages again. The other allocators that we measured also return memory by default, or were
//! slower in benchmarks. See docs/performance.md.

/// The maximum size of a block that is allocated from retained memory, in bytes. glibc does not accept a greater value.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETAINED_BLOCK_MAX: i32 = 32 << 20;
/// The maximum size of free memory at the end of an arena, in bytes. Memory beyond this size is returned to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETAINED_FREE_MAX: i32 = 256 << 20;

/// Sets glibc's allocator options. Must be called before threads are started. Does nothing if the allocator is not
/// glibc's.
pub(super) fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // An arena cannot use another arena's free memory, so the number of arenas is limited to one per core.
        let arenas = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let arenas = i32::try_from(arenas).unwrap_or(i32::MAX);
        for (option, value) in [
            (libc::M_MMAP_THRESHOLD, RETAINED_BLOCK_MAX),
            (libc::M_TRIM_THRESHOLD, RETAINED_FREE_MAX),
            (libc::M_ARENA_MAX, arenas),
        ] {
            #[expect(unsafe_code, reason = "calls a C function that takes two numbers and no pointers")]
            // SAFETY: `mallopt` takes two integers. It returns 0 if it does not support the option or the value.
            let accepted = unsafe { libc::mallopt(option, value) };
            debug_assert_eq!(accepted, 1, "glibc supports option {option}");
        }
    }
}
