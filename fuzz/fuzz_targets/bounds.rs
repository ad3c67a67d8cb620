//! What one input may cost: time of a processor, and memory at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of this thread alone, so that a busy machine changes nothing.
const TIME: Duration = Duration::from_secs(1);
/// Inputs have a few KiB.
const MEMORY: usize = 64 << 20;

/// Counts what is allocated, malloc's own overhead not included.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// Safety: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`, which must stay below both.
pub fn bounded(work: impl FnOnce()) {
    let (began, before) = (cpu_time(), NOW.load(Relaxed));
    MOST.store(before, Relaxed);
    work();
    let (took, most) = (cpu_time().saturating_sub(began), MOST.load(Relaxed).saturating_sub(before));
    assert!(took < TIME, "{took:?} for one input");
    assert!(most < MEMORY, "{most} bytes at once for one input");
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}
